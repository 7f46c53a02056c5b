//! Hands the handshake's flights to the library whole.
//!
//! `rtc-dtls` stops its retransmission timer whenever a handshake record comes in, also when that record completes
//! nothing: two such peers on a lossy path wait for each other for ever. So records that bring nothing new are left
//! out, and those of an unfinished flight wait here for the rest. Bounded by the handshake's byte limit, which the
//! caller keeps; nothing here looks into protected records.

use bytes::BytesMut;

use super::records::{self, Contents, Fragment};

/// Most messages of one flight: the longest has five.
const MESSAGES_MAX: usize = 16;
/// Most pieces of one message.
const PIECES_MAX: usize = 64;

const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
const CERTIFICATE: u8 = 11;
const SERVER_HELLO_DONE: u8 = 14;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;
/// Length of a Certificate message without a certificate.
const EMPTY_CERTIFICATE_LEN: usize = 3;

/// What to do with a datagram offered.
pub(super) enum Offered {
    /// It and those held before make a flight: read them in this order.
    Ready(Vec<BytesMut>),
    /// Kept until the rest of its flight is there.
    Held,
    /// Nothing new in it.
    Stale,
}

struct Message {
    message_type: u8,
    seq: u16,
    len: usize,
    pieces: Vec<(usize, usize)>,
}

impl Message {
    /// Adds a piece; false if it is nothing new.
    fn add(&mut self, fragment: &Fragment) -> bool {
        let piece = (fragment.offset, fragment.offset + fragment.len);
        if fragment.message_len != self.len
            || self.pieces.len() >= PIECES_MAX
            || self.pieces.iter().any(|known| known.0 <= piece.0 && piece.1 <= known.1)
        {
            return false;
        }
        self.pieces.push(piece);
        self.pieces.sort_unstable();
        true
    }

    fn is_whole(&self) -> bool {
        !self.pieces.is_empty()
            && self.pieces.iter().fold(0, |end, piece| if piece.0 <= end { end.max(piece.1) } else { end }) >= self.len
    }
}

/// Collects datagrams until they make a flight.
pub(super) struct FlightGate {
    is_client: bool,
    /// First message of the flight awaited.
    next_seq: u16,
    /// The peer has no more plain messages to send.
    plain_done: bool,
    messages: Vec<Message>,
    cipher_changed: bool,
    protected: bool,
    held: Vec<BytesMut>,
}

impl FlightGate {
    pub(super) fn new(is_client: bool) -> FlightGate {
        FlightGate {
            is_client,
            next_seq: 0,
            plain_done: false,
            messages: Vec::new(),
            cipher_changed: false,
            protected: false,
            held: Vec::new(),
        }
    }

    /// Takes a plausible datagram of an unfinished handshake.
    pub(super) fn offer(&mut self, datagram: &[u8]) -> Offered {
        let contents = records::contents(datagram);
        if contents.alert {
            return Offered::Ready(vec![BytesMut::from(datagram)]);
        }
        let news = self.note(&contents);
        if self.plain_done {
            return if contents.cipher_change || contents.protected {
                Offered::Ready(vec![BytesMut::from(datagram)])
            } else {
                Offered::Stale
            };
        }
        if !news {
            // Nobody repeats a HelloVerifyRequest but in answer to the hello repeated (RFC 6347 §4.2.1).
            let first_hello = !self.is_client
                && self.next_seq == 1
                && !contents.fragments.is_empty()
                && contents.fragments.iter().all(|f| f.message_type == CLIENT_HELLO && f.message_seq == 0);
            return if first_hello { Offered::Ready(vec![BytesMut::from(datagram)]) } else { Offered::Stale };
        }
        self.held.push(BytesMut::from(datagram));
        let Some(last) = self.last_of_flight() else { return Offered::Held };
        self.next_seq = last.wrapping_add(1);
        self.messages.clear();
        Offered::Ready(std::mem::take(&mut self.held))
    }

    /// Remembers what is in a datagram; false if all of it was known.
    fn note(&mut self, contents: &Contents) -> bool {
        let mut news = (contents.cipher_change && !self.cipher_changed) || (contents.protected && !self.protected);
        self.cipher_changed |= contents.cipher_change;
        self.protected |= contents.protected;
        for fragment in &contents.fragments {
            let ahead = usize::from(fragment.message_seq.wrapping_sub(self.next_seq));
            if ahead >= MESSAGES_MAX {
                continue;
            }
            let message = match self.messages.iter().position(|message| message.seq == fragment.message_seq) {
                Some(at) => &mut self.messages[at],
                None => {
                    let (message_type, seq, len) = (fragment.message_type, fragment.message_seq, fragment.message_len);
                    self.messages.push(Message { message_type, seq, len, pieces: Vec::new() });
                    let last = self.messages.len() - 1;
                    &mut self.messages[last]
                }
            };
            news |= message.add(fragment);
        }
        news
    }

