//! HTTP as strangers send it: bytes on a TCP connection, and whatever comes back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most bytes of an answer that are read.
const ANSWER_MAX: u64 = 1 << 20;

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Everything the node sent.
    pub bytes: Vec<u8>,
    /// The node closed the connection.
    pub closed: bool,
}

impl Reply {
    /// The status of the first answer; 0 if there was none.
    pub fn status(&self) -> u16 {
        let text = String::from_utf8_lossy(&self.bytes);
        text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
    }
}

/// Sends bytes and reads until the node closes, or says nothing more for `patience`.
///
/// # Errors
/// No connection.
pub async fn exchange(to: SocketAddr, bytes: &[u8], patience: Duration) -> Result<Reply> {
    let mut stream = TcpStream::connect(to).await.with_context(|| format!("connecting {to}"))?;
    // The node may have closed before it has all of it: what it said is what counts.
    let _ = stream.write_all(bytes).await;
    Ok(read(&mut stream, patience).await)
}

/// Reads until the node closes, or says nothing more for `patience`.
pub async fn read(stream: &mut TcpStream, patience: Duration) -> Reply {
    let mut reply = Reply::default();
    let mut buffer = [0; 8192];
    while (reply.bytes.len() as u64) < ANSWER_MAX {
        match tokio::time::timeout(patience, stream.read(&mut buffer)).await {
            Err(_) => break,
            Ok(Ok(0) | Err(_)) => {
                reply.closed = true;
                break;
            }
            Ok(Ok(len)) => reply.bytes.extend_from_slice(buffer.get(..len).unwrap_or_default()),
        }
    }
    reply
}
