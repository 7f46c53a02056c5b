//! Light WebRTC peers over real UDP: a publisher that makes recognisable media, viewers that check every byte of it.
//!
//! Owns a task per peer, ended when the value is dropped. Their media is not decodable; pictures are the browsers' part.

mod body;
mod check;
mod peer;
mod source;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ams_rtc::ice::IceCredentials;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::check::MediaCheck;
use self::peer::{Part, Started, identity};
use self::source::MediaSource;
use crate::ams::AmsSocket;
use crate::http::Answer;
use crate::sdp::{self, NodeSdp};
use crate::{eventually, http};

/// Longest wait for one step of signalling.
pub const STEP: Duration = Duration::from_secs(10);
/// Video packets a light publisher sends per second.
pub const VIDEO_PACKETS_PER_SECOND: u64 = 90;

/// What a peer counted so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connected: media may flow.
    pub connected: AtomicBool,
    /// The other end closed.
    pub closed: AtomicBool,
    /// Media packets received and opened, whatever is in them.
    pub received: AtomicU64,
    /// Video packets received and checked, or made by a publisher.
    pub video: AtomicU64,
    /// Audio packets received and checked, or made by a publisher.
    pub audio: AtomicU64,
    /// Keyframes received, or made by a publisher.
    pub keyframes: AtomicU64,
    /// Packets whose content, number or place was not what was published.
    pub wrong: AtomicU64,
    /// The first of these, in words.
    pub first_wrong: Mutex<Option<String>>,
    /// Video packets missing now, by the node's numbers.
    pub missing: AtomicU64,
    /// Video packets missing now, by the publisher's numbers: what the node left out other than by going on at a keyframe.
    pub skipped: AtomicU64,
    /// Which video packets are missing, counted from the first that came; the first few.
    pub gaps: Mutex<Vec<u64>>,
    /// As `missing`, of the audio.
    pub audio_missing: AtomicU64,
    /// As `skipped`, of the audio.
    pub audio_skipped: AtomicU64,
    /// Packets lost on purpose.
    pub lost: AtomicU64,
    /// Missing packets that came as retransmissions, or retransmissions a publisher sent.
    pub recovered: AtomicU64,
    /// Packets that came a second time.
    pub repeated: AtomicU64,
    /// Longest time between two media packets, in microseconds.
    pub longest_gap_us: AtomicU64,
    /// When the last media packet came.
    pub last_at: Mutex<Option<Instant>>,
    /// Times the video went on with another publication.
    pub takeovers: AtomicU64,
    /// When it last did.
    pub taken_over_at: Mutex<Option<Instant>>,
    /// When a publisher sent its first picture.
    pub began_at: Mutex<Option<Instant>>,
    /// Sender reports received.
    pub reports: AtomicU64,
    /// Keyframe requests a publisher received.
    pub keyframe_requests: AtomicU64,
    /// When they came.
    pub keyframe_requests_at: Mutex<Vec<Instant>>,
    /// NACKs a publisher received, or a viewer sent.
    pub nacks: AtomicU64,
    /// Transport-wide feedback a publisher received.
    pub transport_feedback: AtomicU64,
    /// RTCP BYEs received.
    pub byes: AtomicU64,
    /// ICE checks the node refused.
    pub checks_refused: AtomicU64,
    /// Wall clock of the last audio packet by the node's sender reports, less its media time, in microseconds.
    pub audio_lag_us: AtomicI64,
    /// The same of the video: lips are in sync when the two are equal.
    pub video_lag_us: AtomicI64,
}

impl Counts {
    /// Reads one counter.
    pub fn get(&self, counter: impl Fn(&Self) -> &AtomicU64) -> u64 {
        counter(self).load(Ordering::Relaxed)
    }

    /// Whether the node said that it is over: DTLS close_notify.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Checks that all that came was right, in order and complete.
    ///
    /// # Errors
    /// Says what was not.
    pub fn intact(&self) -> Result<()> {
        let first = self.first_wrong.lock().map_or_else(|e| e.into_inner().clone(), |first| first.clone());
        ensure!(self.get(|c| &c.wrong) == 0, "{} wrong: {first:?}", self.get(|c| &c.wrong));
        let gaps = [
            self.get(|c| &c.missing),
            self.get(|c| &c.skipped),
            self.get(|c| &c.audio_missing),
            self.get(|c| &c.audio_skipped),
        ];
        ensure!(
            gaps == [0; 4],
            "video missing {}, skipped {}, audio missing {}, skipped {}",
            gaps[0],
            gaps[1],
            gaps[2],
            gaps[3]
        );
        ensure!(self.get(|c| &c.repeated) == 0, "{} packets came twice", self.get(|c| &c.repeated));
        Ok(())
    }
}

