//! The little of STUN (RFC 8489) that an ICE-lite agent needs: read a Binding request, write its answer.
//!
//! Borrows what it parses and checks lengths before use; knows nothing of credentials, addresses it has seen or
//! time ([`crate::ice`] does). Work per datagram is bounded by [`MESSAGE_LEN_MAX`] and [`ATTRIBUTES_MAX`].

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

/// Bytes of header before the attributes.
pub(crate) const HEADER_LEN: usize = 20;
/// Longest STUN message looked at. Connectivity checks seen in the field stay under 200 bytes.
pub(crate) const MESSAGE_LEN_MAX: usize = 1024;
/// Most attributes looked at in one message.
pub(crate) const ATTRIBUTES_MAX: usize = 32;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const INTEGRITY_LEN: usize = 20;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_INDICATION: u16 = 0x0011;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const ATTR_USERNAME: u16 = 0x0006;
const ATTR_MESSAGE_INTEGRITY: u16 = 0x0008;
const ATTR_ERROR_CODE: u16 = 0x0009;
const ATTR_UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const ATTR_XOR_MAPPED_ADDRESS: u16 = 0x0020;
const ATTR_PRIORITY: u16 = 0x0024;
const ATTR_USE_CANDIDATE: u16 = 0x0025;
const ATTR_FINGERPRINT: u16 = 0x8028;
const ATTR_ICE_CONTROLLED: u16 = 0x8029;
const ATTR_ICE_CONTROLLING: u16 = 0x802a;

/// Which of the messages an ICE-lite agent may receive this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A connectivity or consent check, to be answered.
    Request,
    /// A keepalive; never answered.
    Indication,
    /// Anything else: answers to questions never asked, other methods.
    Other,
}

/// A STUN message whose framing and FINGERPRINT were checked, its integrity not yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    raw: &'a [u8],
    pub(crate) kind: Kind,
    pub(crate) transaction_id: [u8; 12],
    pub(crate) username: Option<&'a str>,
    pub(crate) use_candidate: bool,
    pub(crate) controlling: bool,
    pub(crate) controlled: bool,
    /// First comprehension-required attribute that is not understood (RFC 8489 §6.3.1).
    pub(crate) unknown_required: Option<u16>,
    integrity_at: Option<usize>,
}

/// Why bytes are not a STUN message this agent accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StunError {
    #[error("not a STUN header")]
    Header,
    #[error("length field does not match the datagram")]
    Length,
    #[error("an attribute runs past the end")]
    Attribute,
    #[error("more than {ATTRIBUTES_MAX} attributes")]
    TooManyAttributes,
    #[error("USERNAME is not UTF-8")]
    Username,
    #[error("FINGERPRINT is missing, wrong or not last")]
    Fingerprint,
}

/// Walks type, offset of the value and value of each attribute; stops at the first that lies about its length.
struct Attributes<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, usize, &'a [u8]), StunError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.raw.len() {
            return None;
        }
        let start = self.at;
        let Some(&[t0, t1, l0, l1]) = self.raw.get(start..start + 4) else {
            self.at = self.raw.len();
            return Some(Err(StunError::Attribute));
        };
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let Some(value) = self.raw.get(start + 4..start + 4 + len) else {
            self.at = self.raw.len();
            return Some(Err(StunError::Attribute));
        };
        self.at = start + 4 + len.next_multiple_of(4);
        Some(Ok((u16::from_be_bytes([t0, t1]), start, value)))
    }
}

fn header_type(datagram: &[u8]) -> Result<u16, StunError> {
    let header = datagram.get(..HEADER_LEN).ok_or(StunError::Header)?;
    if header[0] & 0xc0 != 0 || header[4..8] != MAGIC_COOKIE {
        return Err(StunError::Header);
    }
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if len % 4 != 0 || datagram.len() != HEADER_LEN + len || datagram.len() > MESSAGE_LEN_MAX {
        return Err(StunError::Length);
    }
    Ok(u16::from_be_bytes([header[0], header[1]]))
}

/// The USERNAME of a Binding request, without checking anything else about it.
pub(crate) fn peek_username(datagram: &[u8]) -> Option<&str> {
    if header_type(datagram).ok()? != BINDING_REQUEST {
        return None;
    }
    for attribute in (Attributes { raw: datagram, at: HEADER_LEN }).take(ATTRIBUTES_MAX) {
        let (kind, _, value) = attribute.ok()?;
        if kind == ATTR_USERNAME {
            return std::str::from_utf8(value).ok();
        }
    }
    None
}

