//! Bytes on their way into a socket: small pieces copied together, large ones only referred to.
//!
//! Owns the order of the pieces and how far the socket has taken them. One per link, reused, so that a full batch costs
//! no allocation.

use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes after which a batch is full. Small, because what is in it can no longer be dropped.
pub const BATCH_LEN: usize = 64 * 1024;
/// Payloads up to this many bytes are copied: an own slice costs the kernel more.
pub const COPY_LEN_MAX: usize = 256;
/// Slices handed to one vectored write.
pub const SLICES_MAX: usize = 64;

#[derive(Debug)]
enum Part {
    Head(Range<usize>),
    Owned(Bytes),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Head(range) => range.len(),
            Self::Owned(bytes) => bytes.len(),
        }
    }
}

/// One batch of frames. Filled by [`super::EgressQueue::fill`], emptied by a vectored write and [`WriteBuf::advance`].
#[derive(Debug, Default)]
pub struct WriteBuf {
    heads: BytesMut,
    parts: Vec<Part>,
    /// First part not fully written.
    next: usize,
    /// Bytes of it that are written.
    offset: usize,
    /// Bytes left to write.
    len: usize,
}

impl WriteBuf {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes left to write.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether all is written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no more should be put in before some is written.
    pub fn is_full(&self) -> bool {
        self.len >= BATCH_LEN
    }

    /// Appends what `write` appends to the buffer it is given. On error nothing is appended.
    pub(super) fn head<E>(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<(), E> {
        self.reset_if_empty();
        let start = self.heads.len();
        if let Err(error) = write(&mut self.heads) {
            self.heads.truncate(start);
            return Err(error);
        }
        let end = self.heads.len();
        self.len += end - start;
        match self.parts.last_mut() {
            Some(Part::Head(range)) => range.end = end,
            _ => self.parts.push(Part::Head(start..end)),
        }
        Ok(())
    }

    /// Appends `bytes`, by reference if that pays.
    pub(super) fn payload(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_LEN_MAX {
            let copied: Result<(), std::convert::Infallible> = self.head(|out| {
                out.extend_from_slice(bytes);
                Ok(())
            });
            let Ok(()) = copied;
            return;
        }
        self.reset_if_empty();
        self.len += bytes.len();
        self.parts.push(Part::Owned(bytes.clone()));
    }

    fn reset_if_empty(&mut self) {
        if self.len == 0 {
            self.heads.clear();
            self.parts.clear();
            (self.next, self.offset) = (0, 0);
        }
    }

    /// Puts what is left to write into `slices`, as much as fits, and returns how many were set.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut set = 0;
        let mut skip = self.offset;
        for (slice, part) in slices.iter_mut().zip(self.parts.iter().skip(self.next)) {
            let bytes = match part {
                Part::Head(range) => self.heads.get(range.clone()),
                Part::Owned(bytes) => Some(bytes.chunk()),
            };
            *slice = IoSlice::new(bytes.and_then(|bytes| bytes.get(skip..)).unwrap_or_default());
            skip = 0;
            set += 1;
        }
        set
    }

    /// The first `written` bytes are gone.
    pub fn advance(&mut self, written: usize) {
        let mut left = written.min(self.len);
        self.len -= left;
        while let Some(part) = self.parts.get_mut(self.next) {
            let rest = part.len() - self.offset;
            if left < rest {
                self.offset += left;
                break;
            }
            left -= rest;
            // Payloads are let go as soon as they are written.
            *part = Part::Head(0..0);
            self.next += 1;
            self.offset = 0;
        }
        self.reset_if_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(buf: &mut WriteBuf, bytes: &[u8]) {
        let done: Result<(), ()> = buf.head(|out| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        done.unwrap();
    }

    #[test]
    fn what_goes_in_comes_out_in_order_however_the_socket_takes_it() {
        for step in [1, 3, 7, 100, 1_000, 10_000] {
            let mut buf = WriteBuf::new();
            let mut want = Vec::new();
            for round in 0..20u8 {
                let payload = Bytes::from(vec![round; if round % 3 == 0 { 1_200 } else { 80 }]);
                head(&mut buf, &[0xaa, round]);
                buf.payload(&payload);
                want.extend_from_slice(&[0xaa, round]);
                want.extend_from_slice(&payload);
            }
            let mut got = Vec::new();
            while !buf.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                let set = buf.slices(&mut slices);
                let all: Vec<u8> = slices[..set].iter().flat_map(|slice| slice.iter().copied()).collect();
                let taken = all.len().min(step);
                got.extend_from_slice(&all[..taken]);
                buf.advance(taken);
            }
            assert_eq!(got, want, "socket takes {step} bytes at a time");
        }
    }

    #[test]
    fn a_failed_head_leaves_nothing_behind() {
        let mut buf = WriteBuf::new();
        head(&mut buf, b"a");
        let failed: Result<(), ()> = buf.head(|out| {
            out.extend_from_slice(b"xyz");
            Err(())
        });
        assert!(failed.is_err());
        head(&mut buf, b"b");
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(buf.slices(&mut slices), 1);
        assert_eq!(&*slices[0], b"ab");
    }
}