/// How a peer treats its packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Share of received media packets that get lost.
    pub lose_received: f32,
    /// Share of sent video packets that get lost.
    pub lose_sent: f32,
    /// A viewer sends NACKs for what it misses. Not to be changed later.
    pub asks_again: bool,
    /// A publisher has one track only: `audio` or `video`. Not to be changed later.
    pub only: Option<&'static str>,
}

/// What a peer can be told to do.
#[derive(Clone, Debug)]
pub enum Control {
    /// Other habits from now on.
    Habits(Habits),
    /// Neither sends nor receives, as a machine that lost its network; or does so again.
    Silent(bool),
    /// Takes new ICE credentials on both sides.
    RestartIce {
        /// Its own.
        local: IceCredentials,
        /// The node's.
        remote: IceCredentials,
    },
    /// Says close_notify.
    Close,
    /// Sends these bytes from its socket.
    Raw(Vec<u8>),
    /// Sends its last media datagram again.
    Replay,
    /// Sends its last media datagram with a later number and a wrong tag.
    Forge,
    /// Seals and sends this RTP packet.
    Rtp {
        /// Bytes of header.
        header_len: usize,
        /// Header and payload.
        bytes: Vec<u8>,
    },
    /// Seals and sends this RTCP compound.
    Rtcp(Vec<u8>),
    /// A viewer asks for a keyframe.
    AskKeyframe,
}

/// A light publisher.
#[derive(Debug)]
pub struct LightPublisher {
    /// What it counted.
    pub counts: Arc<Counts>,
    /// It was told that it took up a stream that had been interrupted.
    pub restored: bool,
    /// Its socket, when it came by WebSocket.
    pub socket: Option<AmsSocket>,
    /// Its resource, when it came by WHIP.
    pub resource: Option<String>,
    /// The answer to its offer, when it came by WHIP.
    pub answer: Option<Answer>,
    controls: mpsc::Sender<Control>,
    task: JoinHandle<()>,
}

/// A light viewer.
#[derive(Debug)]
pub struct LightViewer {
    /// What it counted.
    pub counts: Arc<Counts>,
    /// Its socket, when it came by WebSocket.
    pub socket: Option<AmsSocket>,
    /// Its resource, when it came by WHEP.
    pub resource: Option<String>,
    /// The answer to its offer, when it came by WHEP.
    pub answer: Option<Answer>,
    /// The node's offer or answer.
    pub description: String,
    controls: mpsc::Sender<Control>,
    task: JoinHandle<()>,
}

impl LightPublisher {
    /// Publishes over the WebSocket and waits for `publish_started`.
    ///
    /// # Errors
    /// It was refused, or did not start in time.
    pub async fn publish(websocket: &str, stream: &str) -> Result<Self> {
        Self::publish_with(websocket, stream, Habits::default()).await
    }

    /// As [`Self::publish`], with these habits.
    ///
    /// # Errors
    /// It was refused, or did not start in time.
    pub async fn publish_with(websocket: &str, stream: &str, habits: Habits) -> Result<Self> {
        let socket = AmsSocket::connect(websocket).await?;
        Self::publish_on(socket, stream, habits).await
    }

    /// Publishes on a socket that is there already.
    ///
    /// # Errors
    /// It was refused, or did not start in time.
    pub async fn publish_on(mut socket: AmsSocket, stream: &str, habits: Habits) -> Result<Self> {
        socket.send(json!({"command": "publish", "streamId": stream, "video": true, "audio": true})).await?;
        let first =
            socket.wait("start or an error", STEP, |m| m["command"] == "start" || m["command"] == "error").await?;
        ensure!(first["command"] == "start", "publish was refused: {first}");
        let (ice, identity) = (IceCredentials::random(), identity()?);
        let offer = match habits.only {
            Some(kind) => sdp::publish_offer_of(kind, &ice, identity.fingerprint()),
            None => sdp::publish_offer(&ice, identity.fingerprint()),
        };
        socket.send(json!({"command": "takeConfiguration", "streamId": stream, "type": "offer", "sdp": offer})).await?;
        let answer = socket.command("takeConfiguration", STEP).await?;
        let answer = NodeSdp::parse(answer["sdp"].as_str().context("answer without sdp")?)?;
        let Started { counts, controls, task } = start_publisher(ice, &answer, habits).await?;
        let mut publisher =
            Self { counts, restored: false, socket: None, resource: None, answer: None, controls, task };
        publisher.restored = started(&mut socket, "publish_started", "publish_finished").await?;
        publisher.socket = Some(socket);
        Ok(publisher)
    }

