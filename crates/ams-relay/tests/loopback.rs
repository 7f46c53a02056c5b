//! Both ends of a link over real TCP in one runtime: the whole conversation, a peer that stops reading, and strangers.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::{LayerInfo, MediaPacket, SourceClock, StreamTracks, TrackInfo};
use ams_relay::session::{LinkSubscribers, SubscriptionState, Subscriptions};
use ams_relay::wire::{DataMessage, EndReason, Features, Frame, RejectCode, Role, StreamHandle, Subscribed};
use ams_relay::{
    ClusterKey, Connected, EgressQueue, HandshakeConfig, Keepalive, KeepaliveAction, LinkReader, Pushed, QueueLimits,
    RelayError, accept, connect, dial, write_loop,
};
use ams_types::{Codec, CodecParams, Epoch, ExtSeq, Incarnation, LayerNo, NodeId, StreamKey, TrackNo};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(node_id: &str, role: Role, key: &[u8]) -> HandshakeConfig {
    HandshakeConfig {
        node_id: node_id.parse().unwrap(),
        incarnation: Incarnation(7),
        role,
        key: Some(ClusterKey::from_bytes(key).unwrap()),
        features: Features::default(),
    }
}

fn origin_config() -> HandshakeConfig {
    config("origin-1", Role::Origin, b"the key of this cluster")
}

fn edge_config() -> HandshakeConfig {
    config("edge-1", Role::Edge, b"the key of this cluster")
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Runs a test in a current-thread runtime, as a shard does, and never hangs.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async { tokio::time::timeout(PATIENCE, test).await.expect("hangs") }));
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn linked() -> (Connected, Connected) {
    let (listener, addr) = listen().await;
    let origin = spawn_local(async move { accept(listener.accept().await.unwrap().0, &origin_config(), soon()).await });
    let expected: NodeId = "origin-1".parse().unwrap();
    let edge = dial(addr, &edge_config(), Some(expected), soon()).await.unwrap();
    (origin.await.unwrap().unwrap(), edge)
}

/// One end of a link as its owner holds it: a queue, a task that writes, and a reader.
struct End {
    queue: Rc<RefCell<EgressQueue>>,
    notify: Rc<Notify>,
    reader: LinkReader<OwnedReadHalf>,
    writer: tokio::task::JoinHandle<Result<(), RelayError>>,
    /// How far this end's clock is ahead of the real one.
    ahead: Rc<Cell<Duration>>,
}

impl End {
    fn new(connected: Connected) -> Self {
        let (_, reader, mut writer) = connected.split();
        let queue = Rc::new(RefCell::new(EgressQueue::new(QueueLimits::default())));
        let notify = Rc::new(Notify::new());
        let ahead = Rc::new(Cell::new(Duration::ZERO));
        let (q, n, a) = (queue.clone(), notify.clone(), ahead.clone());
        let writer = spawn_local(async move { write_loop(&mut writer, q, n, || Instant::now() + a.get()).await });
        Self { queue, notify, reader, writer, ahead }
    }

    fn send(&self, frame: &Frame<'_>) {
        self.queue.borrow_mut().push_control(frame).unwrap();
        self.notify.notify_one();
    }

