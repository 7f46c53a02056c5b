//! A transport against the test peer, over a simulated network with its own clock.

use super::*;
use crate::dtls::Fingerprint;
use crate::ice::peek_ufrag;
use crate::testpeer::{TestPeer, TestPeerConfig, TestPeerEvent};
use std::sync::OnceLock;
use std::time::Duration;

const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 50_000);
const THERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7)), 40_000);
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 8)), 41_000);

fn identity() -> &'static Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(DtlsIdentity::generate().unwrap()))
}

fn ecdsa_peer() -> &'static Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(DtlsIdentity::generate().unwrap()))
}

fn rsa_peer() -> &'static Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(DtlsIdentity::generate_rsa().unwrap()))
}

struct Plan {
    peer_identity: &'static Arc<DtlsIdentity>,
    announced_fingerprint: Fingerprint,
    node_role: Option<DtlsRole>,
    peer_role: DtlsRole,
    data_channel: bool,
    remote_known: bool,
    /// Datagrams of a hundred that are lost either way, and the seed that chooses them.
    loss: Option<(u32, u32)>,
}

impl Plan {
    fn usual() -> Plan {
        Plan {
            peer_identity: ecdsa_peer(),
            announced_fingerprint: ecdsa_peer().fingerprint().clone(),
            node_role: Some(DtlsRole::Server),
            peer_role: DtlsRole::Client,
            data_channel: false,
            remote_known: true,
            loss: None,
        }
    }
}

struct World {
    now: Instant,
    node: Transport,
    peer: TestPeer,
    peer_addr: SocketAddr,
    remote: RemoteTransport,
    node_events: Vec<TransportEvent>,
    peer_events: Vec<TestPeerEvent>,
    rtp: Vec<Vec<u8>>,
    rtcp: Vec<Vec<u8>>,
    peer_rtcp: Vec<Vec<u8>>,
    loss: Option<(u32, u32)>,
}

impl World {
    fn new(plan: Plan) -> World {
        let now = Instant::now();
        let (ours, theirs) = (IceCredentials::random(), IceCredentials::random());
        let config = TransportConfig {
            local: ours.clone(),
            role: plan.node_role,
            data_channel: plan.data_channel,
            timeouts: TransportTimeouts::default(),
        };
        let remote = RemoteTransport {
            credentials: theirs.clone(),
            fingerprint: plan.announced_fingerprint,
            role: if plan.peer_role == DtlsRole::Client { DtlsRole::Server } else { DtlsRole::Client },
            message_len_max: Some(262_144),
        };
        let mut node = Transport::new(now, identity(), config);
        if plan.remote_known {
            node.set_remote(now, remote.clone());
        }
        let peer_config = TestPeerConfig {
            local: theirs,
            remote: ours,
            remote_fingerprint: identity().fingerprint().clone(),
            server: HERE,
            role: plan.peer_role,
            data_channel: plan.data_channel,
        };
        World {
            now,
            node,
            peer: TestPeer::new(now, plan.peer_identity, peer_config),
            peer_addr: THERE,
            remote,
            node_events: vec![],
            peer_events: vec![],
            rtp: vec![],
            rtcp: vec![],
            peer_rtcp: vec![],
            loss: plan.loss,
        }
    }

