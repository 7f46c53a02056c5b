//! The relay handshake on both sides, before anything about the peer is known, in pieces as TCP may cut them.
#![no_main]

use ams_fuzz::Input;
use ams_relay::handshake::Progress;
use ams_relay::wire::{Features, HANDSHAKE_FRAME_LEN_MAX, Role};
use ams_relay::{ClusterKey, Handshake, HandshakeConfig};
use ams_types::Incarnation;
use libfuzzer_sys::fuzz_target;

fn config(name: &str, key: Option<ClusterKey>) -> HandshakeConfig {
    let node_id = name.parse().expect("a valid id");
    HandshakeConfig { node_id, incarnation: Incarnation(1), role: Role::Origin, key, features: Features(0) }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let what = input.u8();
    let is_keyed = what & 1 == 1;
    let key = || ClusterKey::from_bytes(b"0123456789abcdef0123456789abcdef").ok().filter(|_| is_keyed);
    let side = if what & 2 == 0 {
        Handshake::acceptor(config("node-a", key()), [1; 32])
    } else {
        Handshake::dialer(config("node-a", key()), None, [1; 32])
    };
    let Ok(mut side) = side else { return };
    // With this bit a real peer speaks first, so that what follows meets a handshake half done.
    if what & 4 != 0 {
        let peer = if what & 2 == 0 {
            Handshake::dialer(config("node-b", key()), None, [2; 32])
        } else {
            Handshake::acceptor(config("node-b", key()), [2; 32])
        };
        let Ok(mut peer) = peer else { return };
        let first = side.take_output();
        let _ = peer.receive(&first);
        let hello = peer.take_output();
        let _ = side.receive(&hello);
    }
    while !input.is_empty() {
        let result = side.receive(input.part());
        assert!(side.take_output().len() <= 2 * HANDSHAKE_FRAME_LEN_MAX as usize, "a stranger makes us talk");
        match result {
            Ok(Progress::NeedMore) => {}
            Ok(Progress::Established(_)) => return assert!(!is_keyed, "established without the key"),
            Err(_) => return,
        }
    }
});
