//! Two ends against each other without DTLS, and what a hostile one may try.

use super::*;

struct World {
    now: Instant,
    a: DataChannels,
    b: DataChannels,
    a_events: Vec<ChannelEvent>,
    b_events: Vec<ChannelEvent>,
}

impl World {
    fn connected() -> World {
        let now = Instant::now();
        let (mut a, mut b) = (DataChannels::new(DtlsRole::Server), DataChannels::new(DtlsRole::Client));
        a.start(now);
        b.start(now);
        let mut world = World { now, a, b, a_events: vec![], b_events: vec![] };
        world.run(Duration::from_secs(2));
        assert!(world.a.connected && world.b.connected);
        world
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(packets) = self.a.poll_transmit(self.now) {
                quiet = false;
                packets.into_iter().for_each(|packet| self.b.handle_packet(self.now, packet));
            }
            while let Some(packets) = self.b.poll_transmit(self.now) {
                quiet = false;
                packets.into_iter().for_each(|packet| self.a.handle_packet(self.now, packet));
            }
            self.a_events.extend(std::iter::from_fn(|| self.a.poll_event()));
            self.b_events.extend(std::iter::from_fn(|| self.b.poll_event()));
            if quiet {
                return;
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            match [self.a.poll_timeout(), self.b.poll_timeout()].into_iter().flatten().min() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            self.a.handle_timeout(self.now);
            self.b.handle_timeout(self.now);
        }
        self.now = end;
    }
}

#[test]
fn a_channel_opened_before_there_is_an_association_opens_with_it() {
    let now = Instant::now();
    let (mut a, mut b) = (DataChannels::new(DtlsRole::Server), DataChannels::new(DtlsRole::Client));
    a.start(now);
    b.start(now);
    let mut world = World { now, a, b, a_events: vec![], b_events: vec![] };
    world.a.open(now, "early").unwrap();
    world.run(Duration::from_secs(1));
    let id = ChannelId(1);
    assert!(world.a_events.contains(&ChannelEvent::Open { id, label: "early".into() }), "{:?}", world.a_events);
    assert!(world.b_events.contains(&ChannelEvent::Open { id, label: "early".into() }));
}

#[test]
fn a_lost_init_ack_is_made_up_for() {
    let now = Instant::now();
    let (mut a, mut b) = (DataChannels::new(DtlsRole::Server), DataChannels::new(DtlsRole::Client));
    a.start(now);
    b.start(now - CONNECT_AFTER);
    b.handle_timeout(now);
    for packet in b.poll_transmit(now).unwrap() {
        a.handle_packet(now, packet);
    }
    assert!(a.poll_transmit(now).is_some(), "the answer that gets lost");
    let mut world = World { now, a, b, a_events: vec![], b_events: vec![] };
    world.run(Duration::from_secs(10));
    assert!(world.a.connected && world.b.connected);
}

#[test]
fn channels_are_limited_and_come_and_go() {
    let mut world = World::connected();
    let ids: Vec<_> = (0..CHANNELS_MAX).map(|n| world.b.open(world.now, &format!("c{n}")).unwrap()).collect();
    assert_eq!(world.b.open(world.now, "one more"), Err(ChannelError::TooManyChannels));
    assert_eq!(world.a.open(world.now, &"x".repeat(LABEL_LEN_MAX + 1)), Err(ChannelError::LabelTooLong));
    world.run(Duration::from_secs(1));
    assert_eq!(world.a_events.len(), CHANNELS_MAX);
    world.b.close_channel(world.now, ids[3]);
    world.run(Duration::from_secs(5));
    assert!(world.a_events.contains(&ChannelEvent::Closed { id: ids[3] }), "{:?}", world.a_events);
    let data = Bytes::from_static(b"x");
    assert_eq!(world.a.send(world.now, ids[3], true, data.clone()), Err(ChannelError::NotOpen));
    assert_eq!(world.a.send(world.now, ids[4], true, data), Ok(()));
}

#[test]
fn a_peer_that_opens_too_many_streams_loses_the_association_only() {
    let mut world = World::connected();
    for id in 0..2 * STREAMS_MAX as u16 {
        let (_, association) = &mut world.b.associations[0];
        let mut stream = association.open_stream(id * 2, Ppid::Binary).unwrap();
        stream.write_with_ppi(world.now, b"no channel here", Ppid::Binary).unwrap();
    }
    world.run(Duration::from_secs(30));
    assert!(world.a.streams_seen.len() <= STREAMS_MAX + 1);
    assert!(matches!(world.a.state, State::Closed));
    assert!(world.a_events.is_empty(), "nothing of it was let through");
}

#[test]
fn what_is_not_read_fast_enough_is_dropped_not_kept() {
    let mut world = World::connected();
    let id = world.a.open(world.now, "slow").unwrap();
    world.run(Duration::from_secs(1));
    world.a.set_peer_message_len_max(0);
    let message = Bytes::from(vec![1; 100_000]);
    let results: Vec<_> = (0..20).map(|_| world.a.send(world.now, id, true, message.clone())).collect();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), SEND_BACKLOG_MAX / 100_000);
    assert_eq!(results.last(), Some(&Err(ChannelError::BacklogFull)));
    assert!(world.a.backlog() <= SEND_BACKLOG_MAX);
    world.run(Duration::from_secs(60));
    assert_eq!(world.a.backlog(), 0);
    let got =
        world.b_events.iter().filter(|e| matches!(e, ChannelEvent::Message { data, .. } if data == &message)).count();
    assert_eq!(got, SEND_BACKLOG_MAX / 100_000, "what was taken arrives");
    let too_large = Bytes::from(vec![1; MESSAGE_LEN_MAX + 1]);
    assert_eq!(world.a.send(world.now, id, true, too_large), Err(ChannelError::TooLarge));
    assert_eq!(world.a.messages_dropped(), 11);
}

#[test]
fn rubbish_for_packets_changes_nothing() {
    let mut world = World::connected();
    for len in 0..200usize {
        for kind in [0u8, 1, 2, 3, 6, 10, 130, 192, 255] {
            let mut packet = vec![0x13, 0x88, 0x13, 0x88, 1, 2, 3, 4, 0, 0, 0, 0];
            packet.resize(12 + len, kind);
            world.a.handle_packet(world.now, Bytes::from(packet));
        }
    }
    let id = world.b.open(world.now, "still there").unwrap();
    world.run(Duration::from_secs(1));
    assert!(world.a_events.contains(&ChannelEvent::Open { id, label: "still there".into() }));
}
