//! Content that tells whether it was changed: a mark, a number, the time it stands for, its publication, and bytes that
//! follow from the number.

/// Marks a light publisher's payload.
const MAGIC: [u8; 4] = *b"ams!";

/// What a packet's content says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body {
    /// The publisher's number of the packet.
    pub(super) number: u64,
    /// Media time in microseconds.
    pub(super) media_us: u64,
    /// Which publication it is of.
    pub(super) source: u64,
}

/// Appends content with `len` bytes of filler.
pub(super) fn write(bytes: &mut Vec<u8>, body: Body, len: usize) {
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&body.number.to_be_bytes());
    bytes.extend_from_slice(&body.media_us.to_be_bytes());
    bytes.extend_from_slice(&body.source.to_be_bytes());
    bytes.extend((0..len).map(|n| filler(body.number, n)));
}

/// Reads content; none if a byte of it was changed.
pub(super) fn read(payload: &[u8]) -> Option<Body> {
    let at = payload.windows(4).take(16).position(|w| w == MAGIC)?;
    let rest = payload.get(at + 4..)?;
    let (number, rest) = rest.split_first_chunk()?;
    let (media_us, rest) = rest.split_first_chunk()?;
    let (source, rest) = rest.split_first_chunk()?;
    let [number, media_us, source] = [*number, *media_us, *source].map(u64::from_be_bytes);
    rest.iter().enumerate().all(|(n, b)| *b == filler(number, n)).then_some(Body { number, media_us, source })
}

fn filler(number: u64, n: usize) -> u8 {
    (number as usize).wrapping_mul(31).wrapping_add(n) as u8
}
