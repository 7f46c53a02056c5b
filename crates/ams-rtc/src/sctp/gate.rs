//! What of a peer's SCTP packets is kept from the library: chunks it would trip over.
//!
//! `rtc-sctp` 0.21 takes some lengths on trust (error causes in ABORT and ERROR) and follows a FORWARD TSN number by
//! number, however far ahead. Both were found by fuzzing; a peer gets here with any certificate, so both would let one
//! viewer stop a shard.

const COMMON_HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;
const SACK: u8 = 3;
const ABORT: u8 = 6;
const ERROR: u8 = 9;
const FORWARD_TSN: u8 = 192;
/// Furthest a FORWARD TSN may move the cumulative TSN: more than any window of ours holds chunks.
const FORWARD_MAX: u32 = 4096;

/// Judges packets of one association.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Cumulative TSN of the last SACK sent: where the library is, as it says itself.
    acknowledged: Option<u32>,
}

impl Gate {
    /// Notes a packet that is being sent.
    pub(super) fn on_sent(&mut self, packet: &[u8]) {
        for (kind, value) in chunks(packet).flatten() {
            if kind == SACK
                && let Some(tsn) = value.first_chunk()
            {
                self.acknowledged = Some(u32::from_be_bytes(*tsn));
            }
        }
    }

    /// Whether the library gets this packet.
    pub(super) fn admits(&self, packet: &[u8]) -> bool {
        chunks(packet).all(|chunk| match chunk {
            Some((ABORT | ERROR, causes)) => are_sound_causes(causes),
            Some((FORWARD_TSN, value)) => self.is_near(value),
            Some(_) => true,
            None => false,
        })
    }

    fn is_near(&self, value: &[u8]) -> bool {
        let (Some(tsn), Some(acknowledged)) = (value.first_chunk(), self.acknowledged) else { return false };
        let ahead = u32::from_be_bytes(*tsn).wrapping_sub(acknowledged);
        ahead <= FORWARD_MAX || ahead >= 1 << 31
    }
}

/// Type and value of each chunk (RFC 9260 §3.2); none in the place of one whose length lies, which is the last.
fn chunks(packet: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    let mut rest = packet.get(COMMON_HEADER_LEN..).unwrap_or_default();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let chunk = rest.get(..CHUNK_HEADER_LEN).and_then(|header| {
            let len = usize::from(u16::from_be_bytes([*header.get(2)?, *header.get(3)?]));
            Some((*header.first()?, rest.get(CHUNK_HEADER_LEN..len)?, len))
        });
        let Some((kind, value, len)) = chunk else {
            rest = &[];
            return Some(None);
        };
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Some((kind, value)))
    })
}

/// Error causes (RFC 9260 §3.3.10) as the library walks them: without regard to padding between them.
fn are_sound_causes(mut causes: &[u8]) -> bool {
    while let Some(&[_, _, len0, len1]) = causes.get(..CHUNK_HEADER_LEN) {
        let len = usize::from(u16::from_be_bytes([len0, len1]));
        let Some(rest) = causes.get(len..).filter(|_| len >= CHUNK_HEADER_LEN) else { return false };
        causes = rest;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![0; COMMON_HEADER_LEN];
        for chunk in chunks {
            packet.extend_from_slice(chunk);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    #[test]
    fn what_the_library_trips_over_is_kept_from_it() {
        let mut gate = Gate::default();
        let forward = |tsn: u32| [&[192, 0, 0, 8][..], &tsn.to_be_bytes()].concat();
        assert!(!gate.admits(&packet(&[&forward(5)])), "nothing was acknowledged yet");
        gate.on_sent(&packet(&[&[3, 0, 0, 16, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0]]));
        for (name, chunks, want) in [
            ("abort", &[&[6, 0, 0, 4][..]][..], true),
            ("abort with a cause", &[&[6, 0, 0, 9, 0, 12, 0, 5, b'x']], true),
            ("abort, cause longer than the chunk", &[&[6, 0, 0, 8, 0, 12, 0, 9]], false),
            ("error, cause shorter than its header", &[&[9, 0, 0, 8, 0, 12, 0, 3]], false),
            ("chunk longer than the packet", &[&[0, 3, 0, 99, 0, 0, 0, 0]], false),
            ("chunk shorter than its header", &[&[0, 3, 0, 3]], false),
            ("bad cause in the second chunk", &[&[11, 0, 0, 4], &[6, 0, 0, 8, 0, 12, 0, 9]], false),
            ("forward, next, over the wrap", &[&forward(2)], true),
            ("forward, old", &[&forward(0xffff_ff00)], true),
            ("forward, furthest", &[&forward(FORWARD_MAX - 2)], true),
            ("forward, too far", &[&forward(FORWARD_MAX - 1)], false),
            ("forward without a number", &[&[192, 0, 0, 4]], false),
        ] {
            assert_eq!(gate.admits(&packet(chunks)), want, "{name}");
        }
        assert!(gate.admits(&[]) && gate.admits(&[0; 5]), "not a packet: the library says so itself");
    }
}