    /// Publishes over WHIP and waits until it is connected.
    ///
    /// # Errors
    /// It was refused, or did not connect in time.
    pub async fn whip(base: &str, app: &str, stream: &str) -> Result<Self> {
        let (ice, identity) = (IceCredentials::random(), identity()?);
        let offer = sdp::publish_offer(&ice, identity.fingerprint());
        let url = format!("{base}/{app}/whip/{stream}");
        let answer = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await?;
        ensure!(answer.status == 201, "WHIP answered {}: {}", answer.status, answer.body);
        let resource = format!("{base}{}", answer.header("location").context("no Location")?);
        let node = NodeSdp::parse(&answer.body)?;
        let Started { counts, controls, task } = start_publisher(ice, &node, Habits::default()).await?;
        let restored = false;
        let publisher =
            Self { counts, restored, socket: None, resource: Some(resource), answer: Some(answer), controls, task };
        wait_connected(&publisher.counts).await?;
        Ok(publisher)
    }

    /// The socket of one that came by WebSocket.
    ///
    /// # Errors
    /// It came by WHIP.
    pub fn socket(&mut self) -> Result<&mut AmsSocket> {
        self.socket.as_mut().context("this publisher has no socket")
    }

    /// Tells it something to do.
    pub fn control(&self, control: Control) {
        let _ = self.controls.try_send(control);
    }

    /// Stops sending at once and says nothing, as a machine that lost its network. Its socket stays open and dead.
    pub fn vanish(&self) {
        self.control(Control::Silent(true));
        self.socket.iter().for_each(AmsSocket::freeze);
    }
}

impl LightViewer {
    /// Plays over the WebSocket and waits for `play_started`.
    ///
    /// # Errors
    /// It was refused, or did not start in time.
    pub async fn play(websocket: &str, stream: &str) -> Result<Self> {
        Self::play_with(websocket, stream, Habits::default()).await
    }

    /// As [`Self::play`], with these habits.
    ///
    /// # Errors
    /// It was refused, or did not start in time.
    pub async fn play_with(websocket: &str, stream: &str, habits: Habits) -> Result<Self> {
        let socket = AmsSocket::connect(websocket).await?;
        Self::play_on(socket, stream, habits).await
    }

    /// Plays on a socket that is there already.
    ///
    /// # Errors
    /// It was refused, or did not start in time.
    pub async fn play_on(mut socket: AmsSocket, stream: &str, habits: Habits) -> Result<Self> {
        socket.send(json!({"command": "play", "streamId": stream, "token": "", "room": "", "trackList": []})).await?;
        let first = socket
            .wait("an offer or an error", STEP, |m| m["command"] == "takeConfiguration" || m["command"] == "error")
            .await?;
        ensure!(first["command"] == "takeConfiguration", "play was refused: {first}");
        let description = first["sdp"].as_str().context("offer without sdp")?.to_owned();
        let offer = NodeSdp::parse(&description)?;
        let (ice, identity) = (IceCredentials::random(), identity()?);
        let answer = sdp::play_answer(&offer, &ice, identity.fingerprint());
        socket
            .send(json!({"command": "takeConfiguration", "streamId": stream, "type": "answer", "sdp": answer}))
            .await?;
        let Started { counts, controls, task } = start_viewer(ice, &offer, habits).await?;
        let mut viewer = Self { counts, socket: None, resource: None, answer: None, description, controls, task };
        started(&mut socket, "play_started", "play_finished").await?;
        viewer.socket = Some(socket);
        Ok(viewer)
    }

    /// Plays over WHEP and waits until it is connected.
    ///
    /// # Errors
    /// It was refused, or did not connect in time.
    pub async fn whep(base: &str, app: &str, stream: &str) -> Result<Self> {
        Self::whep_with(base, app, stream, Habits::default()).await
    }

    /// As [`Self::whep`], with these habits.
    ///
    /// # Errors
    /// It was refused, or did not connect in time.
    pub async fn whep_with(base: &str, app: &str, stream: &str, habits: Habits) -> Result<Self> {
        let (ice, identity) = (IceCredentials::random(), identity()?);
        let offer = sdp::play_offer(&ice, identity.fingerprint());
        let url = format!("{base}/{app}/whep/{stream}");
        let answer = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await?;
        ensure!(answer.status == 201, "WHEP answered {}: {}", answer.status, answer.body);
        let resource = format!("{base}{}", answer.header("location").context("no Location")?);
        let node = NodeSdp::parse(&answer.body)?;
        let Started { counts, controls, task } = start_viewer(ice, &node, habits).await?;
        let viewer = Self {
            counts,
            socket: None,
            resource: Some(resource),
            description: answer.body.clone(),
            answer: Some(answer),
            controls,
            task,
        };
        wait_connected(&viewer.counts).await?;
        Ok(viewer)
    }

