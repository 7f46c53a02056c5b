//! Media shards: the threads that carry media.
//!
//! Owns each shard's thread, runtime and tasks. The work itself is in [`core`], a plain value that the tasks borrow one
//! at a time: datagrams, commands, what other shards send, ticks, and two tasks per relay link. Between reading and
//! sending datagrams nothing awaits.

pub mod core;
mod fan_out;
mod frames;
pub mod histogram;
mod links;
pub mod messages;
pub mod protocol;
mod punctuality;
mod replicas;
#[cfg(test)]
pub mod simulated;
mod sinks;
mod sources;
mod stream;
#[cfg(test)]
mod tests;
mod viewers;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use ams_relay::{Connected, ConnectedStd, LinkReader, LinkWriter, RelayConfig, write_loop};
use ams_rtc::dtls::DtlsIdentity;
use ams_rtc::udp::{ReceiveBuffer, SendOutcome, UdpBindError, UdpShard};
use ams_types::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinError, LocalSet};

use self::core::{PUMPS_PER_TICK, ShardCore};
use crate::clock;
use crate::net::Parked;
use fan_out::PUMP;
use links::{LinkOut, Links};
use messages::Distribution;
use protocol::{LinkId, LinkSetup, LinkSide, ShardCommand, ShardEvent, ShardMedia, ShardNo};
use punctuality::Punctuality;
use sinks::Socket;

/// Commands waiting for one shard; senders wait beyond.
const COMMANDS_MAX: usize = 1024;
/// Media of other shards waiting for one shard, in turns; dropped beyond.
const MEDIA_MAX: usize = 4096;
/// Batches of datagrams read before other tasks get a turn.
const BATCHES_PER_TURN: usize = 4;
/// Frames of one link handled before the shard flushes and other tasks get a turn.
const FRAMES_PER_TURN: usize = 256;
/// Commands taken at once.
const COMMANDS_PER_TURN: usize = 64;

/// The control runtime's end of a shard.
#[derive(Debug)]
pub struct ShardHandle {
    /// What it is to do.
    pub commands: mpsc::Sender<ShardCommand>,
    /// The UDP port of its peers.
    pub udp_port: u16,
    /// Whether its socket takes IPv6.
    pub ipv6: bool,
    /// Its thread's runtime, for figures.
    pub runtime: tokio::runtime::Handle,
    /// How often its viewers get their packets late.
    pub punctuality: Arc<Punctuality>,
}

