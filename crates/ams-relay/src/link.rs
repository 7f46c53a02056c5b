//! Reading and writing an established link.
//!
//! Owns the link's buffers and nothing that decides: frames go to the caller, bytes come from the
//! [`EgressQueue`]. Reader and writer are separate, so that a peer that does not read cannot stop this node from
//! hearing it. Neither spawns a task; the owner of the link runs and joins them.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::error::RelayError;
use crate::queue::{EgressQueue, SLICES_MAX, WriteBuf};
use crate::wire::{Cut, FRAME_LEN_MAX, Frame, FrameKind, LENGTH_LEN, WireError, cut};

/// Bytes asked of the socket at a time.
const READ_LEN: usize = 64 * 1024;

/// The receiving direction of a link.
///
/// In a loop: [`LinkReader::read_batch`], then [`LinkReader::next_frame`] until it is `None`.
#[derive(Debug)]
pub struct LinkReader<R> {
    io: R,
    buf: BytesMut,
    /// Bytes of `buf` whose frames were handed out.
    used: usize,
    unknown_frames: u64,
}

impl<R> LinkReader<R> {
    /// Reads from `io`; `leftover` is what the handshake read too much.
    pub fn new(io: R, leftover: BytesMut) -> Self {
        Self { io, buf: leftover, used: 0, unknown_frames: 0 }
    }
}

impl<R: AsyncRead + Unpin> LinkReader<R> {
    /// Waits for bytes and returns how many came. Cancel-safe: dropped while waiting, it has read nothing.
    ///
    /// Holds at most one incomplete frame and one batch if all frames were taken before.
    ///
    /// # Errors
    /// [`RelayError::Closed`] at the end, [`RelayError::Io`] when the connection broke.
    pub async fn read_batch(&mut self) -> Result<usize, RelayError> {
        self.buf.advance(self.used.min(self.buf.len()));
        self.used = 0;
        self.buf.reserve(READ_LEN);
        match self.io.read_buf(&mut self.buf).await? {
            0 => Err(RelayError::Closed),
            len => Ok(len),
        }
    }
}

impl<R> LinkReader<R> {
    /// The next whole frame of what was read; none when more must be read first. Frames of unknown types are skipped
    /// here.
    ///
    /// # Errors
    /// The peer broke the protocol; drop the link.
    pub fn next_frame(&mut self) -> Option<Result<Frame<'_>, WireError>> {
        while let Some(kind) = self.buf.get(self.used + LENGTH_LEN)
            && FrameKind::from_byte(*kind).is_none()
            && let Ok(Cut::Frame { used, .. }) = cut(self.buf.get(self.used..)?, FRAME_LEN_MAX)
        {
            self.used += used;
            self.unknown_frames += 1;
        }
        match cut(self.buf.get(self.used..)?, FRAME_LEN_MAX) {
            Ok(Cut::Frame { kind, body, used }) => {
                self.used += used;
                Some(Frame::read(kind, body))
            }
            Ok(Cut::NeedMore { .. }) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Frames skipped because this version does not know their type.
    pub fn unknown_frames(&self) -> u64 {
        self.unknown_frames
    }
}

/// The sending direction of a link.
#[derive(Debug)]
pub struct LinkWriter<W> {
    io: W,
    buf: WriteBuf,
}

impl<W: AsyncWrite + Unpin> LinkWriter<W> {
    /// Writes to `io`.
    pub fn new(io: W) -> Self {
        Self { io, buf: WriteBuf::new() }
    }

    /// Takes the next batch from `queue`. Returns whether there is something to write.
    pub fn fill(&mut self, now: Instant, queue: &mut EgressQueue) -> bool {
        if !self.buf.is_full() {
            queue.fill(now, &mut self.buf);
        }
        !self.buf.is_empty()
    }

    /// Writes the batch. Cancel-safe: what is written is noted, the rest goes out with the next call.
    ///
    /// # Errors
    /// [`RelayError::Io`] when the connection broke.
    pub async fn write_batch(&mut self) -> Result<(), RelayError> {
        while !self.buf.is_empty() {
            let written = {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let set = self.buf.slices(&mut slices);
                self.io.write_vectored(slices.get(..set).unwrap_or_default()).await?
            };
            if written == 0 {
                return Err(RelayError::Closed);
            }
            self.buf.advance(written);
        }
        Ok(())
    }

    /// Sends all that waits in `queue`; for tests and for a last word before closing.
    ///
    /// # Errors
    /// As [`LinkWriter::write_batch`].
    pub async fn flush(&mut self, now: Instant, queue: &mut EgressQueue) -> Result<(), RelayError> {
        while self.fill(now, queue) {
            self.write_batch().await?;
        }
        Ok(())
    }

    /// Closes this direction: the peer reads to the end.
    ///
    /// # Errors
    /// [`RelayError::Io`] when the connection broke before.
    pub async fn shutdown(&mut self) -> Result<(), RelayError> {
        Ok(self.io.shutdown().await?)
    }
}

/// Sends what `queue` holds until the queue is finished and empty, or the connection breaks.
///
/// The owner pushes into the queue and calls `notify.notify_one()`; the queue is borrowed only between awaits. `clock`
/// is [`Instant::now`], or the test's.
///
/// # Errors
/// [`RelayError::Io`] or [`RelayError::Closed`] when the connection broke.
pub async fn write_loop<W: AsyncWrite + Unpin>(
    writer: &mut LinkWriter<W>,
    queue: Rc<RefCell<EgressQueue>>,
    notify: Rc<Notify>,
    clock: impl Fn() -> Instant,
) -> Result<(), RelayError> {
    loop {
        let (something, finished) = {
            let mut queue = queue.borrow_mut();
            (writer.fill(clock(), &mut queue), queue.is_finished())
        };
        if something {
            writer.write_batch().await?;
        } else if finished {
            return writer.shutdown().await;
        } else {
            notify.notified().await;
        }
    }
}