    /// The next frame, made by `look` into something that outlives the buffer.
    async fn receive<T>(&mut self, look: impl Fn(Frame<'_>) -> T) -> Result<T, RelayError> {
        loop {
            if let Some(frame) = self.reader.next_frame() {
                return Ok(look(frame?));
            }
            self.reader.read_batch().await?;
        }
    }
}

fn key() -> StreamKey {
    StreamKey::new("WebRTCAppEE".parse().unwrap(), "stream1".parse().unwrap())
}

fn packet(now: Instant, seq: u64, keyframe: bool, len: usize) -> Arc<MediaPacket> {
    Arc::new(MediaPacket {
        track: TrackNo(0),
        layer: LayerNo(0),
        seq: ExtSeq(seq),
        timestamp: seq as u32 * 3_000,
        marker: true,
        keyframe,
        sublayer: None,
        extensions: Default::default(),
        payload: Bytes::from(vec![seq as u8; len]),
        ingest_at: now,
        age: Duration::ZERO,
    })
}

fn tracks() -> StreamTracks {
    let codec = CodecParams { codec: Codec::Vp8, fmtp: "".into() };
    let track = TrackInfo { no: TrackNo(0), kind: Codec::Vp8.kind(), codec, layers: vec![LayerInfo::default()] };
    StreamTracks { tracks: vec![track], data_channel: true }
}

#[test]
fn a_stream_goes_over_the_link_and_ends() {
    run(async {
        let (origin, edge) = linked().await;
        assert_eq!(edge.peer.node_id.as_str(), "origin-1");
        assert_eq!((origin.peer.node_id.as_str(), origin.peer.role), ("edge-1", Role::Edge));
        let (mut origin, mut edge) = (End::new(origin), End::new(edge));

        let mut pulled = Subscriptions::new(10);
        let subscribe = pulled.subscribe(&key(), 1).unwrap().unwrap();
        let handle = subscribe.handle;
        edge.send(&Frame::Subscribe(subscribe));

        let mut served = LinkSubscribers::new(10, 3);
        let admitted = origin
            .receive(|frame| match frame {
                Frame::Subscribe(subscribe) => subscribe,
                other => panic!("{other:?}"),
            })
            .await
            .map(|subscribe| served.on_subscribe(subscribe).unwrap())
            .unwrap();
        assert_eq!((&admitted.key, admitted.handle), (&key(), handle));
        origin.send(&Frame::Subscribed(Subscribed { handle, epoch: Epoch(5), tracks: tracks() }));
        assert!(origin.queue.borrow_mut().open(handle));
        let now = Instant::now();
        for seq in 0..500 {
            let len = if seq % 3 == 0 { 80 } else { 1_200 };
            let pushed = origin.queue.borrow_mut().push_media(now, handle, Epoch(5), &packet(now, seq, seq == 0, len));
            assert_eq!(pushed, Pushed::Queued);
        }
        let clock = SourceClock { ntp: 9, rtp: 8, learned_at: now };
        origin.queue.borrow_mut().push_timing(handle, Epoch(5), TrackNo(0), LayerNo(0), clock);
        origin.notify.notify_one();

        let got = edge
            .receive(|frame| match frame {
                Frame::Subscribed(subscribed) => subscribed,
                other => panic!("{other:?}"),
            })
            .await
            .unwrap();
        assert_eq!(got.tracks, tracks());
        assert_eq!(pulled.on_subscribed(&got), Some(&key()));
        assert_eq!(edge.receive(|frame| frame.name()).await.unwrap(), "Timing");
        for seq in 0..500 {
            let packet = edge
                .receive(|frame| match frame {
                    Frame::Media(media) => {
                        assert_eq!(pulled.current(media.handle, media.epoch), Some(&key()));
                        media.to_packet(Instant::now())
                    }
                    other => panic!("{other:?}"),
                })
                .await
                .unwrap();
            assert_eq!((packet.seq.0, packet.keyframe), (seq, seq == 0));
            assert_eq!(packet.timestamp, seq as u32 * 3_000);
            assert!(packet.payload.iter().all(|byte| *byte == seq as u8), "payload of packet {seq}");
        }

        // The way back: a keyframe is asked for and a viewer says hello.
        edge.send(&Frame::KeyframeRequest { handle, track: TrackNo(0), layer: LayerNo(0) });
        edge.queue.borrow_mut().open(handle);
        let from_node: NodeId = "edge-1".parse().unwrap();
        let message = DataMessage { handle, binary: false, from_node, from_peer: 3, payload: b"hello" };
        assert_eq!(edge.queue.borrow_mut().push_data(&message), Ok(Pushed::Queued));
        edge.notify.notify_one();
        assert_eq!(origin.receive(|frame| frame.name()).await.unwrap(), "KeyframeRequest");
        origin.receive(|frame| assert_eq!(frame, Frame::DataMessage(message.clone()))).await.unwrap();

        origin.send(&Frame::End { handle, reason: EndReason::Finished });
        origin.queue.borrow_mut().finish();
        origin.notify.notify_one();
        edge.receive(|frame| assert_eq!(frame, Frame::End { handle, reason: EndReason::Finished })).await.unwrap();
        assert_eq!(pulled.on_end(handle, EndReason::Finished), Some(key()));
        assert!(matches!(edge.receive(|_| ()).await, Err(RelayError::Closed)));
        origin.writer.await.unwrap().unwrap();
    });
}

#[test]
fn an_edge_that_stops_reading_loses_that_stream_to_a_keyframe_and_no_other() {
    run(async {
        let (origin, edge) = linked().await;
        let (origin, mut edge) = (End::new(origin), End::new(edge));
        let (hot, quiet) = (StreamHandle(1), StreamHandle(2));
        for handle in [hot, quiet] {
            origin.queue.borrow_mut().open(handle);
        }
        // The edge does not read. A hot stream without a second keyframe fills socket and queue.
        let mut seq = 0;
        while origin.queue.borrow().stats().dropped_packets == 0 {
            let now = Instant::now() + origin.ahead.get();
            origin.queue.borrow_mut().push_media(now, hot, Epoch(1), &packet(now, seq, seq == 0, 1_200));
            origin.notify.notify_one();
            assert!(origin.queue.borrow().stats().queued_bytes < 5 * 1024 * 1024, "bounded");
            seq += 1;
            tokio::task::yield_now().await;
        }
        // Half a second passes on the origin's clock; then both streams have something new.
        origin.ahead.set(Duration::from_millis(500));
        let now = Instant::now() + origin.ahead.get();
        let last = seq + 1;
        origin.queue.borrow_mut().push_media(now, hot, Epoch(1), &packet(now, seq, false, 1_200));
        origin.queue.borrow_mut().push_media(now, hot, Epoch(1), &packet(now, last, true, 1_200));
        origin.queue.borrow_mut().push_media(now, quiet, Epoch(1), &packet(now, 0, true, 1_200));
        assert!(origin.queue.borrow_mut().poll_keyframe_want().is_some_and(|want| want.handle == hot));
        assert_eq!(origin.queue.borrow().stream_stats(quiet).unwrap().dropped_packets, 0);
        origin.notify.notify_one();

        // It reads again: all that was in the socket, one gap, the keyframe, and the other stream whole.
        let (mut next, mut gap, mut quiet_came) = (0, None, false);
        while next <= last || !quiet_came {
            edge.receive(|frame| match frame {
                Frame::Media(media) if media.handle == quiet => Err(()),
                Frame::Media(media) => Ok((media.seq.0, media.seq.0)),
                Frame::Gap(range) => Ok((range.from.0, range.to.0)),
                other => panic!("{other:?}"),
            })
            .await
            .map(|range| match range {
                Ok((from, to)) => {
                    assert_eq!(from, next, "a hole that was not announced");
                    if to > from {
                        assert_eq!(gap.replace((from, to)), None, "a second gap");
                    }
                    next = to + 1;
                }
                Err(()) => quiet_came = true,
            })
            .unwrap();
        }
        assert_eq!(gap.map(|(_, to)| to), Some(seq), "dropped up to the keyframe");
        assert_eq!(origin.queue.borrow().stream_stats(hot).unwrap().gaps, 1);
        origin.writer.abort();
    });
}

#[test]
fn a_peer_that_hangs_with_its_socket_open_is_noticed() {
    run(async {
        let (origin, _hangs) = linked().await;
        let mut origin = End::new(origin);
        let (interval, dead_after) = (Duration::from_millis(20), Duration::from_millis(100));
        let started = Instant::now();
        let mut keepalive = Keepalive::new(interval, dead_after, started);
        let mut pings = 0;
        let error = loop {
            tokio::select! {
                read = origin.reader.read_batch() => panic!("{read:?}"),
                () = tokio::time::sleep_until(keepalive.next_at().into()) => match keepalive.poll(Instant::now()) {
                    KeepaliveAction::SendPing(nonce) => {
                        pings += 1;
                        origin.send(&Frame::Ping { nonce });
                    }
                    KeepaliveAction::Dead { silent_for } => break RelayError::Silent { silent_for },
                    KeepaliveAction::None => {}
                },
            }
        };
        assert!(started.elapsed() >= dead_after);
        assert!(pings >= 2, "{pings} pings");
        assert!(error.is_transient() && error.to_string().starts_with("the relay link was silent for"), "{error}");
        origin.writer.abort();
    });
}

#[test]
fn an_answering_peer_is_kept_and_its_round_trip_measured() {
    run(async {
        let (origin, edge) = linked().await;
        let (mut origin, mut edge) = (End::new(origin), End::new(edge));
        let answering = spawn_local(async move {
            while let Ok(nonce) = edge
                .receive(|frame| match frame {
                    Frame::Ping { nonce } => nonce,
                    other => panic!("{other:?}"),
                })
                .await
            {
                edge.send(&Frame::Pong { nonce });
            }
        });
        let mut keepalive = Keepalive::new(Duration::from_millis(10), Duration::from_secs(5), Instant::now());
        for _ in 0..5 {
            loop {
                match keepalive.poll(Instant::now()) {
                    KeepaliveAction::SendPing(nonce) => break origin.send(&Frame::Ping { nonce }),
                    KeepaliveAction::None => tokio::time::sleep_until(keepalive.next_at().into()).await,
                    KeepaliveAction::Dead { .. } => panic!("dead"),
                }
            }
            let nonce = origin
                .receive(|frame| match frame {
                    Frame::Pong { nonce } => nonce,
                    other => panic!("{other:?}"),
                })
                .await
                .unwrap();
            assert!(keepalive.on_pong(nonce, Instant::now()).is_some());
        }
        assert!(keepalive.rtt().unwrap() < Duration::from_secs(1));
        origin.queue.borrow_mut().finish();
        origin.notify.notify_one();
        answering.await.unwrap();
    });
}

#[test]
fn a_link_moves_to_another_thread_and_lives_on() {
    run(async {
        let (origin, edge) = linked().await;
        let moved = edge.into_std().unwrap();
        let there = std::thread::spawn(move || {
            run(async move {
                let mut edge = End::new(Connected::from_std(moved).unwrap());
                let nonce = edge
                    .receive(|frame| match frame {
                        Frame::Ping { nonce } => nonce,
                        other => panic!("{other:?}"),
                    })
                    .await
                    .unwrap();
                edge.send(&Frame::Pong { nonce });
                edge.queue.borrow_mut().finish();
                edge.notify.notify_one();
                edge.writer.await.unwrap().unwrap();
            });
        });
        let mut origin = End::new(origin);
        origin.send(&Frame::Ping { nonce: 4 });
        origin.receive(|frame| assert_eq!(frame, Frame::Pong { nonce: 4 })).await.unwrap();
        there.join().unwrap();
    });
}

#[test]
fn a_link_is_refused_with_the_reason_on_both_ends() {
    run(async {
        let (listener, addr) = listen().await;
        let origin = spawn_local(async move {
            let wrong_key = accept(listener.accept().await.unwrap().0, &origin_config(), soon()).await;
            connect::refuse(
                listener.accept().await.unwrap().0,
                &origin_config(),
                RejectCode::Draining,
                "origin-1 shuts down: ask the registry for another origin",
            )
            .await;
            wrong_key
        });
        let other = config("edge-1", Role::Edge, b"the key of another cluster");
        let error = dial(addr, &other, None, soon()).await.unwrap_err();
        assert!(matches!(error, RelayError::Rejected { code: RejectCode::WrongKey, .. }), "{error}");
        assert!(error.to_string().contains("--cluster-key-file"), "{error}");
        assert!(!error.is_transient());
        let error = dial(addr, &edge_config(), None, soon()).await.unwrap_err();
        assert!(error.to_string().contains("ask the registry for another origin"), "{error}");
        assert!(error.is_transient());
        let error = origin.await.unwrap().unwrap_err();
        assert!(matches!(error, RelayError::WrongKey { .. }), "{error}");
    });
}

#[test]
fn strangers_cost_a_bounded_time_and_get_nothing() {
    run(async {
        let (listener, addr) = listen().await;
        for (name, says) in [
            ("a browser", &b"GET / HTTP/1.1\r\nHost: origin\r\n\r\n"[..]),
            ("a 4 GiB frame", &[0xff; 64][..]),
            ("half a hello", &[0, 0, 0, 70, 1, b'A'][..]),
            ("nothing", &[][..]),
        ] {
            let mut stranger = TcpStream::connect(addr).await.unwrap();
            stranger.write_all(says).await.unwrap();
            let accepted = listener.accept().await.unwrap().0;
            let deadline = Instant::now() + Duration::from_millis(100);
            let error = accept(accepted, &origin_config(), deadline).await.unwrap_err();
            match says.len() {
                0 | 6 => assert!(matches!(error, RelayError::HandshakeTimeout), "{name}: {error}"),
                _ => assert!(matches!(error, RelayError::NotARelay), "{name}: {error}"),
            }
            let mut answer = Vec::new();
            stranger.read_to_end(&mut answer).await.unwrap();
            assert!(answer.len() < 700, "{name}: a reason and nothing else");
        }
        drop(TcpStream::connect(addr).await.unwrap());
        let gone = accept(listener.accept().await.unwrap().0, &origin_config(), soon()).await.unwrap_err();
        assert!(matches!(gone, RelayError::Closed | RelayError::Io(_)), "{gone}");

        drop(listener);
        let nobody = dial(addr, &edge_config(), None, soon()).await.unwrap_err();
        assert_eq!(nobody.to_string(), format!("cannot connect to relay address {addr}"));
        assert!(nobody.is_transient());
    });
}

#[test]
fn after_a_cut_the_edge_asks_for_its_streams_again() {
    run(async {
        let mut pulled = Subscriptions::new(10);
        let handle = pulled.subscribe(&key(), 1).unwrap().unwrap().handle;
        pulled.on_subscribed(&Subscribed { handle, epoch: Epoch(5), tracks: tracks() });
        for _ in 0..3 {
            let (origin, edge) = linked().await;
            let (mut origin, edge) = (End::new(origin), End::new(edge));
            for subscribe in pulled.resubscribe(|_| None) {
                edge.send(&Frame::Subscribe(subscribe));
            }
            assert_eq!(pulled.state(&key()), Some(SubscriptionState::Waiting));
            let mut served = LinkSubscribers::new(10, 3);
            let subscribe = origin
                .receive(|frame| match frame {
                    Frame::Subscribe(subscribe) => subscribe,
                    other => panic!("{other:?}"),
                })
                .await
                .unwrap();
            assert!(served.on_subscribe(subscribe).is_ok());
            // The edge's end vanishes.
            edge.writer.abort();
            drop(edge);
            assert!(origin.receive(|_| ()).await.is_err());
        }
    });
}