    fn lost(&mut self) -> bool {
        let Some((percent, seed)) = &mut self.loss else { return false };
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 16) % 100 < *percent
    }

    fn deliver(&mut self, mut datagram: Vec<u8>) {
        match self.node.handle_datagram(self.now, self.peer_addr, HERE.ip(), &mut datagram) {
            Received::Rtp(packet) => self.rtp.push(packet.to_vec()),
            Received::Rtcp(packet) => self.rtcp.push(packet.to_vec()),
            Received::Nothing => {}
        }
    }

    /// Carries everything both sides have to say, until they are silent.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(datagram) = self.peer.poll_transmit() {
                quiet = false;
                if !self.lost() {
                    self.deliver(datagram);
                }
            }
            while let Some(transmit) = self.node.poll_transmit() {
                quiet = false;
                assert_eq!(transmit.from_ip, Some(HERE.ip()));
                if transmit.to == self.peer_addr && !self.lost() {
                    let mut data = transmit.data;
                    if let Received::Rtcp(packet) = self.peer.handle_datagram(self.now, &mut data) {
                        self.peer_rtcp.push(packet.to_vec());
                    }
                }
            }
            while let Some(event) = self.node.poll_event() {
                self.node_events.push(event);
            }
            while let Some(event) = self.peer.poll_event() {
                self.peer_events.push(event);
            }
            if quiet {
                return;
            }
        }
    }

    /// Lets time pass, jumping from timer to timer, until `done` or `limit`. Returns whether it was done.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let next = [self.node.poll_timeout(), self.peer.poll_timeout()].into_iter().flatten().min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return false;
                }
            }
            self.node.handle_timeout(self.now);
            self.peer.handle_timeout(self.now);
        }
    }

    fn connect(&mut self) {
        let connected = self.run_until(Duration::from_secs(10), |w| w.node.is_connected() && w.peer.is_connected());
        assert!(connected, "not connected: {:?} {:?}", self.node_events, self.peer_events);
    }

    fn close_reason(&self) -> Option<&CloseReason> {
        self.node_events.iter().find_map(|event| match event {
            TransportEvent::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    fn run_to_close(&mut self, limit: Duration) -> CloseReason {
        let closed = self.run_until(limit, |w| w.close_reason().is_some());
        assert!(closed, "still open: {:?}", self.node_events);
        self.close_reason().unwrap().clone()
    }
}

fn rtp_packet(seq: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&1234u32.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[seq as u8; 200]);
    packet
}

const RECEIVER_REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 9];

#[test]
fn peers_of_every_kind_connect_and_exchange_media() {
    let both = [("ecdsa", ecdsa_peer as fn() -> _), ("rsa", rsa_peer as fn() -> _)];
    for (kind, peer_identity) in both {
        for (role, node_role, peer_role) in [
            ("client", Some(DtlsRole::Server), DtlsRole::Client),
            ("server", Some(DtlsRole::Client), DtlsRole::Server),
            ("client of an actpass offer", None, DtlsRole::Client),
            ("server of an actpass offer", None, DtlsRole::Server),
        ] {
            let peer_identity: &'static Arc<DtlsIdentity> = peer_identity();
            let announced_fingerprint = peer_identity.fingerprint().clone();
            let mut world =
                World::new(Plan { peer_identity, announced_fingerprint, node_role, peer_role, ..Plan::usual() });
            let began = world.now;
            world.connect();
            assert!(world.now - began < Duration::from_millis(200), "{kind} {role}: no retransmission is needed");
            let connected = TransportEvent::Connected { profile: SrtpProfile::AeadAes128Gcm, remote: THERE };
            assert!(world.node_events.contains(&connected), "{kind} {role}: {:?}", world.node_events);
            let mapped = TestPeerEvent::PathFound { mapped: THERE };
            assert!(world.peer_events.contains(&mapped), "{kind} {role}");

            let packet = rtp_packet(7, 42);
            let sealed = world.peer.seal_rtp(7, &packet, 12).unwrap();
            world.deliver(sealed);
            assert_eq!(world.rtp, std::slice::from_ref(&packet), "{kind} {role}: publisher to node");

            let mut out = packet.clone();
            out.resize(packet.len() + 16, 0);
            let len = world.node.sealer().unwrap().seal_rtp(7, &mut out, 12, packet.len() - 12).unwrap();
            assert_eq!(world.peer.handle_datagram(world.now, &mut out[..len]), Received::Rtp(&packet), "{kind} {role}");

            assert!(world.node.send_rtcp(world.now, &RECEIVER_REPORT));
            let report = world.peer.seal_rtcp(&RECEIVER_REPORT).unwrap();
            world.deliver(report);
            world.settle();
            assert_eq!(world.rtcp, [RECEIVER_REPORT], "{kind} {role}");
            assert_eq!(world.peer_rtcp, [RECEIVER_REPORT], "{kind} {role}");
            assert_eq!(world.node.refused(), 0, "{kind} {role}");
        }
    }
}

