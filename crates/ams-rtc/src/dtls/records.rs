//! A look at DTLS records from outside: which datagrams are worth handing on, and what is in them.
//!
//! The DTLS library answers some malformed records with a fatal alert, which would let one forged datagram end a
//! handshake. [`is_plausible`] keeps those out. Everything here only reads.

const RECORD_HEADER_LEN: usize = 13;
const HANDSHAKE_HEADER_LEN: usize = 12;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const CLIENT_HELLO: u8 = 1;
const EXTENSION_USE_SRTP: u16 = 14;
const PROFILE_AEAD_AES_128_GCM: u16 = 7;

struct Record<'a> {
    content_type: u8,
    epoch: u16,
    body: &'a [u8],
}

fn first_record(datagram: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let header = datagram.get(..RECORD_HEADER_LEN)?;
    let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
    let (record, rest) = datagram.split_at_checked(RECORD_HEADER_LEN + len)?;
    // DTLS 1.0 stands in the version field of first flights, 1.2 later (RFC 6347 §4.2.1).
    if header[1] != 0xfe || !matches!(header[2], 0xff | 0xfd) {
        return None;
    }
    let body = &record[RECORD_HEADER_LEN..];
    Some((Record { content_type: header[0], epoch: u16::from_be_bytes([header[3], header[4]]), body }, rest))
}

/// Whether every record is framed right and of a form a sane peer could send at this point.
pub(super) fn is_plausible(mut datagram: &[u8]) -> bool {
    if datagram.is_empty() {
        return false;
    }
    while !datagram.is_empty() {
        let Some((record, rest)) = first_record(datagram) else { return false };
        let fits = match (record.content_type, record.epoch) {
            (CHANGE_CIPHER_SPEC, 0) => record.body == [1],
            (ALERT, 0) => record.body.len() == 2 && matches!(record.body[0], 1 | 2),
            (HANDSHAKE, 0) => record.body.len() >= HANDSHAKE_HEADER_LEN && fragments_fit(record.body),
            (APPLICATION_DATA, 0) => false,
            (CHANGE_CIPHER_SPEC | ALERT | HANDSHAKE | APPLICATION_DATA, _) => !record.body.is_empty(),
            _ => false,
        };
        if !fits {
            return false;
        }
        datagram = rest;
    }
    true
}

/// A piece of a plain handshake message (RFC 6347 §4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) message_type: u8,
    pub(super) message_seq: u16,
    pub(super) message_len: usize,
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// The next fragment of a record's body and what follows it; `None` if its lengths do not hold together.
fn first_fragment(body: &[u8]) -> Option<(Fragment, &[u8])> {
    let header = body.get(..HANDSHAKE_HEADER_LEN)?;
    let fragment = Fragment {
        message_type: header[0],
        message_seq: u16::from_be_bytes([header[4], header[5]]),
        message_len: be24(&header[1..4]),
        offset: be24(&header[6..9]),
        len: be24(&header[9..12]),
    };
    if fragment.offset + fragment.len > fragment.message_len {
        return None;
    }
    Some((fragment, body.get(HANDSHAKE_HEADER_LEN + fragment.len..)?))
}

fn fragments_fit(mut body: &[u8]) -> bool {
    while !body.is_empty() {
        let Some((_, rest)) = first_fragment(body) else { return false };
        body = rest;
    }
    true
}

/// What a datagram holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Pieces of handshake messages in the clear.
    pub(super) fragments: Vec<Fragment>,
    /// A plain alert.
    pub(super) alert: bool,
    /// ChangeCipherSpec.
    pub(super) cipher_change: bool,
    /// Any record protected by the new keys.
    pub(super) protected: bool,
}

/// Sorts a plausible datagram's records.
pub(super) fn contents(mut datagram: &[u8]) -> Contents {
    let mut contents = Contents::default();
    while let Some((record, rest)) = first_record(datagram) {
        datagram = rest;
        match (record.content_type, record.epoch) {
            (HANDSHAKE, 0) => {
                let mut body = record.body;
                while let Some((fragment, rest)) = first_fragment(body) {
                    contents.fragments.push(fragment);
                    body = rest;
                }
            }
            (ALERT, 0) => contents.alert = true,
            (CHANGE_CIPHER_SPEC, 0) => contents.cipher_change = true,
            _ => contents.protected = true,
        }
    }
    contents
}

fn be24(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |value, &byte| (value << 8) | usize::from(byte))
}

