//! The two messages of the Data Channel Establishment Protocol (RFC 8832 §5).
//!
//! Parses without panicking whatever the lengths say; keeps no state.

use bytes::{BufMut, Bytes, BytesMut};
use rtc_sctp::ReliabilityType;

use super::LABEL_LEN_MAX;

/// DATA_CHANNEL_ACK is this one byte.
pub(super) const ACK: &[u8; 1] = &[0x02];

const OPEN: u8 = 0x03;
const OPEN_HEADER_LEN: usize = 12;
const UNORDERED: u8 = 0x80;

/// A parsed message.
#[derive(Debug, PartialEq)]
pub(super) enum Dcep {
    Ack,
    Open(Open),
}

/// DATA_CHANNEL_OPEN, without the priority and protocol, which nothing here uses.
#[derive(Debug, PartialEq)]
pub(super) struct Open {
    pub(super) label: String,
    pub(super) unordered: bool,
    /// Retransmissions or milliseconds after which a message may be given up.
    pub(super) reliability: (ReliabilityType, u32),
}

impl Dcep {
    /// `None` for anything else, and for a label that is too long or not UTF-8.
    pub(super) fn parse(message: &[u8]) -> Option<Dcep> {
        match message {
            [0x02] => Some(Dcep::Ack),
            [OPEN, channel_type, ..] => {
                let header = message.get(..OPEN_HEADER_LEN)?;
                let value = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let label_len = usize::from(u16::from_be_bytes([header[8], header[9]]));
                let protocol_len = usize::from(u16::from_be_bytes([header[10], header[11]]));
                if label_len > LABEL_LEN_MAX || message.len() != OPEN_HEADER_LEN + label_len + protocol_len {
                    return None;
                }
                let label = std::str::from_utf8(message.get(OPEN_HEADER_LEN..OPEN_HEADER_LEN + label_len)?).ok()?;
                let kind = match channel_type & !UNORDERED {
                    0 => ReliabilityType::Reliable,
                    1 => ReliabilityType::Rexmit,
                    2 => ReliabilityType::Timed,
                    _ => return None,
                };
                Some(Dcep::Open(Open {
                    label: label.to_owned(),
                    unordered: channel_type & UNORDERED != 0,
                    reliability: (kind, value),
                }))
            }
            _ => None,
        }
    }
}

impl Open {
    /// A reliable, ordered channel of normal priority.
    pub(super) fn reliable(label: &str) -> Open {
        Open { label: label.to_owned(), unordered: false, reliability: (ReliabilityType::Reliable, 0) }
    }

    /// The message's bytes.
    pub(super) fn encode(&self) -> Bytes {
        let mut message = BytesMut::with_capacity(OPEN_HEADER_LEN + self.label.len());
        message.put_u8(OPEN);
        message.put_u8(self.reliability.0 as u8 | if self.unordered { UNORDERED } else { 0 });
        message.put_u16(256);
        message.put_u32(self.reliability.1);
        message.put_u16(self.label.len() as u16);
        message.put_u16(0);
        message.put_slice(self.label.as_bytes());
        message.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc_datachannel::message::Message;
    use rtc_shared::marshal::Unmarshal;

    #[test]
    fn what_is_written_is_read_here_and_by_another_implementation() {
        let open = Open { label: "stream1-é".into(), unordered: true, reliability: (ReliabilityType::Rexmit, 3) };
        let bytes = open.encode();
        let Ok(Message::DataChannelOpen(other)) = Message::unmarshal(&mut bytes.clone()) else {
            panic!("not understood")
        };
        assert_eq!((other.label, other.reliability_parameter), ("stream1-é".into(), 3));
        assert_eq!(Dcep::parse(&bytes), Some(Dcep::Open(open)));
        assert_eq!(Dcep::parse(ACK), Some(Dcep::Ack));
    }

    #[test]
    fn messages_that_lie_are_refused() {
        let good = Open::reliable("label").encode();
        for len in 0..good.len() {
            assert_eq!(Dcep::parse(&good[..len]), None, "cut to {len}");
        }
        let rows: [(&str, usize, u8); 4] =
            [("unknown type", 0, 9), ("unknown channel type", 1, 5), ("label too long", 8, 0xff), ("protocol", 11, 1)];
        for (name, at, value) in rows {
            let mut bad = good.to_vec();
            bad[at] = value;
            assert_eq!(Dcep::parse(&bad), None, "{name}");
        }
        let mut not_utf8 = good.to_vec();
        not_utf8[12] = 0xff;
        assert_eq!(Dcep::parse(&not_utf8), None);
    }
}
