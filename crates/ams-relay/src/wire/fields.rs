//! Reading and writing of single fields: big-endian integers, short texts, names.
//!
//! Owns the bounds check of every read. A field that is not there is an error with the field's name, never a panic.

use std::str::FromStr;

use ams_types::{ExtSeq, LayerNo, TrackNo};
use bytes::{BufMut, BytesMut};

use super::{StreamHandle, WireError};

/// A value that does not fit its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The frame's name.
    pub frame: &'static str,
    /// What is too long.
    pub what: &'static str,
}

/// The fields of one frame body, read from front to back. What is left at the end is from a newer version, and skipped.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    frame: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Begins at the front of `body`; `frame` is the name errors carry.
    pub fn new(frame: &'static str, body: &'a [u8]) -> Self {
        Self { frame, rest: body }
    }

    /// An error about this frame.
    pub fn malformed(&self, what: &'static str) -> WireError {
        WireError::Malformed { frame: self.frame, what }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N], WireError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(self.malformed(what))?;
        self.rest = rest;
        Ok(value)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let (value, rest) = self.rest.split_at_checked(len).ok_or(self.malformed(what))?;
        self.rest = rest;
        Ok(value)
    }

    /// All that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// An element of `len` bytes, read by itself: what it holds beyond the known fields is skipped.
    pub fn element(&mut self, len: usize, what: &'static str) -> Result<Fields<'a>, WireError> {
        Ok(Fields { frame: self.frame, rest: self.take(len, what)? })
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        let [byte] = *self.array(what)?;
        Ok(byte)
    }

    /// Two bytes.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(*self.array(what)?))
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(*self.array(what)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(*self.array(what)?))
    }

    /// A stream handle.
    pub fn handle(&mut self) -> Result<StreamHandle, WireError> {
        self.u32("stream handle").map(StreamHandle)
    }

    /// A track number.
    pub fn track(&mut self) -> Result<TrackNo, WireError> {
        self.u8("track").map(TrackNo)
    }

    /// A layer number.
    pub fn layer(&mut self) -> Result<LayerNo, WireError> {
        self.u8("layer").map(LayerNo)
    }

    /// An extended sequence number.
    pub fn seq(&mut self) -> Result<ExtSeq, WireError> {
        self.u64("sequence number").map(ExtSeq)
    }

    /// UTF-8 text after one byte of length.
    pub fn text8(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        let len = self.u8(what)?;
        let bytes = self.take(len.into(), what)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed(what))
    }

    /// UTF-8 text after two bytes of length, of which `max` may come.
    pub fn text16(&mut self, max: usize, what: &'static str) -> Result<&'a str, WireError> {
        let len = usize::from(self.u16(what)?);
        if len > max {
            return Err(self.malformed(what));
        }
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed(what))
    }

    /// A name after one byte of length, parsed by its own rules.
    pub fn name<T: FromStr>(&mut self, what: &'static str) -> Result<T, WireError> {
        self.text8(what)?.parse().map_err(|_| self.malformed(what))
    }
}

/// Appends text after one byte of length.
pub fn put_text8(out: &mut BytesMut, text: &str, frame: &'static str, what: &'static str) -> Result<(), TooLong> {
    let len = u8::try_from(text.len()).map_err(|_| TooLong { frame, what })?;
    out.put_u8(len);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Appends text after two bytes of length, of which at most `max` may be used.
pub fn put_text16(
    out: &mut BytesMut,
    text: &str,
    max: usize,
    frame: &'static str,
    what: &'static str,
) -> Result<(), TooLong> {
    let len = u16::try_from(text.len()).ok().filter(|len| usize::from(*len) <= max).ok_or(TooLong { frame, what })?;
    out.put_u16(len);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Appends a two-byte length and what `element` appends.
pub fn put_element(
    out: &mut BytesMut,
    frame: &'static str,
    what: &'static str,
    element: impl FnOnce(&mut BytesMut) -> Result<(), TooLong>,
) -> Result<(), TooLong> {
    let start = out.len();
    out.put_u16(0);
    element(out)?;
    let len = u16::try_from(out.len() - start - 2).map_err(|_| TooLong { frame, what })?;
    if let Some(field) = out.get_mut(start..start + 2) {
        field.copy_from_slice(&len.to_be_bytes());
    }
    Ok(())
}

/// The longest start of `text` that has at most `max` bytes.
pub fn cut_text(text: &str, max: usize) -> &str {
    match text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= max).last() {
        Some(end) => text.get(..end).unwrap_or_default(),
        None => "",
    }
}
