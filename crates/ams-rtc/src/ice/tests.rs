//! Checks as `rtc-stun` writes them, good and bad.

use super::*;
use std::time::Duration;

use rtc_dtls::crypto_provider::RTCCryptoProvider;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType, RawAttribute,
};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Getter, Message as Stun, Setter, TransactionId};
use rtc_stun::xoraddr::XorMappedAddress;

fn path(text: &str) -> Path {
    Path { remote: text.parse().unwrap(), local_ip: "192.0.2.1".parse().unwrap() }
}

fn raw(typ: AttrType, value: &[u8]) -> Box<dyn Setter> {
    Box::new(RawAttribute { typ, length: value.len() as u16, value: value.to_vec() })
}

fn request(attributes: Vec<Box<dyn Setter + '_>>, password: Option<&str>) -> Vec<u8> {
    let provider = AwsLcRsProvider::new();
    let mut setters: Vec<Box<dyn Setter + '_>> = vec![Box::new(BINDING_REQUEST), Box::new(TransactionId::new())];
    setters.extend(attributes);
    if let Some(password) = password {
        let integrity = MessageIntegrity::new_short_term_integrity_with_provider(password.into(), provider.crypto());
        setters.push(Box::new(integrity));
    }
    setters.push(Box::new(FINGERPRINT));
    let mut message = Stun::new();
    message.build(&setters).unwrap();
    message.raw
}

fn check(username: &str, password: &str) -> Vec<u8> {
    let attributes =
        vec![raw(ATTR_USERNAME, username.as_bytes()), raw(ATTR_ICE_CONTROLLING, &[0; 8]), raw(ATTR_USE_CANDIDATE, &[])];
    request(attributes, Some(password))
}

/// Error code of an answer, zero for success; panics if it is not a well-formed STUN message.
fn code(reply: &[u8]) -> u16 {
    let mut message = Stun::new();
    message.unmarshal_binary(reply).unwrap();
    FINGERPRINT.check(&message).unwrap();
    if message.typ == BINDING_SUCCESS {
        return 0;
    }
    let mut error = rtc_stun::error_code::ErrorCodeAttribute::default();
    error.get_from(&message).unwrap();
    error.code.0
}

#[test]
fn a_good_check_is_answered_with_the_address_it_came_from() {
    let now = Instant::now();
    for remote in ["198.51.100.7:40000", "[2001:db8::7]:40000"] {
        let mut ice = IceLite::new(IceCredentials::random());
        ice.set_remote_ufrag("theirs");
        let username = format!("{}:theirs", ice.local().ufrag());
        let outcome = ice.handle(now, path(remote), &check(&username, ice.local().pwd()));
        assert!(outcome.authenticated);
        assert_eq!(outcome.selected, Some(path(remote)));
        let mut reply = Stun::new();
        reply.unmarshal_binary(&outcome.reply.unwrap()).unwrap();
        assert_eq!(code(&reply.raw), 0);
        let provider = AwsLcRsProvider::new();
        MessageIntegrity::check(&mut reply, ice.local().pwd().as_bytes(), provider.crypto()).unwrap();
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&reply).unwrap();
        assert_eq!(SocketAddr::new(mapped.ip, mapped.port), remote.parse::<SocketAddr>().unwrap());
        assert_eq!(ice.last_seen(), Some(now));
    }
}

#[test]
fn bad_checks_are_refused_with_the_code_due() {
    let local = IceCredentials::random();
    let (ufrag, pwd) = (local.ufrag().to_owned(), local.pwd().to_owned());
    let good = format!("{ufrag}:theirs");
    let name = || raw(ATTR_USERNAME, good.as_bytes());
    let rows = [
        ("no integrity", request(vec![name()], None), 400),
        ("no user name", request(vec![], Some(&pwd)), 400),
        ("wrong password", check(&good, "wrongwrongwrongwrongwrong"), 401),
        ("another peer's ufrag", check("other:theirs", &pwd), 401),
        ("wrong remote ufrag", check(&format!("{ufrag}:others"), &pwd), 401),
        ("user name without colon", check(&ufrag, &pwd), 401),
        ("peer claims to be controlled", request(vec![name(), raw(ATTR_ICE_CONTROLLED, &[0; 8])], Some(&pwd)), 487),
        ("unknown required attribute", request(vec![name(), raw(AttrType(0x7777), &[1])], Some(&pwd)), 420),
    ];
    for (name, datagram, want) in rows {
        let mut ice = IceLite::new(local.clone());
        ice.set_remote_ufrag("theirs");
        let outcome = ice.handle(Instant::now(), path("198.51.100.7:40000"), &datagram);
        assert_eq!(code(&outcome.reply.unwrap()), want, "{name}");
        assert!(!outcome.authenticated && outcome.selected.is_none() && ice.best_path().is_none(), "{name}");
        assert!(ice.stun_seen() && ice.last_seen().is_none(), "{name}");
    }
}