/// The threads of a node's shards; ended by [`Threads::stop`].
#[derive(Debug)]
pub struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Stops the shards and waits for their threads.
    pub async fn stop(self, shards: &[ShardHandle]) {
        for shard in shards {
            let (done, stopped) = oneshot::channel();
            if shard.commands.send(ShardCommand::Stop(done)).await.is_ok() {
                let _ = stopped.await;
            }
        }
        for thread in self.0 {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// What every shard of a node is made with.
#[derive(Clone)]
pub struct ShardConfig {
    /// Ports of which each shard takes the first free one.
    pub udp_ports: RangeInclusive<u16>,
    /// The node's certificate.
    pub identity: Arc<DtlsIdentity>,
    /// Relay links' limits.
    pub relay: RelayConfig,
    /// The node's name.
    pub node: NodeId,
    /// Who gets what viewers say on their data channels.
    pub distribution: Distribution,
}

/// Starts `count` shards. When one ends by a panic, `died` is told.
///
/// # Errors
/// No UDP port, or no thread. Shards that started already end when their handles are dropped.
pub fn start(
    count: usize,
    config: &ShardConfig,
    events: &mpsc::Sender<ShardEvent>,
    died: &mpsc::Sender<ShardNo>,
) -> Result<(Vec<ShardHandle>, Threads), UdpBindError> {
    let rings: Vec<_> = (0..count).map(|_| mpsc::channel::<ShardMedia>(MEDIA_MAX)).collect();
    let senders: Vec<_> = rings.iter().map(|(sender, _)| sender.clone()).collect();
    let mut shards = Vec::with_capacity(count);
    let mut threads = Vec::with_capacity(count);
    for (at, (_, media)) in rings.into_iter().enumerate() {
        let no = ShardNo(at as u16);
        let siblings = senders.iter().enumerate().map(|(n, s)| (n != at).then(|| s.clone())).collect();
        let (shard, thread) = start_one(no, config.clone(), siblings, media, events.clone(), died.clone())?;
        shards.push(shard);
        threads.push(thread);
    }
    Ok((shards, Threads(threads)))
}

fn start_one(
    no: ShardNo,
    config: ShardConfig,
    siblings: Vec<Option<mpsc::Sender<ShardMedia>>>,
    media: mpsc::Receiver<ShardMedia>,
    events: mpsc::Sender<ShardEvent>,
    died: mpsc::Sender<ShardNo>,
) -> Result<(ShardHandle, JoinHandle<()>), UdpBindError> {
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (bound, answer) = std::sync::mpsc::sync_channel(1);
    let no_thread = |cause| UdpBindError::Io { port: 0, cause };
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", no.0))
        .spawn(move || {
            let run = AssertUnwindSafe(|| thread_main(config, siblings, media, events, inbox, &bound));
            if std::panic::catch_unwind(run).is_err() {
                let _ = died.blocking_send(no);
            }
        })
        .map_err(no_thread)?;
    let gone = || no_thread(std::io::Error::other("the shard's thread ended at once"));
    let Running { udp_port, ipv6, runtime, punctuality } = answer.recv().map_err(|_| gone())??;
    Ok((ShardHandle { commands, udp_port, ipv6, runtime, punctuality }, thread))
}

/// What a shard's thread says of itself when it runs.
struct Running {
    udp_port: u16,
    ipv6: bool,
    runtime: tokio::runtime::Handle,
    punctuality: Arc<Punctuality>,
}

type Bound = Result<Running, UdpBindError>;

fn thread_main(
    config: ShardConfig,
    siblings: Vec<Option<mpsc::Sender<ShardMedia>>>,
    media: mpsc::Receiver<ShardMedia>,
    events: mpsc::Sender<ShardEvent>,
    inbox: mpsc::Receiver<ShardCommand>,
    bound: &std::sync::mpsc::SyncSender<Bound>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            let _ = bound.send(Err(UdpBindError::Io { port: 0, cause }));
            return;
        }
    };
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let socket = match UdpShard::bind(config.udp_ports.clone()) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                let _ = bound.send(Err(error));
                return;
            }
        };
        let links = Links::new(config.relay, config.node);
        let core = ShardCore::new(config.identity, Rc::clone(&socket) as Rc<dyn Socket>, siblings, events, links);
        let _ = bound.send(Ok(Running {
            udp_port: socket.port(),
            ipv6: socket.has_ipv6(),
            runtime: tokio::runtime::Handle::current(),
            punctuality: Arc::clone(&core.punctuality),
        }));
        let core = Rc::new(RefCell::new(core));
        core.borrow_mut().set_distribution(config.distribution);
        // The shard ends when its commands do; the other tasks end with the runtime.
        let wake = Rc::new(Notify::new());
        let datagrams = tokio::task::spawn_local(read_datagrams(Rc::clone(&core), socket, Rc::clone(&wake)));
        let siblings = tokio::task::spawn_local(read_siblings(Rc::clone(&core), media, Rc::clone(&wake)));
        let held = tokio::task::spawn_local(release_held(Rc::clone(&core), Rc::clone(&wake)));
        let ticks = tokio::task::spawn_local(tick(Rc::clone(&core)));
        tokio::select! {
            () = obey(core, inbox, wake) => {}
            Err(error) = held => panic_again(error),
            Err(error) = datagrams => panic_again(error),
            Err(error) = siblings => panic_again(error),
            Err(error) = ticks => panic_again(error),
        }
    });
}

/// The runtime catches a task's panic. A shard without one of its tasks would be half dead: it ends as a whole.
fn panic_again(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}

impl Socket for UdpShard {
    fn send(&self, to: SocketAddr, from: Option<IpAddr>, contents: &[u8], segment: Option<usize>) -> bool {
        matches!(UdpShard::send(self, to, from, contents, segment), SendOutcome::Sent)
    }

    fn segments_max(&self) -> usize {
        UdpShard::segments_max(self)
    }
}

