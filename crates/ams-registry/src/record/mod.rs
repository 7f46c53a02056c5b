//! The records other programs read too: what is in each document, under which name, with which type.
//!
//! Owns names, types and defaults; where documents are kept is the stores' business.
//!
//! - [`broadcast`]: a stream, live or not
//! - [`stream_info`]: one rendition of a live stream
//! - [`node`]: a node of the cluster

pub mod broadcast;
pub(crate) mod field;
pub(crate) mod misread;
pub mod node;
pub mod stream_info;

pub use field::JsonMap;