#[test]
fn the_answer_may_come_after_the_handshake() {
    let mut world = World::new(Plan { node_role: None, remote_known: false, ..Plan::usual() });
    world.run_until(Duration::from_secs(2), |w| w.peer.is_connected());
    assert!(world.peer.is_connected() && !world.node.is_connected(), "the node must not trust an unknown certificate");
    let early = world.peer.seal_rtp(1, &rtp_packet(1, 42), 12).unwrap();
    world.deliver(early);
    assert!(world.rtp.is_empty());

    world.node.set_remote(world.now, world.remote.clone());
    world.settle();
    assert!(world.node.is_connected(), "{:?}", world.node_events);
    let packet = rtp_packet(2, 42);
    let sealed = world.peer.seal_rtp(2, &packet, 12).unwrap();
    world.deliver(sealed);
    assert_eq!(world.rtp, [packet]);
}

#[test]
fn media_before_the_nomination_is_not_lost() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let peer_role = if role == DtlsRole::Server { DtlsRole::Client } else { DtlsRole::Server };
        let mut world = World::new(Plan { node_role: Some(role), peer_role, ..Plan::usual() });
        // As client we begin the handshake at the nomination.
        world.peer.set_nominating(role == DtlsRole::Client);
        world.connect();
        let packet = rtp_packet(1, 42);
        let sealed = world.peer.seal_rtp(1, &packet, 12).unwrap();
        world.deliver(sealed);
        assert_eq!(world.rtp, [packet], "{role:?}");
        assert_eq!(world.node.media_path().map(|path| path.remote), Some(THERE), "{role:?}");
        world.peer.set_nominating(true);
        world.run_until(Duration::from_secs(6), |_| false);
        assert!(world.node.is_connected(), "{role:?}: {:?}", world.node_events);
        let connected = world.node_events.iter().filter(|e| matches!(e, TransportEvent::Connected { .. })).count();
        assert_eq!(connected, 1, "{role:?}");
    }
}

#[test]
fn rubbish_before_the_answer_decides_no_role() {
    let mut world =
        World::new(Plan { node_role: None, peer_role: DtlsRole::Server, remote_known: false, ..Plan::usual() });
    world.run_until(Duration::from_millis(50), |w| w.node.remote_addr().is_some());
    world.deliver(vec![22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 7, 7]);
    world.node.set_remote(world.now, world.remote.clone());
    world.connect();
}

#[test]
fn a_peer_with_another_certificate_is_refused() {
    for remote_known in [true, false] {
        let announced_fingerprint = rsa_peer().fingerprint().clone();
        let mut world = World::new(Plan { announced_fingerprint, remote_known, node_role: None, ..Plan::usual() });
        if !remote_known {
            world.run_until(Duration::from_secs(2), |w| w.peer.is_connected());
            world.node.set_remote(world.now, world.remote.clone());
        }
        assert_eq!(world.run_to_close(Duration::from_secs(5)), CloseReason::FingerprintMismatch);
        assert!(!world.node_events.iter().any(|event| matches!(event, TransportEvent::Connected { .. })));
        let sealed = world.peer.seal_rtp(1, &rtp_packet(1, 42), 12);
        if let Ok(sealed) = sealed {
            world.deliver(sealed);
        }
        assert!(world.rtp.is_empty(), "nothing of it is let in");
    }
}

#[test]
fn lost_datagrams_delay_a_connection_but_do_not_prevent_it() {
    for (role, node_role, peer_role) in
        [("client", DtlsRole::Server, DtlsRole::Client), ("server", DtlsRole::Client, DtlsRole::Server)]
    {
        for seed in 0..100 {
            let plan = Plan { node_role: Some(node_role), peer_role, loss: Some((20, seed * 7_919)), ..Plan::usual() };
            let mut world = World::new(plan);
            let done = world.run_until(Duration::from_secs(15), |w| w.node.is_connected() && w.peer.is_connected());
            assert!(done, "peer is {role}, seed {seed}: {:?} {:?}", world.node_events, world.peer_events);
        }
    }
}

