//! The records other programs read too: what is in each document, under which name, with which type.
//!
//! Owns names, types and defaults; where documents are kept is the stores' business.
//!
//! - [`broadcast`]: a stream, live or not
//! - [`stream_info`]: one rendition of a live stream
//! - [`node`]: a node of the cluster
//! - [`settings`]: an application's settings
//! - [`token`]: tokens, subscribers and connection events of a stream
//! - [`outbox`]: webhook events that wait
//! - [`edit`]: what REST may write into a stream's record

pub mod broadcast;
pub mod edit;
pub(crate) mod field;
pub(crate) mod misread;
pub mod node;
pub mod outbox;
pub mod settings;
pub mod stream_info;
pub mod token;

pub use field::JsonMap;
