//! The numbers VP8 packets carry in their payload descriptor (RFC 7741 §4.2), and how a viewer's are made of a source's.
//!
//! Every simulcast layer counts pictures for itself. A viewer that changes layers must see one count, or its decoder
//! takes the change for loss.

use super::bits::Bytes;

/// Picture ids count modulo this, or modulo 128 where they have 7 bits.
const PICTURE_IDS: u16 = 0x8000;

/// Picture id and TL0PICIDX of a packet, and where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Ids {
    /// PictureID, 7 or 15 bits.
    pub picture: u16,
    picture_at: u8,
    is_long: bool,
    /// TL0PICIDX and its place.
    tl0: Option<(u8, u8)>,
}

impl Vp8Ids {
    /// Reads the descriptor. None where it has no picture id.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(payload);
        if bytes.u8()? & 0x80 == 0 {
            return None;
        }
        let present = bytes.u8()?;
        if present & 0x80 == 0 {
            return None;
        }
        let first = bytes.u8()?;
        let is_long = first & 0x80 != 0;
        let picture = match is_long {
            true => u16::from(first & 0x7f) << 8 | u16::from(bytes.u8()?),
            false => first.into(),
        };
        let tl0_at = if is_long { 4 } else { 3 };
        let tl0 = if present & 0x40 != 0 { Some((bytes.u8()?, tl0_at)) } else { None };
        Some(Self { picture, picture_at: 2, is_long, tl0 })
    }

    /// TL0PICIDX, where there is one.
    pub fn tl0(&self) -> Option<u8> {
        self.tl0.map(|(value, _)| value)
    }
}

/// What is added to a source's numbers to make a viewer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vp8Shift {
    picture: u16,
    tl0: u8,
}

impl Vp8Shift {
    /// The shift that makes `first`, of a new source, the picture after `newest`.
    pub fn after(newest: &Vp8Ids, first: &Vp8Ids) -> Self {
        let next_tl0 = newest.tl0().unwrap_or(0).wrapping_add(1);
        Self {
            picture: newest.picture.wrapping_add(1).wrapping_sub(first.picture) % PICTURE_IDS,
            tl0: next_tl0.wrapping_sub(first.tl0().unwrap_or(0)),
        }
    }

    /// The shift from where one picture was left out.
    pub fn without_one(self) -> Self {
        Self { picture: self.picture.wrapping_sub(1) % PICTURE_IDS, ..self }
    }

    /// A packet's numbers as the viewer sees them.
    pub fn shift(&self, ids: &Vp8Ids) -> Vp8Ids {
        let modulus = if ids.is_long { PICTURE_IDS } else { 128 };
        Vp8Ids {
            picture: ids.picture.wrapping_add(self.picture) % modulus,
            tl0: ids.tl0.map(|(value, at)| (value.wrapping_add(self.tl0), at)),
            ..*ids
        }
    }

    /// Writes a viewer's numbers into a copy of the packet's payload.
    pub fn apply(&self, payload: &mut [u8]) {
        if *self == Self::default() {
            return;
        }
        let Some(ids) = Vp8Ids::read(payload).map(|ids| self.shift(&ids)) else { return };
        let [high, low] = ids.picture.to_be_bytes();
        let at = usize::from(ids.picture_at);
        match (ids.is_long, payload.get_mut(at..at + 2)) {
            (true, Some(place)) => place.copy_from_slice(&[high | 0x80, low]),
            (false, Some(place)) => place[0] = low & 0x7f,
            (_, None) => {}
        }
        if let Some((value, at)) = ids.tl0
            && let Some(place) = payload.get_mut(usize::from(at))
        {
            *place = value;
        }
    }
}

/// Whether `id` comes after `newest`, over the wrap; equal ids are one picture.
pub(crate) fn is_newer(newest: &Vp8Ids, ids: &Vp8Ids) -> bool {
    let modulus = if ids.is_long { PICTURE_IDS } else { 128 };
    let step = ids.picture.wrapping_sub(newest.picture) % modulus;
    step != 0 && step < modulus / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_and_written_where_they_stand() {
        for (name, payload, want) in [
            ("no extension", &[0x10, 1, 2, 3][..], None),
            ("no picture id", &[0x90, 0x40, 9, 1], None),
            ("7 bits", &[0x90, 0x80, 0x7e, 1], Some((0x7e, None))),
            ("15 bits", &[0x90, 0x80, 0xff, 0xfe, 1], Some((0x7ffe, None))),
            ("with TL0PICIDX", &[0x90, 0xe0, 0x81, 0x02, 0xff, 0x20, 1], Some((0x102, Some(0xff)))),
            ("7 bits with TL0PICIDX", &[0x90, 0xc0, 0x05, 0x07, 1], Some((5, Some(7)))),
            ("cut off", &[0x90, 0x80, 0xff], None),
            ("empty", &[], None),
        ] {
            let ids = Vp8Ids::read(payload);
            assert_eq!(ids.map(|ids| (ids.picture, ids.tl0())), want, "{name}");
            let mut shifted = payload.to_vec();
            let shift = Vp8Shift { picture: 3, tl0: 2 };
            shift.apply(&mut shifted);
            assert_eq!(Vp8Ids::read(&shifted), ids.map(|ids| shift.shift(&ids)), "{name}");
            assert_eq!(shifted.len(), payload.len());
            let changed = payload.iter().zip(&shifted).filter(|(a, b)| a != b).count();
            assert_eq!(changed > 0, ids.is_some(), "{name}");
        }
    }

    #[test]
    fn one_count_goes_on_over_a_change_and_the_wrap() {
        let read = |picture: u16, tl0: u8| {
            let [high, low] = picture.to_be_bytes();
            Vp8Ids::read(&[0x90, 0xc0, 0x80 | high, low, tl0]).unwrap()
        };
        let (newest, first) = (read(0x7fff, 255), read(700, 9));
        let shift = Vp8Shift::after(&newest, &first);
        assert_eq!((shift.shift(&first).picture, shift.shift(&first).tl0()), (0, Some(0)));
        assert_eq!(shift.shift(&read(703, 10)).picture, 3);
        assert!(is_newer(&newest, &shift.shift(&first)) && !is_newer(&shift.shift(&first), &newest));
    }
}