/// Bytes of records in the clear (epoch 0), which anyone can forge.
pub(super) fn plain_bytes(mut datagram: &[u8]) -> usize {
    let mut bytes = 0;
    while let Some((record, rest)) = first_record(datagram) {
        if record.epoch == 0 {
            bytes += RECORD_HEADER_LEN + record.body.len();
        }
        datagram = rest;
    }
    bytes
}

/// What matters in a ClientHello before the DTLS library sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientHello {
    /// `use_srtp` lists AEAD_AES_128_GCM. False as well if the list is in a later fragment.
    pub(super) offers_gcm: bool,
}

/// Reads a datagram that begins with a ClientHello; `None` for any other.
pub(super) fn client_hello(datagram: &[u8]) -> Option<ClientHello> {
    let (record, _) = first_record(datagram)?;
    if record.content_type != HANDSHAKE || record.epoch != 0 || *record.body.first()? != CLIENT_HELLO {
        return None;
    }
    Some(ClientHello { offers_gcm: offers_gcm(record.body.get(HANDSHAKE_HEADER_LEN..)?).unwrap_or(false) })
}

fn offers_gcm(hello: &[u8]) -> Option<bool> {
    let mut rest = hello.get(34..)?; // version, random
    for length_bytes in [1, 1, 2, 1] {
        rest = skip_vector(rest, length_bytes)?; // session id, cookie, cipher suites, compression methods
    }
    rest = rest.get(2..)?;
    while let Some(header) = rest.get(..4) {
        let (kind, len) = (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]));
        let value = rest.get(4..4 + usize::from(len))?;
        if kind == EXTENSION_USE_SRTP {
            let profiles = value.get(2..2 + usize::from(u16::from_be_bytes([*value.first()?, *value.get(1)?])))?;
            return Some(
                profiles.chunks_exact(2).any(|p| u16::from_be_bytes([p[0], p[1]]) == PROFILE_AEAD_AES_128_GCM),
            );
        }
        rest = rest.get(4 + usize::from(len)..)?;
    }
    None
}

fn skip_vector(bytes: &[u8], length_bytes: usize) -> Option<&[u8]> {
    let len = be24(bytes.get(..length_bytes)?);
    bytes.get(length_bytes + len..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content_type: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
        let mut raw = vec![content_type, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 9];
        raw.extend_from_slice(&(body.len() as u16).to_be_bytes());
        raw.extend_from_slice(body);
        raw
    }

    #[test]
    fn only_records_a_peer_could_mean_pass() {
        let mut overlong = record(HANDSHAKE, 1, &[0; 40]);
        overlong.truncate(30);
        let mut old_version = record(HANDSHAKE, 1, &[0; 40]);
        old_version[1] = 3;
        let rows = [
            ("empty", vec![], false),
            ("one byte", vec![HANDSHAKE], false),
            ("body cut off", overlong, false),
            ("TLS version", old_version, false),
            ("unknown type", record(24, 1, &[0; 4]), false),
            ("plain application data", record(APPLICATION_DATA, 0, b"hello"), false),
            ("plain alert", record(ALERT, 0, &[2, 40]), true),
            ("plain alert of rubbish", record(ALERT, 0, &[9, 9, 9]), false),
            ("change cipher spec", record(CHANGE_CIPHER_SPEC, 0, &[1]), true),
            ("change cipher spec of rubbish", record(CHANGE_CIPHER_SPEC, 0, &[7]), false),
            (
                "fragment past its message",
                record(HANDSHAKE, 0, &[1, 0, 0, 4, 0, 0, 0, 0, 2, 0, 0, 4, 1, 2, 3, 4]),
                false,
            ),
            ("fragment past its record", record(HANDSHAKE, 0, &[1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9, 1]), false),
            ("protected data", record(APPLICATION_DATA, 1, &[7; 40]), true),
            ("two records", [record(CHANGE_CIPHER_SPEC, 0, &[1]), record(HANDSHAKE, 1, &[7; 40])].concat(), true),
            ("good record, then rubbish", [record(CHANGE_CIPHER_SPEC, 0, &[1]), vec![1, 2]].concat(), false),
        ];
        for (name, datagram, want) in rows {
            assert_eq!(is_plausible(&datagram), want, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), kind in 20u8..24) {
            let framed = record(kind, 0, &bytes);
            let mut hello = vec![CLIENT_HELLO, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 200];
            hello.extend_from_slice(&bytes);
            for datagram in [&bytes, &framed, &record(HANDSHAKE, 0, &hello)] {
                let _ = (is_plausible(datagram), plain_bytes(datagram), client_hello(datagram));
            }
        }
    }
}