#[test]
fn every_way_of_not_connecting_has_its_reason() {
    let mut nobody = World::new(Plan::usual());
    nobody.peer.set_silent(true);
    assert_eq!(nobody.run_to_close(Duration::from_secs(11)), CloseReason::NoStun);

    let mut stranger = World::new(Plan::usual());
    stranger.peer.restart_ice(stranger.now, IceCredentials::random(), IceCredentials::random());
    assert_eq!(stranger.run_to_close(Duration::from_secs(11)), CloseReason::IceTimeout);
    assert!(stranger.node.stats().stun_refused > 0);
    assert!(stranger.peer_events.contains(&TestPeerEvent::CheckRefused { code: 401 }));

    let mut two_servers = World::new(Plan { peer_role: DtlsRole::Server, ..Plan::usual() });
    assert_eq!(two_servers.run_to_close(Duration::from_secs(21)), CloseReason::DtlsTimeout);

    let mut no_sdp = World::new(Plan { node_role: None, remote_known: false, ..Plan::usual() });
    assert_eq!(no_sdp.run_to_close(Duration::from_secs(21)), CloseReason::RemoteUnknown);
}

#[test]
fn a_dead_peer_is_noticed_within_ten_seconds_and_a_quiet_one_is_kept() {
    let mut world = World::new(Plan::usual());
    world.connect();
    assert!(!world.run_until(Duration::from_secs(60), |w| w.node.is_closed()), "checks alone keep it alive");

    world.peer.set_silent(true);
    for seq in 0..30u16 {
        let sealed = world.peer.seal_rtp(seq.into(), &rtp_packet(seq, 42), 12).unwrap();
        world.deliver(sealed);
        assert!(!world.run_until(Duration::from_secs(1), |w| w.node.is_closed()), "media alone keeps it alive");
    }
    // What cannot be authenticated proves nothing.
    let died = world.now;
    while world.close_reason().is_none() && world.now - died < Duration::from_secs(10) {
        world.deliver(rtp_packet(1, 42));
        world.run_until(Duration::from_millis(500), |w| w.node.is_closed());
    }
    assert_eq!(world.close_reason(), Some(&CloseReason::ConsentLost));
    assert!(world.node.poll_timeout().is_none());
}

#[test]
fn either_side_may_say_goodbye() {
    let mut world = World::new(Plan::usual());
    world.connect();
    world.peer.close(world.now);
    world.settle();
    assert_eq!(world.close_reason(), Some(&CloseReason::ClosedByPeer));

    let mut world = World::new(Plan::usual());
    world.connect();
    world.node.close(world.now);
    world.node.close(world.now);
    world.settle();
    assert_eq!(world.node_events.last(), Some(&TransportEvent::Closed(CloseReason::ClosedHere)));
    assert!(world.peer_events.contains(&TestPeerEvent::Closed));
    assert!(!world.node.send_rtcp(world.now, &RECEIVER_REPORT) && world.node.sealer().is_none());
}

#[test]
fn replayed_forged_and_truncated_media_is_dropped_and_counted() {
    let mut world = World::new(Plan::usual());
    world.connect();
    let sealed = world.peer.seal_rtp(7, &rtp_packet(7, 42), 12).unwrap();
    world.deliver(sealed.clone());
    world.deliver(sealed.clone());
    assert_eq!(world.node.stats().srtp_replayed, 1);
    let mut forged = world.peer.seal_rtp(8, &rtp_packet(8, 42), 12).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    world.deliver(forged);
    assert_eq!(world.node.stats().srtp_unauthenticated, 1);
    for len in 0..sealed.len() {
        world.deliver(sealed[..len].to_vec());
    }
    let mut lying = sealed.clone();
    lying[0] = 0x9f;
    world.deliver(lying);
    assert_eq!(world.rtp.len(), 1, "only the first was good");
    let replayed = world.node.stats().srtp_replayed;
    let report = world.peer.seal_rtcp(&RECEIVER_REPORT).unwrap();
    world.deliver(report.clone());
    world.deliver(report);
    assert_eq!((world.rtcp.len(), world.node.stats().srtp_replayed), (1, replayed + 1));
    let next = world.peer.seal_rtp(8, &rtp_packet(8, 42), 12).unwrap();
    world.deliver(next);
    assert_eq!(world.rtp.len(), 2, "the session is unharmed");
}

