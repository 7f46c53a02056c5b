//! AMS's WebSocket signalling without a socket: typed messages and one session machine per connection.
//!
//! Owns the wire words, their order and the errors; never a socket, a clock, a task or the meaning of an SDP (an
//! opaque string here). The shell feeds text frames and events in, and performs what comes out:
//!
//! ```text
//! text frame ──► Session::handle ─────┐            ┌──► Output::Send    a text frame for the client
//! event ───────► Session::handle_event├► poll_output──► Output::Effect  something to ask of the node
//! clock ───────► Session::handle_timeout           └──► Output::Close   end the socket, with a sentence
//! ```
//!
//! - [`client`]: what clients say, parsed as leniently as AMS does
//! - [`server`]: what the server says
//! - [`words`]: the names of errors and notifications
//! - [`effect`]: what a session asks of its shell, and what it is told back
//! - [`limits`]: bounds of one connection
//! - [`session`]: the machine

pub mod client;
pub mod effect;
mod leg;
pub mod limits;
pub mod server;
pub mod session;
pub mod words;

pub use client::{ClientMessage, Command, MESSAGE_LEN_MAX};
pub use effect::{
    Ask, CloseCode, Credentials, Effect, End, Event, Leg, Media, Output, PlayWish, PublishWish, Rates, Refusal, Steer,
};
pub use limits::{RateLimit, SignalLimits, TokenBucket};
pub use server::{Rendition, ServerMessage};
pub use session::{IceServer, Session};
