//! A network that delays, loses, cuts and partitions, by the seed.
//!
//! Owns connections between simulated hosts. As TCP does, it keeps bytes in order and holds them through a cut; as a machine
//! without power does, a silent host says nothing at its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant as StdInstant};

use ams_relay::RelayError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};

/// Bytes on their way in one direction, beyond which the sender waits.
const WINDOW_LEN: usize = 256 * 1024;
/// How often a sender tries again behind a cut or after a loss.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// Connections that wait to be accepted.
const ACCEPT_BACKLOG: usize = 64;

/// What the network is like.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest way of one segment.
    pub delay: Duration,
    /// How much longer it may take.
    pub jitter: Duration,
    /// Of a thousand segments, so many are lost and sent again.
    pub loss_per_mille: u32,
}

impl Default for Weather {
    fn default() -> Self {
        Self { delay: Duration::from_micros(300), jitter: Duration::from_millis(2), loss_per_mille: 0 }
    }
}

struct State {
    chance: StdRng,
    weather: Weather,
    listeners: BTreeMap<(IpAddr, u16), mpsc::Sender<Pipe>>,
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    silent: BTreeSet<IpAddr>,
    next_port: u16,
}

/// The whole network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

fn pair(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    if a < b { (a, b) } else { (b, a) }
}

impl Network {
    /// A network without hosts.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance: StdRng::seed_from_u64(seed),
            weather: Weather::default(),
            listeners: BTreeMap::new(),
            cuts: BTreeSet::new(),
            silent: BTreeSet::new(),
            next_port: 20_000,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host's way into the network.
    pub fn place(&self, host: IpAddr) -> Place {
        Place { network: self.clone(), host }
    }

    /// Sets what it is like from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Nothing passes between two hosts.
    pub fn cut(&self, a: IpAddr, b: IpAddr) {
        self.state().cuts.insert(pair(a, b));
    }

    /// It passes again.
    pub fn mend(&self, a: IpAddr, b: IpAddr) {
        self.state().cuts.remove(&pair(a, b));
    }

    /// Whether nothing passes between two hosts.
    pub fn is_cut(&self, a: IpAddr, b: IpAddr) -> bool {
        let state = self.state();
        state.cuts.contains(&pair(a, b)) || state.silent.contains(&a) || state.silent.contains(&b)
    }

    /// A host vanishes: connections are not even closed.
    pub fn silence(&self, host: IpAddr) {
        self.state().silent.insert(host);
    }

    /// It is there again; what was connected to it before is not.
    pub fn revive(&self, host: IpAddr) {
        self.state().silent.remove(&host);
    }

    /// Opens a door. It is closed when the listener is dropped.
    pub fn listen(&self, host: IpAddr, port: u16) -> SimListener {
        let (sender, pipes) = mpsc::channel(ACCEPT_BACKLOG);
        self.state().listeners.insert((host, port), sender);
        SimListener { pipes }
    }

    /// When a segment that is sent now arrives.
    fn arrival(&self) -> Instant {
        let mut state = self.state();
        let weather = state.weather;
        let mut way = weather.delay + weather.jitter.mul_f64(state.chance.random::<f64>());
        while state.chance.random_range(0..1000) < weather.loss_per_mille {
            way += RETRANSMIT;
        }
        Instant::now() + way
    }
}

/// A host's way into the network.
#[derive(Clone, Debug)]
pub struct Place {
    network: Network,
    host: IpAddr,
}

impl Place {
    /// Dials another host.
    pub async fn connect(&self, host: &str, port: u16, deadline: StdInstant) -> Result<(SocketAddr, Pipe), RelayError> {
        let to: IpAddr = host.parse().map_err(|_| RelayError::Resolve {
            host: host.to_owned(),
            cause: io::Error::new(io::ErrorKind::NotFound, "no such host"),
        })?;
        let addr = SocketAddr::new(to, port);
        let connect = |kind: io::ErrorKind| RelayError::Connect { addr, cause: kind.into() };
        let reach = async {
            sleep_until(self.network.arrival()).await;
            while self.network.is_cut(self.host, to) {
                sleep(RETRANSMIT).await;
            }
            let (near, far) = self.network.pipe(self.host, addr);
            let door = self.network.state().listeners.get(&(to, port)).cloned();
            let taken = door.is_some_and(|door| door.try_send(far).is_ok());
            sleep_until(self.network.arrival()).await;
            if taken { Ok(near) } else { Err(connect(io::ErrorKind::ConnectionRefused)) }
        };
        match timeout_at(deadline.into(), reach).await {
            Ok(reached) => reached.map(|pipe| (addr, pipe)),
            Err(_) => Err(connect(io::ErrorKind::TimedOut)),
        }
    }
}

