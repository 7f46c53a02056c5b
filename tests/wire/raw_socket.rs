//! A WebSocket by hand: frames no library would send, and the node's frames as they come.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Frame types (RFC 6455 §5.2).
pub(crate) const CONTINUATION: u8 = 0;
/// See [`CONTINUATION`].
pub(crate) const TEXT: u8 = 1;
/// See [`CONTINUATION`].
pub(crate) const BINARY: u8 = 2;

/// An upgraded connection.
pub(crate) struct RawSocket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl RawSocket {
    /// Connects and upgrades.
    pub(crate) async fn connect(to: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(to).await?;
        let request = "GET /WebRTCAppEE/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut buffer = Vec::new();
        let head = loop {
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut buffer)).await??;
            ensure!(read > 0, "the node closed");
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
        };
        ensure!(buffer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&buffer));
        buffer.drain(..head);
        Ok(Self { stream, buffer })
    }

    /// Sends bytes as they are. The node may have closed meanwhile: what it said is read afterwards.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a masked frame.
    pub(crate) async fn frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        self.send(&frame(fin, opcode, payload)).await;
    }

    /// The next text the node sends; none if it closes or says nothing for `patience`.
    pub(crate) async fn text(&mut self, patience: Duration) -> Option<String> {
        while let Some((opcode, payload)) = self.next(patience).await {
            match opcode {
                1 => return String::from_utf8(payload).ok(),
                8 => return None,
                _ => {}
            }
        }
        None
    }

    /// Waits for the node to close: its code, or 1006 if it just hung up; none if it stays.
    pub(crate) async fn closed(&mut self, patience: Duration) -> Option<u16> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match self.next_or_end(left).await {
                Next::Frame(8, payload) => {
                    return Some(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
                }
                Next::Frame(..) => {}
                Next::End => return Some(1006),
                Next::Nothing => return None,
            }
        }
    }

    async fn next(&mut self, patience: Duration) -> Option<(u8, Vec<u8>)> {
        match self.next_or_end(patience).await {
            Next::Frame(opcode, payload) => Some((opcode, payload)),
            _ => None,
        }
    }

    async fn next_or_end(&mut self, patience: Duration) -> Next {
        loop {
            if let Some((opcode, payload, len)) = parse(&self.buffer) {
                self.buffer.drain(..len);
                return Next::Frame(opcode, payload);
            }
            match tokio::time::timeout(patience, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return Next::Nothing,
                Ok(Ok(0) | Err(_)) => return Next::End,
                Ok(Ok(_)) => {}
            }
        }
    }
}

enum Next {
    Frame(u8, Vec<u8>),
    End,
    Nothing,
}

/// A masked frame.
pub(crate) fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![opcode | if fin { 0x80 } else { 0 }];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    // A mask of zeros changes nothing and is a mask.
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (len, at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*bytes.get(2..4)?.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*bytes.get(2..10)?.first_chunk()?)).ok()?, 10),
        len => (usize::from(len), 2),
    };
    Some((first & 0x0f, bytes.get(at..at + len)?.to_vec(), at + len))
}