    /// Restarts ICE by PATCH with the entity tag in `tag`, and goes on with what the node answers.
    ///
    /// # Errors
    /// The node refused.
    pub async fn restart_ice(&self, tag: &str) -> Result<Answer> {
        let local = IceCredentials::random();
        let answer = patch(self.resource.as_deref().context("no resource")?, tag, &local).await?;
        ensure!(answer.status == 200, "the restart was answered {}: {}", answer.status, answer.body);
        let remote = sdp::credentials(&answer.body)?;
        self.control(Control::RestartIce { local, remote });
        Ok(answer)
    }

    /// The socket of one that came by WebSocket.
    ///
    /// # Errors
    /// It came by WHEP.
    pub fn socket(&mut self) -> Result<&mut AmsSocket> {
        self.socket.as_mut().context("this viewer has no socket")
    }

    /// Waits until its pictures went on with another publication this often.
    ///
    /// # Errors
    /// They did not within `limit`.
    pub async fn wait_takeovers(&self, times: u64, limit: Duration) -> Result<()> {
        eventually("the viewer goes on with another publication", limit, || async {
            (self.counts.get(|c| &c.takeovers) >= times).then_some(())
        })
        .await
    }

    /// Waits until at least this many more packets came, of whatever media.
    ///
    /// # Errors
    /// They did not within `limit`.
    pub async fn wait_packets(&self, more: u64, limit: Duration) -> Result<()> {
        let wanted = self.counts.get(|c| &c.received) + more;
        eventually("packets", limit, || async { (self.counts.get(|c| &c.received) >= wanted).then_some(()) }).await
    }

    /// Waits until at least this many more video packets came.
    ///
    /// # Errors
    /// They did not within `limit`.
    pub async fn wait_video(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.counts.get(|c| &c.video) + more;
        let what = format!("{more} more video packets");
        let waited = eventually(&what, limit, || async { (self.counts.get(|c| &c.video) >= goal).then_some(()) }).await;
        waited.with_context(|| format!("{:?}", self.counts))
    }

    /// As [`Self::wait_video`], of the audio.
    ///
    /// # Errors
    /// They did not within `limit`.
    pub async fn wait_audio(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.counts.get(|c| &c.audio) + more;
        let what = format!("{more} more audio packets");
        let waited = eventually(&what, limit, || async { (self.counts.get(|c| &c.audio) >= goal).then_some(()) }).await;
        waited.with_context(|| format!("{:?}", self.counts))
    }

    /// Tells it something to do.
    pub fn control(&self, control: Control) {
        let _ = self.controls.try_send(control);
    }

    /// Stops at once and says nothing, as a machine that lost its network. Its socket stays open and dead.
    pub fn vanish(&self) {
        self.control(Control::Silent(true));
        self.socket.iter().for_each(AmsSocket::freeze);
    }
}

impl Drop for LightPublisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for LightViewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The certificate fingerprint of every light peer of this process.
///
/// # Errors
/// There is no certificate.
pub fn fingerprint() -> Result<ams_rtc::dtls::Fingerprint> {
    Ok(identity()?.fingerprint().clone())
}

/// PATCHes an ICE restart to a resource, with or without (empty) an entity tag.
///
/// # Errors
/// No answer came.
pub async fn patch(resource: &str, tag: &str, local: &IceCredentials) -> Result<Answer> {
    let fragment = sdp::restart_fragment(local);
    let mut headers = vec![("content-type", "application/trickle-ice-sdpfrag")];
    if !tag.is_empty() {
        headers.push(("if-match", tag));
    }
    http::send("PATCH", resource, &headers, fragment).await
}

async fn start_publisher(ice: IceCredentials, node: &NodeSdp, habits: Habits) -> Result<Started> {
    peer::start(ice, node, Part::Publisher(Box::new(MediaSource::new())), habits).await
}

async fn start_viewer(ice: IceCredentials, node: &NodeSdp, habits: Habits) -> Result<Started> {
    peer::start(ice, node, Part::Viewer(Box::new(MediaCheck::new(node))), habits).await
}

/// Waits for the word that it has begun; fails at once if it is over instead.
/// Returns whether it took up what had been interrupted.
async fn started(socket: &mut AmsSocket, begun: &str, over: &str) -> Result<bool> {
    const RESTORED: &str = "session_restored";
    // The end of what was stopped before came before the description did, and was looked at.
    let decides =
        |m: &Value| [begun, over, RESTORED].iter().any(|word| m["definition"] == *word) || m["command"] == "error";
    let word = socket.wait_new(begun, STEP, decides).await?;
    ensure!(word["definition"] == begun || word["definition"] == RESTORED, "instead of {begun}: {word}");
    Ok(word["definition"] == RESTORED)
}

async fn wait_connected(counts: &Counts) -> Result<()> {
    eventually("the peer connects", STEP, || async { counts.connected.load(Ordering::Relaxed).then_some(()) }).await
}
