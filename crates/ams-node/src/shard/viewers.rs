//! What a viewer asks for, what it is to get, and what is told of it.
//!
//! Owns answers to NACKs and keyframe wishes, the choice of layers by the estimate of the viewer's path, and its
//! reports to the control runtime. Runs when a viewer speaks and every 100 ms, never per packet.

use std::time::Instant;

use ams_rtc::viewer::Feedback;
use ams_types::Bitrate;

use super::core::{Peer, Role, ShardCore};
use super::protocol::{ShardEvent, VIEWER_REPORT_INTERVAL, ViewerRates};
use super::sinks::Out;

/// What was last reported of a viewer.
pub(super) struct Reported {
    pub(super) at: Instant,
    /// Bytes of video and audio sent until then.
    pub(super) bytes: (u64, u64),
    pub(super) height: u32,
}

impl ShardCore {
    pub(super) fn answer_feedback(&mut self, now: Instant, index: usize) {
        let feedback = std::mem::take(&mut self.feedback);
        for item in &feedback {
            let Some(peer) = self.peers.get_mut(index) else { break };
            let stream = peer.stream;
            let Role::Viewer(viewer) = &mut peer.role else { break };
            match *item {
                Feedback::Lost { track, seq } => {
                    let Some(s) = self.streams.get(stream) else { continue };
                    let mut out = Out { socket: &*self.socket, blocked: &mut self.counts.send_blocked };
                    let sent = viewer.retransmit(
                        now,
                        track,
                        seq,
                        |layer, seq| s.layer(track, layer)?.ring.get(seq),
                        &mut self.tx,
                        &mut out,
                    );
                    self.counts.retransmissions += u64::from(sent);
                }
                Feedback::KeyframeWanted { track } => {
                    let layer = viewer.layer_of(track);
                    self.request_keyframe(now, stream, track, layer);
                }
            }
        }
        let mut out = Out { socket: &*self.socket, blocked: &mut self.counts.send_blocked };
        self.tx.flush(&mut out);
        self.feedback = feedback;
    }

    /// A viewer that waits for a keyframe begins with the run since the last one, if that is here; a new one is asked
    /// for unless the run is fresh. Whichever comes first is what the viewer goes on with.
    pub(super) fn ask_keyframes_of(&mut self, now: Instant, index: usize) {
        let Some(Peer { stream, role: Role::Viewer(viewer), .. }) = self.peers.get_mut(index) else { return };
        let at = *stream;
        let wanted: Vec<_> = viewer.keyframes_wanted().collect();
        let mut asks = Vec::new();
        for (track, layer) in wanted {
            let Some(found) = self.streams.get(at).and_then(|s| s.layer(track, layer)) else { continue };
            let began = viewer.begin(now, track, layer, &found.ring);
            let fresh = found.ring.run_ticks().is_some_and(|run| run <= found.codec.clock_rate());
            if !(began && fresh) {
                asks.push((track, layer));
            }
        }
        if viewer.is_behind() {
            self.start_catching_up(now, index);
        }
        for (track, layer) in asks {
            self.request_keyframe(now, at, track, layer);
        }
    }

    /// Chooses a viewer's layers by its network, and tries the path where a better one would be of use.
    pub(super) fn choose_layers(&mut self, now: Instant, index: usize) {
        let Some(Peer { stream, role: Role::Viewer(viewer), .. }) = self.peers.get_mut(index) else { return };
        let Some(stream) = self.streams.get(*stream) else { return };
        viewer.choose(now, |track, offers| stream.offers(now, track, offers));
        let mut out = Out { socket: &*self.socket, blocked: &mut self.counts.send_blocked };
        viewer.probe(now, &mut self.tx, &mut out);
        self.tx.flush(&mut out);
        if viewer.is_busy() {
            self.start_catching_up(now, index);
        }
    }

    /// Tells the control runtime how a viewer fares, every few seconds and when its picture changes its size.
    pub(super) fn report_viewer(&mut self, now: Instant, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (Role::Viewer(viewer), Some(stream), Some(last)) =
            (&peer.role, self.streams.get(peer.stream), &mut peer.report)
        else {
            return;
        };
        let elapsed = now.saturating_duration_since(last.at);
        if elapsed < VIEWER_REPORT_INTERVAL || viewer.stages().connected.is_none() {
            return;
        }
        let rate = |bytes: u64, before: u64| {
            Bitrate(u64::try_from(u128::from(bytes - before) * 8_000_000 / elapsed.as_micros()).unwrap_or(u64::MAX))
        };
        let bytes = viewer.bytes_sent();
        let (video, audio) = (rate(bytes.0, last.bytes.0), rate(bytes.1, last.bytes.1));
        let height = viewer.video_layer().map_or(0, |(track, layer, depth)| {
            stream.layer(track, layer).map_or(0, |layer| layer.height(depth.spatial))
        });
        let resized = (height != 0 && last.height != 0 && height != last.height).then_some(height);
        *last = Reported { at: now, bytes, height: if height == 0 { last.height } else { height } };
        let target = viewer.estimate().unwrap_or(Bitrate(video.0 + audio.0));
        let rates = ViewerRates { target, video, audio };
        let _ = self.events.try_send(ShardEvent::ViewerReport { peer: peer.id, rates, resized });
    }
}
