//! An AMS signalling client: what the JavaScript SDK says, without the SDK.
//!
//! Owns a task that reads the socket and pings every 3 s as the SDK does; it ends when the value is dropped. Answers to
//! these pings are not shown.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// The SDK's ping interval.
const PING: Duration = Duration::from_secs(3);
/// Messages that may wait on either side.
const QUEUE: usize = 1024;

/// One socket.
#[derive(Debug)]
pub struct AmsSocket {
    outgoing: mpsc::Sender<Outgoing>,
    incoming: mpsc::Receiver<Incoming>,
    kept: VecDeque<Value>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Outgoing {
    Message(Message),
    Freeze,
}

#[derive(Debug)]
enum Incoming {
    Message(Value),
    Ended { code: u16, reason: String },
}

impl AmsSocket {
    /// Connects.
    ///
    /// # Errors
    /// The node refused.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_from(url, None).await
    }

    /// Connects as a client behind a balancer that says it is at this address.
    ///
    /// # Errors
    /// The node refused.
    pub async fn connect_from(url: &str, address: Option<&str>) -> Result<Self> {
        let mut request = url.into_client_request()?;
        if let Some(address) = address {
            request.headers_mut().insert("x-forwarded-for", address.parse()?);
        }
        let (socket, _) = connect_async(request).await.with_context(|| format!("connecting {url}"))?;
        let (outgoing, commands) = mpsc::channel(QUEUE);
        let (events, incoming) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(socket, commands, events));
        Ok(Self { outgoing, incoming, kept: VecDeque::new(), task })
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
        self.send_message(Message::text(text)).await
    }

    /// Sends binary.
    ///
    /// # Errors
    /// The socket is closed.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.send_message(Message::binary(bytes)).await
    }

    async fn send_message(&mut self, message: Message) -> Result<()> {
        self.outgoing.send(Outgoing::Message(message)).await.ok().context("the socket is closed")
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
        match tokio::time::timeout(limit, self.incoming.recv()).await.context("no message in time")? {
            Some(Incoming::Message(message)) => Ok(message),
            Some(Incoming::Ended { code, reason }) => bail!("the socket ended: {code} {reason}"),
            None => bail!("the socket ended"),
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
        self.wait_new(what, limit, wanted).await
    }

    /// As [`Self::wait`], for messages that nobody has looked at yet.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn wait_new(&mut self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
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

    /// Everything that came, in order, up to the answer to a question asked now.
    ///
    /// # Errors
    /// The socket is closed, or no answer came within `limit`.
    pub async fn settle(&mut self, limit: Duration) -> Result<Vec<Value>> {
        // A question nobody else asks: its answer is the mark.
        self.send(json!({"command": "getDebugInfo", "streamId": "settled"})).await?;
        let mark = |m: &Value| m["streamId"] == "settled";
        let deadline = tokio::time::Instant::now() + limit;
        let mut all: Vec<Value> = self.kept.drain(..).collect();
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let message = self.receive(left).await.with_context(|| format!("settling; came: {all:?}"))?;
            if mark(&message) {
                return Ok(all);
            }
            all.push(message);
        }
    }

    /// The next `count` messages.
    ///
    /// # Errors
    /// They did not come within `limit`; says what came.
    pub async fn wait_all(&mut self, count: usize, limit: Duration) -> Result<Vec<Value>> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut all = Vec::new();
        while all.len() < count {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            all.push(self.next(left).await.with_context(|| format!("of {count}: {all:?}"))?);
        }
        Ok(all)
    }

    /// Waits for the node to close the socket; gives its code and reason.
    ///
    /// # Errors
    /// It did not within `limit`.
    pub async fn closed(&mut self, limit: Duration) -> Result<(u16, String)> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            match tokio::time::timeout_at(deadline, self.incoming.recv()).await.context("the socket stays open")? {
                Some(Incoming::Message(message)) => self.kept.push_back(message),
                Some(Incoming::Ended { code, reason }) => return Ok((code, reason)),
                None => return Ok((1006, String::new())),
            }
        }
    }

    /// Says `stop`.
    ///
    /// # Errors
    /// The socket is closed.
    pub async fn stop(&mut self, stream: &str) -> Result<()> {
        self.send(json!({"command": "stop", "streamId": stream})).await
    }

    /// From here on the socket is open but dead, as that of a machine that lost its network.
    pub fn freeze(&self) {
        let _ = self.outgoing.try_send(Outgoing::Freeze);
    }

    /// Closes the socket.
    pub async fn close(mut self) {
        let _ = self.send_message(Message::Close(None)).await;
        let _ = self.closed(Duration::from_secs(2)).await;
    }
}

impl Drop for AmsSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    mut commands: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<Incoming>,
) {
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    let ended = loop {
        tokio::select! {
            _ = ping.tick() => {
                if let Err(error) = socket.send(Message::text(r#"{"command":"ping"}"#)).await {
                    break (1006, error.to_string());
                }
            }
            command = commands.recv() => match command {
                Some(Outgoing::Message(message)) => {
                    if let Err(error) = socket.send(message).await {
                        break (1006, error.to_string());
                    }
                }
                Some(Outgoing::Freeze) => std::future::pending().await,
                None => return,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.as_str()));
                    if message["command"] != "pong" && events.send(Incoming::Message(message)).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    let told = frame.map(|f| (u16::from(f.code), f.reason.to_string()));
                    break told.unwrap_or((1005, String::new()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break (1006, error.to_string()),
                None => break (1006, "connection ended".to_owned()),
            },
        }
    };
    let _ = events.send(Incoming::Ended { code: ended.0, reason: ended.1 }).await;
}
