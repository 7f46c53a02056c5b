//! An AMS signalling client: what the JavaScript SDK says, without the SDK.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// One socket.
#[derive(Debug)]
pub struct AmsSocket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    kept: VecDeque<Value>,
}

impl AmsSocket {
    /// Connects.
    ///
    /// # Errors
    /// The node refused.
    pub async fn connect(url: &str) -> Result<Self> {
        let (socket, _) = connect_async(url).await.with_context(|| format!("connecting {url}"))?;
        Ok(Self { socket, kept: VecDeque::new() })
    }

    /// Sends a command.
    ///
    /// # Errors
    /// The socket is closed.
    pub async fn send(&mut self, message: Value) -> Result<()> {
        self.send_text(message.to_string()).await
    }

    /// Sends text as it is.
    ///
    /// # Errors
    /// The socket is closed.
    pub async fn send_text(&mut self, text: String) -> Result<()> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// Sends binary.
    ///
    /// # Errors
    /// The socket is closed.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.socket.send(Message::binary(bytes)).await?)
    }

    /// The next message.
    ///
    /// # Errors
    /// The socket is closed, or nothing came within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Result<Value> {
        if let Some(kept) = self.kept.pop_front() {
            return Ok(kept);
        }
        self.receive(limit).await
    }

    async fn receive(&mut self, limit: Duration) -> Result<Value> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let message = tokio::time::timeout_at(deadline, self.socket.next()).await.context("no message in time")?;
            match message {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text)?),
                Some(Ok(Message::Close(frame))) => bail!("socket closed: {frame:?}"),
                Some(Ok(_)) => {}
                Some(Err(error)) => bail!("socket failed: {error}"),
                None => bail!("socket ended"),
            }
        }
    }

    /// The next message that `wanted` likes; others are kept.
    ///
    /// # Errors
    /// The socket is closed, or none came within `limit`; says what came instead.
    pub async fn wait(&mut self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return Ok(self.kept.remove(at).unwrap_or_default());
        }
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let message =
                self.receive(left).await.with_context(|| format!("waiting for {what}; came: {:?}", self.kept))?;
            if wanted(&message) {
                return Ok(message);
            }
            self.kept.push_back(message);
        }
    }

    /// The next notification or error of that definition.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn definition(&mut self, name: &str, limit: Duration) -> Result<Value> {
        self.wait(name, limit, |m| m["definition"] == name).await
    }

    /// The next message with that command.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn command(&mut self, name: &str, limit: Duration) -> Result<Value> {
        self.wait(name, limit, |m| m["command"] == name).await
    }

    /// Says `stop`.
    ///
    /// # Errors
    /// The socket is closed.
    pub async fn stop(&mut self, stream: &str) -> Result<()> {
        self.send(json!({"command": "stop", "streamId": stream})).await
    }

    /// Closes the socket.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
    }
}
