//! Sessions and streams come and go in every order, and nothing stays.

use ams_registry::{PublishType, Takeover};
use ams_types::Incarnation;

use super::*;

const HOME: ShardNo = ShardNo(0);
const OTHER: ShardNo = ShardNo(1);

fn key(id: &str) -> StreamKey {
    StreamKey::new("live".parse().unwrap(), id.parse().unwrap())
}

fn directory() -> Directory {
    Directory { load: vec![0; 2], ..Directory::default() }
}

fn add_stream(directory: &mut Directory, id: &str) {
    let (state, _) = watch::channel(PullState::Here);
    let mut stream = LocalStream::pulled(state, 1);
    if let Origin::Pulled { link, .. } = &mut stream.origin {
        *link = Some(LinkId(1));
    }
    directory.streams.insert(key(id), stream);
}

/// A viewer on a shard, and what it hears.
fn add_viewer(
    directory: &mut Directory,
    id: &str,
    n: u64,
    shard: ShardNo,
) -> (SessionId, mpsc::Receiver<SessionEvent>) {
    let session = SessionId(format!("v{n}"));
    let (events, heard) = mpsc::channel(4);
    let entry = Session {
        peer: PeerId(n),
        key: key(id),
        shard: None,
        role: Role::Viewer { offer: None },
        events,
        etag: String::new(),
        door: Door::Http,
        candidates: 0,
        started: false,
        left: false,
        place: None,
        visit: None,
    };
    directory.add_session(&session, entry);
    directory.place(&session, shard);
    if let Some(stream) = directory.streams.get_mut(&key(id)) {
        stream.viewers.insert(session.clone());
        stream.idle_since = None;
        if shard != stream.home {
            stream.replicas.insert(shard);
        }
    }
    (session, heard)
}

fn idle(id: &str) -> Option<IdleReplica> {
    Some(IdleReplica { key: key(id), home: HOME, replica: OTHER })
}

#[test]
fn sessions_go_where_there_is_room_and_give_it_back() {
    let mut directory = directory();
    add_stream(&mut directory, "s");
    let mut viewers = Vec::new();
    for n in 0..5 {
        let shard = directory.least_loaded(|_| true).unwrap();
        viewers.push(add_viewer(&mut directory, "s", n, shard).0);
    }
    assert_eq!(directory.load, [3, 2]);
    assert_eq!(directory.least_loaded(|shard| shard == ShardNo(0)), Some(ShardNo(0)), "the other is too busy");
    assert_eq!(directory.take_seat(|_| false), None);
    assert_eq!(directory.load, [3, 2]);
    for viewer in &viewers {
        assert!(directory.remove_session(Instant::now(), viewer).is_some());
        assert!(directory.remove_session(Instant::now(), viewer).is_none(), "only once");
    }
    assert_eq!(directory.load, [0, 0]);
    assert!(directory.sessions.is_empty() && directory.peers.is_empty());
    assert!(directory.streams[&key("s")].idle_since.is_some(), "nobody watches any more");
}

#[test]
fn a_replica_is_given_up_with_the_last_that_needs_it() {
    let mut directory = directory();
    let now = Instant::now();
    add_stream(&mut directory, "s");
    let (first, _) = add_viewer(&mut directory, "s", 1, OTHER);
    let (second, _) = add_viewer(&mut directory, "s", 2, OTHER);
    let (at_home, _) = add_viewer(&mut directory, "s", 3, HOME);
    directory.links.insert(LinkId(7), OTHER);
    directory.streams.get_mut(&key("s")).unwrap().served.insert(LinkId(7), 0);
    let leave = |directory: &mut Directory, session| directory.remove_session(now, session).unwrap().idle_replica;
    assert_eq!(leave(&mut directory, &first), None, "another viewer is there");
    assert_eq!(leave(&mut directory, &second), None, "an edge is fed from there");
    assert_eq!(directory.unserve(now, LinkId(8), &key("s")), None, "another link");
    assert_eq!(directory.unserve(now, LinkId(7), &key("s")), idle("s"));
    assert_eq!(directory.unserve(now, LinkId(7), &key("s")), None, "only once");
    assert_eq!(leave(&mut directory, &at_home), None, "the home is no replica");
    let (again, _) = add_viewer(&mut directory, "s", 4, OTHER);
    assert_eq!(leave(&mut directory, &again), idle("s"));
}