#[test]
fn garbage_between_the_datagrams_of_a_handshake_does_not_end_it() {
    let mut world = World::new(Plan::usual());
    let mut seed = 1u32;
    let mut garbage = move |first: u8, len: usize| -> Vec<u8> {
        let mut bytes = vec![first];
        for _ in 1..len {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.push((seed >> 24) as u8);
        }
        bytes
    };
    let mut alert = vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 7, 7];
    let plain_data = vec![23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 98, 0, 2, 7, 7];
    for _ in 0..40 {
        for first in [0, 3, 20, 21, 22, 23, 24, 63, 64, 100, 128, 200, 255] {
            for len in [1, 2, 12, 13, 14, 25, 60, 300] {
                world.deliver(garbage(first, len));
            }
        }
        world.deliver(alert.clone());
        world.deliver(plain_data.clone());
        // One datagram each way, then more garbage.
        match world.peer.poll_transmit() {
            Some(datagram) => world.deliver(datagram),
            None => world.peer.handle_timeout(world.now),
        }
        while let Some(mut transmit) = world.node.poll_transmit() {
            world.peer.handle_datagram(world.now, &mut transmit.data);
        }
    }
    world.settle();
    assert!(world.node.is_connected(), "{:?}", world.node_events);
    assert!(world.node.stats().dtls_dropped > 100 && world.node.stats().stun_malformed > 100);
    // Now even a well-formed plain alert is nothing.
    alert[13] = 2;
    world.deliver(alert);
    world.settle();
    assert!(world.node.is_connected());
}

#[test]
fn dtls_from_an_address_that_passed_no_check_is_dropped() {
    let mut world = World::new(Plan::usual());
    world.run_until(Duration::from_millis(50), |w| {
        w.peer_events.iter().any(|event| matches!(event, TestPeerEvent::PathFound { .. }))
    });
    let before = world.node.stats().dtls_dropped;
    world.peer_addr = ELSEWHERE;
    world.deliver(vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]);
    assert_eq!(world.node.stats().dtls_dropped, before + 1);
    world.peer_addr = THERE;
    world.connect();
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut world = World::new(Plan::usual());
    world.connect();
    world.peer_addr = ELSEWHERE;
    let check = world.peer.check();
    assert_eq!(peek_ufrag(&check), Some(world.node.local_credentials().ufrag()));
    world.deliver(check);
    world.settle();
    assert!(world.node_events.contains(&TransportEvent::PathChanged { remote: ELSEWHERE }));
    assert_eq!(world.node.media_path().map(|path| path.remote), Some(ELSEWHERE));
    assert!(world.node.send_rtcp(world.now, &RECEIVER_REPORT));
    world.settle();
    assert_eq!(world.peer_rtcp.len(), 1, "what is sent goes to the new address");
}

#[test]
fn an_ice_restart_keeps_media_flowing() {
    let mut world = World::new(Plan::usual());
    world.connect();
    let (ours, theirs) = (IceCredentials::random(), IceCredentials::random());
    world.node.restart_ice(ours.clone());
    world.node.set_remote_credentials(&theirs);
    assert_eq!(world.node.local_ufrags().count(), 2);
    let refused = world.node.stats().stun_refused;
    let old = world.peer.check();
    world.deliver(old.clone());
    assert_eq!(world.node.stats().stun_refused, refused, "the old credentials still work");
    world.peer.restart_ice(world.now, theirs, ours.clone());
    world.peer.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.node.local_ufrags().collect::<Vec<_>>(), [ours.ufrag()]);
    world.deliver(old);
    assert_eq!(world.node.stats().stun_refused, refused + 1, "and stop working once the new are used");
    let sealed = world.peer.seal_rtp(9, &rtp_packet(9, 42), 12).unwrap();
    world.deliver(sealed);
    assert_eq!(world.rtp.len(), 1);
    assert!(!world.run_until(Duration::from_secs(30), |w| w.node.is_closed()));
}

