//! Reading bytes and bits of payloads that strangers wrote. Every read may fail; none panics.

/// Reads whole bytes from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// An unsigned LEB128 number of at most 32 bits (AV1 bitstream specification §4.10.5).
    pub(super) fn leb128(&mut self) -> Option<u32> {
        let mut value = 0u64;
        for shift in (0..56).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// Reads bits, most significant first.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    rest: &'a [u8],
    byte: u8,
    left: u8,
    /// Zero bytes just read, counted only where emulation prevention bytes are to be dropped.
    zeros: Option<u8>,
}

impl<'a> Bits<'a> {
    /// Bits of `bytes` as they stand.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, byte: 0, left: 0, zeros: None }
    }

    /// Bits of a NAL unit's body, without its emulation prevention bytes (ITU-T H.264 §7.3.1, H.265 §7.3.1.1).
    pub(super) fn of_nal(bytes: &'a [u8]) -> Self {
        Self { zeros: Some(0), ..Self::new(bytes) }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (mut byte, mut rest) = self.rest.split_first()?;
        if let Some(zeros) = &mut self.zeros {
            if *zeros >= 2 && *byte == 3 {
                (byte, rest) = rest.split_first()?;
                *zeros = 0;
            }
            *zeros = if *byte == 0 { zeros.saturating_add(1) } else { 0 };
        }
        self.rest = rest;
        Some(*byte)
    }

    pub(super) fn bit(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.byte = self.next_byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Some(self.byte >> self.left & 1 == 1)
    }

    /// The next `count` bits, at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32, "a u32 holds 32 bits");
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value)
    }

    pub(super) fn skip(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            self.bit()?;
        }
        Some(())
    }

    /// An unsigned Exp-Golomb number, `ue(v)` (ITU-T H.264 §9.1); AV1's `uvlc()` is the same code.
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        // 2^31 - 1 + (2^31 - 1) fits.
        Some((1u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// A signed Exp-Golomb number, `se(v)` (ITU-T H.264 §9.1.1).
    pub(super) fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        let magnitude = (code + 1) / 2;
        i32::try_from(if code % 2 == 1 { magnitude } else { -magnitude }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_numbers() {
        for (name, bytes, want) in [
            ("zero", &[0b1000_0000][..], Some(0)),
            ("one", &[0b0100_0000], Some(1)),
            ("two", &[0b0110_0000], Some(2)),
            ("seven", &[0b0001_0000], Some(7)),
            ("cut short", &[0b0000_0001], None),
            ("too long", &[0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], None),
            ("empty", &[], None),
        ] {
            assert_eq!(Bits::new(bytes).ue(), want, "{name}");
        }
        let mut signed = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        assert_eq!([signed.se(), signed.se(), signed.se(), signed.se()], [Some(0), Some(1), Some(-1), Some(2)]);
    }

    #[test]
    fn emulation_prevention_bytes_are_dropped_in_nal_units_only() {
        let bytes = [0, 0, 3, 1, 0, 0, 3];
        assert_eq!(Bits::of_nal(&bytes).bits(32), Some(0x0000_0100));
        assert_eq!(Bits::new(&bytes).bits(32), Some(0x0000_0301));
    }

    #[test]
    fn leb128_numbers() {
        for (name, bytes, want) in [
            ("one byte", &[0x05][..], Some(5)),
            ("two bytes", &[0x80, 0x01], Some(128)),
            ("padded", &[0x81, 0x80, 0x00], Some(1)),
            ("over 32 bits", &[0xff, 0xff, 0xff, 0xff, 0x1f], None),
            ("never ends", &[0xff; 12], None),
            ("cut short", &[0x80], None),
        ] {
            assert_eq!(Bytes(bytes).leb128(), want, "{name}");
        }
    }
}