/// Where connections to a host come in.
#[derive(Debug)]
pub struct SimListener {
    pipes: mpsc::Receiver<Pipe>,
}

impl SimListener {
    /// Waits for one.
    pub async fn accept(&mut self) -> Pipe {
        match self.pipes.recv().await {
            Some(pipe) => pipe,
            // Another took the address over: a restarted node.
            None => std::future::pending().await,
        }
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Half {
    segments: VecDeque<(Instant, Vec<u8>)>,
    len: usize,
    last_arrival: Option<Instant>,
    /// When the end of it arrives.
    fin: Option<Instant>,
    /// The reader is gone.
    abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

type Shared = Arc<Mutex<Half>>;

fn lock(half: &Shared) -> MutexGuard<'_, Half> {
    half.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One end of a connection.
pub struct Pipe {
    network: Network,
    host: IpAddr,
    remote: SocketAddr,
    incoming: Shared,
    outgoing: Shared,
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipe({} to {})", self.host, self.remote)
    }
}

impl Network {
    fn pipe(&self, from: IpAddr, to: SocketAddr) -> (Pipe, Pipe) {
        let port = {
            let mut state = self.state();
            state.next_port = state.next_port.wrapping_add(1).max(20_000);
            state.next_port
        };
        let (a, b) = (Shared::default(), Shared::default());
        let end = |host, remote, incoming: &Shared, outgoing: &Shared| Pipe {
            network: self.clone(),
            host,
            remote,
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            timer: None,
        };
        (end(from, to, &a, &b), end(to.ip(), SocketAddr::new(from, port), &b, &a))
    }
}

impl Pipe {
    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn wait_until(&mut self, at: Instant, cx: &mut Context<'_>) {
        let mut timer = Box::pin(sleep_until(at));
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.timer = Some(timer);
    }

    fn finish(&self) {
        if self.network.state().silent.contains(&self.host) {
            return;
        }
        let mut half = lock(&self.outgoing);
        if half.fin.is_none() {
            let arrival = self.network.arrival();
            half.fin = Some(half.last_arrival.map_or(arrival, |last| last.max(arrival)));
        }
        if let Some(reader) = half.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.finish();
        if !self.network.state().silent.contains(&self.host) {
            let mut half = lock(&self.incoming);
            half.abandoned = true;
            if let Some(writer) = half.writer.take() {
                writer.wake();
            }
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pipe = self.get_mut();
        let now = Instant::now();
        let is_cut = pipe.network.is_cut(pipe.host, pipe.remote.ip());
        let due = {
            let mut half = lock(&pipe.incoming);
            let next = half.segments.front().map(|(at, _)| *at).or(half.fin);
            match next {
                Some(at) if at <= now && !is_cut => {
                    while let Some((at, bytes)) = half.segments.front_mut() {
                        if *at > now || buf.remaining() == 0 {
                            break;
                        }
                        let take = bytes.len().min(buf.remaining());
                        buf.put_slice(&bytes[..take]);
                        if take == bytes.len() {
                            half.segments.pop_front();
                        } else {
                            bytes.drain(..take);
                        }
                        half.len -= take;
                    }
                    if let Some(writer) = half.writer.take() {
                        writer.wake();
                    }
                    return Poll::Ready(Ok(()));
                }
                next => {
                    half.reader = Some(cx.waker().clone());
                    next
                }
            }
        };
        if let Some(at) = due {
            pipe.wait_until(if at <= now { now + RETRANSMIT } else { at }, cx);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let pipe = self.get_mut();
        let arrival = pipe.network.arrival();
        let mut half = lock(&pipe.outgoing);
        if half.abandoned || half.fin.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let take = buf.len().min(WINDOW_LEN.saturating_sub(half.len));
        if take == 0 && !buf.is_empty() {
            half.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let arrival = half.last_arrival.map_or(arrival, |last| last.max(arrival));
        half.segments.push_back((arrival, buf[..take].to_vec()));
        half.len += take;
        half.last_arrival = Some(arrival);
        if let Some(reader) = half.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(take))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