impl<'a> Message<'a> {
    /// Parses a whole datagram. ICE demands a FINGERPRINT on every message (RFC 8445 §7.1.2), so one must be there.
    pub(crate) fn parse(raw: &'a [u8]) -> Result<Message<'a>, StunError> {
        let kind = match header_type(raw)? {
            BINDING_REQUEST => Kind::Request,
            BINDING_INDICATION => Kind::Indication,
            _ => Kind::Other,
        };
        let mut transaction_id = [0; 12];
        transaction_id.copy_from_slice(&raw[8..HEADER_LEN]);
        let mut message = Message {
            raw,
            kind,
            transaction_id,
            username: None,
            use_candidate: false,
            controlling: false,
            controlled: false,
            unknown_required: None,
            integrity_at: None,
        };
        let mut fingerprint = None;
        for (count, attribute) in (Attributes { raw, at: HEADER_LEN }).enumerate() {
            let (kind, at, value) = attribute?;
            if count >= ATTRIBUTES_MAX {
                return Err(StunError::TooManyAttributes);
            }
            if fingerprint.is_some() {
                return Err(StunError::Fingerprint);
            }
            if kind == ATTR_FINGERPRINT {
                let wanted = crc32(&raw[..at]) ^ FINGERPRINT_XOR;
                if value != wanted.to_be_bytes() {
                    return Err(StunError::Fingerprint);
                }
                fingerprint = Some(());
                continue;
            }
            if message.integrity_at.is_some() {
                continue; // what follows the integrity is not covered by it and so not believed (RFC 8489 §14.5)
            }
            match kind {
                ATTR_USERNAME if message.username.is_none() => {
                    message.username = Some(std::str::from_utf8(value).map_err(|_| StunError::Username)?);
                }
                ATTR_MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => message.integrity_at = Some(at),
                ATTR_MESSAGE_INTEGRITY => return Err(StunError::Attribute),
                ATTR_USE_CANDIDATE => message.use_candidate = true,
                ATTR_ICE_CONTROLLING => message.controlling = true,
                ATTR_ICE_CONTROLLED => message.controlled = true,
                ATTR_USERNAME | ATTR_PRIORITY => {}
                required if required < 0x8000 && message.unknown_required.is_none() => {
                    message.unknown_required = Some(required);
                }
                _ => {}
            }
        }
        fingerprint.map(|()| message).ok_or(StunError::Fingerprint)
    }

    /// Whether a MESSAGE-INTEGRITY attribute is there at all.
    pub(crate) fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    /// Checks MESSAGE-INTEGRITY (RFC 8489 §14.5) in constant time. False when there is none.
    pub(crate) fn verify_integrity(&self, key: &hmac::Key) -> bool {
        let Some(at) = self.integrity_at else { return false };
        let Some(claimed) = self.raw.get(at + 4..at + 4 + INTEGRITY_LEN) else { return false };
        let tag = integrity(&self.raw[..at], key);
        aws_lc_rs::constant_time::verify_slices_are_equal(tag.as_ref(), claimed).is_ok()
    }
}

/// HMAC-SHA1 over `covered` with the length field counting as if the message ended with the attribute.
fn integrity(covered: &[u8], key: &hmac::Key) -> hmac::Tag {
    let len = (covered.len() - HEADER_LEN + 4 + INTEGRITY_LEN) as u16;
    let mut context = hmac::Context::with_key(key);
    context.update(&covered[..2]);
    context.update(&len.to_be_bytes());
    context.update(&covered[4..]);
    context.sign()
}

/// Key for the short-term credential mechanism (RFC 8489 §9.1.1).
pub(crate) fn integrity_key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// A success answer with XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY and FINGERPRINT.
pub(crate) fn success(transaction_id: [u8; 12], mapped: SocketAddr, key: &hmac::Key) -> Vec<u8> {
    let mut message = start(BINDING_SUCCESS, transaction_id);
    let port = (mapped.port() ^ 0x2112).to_be_bytes();
    let mut pad = [0; 16];
    pad[..4].copy_from_slice(&MAGIC_COOKIE);
    pad[4..].copy_from_slice(&transaction_id);
    let mut value = [0; 20];
    value[2..4].copy_from_slice(&port);
    let len = match mapped.ip() {
        IpAddr::V4(ip) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    for (byte, pad) in value[4..len].iter_mut().zip(pad) {
        *byte ^= pad;
    }
    push(&mut message, ATTR_XOR_MAPPED_ADDRESS, &value[..len]);
    finish(message, Some(key))
}

/// An error answer. `key` is given once the request was authenticated (RFC 8489 §9.1.3.1).
pub(crate) fn error(
    transaction_id: [u8; 12],
    code: u16,
    reason: &str,
    unknown: Option<u16>,
    key: Option<&hmac::Key>,
) -> Vec<u8> {
    let mut message = start(BINDING_ERROR, transaction_id);
    let mut value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
    value.extend_from_slice(reason.as_bytes());
    push(&mut message, ATTR_ERROR_CODE, &value);
    if let Some(unknown) = unknown {
        push(&mut message, ATTR_UNKNOWN_ATTRIBUTES, &unknown.to_be_bytes());
    }
    finish(message, key)
}

fn start(kind: u16, transaction_id: [u8; 12]) -> Vec<u8> {
    let mut message = Vec::with_capacity(96);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&MAGIC_COOKIE);
    message.extend_from_slice(&transaction_id);
    message
}

fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let len = (message.len() - HEADER_LEN) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
}