async fn read_datagrams(core: Rc<RefCell<ShardCore>>, socket: Rc<UdpShard>, wake: Rc<Notify>) {
    let mut buffer = ReceiveBuffer::new();
    while socket.readable().await.is_ok() {
        for _ in 0..BATCHES_PER_TURN {
            let now = clock::now();
            let mut core = core.borrow_mut();
            let read = socket.recv_batch(&mut buffer, |meta, datagram| {
                core.datagram(now, meta.from, meta.local_ip, datagram);
            });
            flush(&mut core, now, &wake);
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "reading UDP failed");
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn read_siblings(core: Rc<RefCell<ShardCore>>, mut media: mpsc::Receiver<ShardMedia>, wake: Rc<Notify>) {
    let mut batch = Vec::with_capacity(COMMANDS_PER_TURN);
    while media.recv_many(&mut batch, COMMANDS_PER_TURN).await > 0 {
        let now = clock::now();
        let mut core = core.borrow_mut();
        for item in batch.drain(..) {
            core.sibling(now, item);
        }
        flush(&mut core, now, &wake);
    }
}

async fn tick(core: Rc<RefCell<ShardCore>>) {
    let mut interval = tokio::time::interval(PUMP);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        for _ in 0..PUMPS_PER_TICK {
            interval.tick().await;
            core.borrow_mut().pump(clock::now());
        }
        core.borrow_mut().tick(clock::now());
    }
}

async fn obey(core: Rc<RefCell<ShardCore>>, mut inbox: mpsc::Receiver<ShardCommand>, wake: Rc<Notify>) {
    let mut links = tokio::task::JoinSet::new();
    let mut batch = Vec::with_capacity(COMMANDS_PER_TURN);
    loop {
        tokio::select! {
            got = inbox.recv_many(&mut batch, COMMANDS_PER_TURN) => if got == 0 { break },
            Some(ended) = links.join_next() => {
                ended.unwrap_or_else(panic_again);
                continue;
            }
        }
        for command in batch.drain(..) {
            let now = clock::now();
            match command {
                ShardCommand::AddLink(setup) => {
                    // Taken in before its task runs: the next command may be for this link.
                    let remote = setup.stream.remote();
                    let out = core.borrow_mut().links.add(now, setup.link, setup.side, remote);
                    links.spawn_local(run_link(Rc::clone(&core), *setup, remote, out, Rc::clone(&wake)));
                }
                ShardCommand::Stop(done) => {
                    core.borrow_mut().stop(now);
                    let drained = async { while links.join_next().await.is_some() {} };
                    let _ = tokio::time::timeout(STOP_LINGER, drained).await;
                    let _ = done.send(());
                    return;
                }
                command => core.borrow_mut().command(now, command),
            }
        }
        flush(&mut core.borrow_mut(), clock::now(), &wake);
    }
}

/// Hands on what was taken in, and wakes who sees to what is held.
fn flush(core: &mut ShardCore, now: Instant, wake: &Notify) {
    let slept = core.hold_due().is_none();
    let oldest = core.flush(now);
    if oldest.is_some() {
        core.flushed(now, oldest, clock::now());
    }
    if slept && core.hold_due().is_some() {
        wake.notify_one();
    }
}

/// Sees that what is held for viewers goes out in time.
async fn release_held(core: Rc<RefCell<ShardCore>>, wake: Rc<Notify>) {
    loop {
        let due = core.borrow().hold_due();
        match due {
            None => wake.notified().await,
            Some(due) => {
                tokio::time::sleep_until(due.into()).await;
                flush(&mut core.borrow_mut(), clock::now(), &wake);
            }
        }
    }
}

/// Longest wait for links to write their last frames.
const STOP_LINGER: std::time::Duration = std::time::Duration::from_millis(500);

/// One relay link, from its arrival on this shard to its end.
async fn run_link(core: Rc<RefCell<ShardCore>>, setup: LinkSetup, remote: SocketAddr, out: LinkOut, wake: Rc<Notify>) {
    let LinkSetup { link, side, stream, peer, leftover } = setup;
    let ended = match stream {
        Parked::Tcp(stream) => match Connected::from_std(ConnectedStd { stream, peer, leftover }) {
            Ok(connected) => {
                let (_, reader, writer) = connected.split();
                carry(&core, link, reader, writer, &out, &wake).await
            }
            Err(error) => error.to_string(),
        },
        #[cfg(test)]
        Parked::Simulated(pipe) => {
            let (read, write) = tokio::io::split(pipe);
            carry(&core, link, LinkReader::new(read, leftover), LinkWriter::new(write), &out, &wake).await
        }
    };
    link_ended(&core, link, side, remote, ended);
}

/// Reads and writes a link until it ends. Returns why it did.
async fn carry<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    core: &Rc<RefCell<ShardCore>>,
    link: LinkId,
    mut reader: LinkReader<R>,
    mut writer: LinkWriter<W>,
    out: &LinkOut,
    wake: &Notify,
) -> String {
    tokio::select! {
        read = read_frames(core, link, &mut reader, wake) => read,
        written = write_loop(&mut writer, Rc::clone(&out.queue), Rc::clone(&out.wake), clock::now) => {
            written.err().map_or_else(|| "closed by this node".to_owned(), |e| e.to_string())
        }
        reason = out.end.ordered() => reason,
    }
}

fn link_ended(core: &Rc<RefCell<ShardCore>>, link: LinkId, side: LinkSide, remote: SocketAddr, sentence: String) {
    let now = clock::now();
    let mut core = core.borrow_mut();
    core.drop_link(now, link);
    core.emit(ShardEvent::LinkDown { link, side, remote, sentence });
    core.flush(now);
}

async fn read_frames<R: AsyncRead + Unpin>(
    core: &Rc<RefCell<ShardCore>>,
    link: LinkId,
    reader: &mut LinkReader<R>,
    wake: &Notify,
) -> String {
    loop {
        let mut handled = 0;
        {
            let now = clock::now();
            let mut core = core.borrow_mut();
            while handled < FRAMES_PER_TURN {
                match reader.next_frame() {
                    Some(Ok(frame)) => {
                        handled += 1;
                        if let Err(sentence) = core.frame(now, link, frame) {
                            return sentence;
                        }
                    }
                    Some(Err(error)) => return error.to_string(),
                    None => break,
                }
            }
            if handled > 0 {
                flush(&mut core, now, wake);
            }
        }
        if handled == FRAMES_PER_TURN {
            tokio::task::yield_now().await;
            continue;
        }
        match reader.read_batch().await {
            Ok(0) => return "closed by the other end".to_owned(),
            // Any byte is a sign of life, also of a frame that is not whole yet.
            Ok(_) => core.borrow_mut().links.heard(clock::now(), link),
            Err(error) => return error.to_string(),
        }
    }
}