#[test]
fn data_channels_open_and_carry_messages_both_ways() {
    for (role, node_role, peer_role) in
        [("client", DtlsRole::Server, DtlsRole::Client), ("server", DtlsRole::Client, DtlsRole::Server)]
    {
        for loss in [None, Some((10, 1)), Some((10, 2))] {
            let plan = Plan { node_role: Some(node_role), peer_role, data_channel: true, loss, ..Plan::usual() };
            let mut world = World::new(plan);
            world.connect();
            let ours = world.node.open_channel(world.now, "from-node").unwrap();
            let theirs = world.peer.open_channel(world.now, "from-peer").unwrap();
            assert_ne!(ours.0 % 2, theirs.0 % 2, "{role}: each side has its parity");
            let opened = |w: &World| {
                let node = [("from-node", ours), ("from-peer", theirs)].into_iter().all(|(label, id)| {
                    w.node_events.contains(&TransportEvent::ChannelOpen { id, label: label.into() })
                });
                let peer = [("from-node", ours), ("from-peer", theirs)].into_iter().all(|(label, id)| {
                    let event = ChannelEvent::Open { id, label: label.into() };
                    w.peer_events.contains(&TestPeerEvent::Channel(event))
                });
                node && peer
            };
            assert!(world.run_until(Duration::from_secs(20), opened), "peer is {role}, {loss:?}");

            let messages = [
                (false, Bytes::from_static("héllo".as_bytes())),
                (true, Bytes::from(vec![7; 100_000])),
                (true, Bytes::new()),
                (false, Bytes::new()),
            ];
            for (binary, data) in &messages {
                world.node.send_message(world.now, ours, *binary, data.clone()).unwrap();
                let peer_len_fits = data.len() <= 65_536;
                assert_eq!(world.peer.send_message(world.now, theirs, *binary, data.clone()).is_ok(), peer_len_fits);
            }
            let arrived = |w: &World| {
                let peer: Vec<_> = w
                    .peer_events
                    .iter()
                    .filter_map(|event| match event {
                        TestPeerEvent::Channel(ChannelEvent::Message { id, binary, data }) if *id == ours => {
                            Some((*binary, data.clone()))
                        }
                        _ => None,
                    })
                    .collect();
                let node: Vec<_> = w
                    .node_events
                    .iter()
                    .filter_map(|event| match event {
                        TransportEvent::Message { id, binary, data } if *id == theirs => Some((*binary, data.clone())),
                        _ => None,
                    })
                    .collect();
                peer == messages && node == [messages[0].clone(), messages[2].clone(), messages[3].clone()]
            };
            assert!(world.run_until(Duration::from_secs(60), arrived), "peer is {role}, {loss:?}");
        }
    }
}

#[test]
fn a_data_channel_begun_before_we_are_connected_is_not_a_second_late() {
    let plan = Plan { data_channel: true, remote_known: false, ..Plan::usual() };
    let mut world = World::new(plan);
    // A peer sends INIT once it is through the handshake; we may still miss the answer.
    assert!(world.run_until(Duration::from_secs(5), |w| w.peer.is_connected()));
    let id = world.peer.open_channel(world.now, "chat").unwrap();
    world.run_until(Duration::from_millis(600), |_| false);
    world.node.set_remote(world.now, world.remote.clone());
    let open = TransportEvent::ChannelOpen { id, label: "chat".into() };
    assert!(world.run_until(Duration::from_millis(300), |w| w.node_events.contains(&open)), "{:?}", world.node_events);
}

#[test]
fn closing_a_transport_closes_its_channels() {
    let mut world = World::new(Plan { data_channel: true, ..Plan::usual() });
    world.connect();
    let id = world.peer.open_channel(world.now, "chat").unwrap();
    let open = TransportEvent::ChannelOpen { id, label: "chat".into() };
    assert!(world.run_until(Duration::from_secs(5), |w| w.node_events.contains(&open)));
    world.node.close(world.now);
    world.settle();
    assert!(world.node_events.contains(&TransportEvent::ChannelClosed { id }));
    assert!(world.peer_events.contains(&TestPeerEvent::Channel(ChannelEvent::Closed { id })));
    assert_eq!(world.node.open_channel(world.now, "late"), Err(ChannelError::Closed));
}
