//! Webhooks that lose nothing: what happens here is noted, written to the registry's outbox, and sent from there.
//!
//! Owns which events there are and when. Noting one never waits: it goes into a bounded queue of this node, is written
//! when the registry answers, in order, and sent by whichever node takes it. An event that happens once in a publication
//! has an id made from it, so that two nodes that note it make one.
//!
//! A publication that was lost has not ended yet: its end is noted at once, to be sent when `media.resume_window` is
//! over, and withdrawn by whoever goes on with the stream until then. So it is told even if the node dies meanwhile.
//!
//! - `backlog`: what is not written yet
//! - `writer`: from there into the outbox
//! - `sender`: from the outbox to the receivers
//! - [`post`]: one request

mod backlog;
pub(crate) mod post;
mod sender;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ams_access::webhook::{Action, StreamStatus, WebhookKey};
use ams_api::port::{EndReason, SessionId};
use ams_registry::{BroadcastRecord, Claim, Ended, Grant};
use ams_types::{AppName, Epoch, MediaKind, StreamKey};

use self::backlog::Backlog;
use self::post::Poster;
use super::NodeCore;
use super::directory::{LocalStream, Origin, Publication, Role};
use crate::clock;
use crate::config::WebhookConfig;

/// How often it is seen whether a status is due.
const STATUS_LOOK: Duration = Duration::from_millis(250);
/// Least time between two statuses of a stream.
const STATUS_PERIOD_MIN: Duration = Duration::from_millis(500);

