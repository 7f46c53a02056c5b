//! Where packets go when they leave the hands of `ams-rtc`: out of the socket, or into a stream.
//!
//! Owns no state: each value borrows what it needs of the core for one call.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ams_media::{MediaPacket, SourceClock};
use ams_rtc::publisher::IngestSink;
use ams_rtc::tx::DatagramSink;
use ams_types::{LayerNo, TrackNo};
use bytes::Bytes;

use super::stream::Stream;

/// The socket as the core sees it: it only sends.
pub trait Socket {
    /// Sends one datagram or a train of them; false if the kernel would not take it.
    fn send(&self, to: SocketAddr, from: Option<IpAddr>, contents: &[u8], segment: Option<usize>) -> bool;
    /// Longest train, in datagrams.
    fn segments_max(&self) -> usize;
}

pub(super) struct Out<'a> {
    pub(super) socket: &'a dyn Socket,
    pub(super) blocked: &'a mut u64,
}

impl DatagramSink for Out<'_> {
    fn send(&mut self, to: SocketAddr, from: Option<IpAddr>, contents: &[u8], segment: Option<usize>) {
        if !self.socket.send(to, from, contents, segment) {
            *self.blocked += 1;
        }
    }
}

/// Where a publisher's packets go.
pub(super) struct Intake<'a> {
    pub(super) now: Instant,
    pub(super) stream: &'a mut Stream,
    pub(super) clocks: &'a mut Vec<(TrackNo, LayerNo, SourceClock)>,
    pub(super) messages: &'a mut Vec<(bool, Bytes)>,
    pub(super) keyframes: &'a mut Vec<(TrackNo, LayerNo)>,
}

impl IngestSink for Intake<'_> {
    fn packet(&mut self, packet: MediaPacket) {
        self.stream.take(self.now, Arc::new(packet));
    }

    fn clock(&mut self, track: TrackNo, layer: LayerNo, clock: SourceClock) {
        self.clocks.push((track, layer, clock));
    }

    fn message(&mut self, binary: bool, data: Bytes) {
        self.messages.push((binary, data));
    }

    fn keyframe_needed(&mut self, track: TrackNo, layer: LayerNo) {
        self.keyframes.push((track, layer));
    }
}
