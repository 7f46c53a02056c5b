//! What the benches share: viewers that are really connected, packets as they come from a publisher.
//!
//! Owns no measurement. Run them with `cargo bench -p ams-benches`; figures that are quoted stand in `docs/` with machine,
//! command and spread.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::{MediaPacket, PacketExtensions};
use ams_rtc::dtls::{DtlsIdentity, DtlsRole};
use ams_rtc::ext::{Ext, ExtMap};
use ams_rtc::ice::IceCredentials;
use ams_rtc::testpeer::{TestPeer, TestPeerConfig};
use ams_rtc::transport::{RemoteTransport, TransportConfig, TransportTimeouts};
use ams_rtc::tx::DatagramSink;
use ams_rtc::viewer::{EgressTrack, Viewer, ViewerSetup};
use ams_types::{Codec, ExtSeq, LayerNo, Mid, Pt, Ssrc, TrackNo};
use anyhow::ensure;
use bytes::Bytes;

/// Where the node is, as the viewers see it. Nothing is really sent.
const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000);

/// A sink that only counts.
#[derive(Debug, Default)]
pub struct Counted {
    /// Sends, trains as one.
    pub sends: u64,
    /// Bytes.
    pub bytes: u64,
}

impl DatagramSink for Counted {
    fn send(&mut self, _: SocketAddr, _: Option<IpAddr>, contents: &[u8], _: Option<usize>) {
        self.sends += 1;
        self.bytes += contents.len() as u64;
    }
}

/// Packet number `seq` of a VP8 video: a keyframe starts every 300.
pub fn packet(seq: u64, len: usize) -> Arc<MediaPacket> {
    Arc::new(MediaPacket {
        track: TrackNo(0),
        layer: LayerNo(0),
        seq: ExtSeq((1 << 16) + seq),
        timestamp: ((seq / 10 * 3000) & 0xffff_ffff) as u32,
        marker: seq % 10 == 9,
        keyframe: seq.is_multiple_of(300),
        sublayer: None,
        extensions: PacketExtensions::default(),
        payload: Bytes::from(vec![0x5a; len]),
        ingest_at: Instant::now(),
        age: Duration::ZERO,
    })
}

/// `count` viewers of one video track, each connected by a real handshake.
///
/// # Errors
/// A handshake did not finish.
pub fn viewers(count: usize) -> anyhow::Result<Vec<Viewer>> {
    let node = Arc::new(DtlsIdentity::generate()?);
    let peer = Arc::new(DtlsIdentity::generate()?);
    (0..count).map(|n| viewer(&node, &peer, n)).collect()
}

fn viewer(node: &Arc<DtlsIdentity>, identity: &Arc<DtlsIdentity>, n: usize) -> anyhow::Result<Viewer> {
    let mut now = Instant::now();
    let (ours, theirs) = (IceCredentials::random(), IceCredentials::random());
    let mut exts = ExtMap::default();
    exts.insert(Ext::Mid, 4);
    let setup = ViewerSetup {
        transport: TransportConfig {
            local: ours.clone(),
            role: Some(DtlsRole::Server),
            data_channel: false,
            timeouts: TransportTimeouts::default(),
        },
        remote: Some(RemoteTransport {
            credentials: theirs.clone(),
            fingerprint: identity.fingerprint().clone(),
            role: DtlsRole::Server,
            message_len_max: None,
        }),
        tracks: vec![EgressTrack {
            no: TrackNo(0),
            codec: Codec::Vp8,
            mid: Mid("0".into()),
            ssrc: Ssrc(0x1000),
            pt: Pt(96),
            rtx: Some((Ssrc(0x2000), Pt(97))),
            exts,
            accepted: true,
        }],
        channel_label: None,
        playout_delay: None,
    };
    let mut viewer = Viewer::new(now, node, setup);
    let config = TestPeerConfig {
        local: theirs,
        remote: ours,
        remote_fingerprint: node.fingerprint().clone(),
        server: NODE,
        role: DtlsRole::Client,
        data_channel: false,
    };
    let mut peer = TestPeer::new(now, identity, config);
    let from = SocketAddr::from(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 40_000));
    let mut feedback = Vec::new();
    for _ in 0..1000 {
        peer.handle_timeout(now);
        while let Some(mut datagram) = peer.poll_transmit() {
            viewer.handle_datagram(now, from, NODE.ip(), &mut datagram, &mut feedback);
        }
        while let Some(mut transmit) = viewer.poll_transmit() {
            peer.handle_datagram(now, &mut transmit.data);
        }
        if peer.is_connected() && viewer.keyframes_wanted().next().is_some() {
            return Ok(viewer);
        }
        now += Duration::from_millis(5);
    }
    ensure!(false, "viewer {n} did not connect");
    Ok(viewer)
}