    /// The number of the flight's last message, if all of the flight is there.
    fn last_of_flight(&mut self) -> Option<u16> {
        let mut certificate = false;
        for ahead in 0..MESSAGES_MAX as u16 {
            let seq = self.next_seq.wrapping_add(ahead);
            let message = self.messages.iter().find(|message| message.seq == seq).filter(|m| m.is_whole())?;
            match (self.is_client, message.message_type) {
                (true, HELLO_VERIFY_REQUEST) | (false, CLIENT_HELLO) => return Some(seq),
                (true, SERVER_HELLO_DONE) => {
                    self.plain_done = true;
                    return Some(seq);
                }
                (false, CERTIFICATE) => certificate = message.len > EMPTY_CERTIFICATE_LEN,
                (false, CERTIFICATE_VERIFY | CLIENT_KEY_EXCHANGE) => {
                    let last = !certificate || message.message_type == CERTIFICATE_VERIFY;
                    if last {
                        // Its Finished is the flight's end, protected and so not seen as such.
                        let whole = self.cipher_changed && self.protected;
                        self.plain_done = whole;
                        return whole.then_some(seq);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram of one handshake record with one fragment.
    fn fragment(message_type: u8, seq: u8, len: u8, offset: u8, piece: u8) -> Vec<u8> {
        let mut raw = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12 + piece];
        raw.extend_from_slice(&[message_type, 0, 0, len, 0, seq, 0, 0, offset, 0, 0, piece]);
        raw.resize(raw.len() + usize::from(piece), 7);
        raw
    }

    const CHANGE: [u8; 14] = [20, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    const FINISHED: [u8; 15] = [22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 9, 9];

    fn run(is_client: bool, datagrams: &[Vec<u8>]) -> Vec<&'static str> {
        let mut gate = FlightGate::new(is_client);
        datagrams
            .iter()
            .map(|datagram| match gate.offer(datagram) {
                Offered::Ready(_) => "ready",
                Offered::Held => "held",
                Offered::Stale => "stale",
            })
            .collect()
    }

    #[test]
    fn a_server_reads_the_client_s_last_flight_whole() {
        let hello = fragment(CLIENT_HELLO, 0, 9, 0, 9);
        let hello_with_cookie = fragment(CLIENT_HELLO, 1, 9, 0, 9);
        let certificate = [fragment(CERTIFICATE, 2, 90, 0, 50), fragment(CERTIFICATE, 2, 90, 50, 40)];
        let key_exchange = fragment(CLIENT_KEY_EXCHANGE, 3, 9, 0, 9);
        let verify = fragment(CERTIFICATE_VERIFY, 4, 9, 0, 9);
        let end = [CHANGE.as_slice(), &FINISHED].concat();
        let flight = [
            (hello.clone(), "ready"),
            (hello, "ready"),
            (hello_with_cookie.clone(), "ready"),
            (end.clone(), "held"),
            (certificate[1].clone(), "held"),
            (hello_with_cookie, "stale"),
            (certificate[1].clone(), "stale"),
            (verify, "held"),
            (key_exchange, "held"),
            (certificate[0].clone(), "ready"),
            (certificate[0].clone(), "stale"),
            (end, "ready"),
        ];
        let datagrams: Vec<_> = flight.iter().map(|(datagram, _)| datagram.clone()).collect();
        let wanted: Vec<_> = flight.iter().map(|(_, wanted)| *wanted).collect();
        assert_eq!(run(false, &datagrams), wanted);
    }

    #[test]
    fn a_client_without_certificate_is_passed_on_to_be_refused() {
        let flight = [
            fragment(CLIENT_HELLO, 0, 9, 0, 9),
            fragment(CERTIFICATE, 1, 3, 0, 3),
            [fragment(CLIENT_KEY_EXCHANGE, 2, 9, 0, 9), CHANGE.to_vec(), FINISHED.to_vec()].concat(),
        ];
        assert_eq!(run(false, &flight), ["ready", "held", "ready"]);
    }

    #[test]
    fn a_client_reads_the_server_s_flight_whole() {
        let flight = [
            (fragment(HELLO_VERIFY_REQUEST, 0, 9, 0, 9), "ready"),
            (fragment(SERVER_HELLO_DONE, 3, 0, 0, 0), "held"),
            (fragment(2, 1, 9, 0, 9), "held"),
            (fragment(12, 2, 9, 0, 5), "held"),
            (fragment(2, 1, 9, 0, 9), "stale"),
            (fragment(12, 2, 9, 4, 5), "ready"),
            (fragment(2, 1, 9, 0, 9), "stale"),
            (FINISHED.to_vec(), "ready"),
        ];
        let datagrams: Vec<_> = flight.iter().map(|(datagram, _)| datagram.clone()).collect();
        let wanted: Vec<_> = flight.iter().map(|(_, wanted)| *wanted).collect();
        assert_eq!(run(true, &datagrams), wanted);
    }

    #[test]
    fn lies_about_lengths_are_not_believed() {
        let flight = [
            fragment(CERTIFICATE, 0, 90, 0, 50),
            fragment(CERTIFICATE, 0, 50, 0, 50),
            fragment(CERTIFICATE, 200, 9, 0, 9),
        ];
        assert_eq!(run(false, &flight), ["held", "stale", "stale"]);
    }
}