#[test]
fn a_check_that_nominates_nothing_keeps_the_path() {
    let mut ice = IceLite::new(IceCredentials::random());
    let username = format!("{}:theirs", ice.local().ufrag());
    let pwd = ice.local().pwd().to_owned();
    let plain = request(vec![raw(ATTR_USERNAME, username.as_bytes())], Some(&pwd));
    let now = Instant::now();
    ice.handle(now, path("198.51.100.7:1"), &plain);
    assert_eq!((ice.selected(), ice.best_path()), (None, Some(path("198.51.100.7:1"))));
    ice.handle(now, path("198.51.100.7:2"), &check(&username, &pwd));
    ice.handle(now + Duration::from_secs(1), path("198.51.100.7:3"), &plain);
    assert_eq!(ice.best_path(), Some(path("198.51.100.7:2")));
    assert_eq!(ice.handle(now, path("198.51.100.7:2"), &check(&username, &pwd)).selected, None, "nominated already");
    for port in ["198.51.100.7:1", "198.51.100.7:2", "198.51.100.7:3"] {
        assert!(ice.is_validated(port.parse().unwrap()));
    }
    for port in 100..200 {
        ice.handle(now + Duration::from_secs(2), path(&format!("198.51.100.7:{port}")), &plain);
    }
    assert_eq!(ice.paths.len(), PATHS_MAX);
    assert!(ice.is_validated("198.51.100.7:2".parse().unwrap()), "the nominated path is never forgotten");
}

#[test]
fn datagrams_are_told_apart() {
    let rows: [(&[u8], DatagramKind); 12] = [
        (&[], DatagramKind::Unknown),
        (&[0], DatagramKind::Stun),
        (&[3, 1], DatagramKind::Stun),
        (&[4, 1], DatagramKind::Unknown),
        (&[20], DatagramKind::Dtls),
        (&[63, 0], DatagramKind::Dtls),
        (&[64, 0], DatagramKind::Unknown),
        (&[0x80], DatagramKind::Unknown),
        (&[0x80, 96], DatagramKind::Rtp),
        (&[0xbf, 0xe0], DatagramKind::Rtp),
        (&[0x80, 192], DatagramKind::Rtcp),
        (&[0x81, 223], DatagramKind::Rtcp),
    ];
    for (datagram, want) in rows {
        assert_eq!(classify(datagram), want, "{datagram:?}");
    }
}

#[test]
fn the_ufrag_of_an_unknown_peer_is_found() {
    assert_eq!(peek_ufrag(&check("ours:theirs", "whatever")), Some("ours"));
    assert_eq!(peek_ufrag(&check("nocolon", "whatever")), None);
    assert_eq!(peek_ufrag(&request(vec![], None)), None);
    assert_eq!(peek_ufrag(b"\x00\x01\x00"), None);
}

#[test]
fn credentials_are_random_and_checked() {
    let (a, b) = (IceCredentials::random(), IceCredentials::random());
    assert!(a != b && a.ufrag() != b.ufrag());
    assert_eq!(IceCredentials::new(a.ufrag(), a.pwd()), Ok(a.clone()));
    assert!(!format!("{a:?}").contains(a.pwd()));
    let pwd = "p".repeat(22);
    for (name, ufrag, pwd) in [
        ("short ufrag", "abc".to_owned(), pwd.clone()),
        ("long ufrag", "a".repeat(257), pwd.clone()),
        ("colon", "ab:cd".to_owned(), pwd.clone()),
        ("line break", "ab\r\ncd".to_owned(), pwd),
        ("short password", "abcd".to_owned(), "p".repeat(21)),
    ] {
        assert!(IceCredentials::new(ufrag, pwd).is_err(), "{name}");
    }
}
