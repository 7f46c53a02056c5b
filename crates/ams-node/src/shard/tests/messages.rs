//! Data channel messages between a publisher and viewers, on one shard, on siblings and over a link.

use super::harness::{VIDEO, World, ms};
use super::{BOTH, pulled};
use crate::shard::messages::Distribution;

fn heard(world: &World, client: usize) -> Vec<String> {
    world.clients[client].messages.iter().map(|(_, m)| String::from_utf8_lossy(m).into_owned()).collect()
}

/// An origin with a viewer, an edge with two, and the publisher: its client, then theirs.
fn cluster() -> (World, usize, [usize; 3]) {
    let mut world = World::of(&["origin", "edge"]);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    world.open_channel(publisher);
    pulled(&mut world, "s");
    let viewers = [world.talker(0, "s"), world.talker(1, "s"), world.talker(1, "s")];
    (world, publisher, viewers)
}

#[test]
fn everybody_hears_everybody_but_nobody_hears_oneself() {
    let (mut world, publisher, [here, there, there_too]) = cluster();
    world.say(publisher, false, b"from the publisher");
    world.say(there, false, b"from the edge");
    world.say(here, false, b"from the origin");
    for (name, client, want) in [
        ("publisher", publisher, vec!["from the edge", "from the origin"]),
        ("viewer at the origin", here, vec!["from the publisher", "from the edge"]),
        ("viewer who spoke at the edge", there, vec!["from the publisher", "from the origin"]),
        ("viewer beside", there_too, vec!["from the publisher", "from the edge", "from the origin"]),
    ] {
        assert_eq!(heard(&world, client), want, "{name}");
    }
}

#[test]
fn siblings_pass_messages_on() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    world.open_channel(publisher);
    world.replicate("s", 1, 0, 1);
    let [home, away, beside] = [world.talker(0, "s"), world.talker(1, "s"), world.talker(1, "s")];
    world.say(away, false, b"from another shard");
    for client in [publisher, home, beside] {
        assert_eq!(heard(&world, client), ["from another shard"]);
    }
    assert!(heard(&world, away).is_empty());
}

#[test]
fn viewers_speak_to_whom_the_operator_lets_them() {
    for (distribution, publisher_hears, viewers_hear) in
        [(Distribution::All, 1, 1), (Distribution::Publisher, 1, 0), (Distribution::None, 0, 0)]
    {
        let (mut world, publisher, [here, there, there_too]) = cluster();
        world.shards.iter_mut().for_each(|shard| shard.core.set_distribution(distribution));
        world.say(there, false, b"hello");
        assert_eq!(heard(&world, publisher).len(), publisher_hears, "{distribution:?}");
        for viewer in [here, there_too] {
            assert_eq!(heard(&world, viewer).len(), viewers_hear, "{distribution:?}");
        }
        world.say(publisher, false, b"hello all");
        assert!([here, there, there_too].iter().all(|v| heard(&world, *v).contains(&"hello all".to_owned())));
    }
}

#[test]
fn bytes_and_order_are_the_senders() {
    let (mut world, publisher, [here, there, _]) = cluster();
    // Text is text.
    let byte = |n: u32, at: usize| {
        if n.is_multiple_of(2) { (at as u8).wrapping_mul(7).wrapping_add(n as u8) } else { b'a' + (at % 26) as u8 }
    };
    let message = |n: u32| (n.is_multiple_of(2), (0..=(n * 270) as usize).map(|at| byte(n, at)).collect::<Vec<u8>>());
    let messages: Vec<_> = (0..60).map(message).collect();
    for (binary, message) in &messages {
        world.say(there, *binary, message);
        world.pass(ms(100));
    }
    world.until("all came", |w| w.clients[publisher].messages.len() >= messages.len());
    world.until("all came", |w| w.clients[here].messages.len() >= messages.len());
    assert_eq!(world.clients[publisher].messages, messages);
    assert_eq!(world.clients[here].messages, messages);
}

#[test]
fn who_talks_without_end_is_not_listened_to_without_end() {
    let (mut world, publisher, [here, ..]) = cluster();
    for _ in 0..600 {
        world.say(here, false, b"again");
    }
    let heard = heard(&world, publisher).len();
    assert!((200..=230).contains(&heard), "a burst, then what a viewer may say in the time: {heard}");
    assert_eq!(world.census(0).messages_dropped as usize, 600 - heard);
}

#[test]
fn what_the_server_says_is_heard_by_all() {
    let (mut world, publisher, viewers) = cluster();
    let key = super::harness::key("s");
    world.command(0, crate::shard::protocol::ShardCommand::Say { key, text: "from the server".into() });
    world.settle();
    for client in [publisher].into_iter().chain(viewers) {
        assert_eq!(heard(&world, client), ["from the server"], "client {client}");
    }
}