#[test]
fn with_a_stream_its_viewers_end_and_no_others() {
    let mut directory = directory();
    add_stream(&mut directory, "s");
    add_stream(&mut directory, "other");
    let (_, mut heard) = add_viewer(&mut directory, "s", 1, OTHER);
    let (stays, mut heard_other) = add_viewer(&mut directory, "other", 2, OTHER);
    let gone = directory.remove_stream(Instant::now(), &key("s"), &EndReason::StreamEnded).unwrap();
    assert_eq!(gone.replicas, HashSet::from([OTHER]), "its shards are to be told");
    assert!(matches!(heard.try_recv(), Ok(SessionEvent::Ended(EndReason::StreamEnded))));
    assert!(heard.try_recv().is_err(), "nothing follows");
    assert!(heard_other.try_recv().is_err() && directory.sessions.contains_key(&stays));
    assert_eq!(directory.load, [0, 1]);
    assert!(directory.remove_stream(Instant::now(), &key("s"), &EndReason::StreamEnded).is_none());
}

#[test]
fn a_publisher_leaves_its_stream_to_be_ended() {
    let mut directory = directory();
    let session = SessionId("p".to_owned());
    let wish = ClaimRequest {
        key: key("s"),
        node: "n".parse().unwrap(),
        incarnation: Incarnation(1),
        host: "h".to_owned(),
        session: session.0.clone(),
        publish_type: PublishType::WebRtc,
        user_agent: None,
        remote_ip: None,
        name: None,
        meta_data: None,
        now_ms: 0,
        takeover: Takeover::IfFree,
    };
    let lease = Lease { key: key("s"), epoch: Epoch(1), host: "h".to_owned() };
    let publication =
        Publication { wish, lease, recorded: true, live: false, restores: false, former: None, told: false };
    let (events, _) = mpsc::channel(4);
    let entry = Session {
        peer: PeerId(1),
        key: key("s"),
        shard: None,
        role: Role::Publisher(Box::new(publication)),
        events,
        etag: String::new(),
        door: Door::WebSocket,
        candidates: 0,
        started: false,
        left: false,
        place: None,
        visit: None,
    };
    directory.add_session(&session, entry);
    add_stream(&mut directory, "s");
    let stream = directory.streams.get_mut(&key("s")).unwrap();
    stream.origin = Origin::Published { session: session.clone(), live: false, announced: false };
    assert!(!stream.is_playable(), "no media yet");
    let removed = directory.remove_session(Instant::now(), &session).unwrap();
    assert!(matches!(removed.session.role, Role::Publisher(_)) && removed.idle_replica.is_none());
    assert_eq!(directory.load, [0, 0], "it never had a transport");
    assert!(directory.streams.contains_key(&key("s")));
}

#[test]
fn the_waiting_list_counts_places() {
    let mut directory = directory();
    directory.wait(&key("s"));
    directory.wait(&key("s"));
    directory.stop_waiting(&key("s"));
    assert_eq!(directory.waiting.get(&key("s")), Some(&1));
    directory.stop_waiting(&key("s"));
    directory.stop_waiting(&key("s"));
    assert!(directory.waiting.is_empty());
}

#[test]
fn a_claim_that_is_given_back_is_noted_until_it_is() {
    let mut directory = directory();
    let first = directory.releasing(&key("s"));
    let noted = directory.releasing.get(&key("s")).cloned().unwrap();
    assert!(noted.has_changed().is_ok(), "still going on");
    let second = directory.releasing(&key("s"));
    directory.released(&key("s"), first);
    assert!(noted.has_changed().is_err(), "whoever waited goes on");
    assert!(directory.releasing.contains_key(&key("s")), "the later one is not done");
    directory.released(&key("s"), second);
    assert!(directory.releasing.is_empty());
}
