//! What this binary says about its own making.

/// `0.1.0 (commit 0123456789ab, rustc 1.90.0)`.
pub(crate) const LONG: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("AMS_NODE_COMMIT"), ", ", env!("AMS_NODE_RUSTC"), ")");