/// A node's webhooks.
pub(crate) struct Webhooks {
    backlog: Backlog,
    poster: Poster,
    key: Option<WebhookKey>,
    /// What records said that may be gone when their stream's end is written.
    said: Mutex<HashMap<StreamKey, Facts>>,
    /// Events that wait in the outbox, of all nodes, when that was last seen.
    waiting: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Webhooks {
    /// # Errors
    /// A sentence about the certificate authorities' file.
    pub(crate) fn new(config: &WebhookConfig) -> Result<Self, String> {
        let ca_file = Some(config.ca_file.as_str()).filter(|file| !file.is_empty()).map(Path::new);
        Ok(Self {
            backlog: Backlog::default(),
            poster: Poster::new(ca_file)?,
            key: config.key(),
            said: Mutex::default(),
            waiting: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// Pending, sent, failed and dropped, for metrics.
    pub(super) fn figures(&self) -> [u64; 4] {
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let pending = get(&self.waiting) + self.backlog.len() as u64;
        [pending, get(&self.sent), get(&self.failed), get(&self.dropped) + self.backlog.dropped()]
    }
}

/// What a stream's record says that is of use here.
#[derive(Clone, Debug, Default, PartialEq)]
struct Facts {
    url: Option<String>,
    name: Option<String>,
    category: Option<String>,
    main_track: Option<String>,
    metadata: Option<String>,
}

impl From<&BroadcastRecord> for Facts {
    fn from(record: &BroadcastRecord) -> Self {
        Self {
            url: record.listener_hook_url.clone(),
            name: record.name.clone(),
            category: record.category.clone(),
            main_track: record.main_track_stream_id.clone(),
            metadata: record.meta_data.clone(),
        }
    }
}

/// The publication whose place in the registry another one took, without its node having said that it ended.
#[derive(Clone, Debug)]
pub struct Former {
    epoch: Epoch,
    /// The stream goes on with the new one; if not, it had ended long ago.
    goes_on: bool,
    /// When it could first be played, ms since 1970.
    started_ms: i64,
    facts: Facts,
}

impl Former {
    /// What a claim found, if that could be played.
    pub(super) fn of(claim: &Claim) -> Option<Self> {
        let ended = Ended::of(&claim.lease.key.app, claim.previous.as_deref()?)?;
        let goes_on = matches!(claim.grant, Grant::NodeRestarted | Grant::OwnerDead | Grant::Replaced);
        let started_ms = ended.record.absolute_start_time_ms;
        let facts = Facts::from(&ended.record);
        (ended.epoch != claim.lease.epoch).then_some(Self { epoch: ended.epoch, goes_on, started_ms, facts })
    }
}

/// Something that happened to a stream.
#[derive(Clone, Debug)]
struct Happening {
    key: StreamKey,
    epoch: Epoch,
    action: Action,
    /// When, ms since 1970.
    at_ms: i64,
    /// When it may be sent.
    not_before_ms: i64,
    /// What the record said, for the case that it is gone.
    facts: Option<Facts>,
    /// Of a start: what was there before.
    former: Option<Former>,
    status: Option<StreamStatus>,
}

impl Happening {
    fn at(at_ms: i64, key: &StreamKey, epoch: Epoch, action: Action) -> Self {
        Self { key: key.clone(), epoch, action, at_ms, not_before_ms: at_ms, facts: None, former: None, status: None }
    }
}

impl NodeCore {
    /// A publication can be played. Noted once; `false` if it is over already.
    pub(super) fn note_started(&self, session: &SessionId) -> bool {
        let mut directory = self.directory();
        // Under the lock, so that its end, if that comes now, comes behind.
        let Some(entry) = directory.sessions.get_mut(session) else { return false };
        let Role::Publisher(publication) = &mut entry.role else { return false };
        if !std::mem::replace(&mut publication.told, true) {
            let former = publication.former.take();
            let start = Happening::at(self.wall.ms(), &entry.key, publication.lease.epoch, Action::LiveStreamStarted);
            self.webhooks.backlog.push(Happening { former, ..start });
        }
        true
    }

    /// A publication has a new claim: it is the one it was.
    pub(super) fn note_renewed(&self, publication: &Publication, before: Epoch) {
        let lease = &publication.lease;
        if publication.told && before != lease.epoch {
            let start = Happening::at(self.wall.ms(), &lease.key, lease.epoch, Action::LiveStreamStarted);
            let former = Former { epoch: before, goes_on: true, started_ms: start.at_ms, facts: Facts::default() };
            self.webhooks.backlog.push(Happening { former: Some(former), ..start });
        }
    }

    /// A publication of this node is over: for good, or until somebody goes on with it.
    pub(super) fn note_ended(&self, publication: &Publication, reason: &EndReason) {
        let lease = &publication.lease;
        if !publication.told {
            if matches!(reason, EndReason::Timeout(_)) {
                self.webhooks.backlog.push(Happening::at(
                    self.wall.ms(),
                    &lease.key,
                    lease.epoch,
                    Action::PublishTimeoutError,
                ));
            }
            return;
        }
        let may_go_on = match reason {
            // Another one goes on with it.
            EndReason::TakenOver => return,
            EndReason::Gone | EndReason::Timeout(_) | EndReason::TransportLost(_) | EndReason::NodeStopping => true,
            EndReason::ByRequest | EndReason::ByServer(_) | EndReason::StreamEnded => false,
        };
        self.note_end(&lease.key, lease.epoch, None, may_go_on);
    }

    /// A publication ended whose node did not say so, and its record was released: by a restart of that node, the REST
    /// API, or whoever ends what nobody confirms. To be called by everybody who ends another's record; several may.
    pub(super) fn note_released(&self, ended: &Ended, may_go_on: bool) {
        self.note_end(&ended.key, ended.epoch, Some(Facts::from(&ended.record)), may_go_on);
    }

    fn note_end(&self, key: &StreamKey, epoch: Epoch, facts: Option<Facts>, may_go_on: bool) {
        let end = Happening::at(self.wall.ms(), key, epoch, Action::LiveStreamEnded);
        let window = if may_go_on { self.config.media.resume_window } else { Duration::ZERO };
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(0);
        self.webhooks.backlog.push(Happening { facts, not_before_ms: end.at_ms + window_ms, ..end });
    }

    /// Notes how the streams published here are doing, as often as their applications say.
    pub(super) async fn webhook_status_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(STATUS_LOOK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told_at: HashMap<AppName, Instant> = HashMap::new();
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            for app in &self.config.apps {
                let period = self.settings.of(app).webhook_stream_status_update_period_ms;
                let Some(period) = u64::try_from(period).ok().filter(|ms| *ms > 0) else { continue };
                let period = Duration::from_millis(period).max(STATUS_PERIOD_MIN);
                let now = clock::now();
                if told_at.get(app).is_none_or(|at| now.saturating_duration_since(*at) >= period) {
                    told_at.insert(app.clone(), now);
                    self.note_statuses(app);
                }
            }
        }
    }

    fn note_statuses(&self, app: &AppName) {
        let directory = self.directory();
        for (key, stream) in directory.streams.iter().filter(|(key, _)| key.app == *app) {
            let Origin::Published { session, .. } = &stream.origin else { continue };
            if let Some(Role::Publisher(publication)) = directory.sessions.get(session).map(|s| &s.role)
                && publication.told
            {
                let status = Some(status_of(stream));
                let now = Happening::at(self.wall.ms(), key, publication.lease.epoch, Action::LiveStreamStatus);
                self.webhooks.backlog.push(Happening { status, ..now });
            }
        }
    }
}

fn status_of(stream: &LocalStream) -> StreamStatus {
    let top = stream.layers.iter().filter(|l| l.kind == MediaKind::Video).max_by_key(|l| l.size.1);
    StreamStatus {
        width: top.map_or(0, |l| l.size.0),
        height: top.map_or(0, |l| l.size.1),
        received_bytes: stream.layers.iter().map(|l| l.bytes).sum(),
        speed: 1.0,
        ..StreamStatus::default()
    }
}
