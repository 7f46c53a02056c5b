//! HTTP and WebSocket: translates AMS's wire and WHIP/WHEP to the node's port and back.

pub mod port;
