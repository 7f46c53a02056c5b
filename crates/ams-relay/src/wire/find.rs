//! The frames by which nodes ask one another whether they publish a stream: Find and Found.
//!
//! Owns their layout. They need no subscription and change nothing: a registry that is away, or behind, is asked around.

use ams_types::{Epoch, StreamKey};
use bytes::{BufMut, BytesMut};

use super::WireError;
use super::fields::{Fields, put_text8};

const HELD: u8 = 1;
const LIVE: u8 = 2;

/// Do you publish this stream?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// Comes back in the answer.
    pub nonce: u64,
    /// The stream.
    pub key: StreamKey,
}

/// The answer to a [`Find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The question's nonce.
    pub nonce: u64,
    /// The sender has a publisher of it, or is about to take one.
    pub held: bool,
    /// It can be pulled from the sender.
    pub live: bool,
    /// Which publication; 0 if none is held.
    pub epoch: Epoch,
    /// Milliseconds since the last packet of it.
    pub silent_ms: u32,
}

impl Find {
    pub(super) fn read(f: &mut Fields<'_>) -> Result<Self, WireError> {
        let nonce = f.u64("nonce")?;
        Ok(Self { nonce, key: StreamKey::new(f.name("application name")?, f.name("stream id")?) })
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), WireError> {
        const FRAME: &str = "Find";
        out.put_u64(self.nonce);
        put_text8(out, self.key.app.as_str(), FRAME, "application name")?;
        put_text8(out, self.key.id.as_str(), FRAME, "stream id")?;
        Ok(())
    }
}

impl Found {
    pub(super) fn read(f: &mut Fields<'_>) -> Result<Self, WireError> {
        let (nonce, flags) = (f.u64("nonce")?, f.u8("flags")?);
        let (epoch, silent_ms) = (Epoch(f.u64("epoch")?), f.u32("silence")?);
        Ok(Self { nonce, held: flags & HELD != 0, live: flags & LIVE != 0, epoch, silent_ms })
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.nonce);
        out.put_u8(u8::from(self.held) * HELD + u8::from(self.live) * LIVE);
        out.put_u64(self.epoch.0);
        out.put_u32(self.silent_ms);
    }
}
