//! STUN on a media port: raw datagrams, and ones that carry the right password around any attributes.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ams_fuzz::{Input, at};
use ams_rtc::ice::{IceCredentials, IceLite, Path, classify, peek_ufrag};
use aws_lc_rs::hmac;
use libfuzzer_sys::fuzz_target;

const PASSWORD: &str = "0123456789012345678901";

/// A binding request with these attributes, USERNAME in front and MESSAGE-INTEGRITY behind (RFC 8489 §14.5).
fn signed(attributes: &[u8]) -> Vec<u8> {
    let attributes = &attributes[..attributes.len().min(1000)];
    let username = b"\x00\x06\x00\x09ufrg:peer\0\0\0";
    let len = username.len() + attributes.len() + 24;
    let mut message = vec![0, 1, (len >> 8) as u8, len as u8, 0x21, 0x12, 0xa4, 0x42];
    message.extend_from_slice(&[7; 12]);
    message.extend_from_slice(username);
    message.extend_from_slice(attributes);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, PASSWORD.as_bytes());
    let tag = hmac::sign(&key, &message);
    message.extend_from_slice(&[0, 8, 0, 20]);
    message.extend_from_slice(tag.as_ref());
    message
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let credentials = |ufrag: &str| IceCredentials::new(ufrag, PASSWORD).expect("valid credentials");
    let mut ice = IceLite::new(credentials("ufrg"));
    while !input.is_empty() {
        let what = input.u8();
        let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, what >> 4)), 5000);
        let path = Path { remote, local_ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let part = input.part();
        match what & 0x07 {
            0 => ice.restart(credentials("othr")),
            1 => ice.set_remote_ufrag("peer"),
            2 | 3 => {
                let datagram = signed(part);
                peek_ufrag(&datagram);
                let outcome = ice.handle(at(0), path, &datagram);
                assert!(!outcome.authenticated || outcome.reply.is_some());
            }
            _ => {
                classify(part);
                peek_ufrag(part);
                let outcome = ice.handle(at(0), path, part);
                assert!(!outcome.authenticated, "no password, and yet let in");
                // No more than comes in goes out: this port must not amplify.
                assert!(outcome.reply.is_none_or(|reply| reply.len() <= part.len().max(20) + 80));
            }
        }
    }
});
