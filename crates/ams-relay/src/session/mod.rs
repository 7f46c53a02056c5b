//! Which streams go over a link: the books both ends keep.
//!
//! Owns handles and the state of each subscription, nothing of the media. Sans-IO: frames come in as values, frames to
//! send come out as values.
//!
//! - [`edge`]: what this node pulls from one origin, over as many links in a row as it takes
//! - [`origin`]: what one link's peer pulls from this node

pub mod edge;
pub mod origin;

pub use edge::{SubscribeError, SubscriptionState, Subscriptions};
pub use origin::{Admitted, LinkSubscribers, Refusal};