fn finish(mut message: Vec<u8>, key: Option<&hmac::Key>) -> Vec<u8> {
    if let Some(key) = key {
        let tag = integrity(&message, key);
        push(&mut message, ATTR_MESSAGE_INTEGRITY, tag.as_ref());
    }
    let len = (message.len() - HEADER_LEN + 8) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
    let fingerprint = crc32(&message) ^ FINGERPRINT_XOR;
    push(&mut message, ATTR_FINGERPRINT, &fingerprint.to_be_bytes());
    message
}

const CRC32: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// CRC-32 as in ITU V.42, which FINGERPRINT uses (RFC 8489 §14.7).
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc: u32, &byte| (crc >> 8) ^ CRC32[((crc ^ u32::from(byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1: sample request, password "VOkJxbRl1RmTxUk/WvJxBt".
    const SAMPLE_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
        002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f2\
        49c1b571a280280004e57a3bcf";

    fn sample() -> Vec<u8> {
        hex::decode(SAMPLE_REQUEST.replace([' ', '\n'], "")).unwrap()
    }

    #[test]
    fn the_sample_request_of_rfc_5769_is_understood() {
        let raw = sample();
        let message = Message::parse(&raw).unwrap();
        assert_eq!(message.kind, Kind::Request);
        assert_eq!(message.username, Some("evtj:h6vY"));
        assert!(message.controlled && !message.controlling && !message.use_candidate);
        assert!(message.verify_integrity(&integrity_key("VOkJxbRl1RmTxUk/WvJxBt")));
        assert!(!message.verify_integrity(&integrity_key("VOkJxbRl1RmTxUk/WvJxBT")));
        assert_eq!(peek_username(&raw), Some("evtj:h6vY"));
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_refused() {
        let raw = sample();
        let key = integrity_key("VOkJxbRl1RmTxUk/WvJxBt");
        for len in 0..raw.len() {
            assert!(Message::parse(&raw[..len]).is_err(), "cut to {len}");
            let _ = peek_username(&raw[..len]);
        }
        for at in 0..raw.len() {
            let mut flipped = raw.clone();
            flipped[at] ^= 0x10;
            let accepted = Message::parse(&flipped).is_ok_and(|m| m.kind == Kind::Request && m.verify_integrity(&key));
            assert!(!accepted, "byte {at} flipped");
        }
    }

    #[test]
    fn attributes_that_lie_are_refused() {
        let rows: [(&str, &[u8], StunError); 3] = [
            ("length past the end", &[0, 6, 0xff, 0xff], StunError::Attribute),
            ("integrity of the wrong size", &[0, 8, 0, 4, 1, 2, 3, 4], StunError::Attribute),
            ("no fingerprint", &[0, 0x25, 0, 0], StunError::Fingerprint),
        ];
        for (name, attributes, want) in rows {
            let mut raw = start(BINDING_REQUEST, [7; 12]);
            raw.extend_from_slice(attributes);
            let len = (raw.len() - HEADER_LEN) as u16;
            raw[2..4].copy_from_slice(&len.to_be_bytes());
            assert_eq!(Message::parse(&raw).unwrap_err(), want, "{name}");
        }
        let mut raw = start(BINDING_REQUEST, [7; 12]);
        for _ in 0..=ATTRIBUTES_MAX {
            push(&mut raw, ATTR_USE_CANDIDATE, &[]);
        }
        assert_eq!(Message::parse(&raw).unwrap_err(), StunError::TooManyAttributes);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut raw = start(BINDING_REQUEST, [1; 12]);
            raw.extend_from_slice(&bytes);
            let len = (raw.len() - HEADER_LEN) as u16;
            raw[2..4].copy_from_slice(&len.to_be_bytes());
            let _ = (Message::parse(&raw), Message::parse(&bytes), peek_username(&raw));
        }
    }
}
