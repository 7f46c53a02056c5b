//! Performs what a session machine asks for, against the node.
//!
//! Owns the names of the sessions of one socket and everything in flight for them; never the socket. All futures are
//! polled by the socket's own task: when it is done, so are they.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ams_signal::{Ask, CloseCode, Effect, Event, Leg, Output, Session};
use ams_types::{AppName, StreamId, StreamKey};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{broadcast, mpsc};
use tracing::{debug, info};

use super::translate::{end_of, play_request, publish_request, refusal_of, rendition_of, shown_broadcast};
use crate::port::{
    Answer, Caller, EndReason, Node, Offer, Opened, Refusal, Rendition, SessionEvent, SessionId, WaitGuard,
};
use crate::refusals::Refusals;
use crate::state::ApiState;

/// What the socket is to do.
pub(super) enum Step {
    Send(String),
    Close(CloseCode, &'static str),
}

/// A leg of the machine as the node knows it.
struct Held {
    stream: StreamId,
    state: State,
}

enum State {
    /// The node was asked; `close` when the answer is not wanted any more.
    Opening {
        close: bool,
    },
    Open(SessionId),
}

/// Something the node was asked is answered.
enum Done {
    PublisherOpened(Leg, Result<Opened<()>, Refusal>),
    ViewerOpened(Leg, Result<Opened<Offer>, Refusal>),
    PublisherAnswered(Leg, Result<Answer, Refusal>),
    ViewerAnswered(Leg, Result<(), Refusal>),
    Closed(Leg),
    Steered,
    Renditions(StreamId, Ask, Result<Vec<Rendition>, Refusal>),
    /// The record as JSON text.
    Broadcast(StreamId, Result<Option<String>, Refusal>),
    /// A stream somebody waits for turned out to be live.
    Rechecked(StreamId, bool),
}

type Report = (Leg, Option<SessionEvent>, mpsc::Receiver<SessionEvent>);

pub(super) struct Driver {
    node: Arc<dyn Node>,
    app: AppName,
    caller: Caller,
    session: Session,
    legs: HashMap<Leg, Held>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    reports: FuturesUnordered<BoxFuture<'static, Report>>,
    waits: HashMap<StreamId, Box<dyn WaitGuard>>,
    /// Subscribed while something is waited for.
    starts: Option<broadcast::Receiver<StreamKey>>,
    stop_announced: bool,
    refusals: Arc<Refusals>,
}

impl Driver {
    pub(super) fn new(state: &ApiState, app: AppName, caller: Caller) -> Self {
        let session = Session::new(state.config.signal_limits(), state.config.signal_ice_server(), Instant::now());
        Self {
            node: Arc::clone(&state.node),
            app,
            caller,
            session,
            legs: HashMap::new(),
            work: FuturesUnordered::new(),
            reports: FuturesUnordered::new(),
            waits: HashMap::new(),
            starts: None,
            stop_announced: false,
            refusals: Arc::clone(&state.refusals),
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        self.session.handle(Instant::now(), text);
    }

    pub(super) fn touch(&mut self) {
        self.session.touch(Instant::now());
    }

    pub(super) fn timeout(&mut self) {
        self.session.handle_timeout(Instant::now());
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    pub(super) fn stop_announced(&self) -> bool {
        self.stop_announced
    }

    pub(super) fn announce_stop(&mut self) {
        self.stop_announced = true;
        self.event(Event::NodeStopping);
    }

    /// The next thing for the socket; effects on the way are set going.
    pub(super) fn poll(&mut self) -> Option<Step> {
        loop {
            match self.session.poll_output()? {
                Output::Send(text) => return Some(Step::Send(text)),
                Output::Close { code, reason } => return Some(Step::Close(code, reason)),
                Output::Effect(effect) => self.perform(effect),
            }
        }
    }

    /// Waits for one answer or report of the node and hands it to the machine. Cancel-safe: whatever is not taken
    /// stays in its queue.
    pub(super) async fn advance(&mut self) {
        tokio::select! {
            Some(done) = self.work.next() => self.done(done),
            Some(report) = self.reports.next() => self.report(report),
            start = next_start(&mut self.starts) => self.start(start),
            else => std::future::pending().await,
        }
    }

    /// Ends everything the socket had open, also what is only just opening.
    pub(super) async fn release(mut self) {
        self.reports.clear();
        self.waits.clear();
        let legs: Vec<Leg> = self.legs.keys().copied().collect();
        for leg in legs {
            self.close_for(leg, EndReason::Gone);
        }
        while let Some(done) = self.work.next().await {
            let late = match done {
                Done::PublisherOpened(leg, result) => result.ok().map(|opened| (leg, opened.session)),
                Done::ViewerOpened(leg, result) => result.ok().map(|opened| (leg, opened.session)),
                _ => None,
            };
            if let Some((leg, session)) = late {
                self.close_session(leg, session, EndReason::Gone);
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.session.handle_event(Instant::now(), event);
    }

    fn key(&self, stream: &StreamId) -> StreamKey {
        StreamKey::new(self.app.clone(), stream.clone())
    }

    /// Sets a question to the node going.
    fn ask<F>(&mut self, ask: impl FnOnce(Arc<dyn Node>) -> F)
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let future = ask(Arc::clone(&self.node));
        self.work.push(Box::pin(future));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::OpenPublisher { leg, wish } => {
                self.hold(leg, &wish.stream);
                let request = publish_request(self.key(&wish.stream), self.caller.clone(), wish);
                self.ask(|node| async move { Done::PublisherOpened(leg, node.open_publisher(request).await) });
            }
            Effect::OpenViewer { leg, wish } => {
                self.hold(leg, &wish.stream);
                let request = play_request(self.key(&wish.stream), self.caller.clone(), wish);
                self.ask(|node| async move { Done::ViewerOpened(leg, node.open_viewer(request).await) });
            }
            Effect::PublisherOffer { leg, sdp } => match self.session_of(leg) {
                Some(id) => {
                    self.ask(|node| async move { Done::PublisherAnswered(leg, node.publisher_offer(&id, sdp).await) })
                }
                None => self.event(Event::Refused { leg, refusal: ams_signal::Refusal::Gone }),
            },
            Effect::ViewerAnswer { leg, sdp } => match self.session_of(leg) {
                Some(id) => {
                    self.ask(|node| async move { Done::ViewerAnswered(leg, node.viewer_answer(&id, sdp).await) });
                }
                None => self.event(Event::Refused { leg, refusal: ams_signal::Refusal::Gone }),
            },
            Effect::Steer { leg, steer } => {
                if let Some(id) = self.session_of(leg) {
                    self.ask(|node| async move {
                        node.steer(&id, steer).await;
                        Done::Steered
                    });
                }
            }
            Effect::RemoteCandidate { leg, candidate } => {
                if let Some(id) = self.session_of(leg) {
                    self.node.remote_candidate(&id, &candidate);
                }
            }
            Effect::Close { leg } => self.close(leg),
            Effect::Get { stream, ask: Ask::Broadcast } => {
                let key = self.key(&stream);
                self.ask(|node| async move {
                    let record = node.broadcast(&key).await;
                    Done::Broadcast(stream, record.map(|found| found.map(|record| shown_broadcast(&record, now_ms()))))
                });
            }
            Effect::Get { stream, ask } => {
                let key = self.key(&stream);
                self.ask(|node| async move { Done::Renditions(stream, ask, node.renditions(&key).await) });
            }
            Effect::WaitFor { stream } => {
                // Listen first: nothing that starts after this line is missed.
                self.starts.get_or_insert_with(|| self.node.starts());
                let guard = self.node.wait_for(&self.key(&stream));
                self.waits.insert(stream, guard);
            }
            Effect::StopWaiting { stream } => {
                self.waits.remove(&stream);
                if self.waits.is_empty() {
                    self.starts = None;
                }
            }
        }
    }

    fn hold(&mut self, leg: Leg, stream: &StreamId) {
        self.legs.insert(leg, Held { stream: stream.clone(), state: State::Opening { close: false } });
    }

    fn session_of(&self, leg: Leg) -> Option<SessionId> {
        match &self.legs.get(&leg)?.state {
            State::Open(id) => Some(id.clone()),
            State::Opening { .. } => None,
        }
    }

    fn close(&mut self, leg: Leg) {
        self.close_for(leg, EndReason::ByRequest);
    }

    fn close_for(&mut self, leg: Leg, reason: EndReason) {
        match self.legs.remove(&leg) {
            Some(Held { state: State::Open(id), .. }) => self.close_session(leg, id, reason),
            Some(Held { state: State::Opening { .. }, stream }) => {
                self.legs.insert(leg, Held { stream, state: State::Opening { close: true } });
            }
            None => self.event(Event::Closed { leg }),
        }
    }

    fn close_session(&mut self, leg: Leg, id: SessionId, reason: EndReason) {
        self.ask(|node| async move {
            node.close(&id, reason).await;
            Done::Closed(leg)
        });
    }

    /// Takes in an opened session; `None` if it was closed meanwhile or refused, and the machine knows.
    fn opened<T>(&mut self, leg: Leg, result: Result<Opened<T>, Refusal>) -> Option<T> {
        let held = self.legs.remove(&leg).filter(|held| matches!(held.state, State::Opening { close: false }));
        match (result, held) {
            (Ok(opened), Some(Held { stream, .. })) => {
                info!(%stream, session = %opened.session.0, "socket session opened");
                self.legs.insert(leg, Held { stream, state: State::Open(opened.session) });
                self.listen(leg, opened.events);
                return Some(opened.value);
            }
            (Ok(opened), None) => self.close_session(leg, opened.session, EndReason::ByRequest),
            (Err(refusal), Some(Held { stream, .. })) => {
                debug!(%stream, %refusal, "socket session refused");
                self.event(Event::Refused { leg, refusal: refusal_of(&refusal) });
            }
            (Err(_), None) => self.event(Event::Closed { leg }),
        }
        None
    }

    fn listen(&mut self, leg: Leg, mut events: mpsc::Receiver<SessionEvent>) {
        self.reports.push(Box::pin(async move { (leg, events.recv().await, events) }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::PublisherOpened(leg, result) => {
                if self.opened(leg, result).is_some() {
                    self.event(Event::PublisherOpened { leg });
                }
            }
            Done::ViewerOpened(leg, result) => {
                if let Some(Offer { sdp, id_mapping }) = self.opened(leg, result) {
                    self.event(Event::ViewerOffer { leg, sdp, id_mapping });
                }
            }
            Done::PublisherAnswered(leg, Ok(answer)) => {
                self.event(Event::PublisherAnswer { leg, sdp: answer.sdp });
            }
            Done::ViewerAnswered(_, Ok(())) => {}
            Done::PublisherAnswered(leg, Err(refusal)) | Done::ViewerAnswered(leg, Err(refusal)) => {
                debug!(leg = leg.0, %refusal, "session description refused");
                if matches!(refusal, Refusal::BadDescription(_)) {
                    self.refusals.description();
                }
                self.event(Event::Refused { leg, refusal: refusal_of(&refusal) });
            }
            Done::Closed(leg) => self.event(Event::Closed { leg }),
            Done::Steered => {}
            Done::Renditions(stream, ask, result) => {
                let result = result.map(|all| all.into_iter().map(rendition_of).collect());
                self.event(Event::Renditions { stream, ask, result: result.map_err(|refusal| refusal_of(&refusal)) });
            }
            Done::Broadcast(stream, result) => {
                self.event(Event::Broadcast { stream, result: result.map_err(|refusal| refusal_of(&refusal)) });
            }
            Done::Rechecked(stream, true) => self.event(Event::StreamStarted { stream }),
            Done::Rechecked(_, false) => {}
        }
    }

    fn report(&mut self, (leg, event, events): Report) {
        if self.session_of(leg).is_none() {
            return;
        }
        match event {
            Some(SessionEvent::Started { restored }) => {
                self.listen(leg, events);
                self.event(Event::Started { leg, restored });
            }
            Some(SessionEvent::Measured(rates)) => {
                self.listen(leg, events);
                self.event(Event::Measured { leg, rates });
            }
            Some(SessionEvent::Resized(height)) => {
                self.listen(leg, events);
                self.event(Event::Resized { leg, height });
            }
            Some(SessionEvent::Ended(reason)) => {
                if let Some(held) = self.legs.remove(&leg) {
                    info!(stream = %held.stream, ?reason, "socket session ended");
                }
                self.event(Event::Ended { leg, end: end_of(reason) });
            }
            // The node let go of the session without a word.
            None => {
                self.legs.remove(&leg);
                self.event(Event::Ended { leg, end: ams_signal::End::Finished });
            }
        }
    }

    fn start(&mut self, start: Result<StreamKey, broadcast::error::RecvError>) {
        match start {
            Ok(key) if key.app == self.app => self.event(Event::StreamStarted { stream: key.id }),
            Ok(_) => {}
            // Some starts were missed: ask about each stream waited for.
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let waiting: Vec<StreamId> = self.session.waiting().cloned().collect();
                for stream in waiting {
                    let key = self.key(&stream);
                    self.ask(|node| async move { Done::Rechecked(stream, node.renditions(&key).await.is_ok()) });
                }
            }
            Err(broadcast::error::RecvError::Closed) => self.starts = None,
        }
    }
}

/// Milliseconds since 1970, for fields that people read.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

async fn next_start(
    starts: &mut Option<broadcast::Receiver<StreamKey>>,
) -> Result<StreamKey, broadcast::error::RecvError> {
    match starts {
        Some(starts) => starts.recv().await,
        None => std::future::pending().await,
    }
}
