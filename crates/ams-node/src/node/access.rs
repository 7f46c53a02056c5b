//! Who may publish and play here: the application's rules, and the facts they ask for.
//!
//! Owns the way from a request to its verdict: what is looked up, how long that may take, the question to a webhook,
//! and the use of one-time tokens. What is allowed is decided by [`ams_access::StreamRules`].
//!
//! ```text
//! admit(entry) ──► rules, facts, webhook ──► Pass | Refusal      before anything is done for the request
//! check_in(session, pass)                                        once its session is there, before its client hears
//! leave(session)                                                 when it ends
//! ```
//!
//! A one-time token is used up when the session is there and not before: a viewer who comes too early keeps it. One
//! token has one session: the next one of its owner ends the one before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_access::rules::{BroadcastFacts, Consumption, StoredToken, SubscriberFacts};
use ams_access::webhook::{AuthAsk, auth_body};
use ams_access::{Denial, Fact, Facts, Purpose, Request, Secret, StreamRules, UnixMs, Verdict};
use ams_api::outgoing;
use ams_api::port::{Caller, Credentials, EndReason, PlayRequest, PublishRequest, Refusal, SessionId};
use ams_registry::{BroadcastRecord, RegistryError, Shelf, SubscriberRecord, TokenRecord, TokenUse};
use ams_types::StreamKey;
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::NodeCore;
use super::directory::{LocalStream, Origin, Session, UsedToken, Visit};
use crate::clock;

/// Longest wait for a fact without which nobody is let in.
const PATIENCE: Duration = Duration::from_millis(1200);
/// Longest wait for one that an open application can do without.
const PATIENCE_OPEN: Duration = Duration::from_millis(300);
/// Longest wait for a webhook's word.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(3);
/// Webhooks that are asked at one time; further requests wait, within that patience.
const WEBHOOKS_AT_ONCE: usize = 256;
/// How old a broadcast's record may be for a viewer: those who come at one time are let in by one look.
const KNOWN_FOR: Duration = Duration::from_secs(2);
/// Most records that are kept for that.
const KNOWN_MAX: usize = 4096;
/// How often the use of a token is confirmed while its session lasts.
const VISIT_CONFIRMED: Duration = Duration::from_secs(20);
/// Confirmations at one time.
const CONFIRMED_AT_ONCE: usize = 8;
/// Tries to use a token up while its owner's former session says its last word about it.
const USE_ATTEMPTS: usize = 3;
/// A broadcast without a sign of life for this long is not published any more.
const ALIVE_MS: i64 = 20_000;

/// Somebody at a door.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    purpose: Purpose,
    key: &'a StreamKey,
    caller: &'a Caller,
    credentials: &'a Credentials,
    room: Option<&'a str>,
    meta_data: &'a str,
}

impl<'a> Entry<'a> {
    pub(super) fn of_publisher(request: &'a PublishRequest) -> Self {
        let PublishRequest { key, caller, credentials, main_track, meta_data, .. } = request;
        let room = Some(main_track.as_str()).filter(|room| !room.is_empty());
        Self { purpose: Purpose::Publish, key, caller, credentials, room, meta_data }
    }

    pub(super) fn of_viewer(request: &'a PlayRequest) -> Self {
        let PlayRequest { key, caller, credentials, room, .. } = request;
        let room = Some(room.as_str()).filter(|room| !room.is_empty());
        Self { purpose: Purpose::Play, key, caller, credentials, room, meta_data: "" }
    }

    /// What the client said, for a webhook.
    fn params(&self) -> Vec<(String, String)> {
        let Credentials { token, subscriber_id, subscriber_code } = self.credentials;
        [
            ("token", token.as_ref().map(Secret::expose)),
            ("subscriberId", subscriber_id.as_deref()),
            ("subscriberCode", subscriber_code.as_ref().map(Secret::expose)),
            ("mainTrack", self.room),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect()
    }

    /// The room as far as it can be believed: anybody can name one. A viewer is in the room its stream is recorded in;
    /// a publisher also brings a stream that nobody registered into the room it names.
    fn believed_room(&self, broadcast: &Fact<Known>) -> Option<&'a str> {
        let is_in = match broadcast {
            Fact::Found(known) => known.main_track.as_deref() == self.room,
            Fact::Missing => self.purpose == Purpose::Publish,
            Fact::Unknown => false,
        };
        self.room.filter(|_| is_in)
    }
}

/// Somebody may come in.
#[derive(Debug)]
pub(super) struct Pass {
    visit: Visit,
    /// The token to use up, and the use of it that was known.
    token: Option<(Secret, Option<TokenUse>)>,
}

/// What is shared by those who are let in.
#[derive(Debug)]
pub(super) struct Access {
    /// Records of streams that are watched, read a moment ago. Each is read by one at a time: those who come meanwhile
    /// wait for that answer.
    known: Mutex<HashMap<StreamKey, Arc<tokio::sync::Mutex<Option<Look>>>>>,
    webhooks: Semaphore,
}

/// What was seen of a record, and when.
#[derive(Debug)]
struct Look {
    at: Instant,
    seen: Fact<Known>,
}

/// What matters of a record.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    facts: BroadcastFacts,
    main_track: Option<String>,
    viewers: u64,
    is_live: bool,
    /// It was made by a publisher's claim.
    is_claims: bool,
}

impl Known {
    fn of(record: BroadcastRecord, now_ms: i64) -> Self {
        Self {
            facts: BroadcastFacts {
                planned_start_secs: record.planned_start_date,
                planned_end_secs: record.planned_end_date,
                created_ms: record.date,
                expires_after_ms: record.expire_duration_ms.into(),
                viewer_limit: record.webrtc_viewer_limit.into(),
            },
            viewers: u64::try_from(record.webrtc_viewer_count).unwrap_or_default(),
            is_live: record.is_broadcasting_since(now_ms.saturating_sub(ALIVE_MS)),
            is_claims: record.zombi,
            main_track: record.main_track_stream_id,
        }
    }
}

impl Access {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default(), webhooks: Semaphore::new(WEBHOOKS_AT_ONCE) }
    }

    fn slot(&self, key: &StreamKey) -> Arc<tokio::sync::Mutex<Option<Look>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX && !known.contains_key(key) {
            // Those that are just being looked at stay: as many as there are requests.
            known.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(known.entry(key.clone()).or_default())
    }
}

impl NodeCore {
    /// Whether somebody may come in.
    ///
    /// # Errors
    /// The rules do not allow it, or what they ask for cannot be looked up.
    pub(super) async fn admit(&self, entry: &Entry<'_>) -> Result<Pass, Refusal> {
        let rules = self.settings.rules_of(&entry.key.app).ok_or(Refusal::RegistryUnavailable)?;
        let Entry { purpose, caller, credentials, .. } = *entry;
        let owner = format!("{} {}", caller.remote_ip, caller.user_agent);
        let mut request = Request {
            purpose,
            stream_id: entry.key.id.as_str(),
            room: None,
            token: credentials.token.as_ref(),
            subscriber_id: credentials.subscriber_id.as_deref(),
            subscriber_code: credentials.subscriber_code.as_ref(),
            client: Some(caller.remote_ip),
            owner: &owner,
            now: UnixMs(self.wall.ms().unsigned_abs()),
        };
        let mut facts;
        (facts, request.room) = self.facts(&rules, entry, &request).await;
        let mut verdict = rules.decide(&request, &facts);
        if let Verdict::Ask { url } = &verdict {
            facts.webhook = Some(self.ask_webhook(url, entry).await);
            verdict = rules.decide(&request, &facts);
        }
        let grant = match verdict {
            Verdict::Allowed(grant) => grant,
            Verdict::Denied(Denial::DataStore) => return Err(Refusal::RegistryUnavailable),
            Verdict::Denied(denial) => return Err(Refusal::Denied(denial)),
            Verdict::Ask { .. } => return Err(Refusal::Denied(Denial::Webhook)),
        };
        let before = |used: Consumption| TokenUse { by: used.by, at_ms: i64::try_from(used.at.0).unwrap_or(i64::MAX) };
        let token = credentials.token.clone().zip(grant.consume);
        let token = token.map(|(id, consume)| (id, consume.before.map(before)));
        Ok(Pass { visit: Visit { subscriber: credentials.subscriber_id.clone(), token: None, owner }, token })
    }

    /// Looks up what the rules ask for, all at one time, and the room that can be believed. While the registry is away
    /// nothing is asked.
    async fn facts<'a>(
        &self,
        rules: &StreamRules,
        entry: &Entry<'a>,
        request: &Request<'_>,
    ) -> (Facts, Option<&'a str>) {
        let (key, can_ask) = (entry.key, self.is_registry_ok());
        let needs = rules.needs(request);
        let patience = if rules.is_open(entry.purpose) { PATIENCE_OPEN } else { PATIENCE };
        let token = async {
            let Some(id) = needs.token.filter(|_| can_ask) else { return Fact::Unknown };
            let found = self.look(patience, self.registry.find_token(&key.app, id)).await;
            found.map_or(Fact::Unknown, |found| found.map(stored_token).into())
        };
        let subscriber = async {
            let Some(id) = needs.subscriber.filter(|_| can_ask) else { return Fact::Unknown };
            let found = self.look(patience, self.registry.get_document(key, Shelf::Subscribers, id)).await;
            let read =
                |document| self.subscriber_facts(key, id, request.owner, SubscriberRecord::from_json(document).0);
            found.map_or(Fact::Unknown, |found| found.map(read).into())
        };
        let broadcast = async {
            match entry.purpose {
                _ if !can_ask || !needs.broadcast => Fact::Unknown,
                Purpose::Publish => self.look_at_broadcast(key, patience).await,
                Purpose::Play => self.known_broadcast(key, patience).await,
            }
        };
        let published = async {
            let counted = needs.ingesting && can_ask;
            let since = self.wall.ms().saturating_sub(ALIVE_MS);
            let totals = async { self.look(patience, self.registry.live_totals(&key.app, since)).await };
            if counted { totals.await.map_or(0, |totals| totals.streams) } else { 0 }
        };
        let (token, subscriber, broadcast, published) = tokio::join!(token, subscriber, broadcast, published);
        let (published_here, viewers_here) = self.census_of(key, needs.ingesting);
        let (broadcast, is_live) = match broadcast {
            // A claim made it, and it goes with that: nobody registered it.
            Fact::Found(known) if known.is_claims && entry.purpose == Purpose::Publish => {
                (Fact::Missing, known.is_live)
            }
            Fact::Found(known) => {
                let is_live = known.is_live;
                (Fact::Found(known), is_live)
            }
            other => (other, false),
        };
        let room = entry.believed_room(&broadcast);
        let (broadcast, viewers) = match broadcast {
            Fact::Found(known) => (Fact::Found(known.facts), known.viewers),
            Fact::Missing => (Fact::Missing, 0),
            Fact::Unknown => (Fact::Unknown, 0),
        };
        let others = published.saturating_sub(is_live.into()).max(published_here);
        let facts = Facts {
            token,
            subscriber,
            broadcast,
            viewers: viewers.max(viewers_here),
            ingesting: needs.ingesting.then_some(others),
            webhook: None,
        };
        (facts, room)
    }

    /// How many other streams of the application are published here, and how many viewers this one is known to have.
    fn census_of(&self, key: &StreamKey, count_streams: bool) -> (u64, u64) {
        let directory = self.directory();
        let viewers = directory.streams.get(key).map_or(0, LocalStream::audience);
        let is_other = |(other, stream): &(&StreamKey, &LocalStream)| {
            other.app == key.app && *other != key && matches!(stream.origin, Origin::Published { .. })
        };
        let others = if count_streams { directory.streams.iter().filter(is_other).count() } else { 0 };
        (others as u64, viewers.into())
    }

    /// An answer of the registry, if it comes in time.
    async fn look<T>(&self, patience: Duration, asked: impl Future<Output = Result<T, RegistryError>>) -> Option<T> {
        let result = timeout(patience, asked).await.ok()?;
        self.note_registry(&result);
        result.inspect_err(|error| debug!(%error, "what the rules ask for could not be looked up")).ok()
    }

    /// A broadcast's record as it is now.
    async fn look_at_broadcast(&self, key: &StreamKey, patience: Duration) -> Fact<Known> {
        let found = self.look(patience, self.registry.get_broadcast(key)).await;
        found.map_or(Fact::Unknown, |found| found.map(|record| Known::of(record, self.wall.ms())).into())
    }

    /// A broadcast's record as it was a moment ago.
    async fn known_broadcast(&self, key: &StreamKey, patience: Duration) -> Fact<Known> {
        let slot = self.access.slot(key);
        let mut look = slot.lock().await;
        if let Some(look) = &*look
            && clock::now().saturating_duration_since(look.at) < KNOWN_FOR
        {
            return look.seen.clone();
        }
        let seen = self.look_at_broadcast(key, patience).await;
        *look = Some(Look { at: clock::now(), seen: seen.clone() });
        seen
    }

    fn subscriber_facts(&self, key: &StreamKey, id: &str, owner: &str, record: SubscriberRecord) -> SubscriberFacts {
        let directory = self.directory();
        let is_another = |session: &Session| {
            session.visit.as_ref().is_some_and(|v| v.subscriber.as_deref() == Some(id) && v.owner != owner)
        };
        let sessions = directory.sessions_of(key).filter(|(_, session)| is_another(session)).count();
        SubscriberFacts {
            b32_secret: record.b32_secret.unwrap_or_default().into(),
            totp_period_secs: Some(record.totp_expiry_period_seconds.into()).filter(|secs| *secs > 0),
            purpose: record.kind,
            blocked_purpose: record.blocked_type,
            blocked_until: UnixMs(u64::try_from(record.blocked_until_ms).unwrap_or_default()),
            sessions_max: record.concurrent_connections_limit.into(),
            sessions: sessions as u64,
        }
    }

    /// Whether an application's webhook lets somebody in. One that says nothing says no.
    async fn ask_webhook(&self, url: &str, entry: &Entry<'_>) -> bool {
        let Entry { key, purpose, meta_data, .. } = *entry;
        let params = entry.params();
        let (app, stream_id, metadata) = (key.app.as_str(), key.id.as_str(), Some(meta_data));
        let body = auth_body(&AuthAsk { app, stream_id, purpose, params: &params, metadata });
        let asked = async {
            // Never closed.
            let _turn = self.access.webhooks.acquire().await;
            outgoing::post(url, "application/json", body, WEBHOOK_PATIENCE).await
        };
        match timeout(WEBHOOK_PATIENCE, asked).await {
            Ok(Ok(status)) => {
                debug!(stream_id = %key, %status, "an application's webhook was asked");
                status.as_u16() == 200
            }
            Ok(Err(error)) => {
                warn!(stream_id = %key, %error, "an application's webhook gave no answer; nobody is let in without");
                false
            }
            Err(_) => {
                warn!(stream_id = %key, "an application's webhook did not answer in time; nobody is let in without");
                false
            }
        }
    }

    /// Uses the token up that a session was let in with, and remembers whose the session is.
    ///
    /// # Errors
    /// Somebody was faster with the token, or it cannot be used up now: the session is ended.
    pub(super) async fn check_in(
        self: &Arc<Self>,
        session: &SessionId,
        key: &StreamKey,
        pass: Pass,
    ) -> Result<(), Refusal> {
        let Pass { mut visit, token } = pass;
        if let Some((id, before)) = token {
            match self.use_up(key, &id, &visit.owner, before).await {
                Ok(used) => visit.token = Some(UsedToken { id, used }),
                Err(refusal) => {
                    self.end_session(session, EndReason::Gone).await;
                    return Err(refusal);
                }
            }
        }
        if visit.token.is_none() && visit.subscriber.is_none() {
            return Ok(());
        }
        let former: Vec<SessionId> = {
            let mut directory = self.directory();
            let token = visit.token.clone();
            let is_former = |(id, other): &(&SessionId, &Session)| {
                let other = other.visit.as_ref().and_then(|visit| visit.token.as_ref());
                *id != session && token.as_ref().zip(other).is_some_and(|(a, b)| a.id.matches(b.id.expose()))
            };
            let former = directory.sessions_of(key).filter(is_former).map(|(id, _)| id.clone()).collect();
            if let Some(entry) = directory.sessions.get_mut(session) {
                entry.visit = Some(Box::new(visit));
            }
            former
        };
        for former in former {
            self.end_session(&former, EndReason::ByServer(SUPERSEDED.to_owned())).await;
        }
        Ok(())
    }

    async fn use_up(
        &self,
        key: &StreamKey,
        id: &Secret,
        owner: &str,
        mut before: Option<TokenUse>,
    ) -> Result<TokenUse, Refusal> {
        for _ in 0..USE_ATTEMPTS {
            let after = TokenUse { by: owner.to_owned(), at_ms: self.wall.ms() };
            let written = self.look(PATIENCE, self.registry.use_token(key, id.expose(), before.as_ref(), &after)).await;
            if written.ok_or(Refusal::RegistryUnavailable)? {
                return Ok(after);
            }
            let found = self.look(PATIENCE, self.registry.find_token(&key.app, id.expose())).await;
            let found = found.ok_or(Refusal::RegistryUnavailable)?;
            before = found.and_then(|token| token.token_use()).filter(|used| used.by == owner);
            if before.is_none() {
                break;
            }
        }
        Err(Refusal::Denied(Denial::TokenUsed))
    }

    /// A session has ended: from now on counts how long its owner may come back with its token.
    pub(super) fn leave(self: &Arc<Self>, ended: &Session) {
        let Some(token) = ended.visit.as_ref().and_then(|visit| visit.token.clone()) else { return };
        let (node, key, at_ms) = (Arc::clone(self), ended.key.clone(), self.wall.ms());
        self.tasks.spawn(async move {
            let now = TokenUse { at_ms, ..token.used.clone() };
            node.look(PATIENCE, node.registry.use_token(&key, token.id.expose(), Some(&token.used), &now)).await
        });
    }

    /// Confirms the use of tokens while their sessions last, for the case that this node ends without a word.
    pub(super) async fn visits_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(VISIT_CONFIRMED);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            if !self.is_registry_ok() {
                continue;
            }
            let visits: Vec<(SessionId, StreamKey, UsedToken)> = {
                let directory = self.directory();
                let token = |session: &Session| session.visit.as_ref().and_then(|visit| visit.token.clone());
                let all = directory.sessions.iter();
                all.filter_map(|(id, session)| Some((id.clone(), session.key.clone(), token(session)?))).collect()
            };
            let confirm = |(session, key, token)| self.confirm(session, key, token);
            futures_util::stream::iter(visits).for_each_concurrent(CONFIRMED_AT_ONCE, confirm).await;
        }
    }

    async fn confirm(self: &Arc<Self>, session: SessionId, key: StreamKey, token: UsedToken) {
        let now = TokenUse { at_ms: self.wall.ms(), ..token.used.clone() };
        let written = self.registry.use_token(&key, token.id.expose(), Some(&token.used), &now);
        let Some(written) = self.look(PATIENCE, written).await else { return };
        if !written {
            let found = self.look(PATIENCE, self.registry.find_token(&key.app, token.id.expose())).await;
            let Some(found) = found else { return };
            let used_elsewhere = found.and_then(|found| found.token_use()).is_some_and(|used| used != token.used);
            // One that was taken back lets nobody in any more, and puts nobody out.
            if used_elsewhere && self.is_visit(&session, &token, None) {
                self.end_session(&session, EndReason::ByServer(SUPERSEDED.to_owned())).await;
            }
        } else {
            self.is_visit(&session, &token, Some(now));
        }
    }

    /// Whether a session's token was last confirmed as `token` says; if so, notes what it was confirmed with now.
    fn is_visit(&self, session: &SessionId, token: &UsedToken, now: Option<TokenUse>) -> bool {
        let mut directory = self.directory();
        let visit = directory.sessions.get_mut(session).and_then(|session| session.visit.as_mut());
        let known = visit.and_then(|visit| visit.token.as_mut()).filter(|known| known.used == token.used);
        match (known, now) {
            (Some(known), Some(now)) => known.used = now,
            (Some(_), None) => {}
            (None, _) => return false,
        }
        true
    }
}

/// Why a session ends whose token was used again.
const SUPERSEDED: &str = "the one-time token it came with was used for another session of the same client";

fn stored_token(record: TokenRecord) -> StoredToken {
    let used = |used: TokenUse| Consumption { by: used.by, at: UnixMs(u64::try_from(used.at_ms).unwrap_or_default()) };
    StoredToken {
        consumed: record.token_use().map(used),
        stream_id: record.stream_id.unwrap_or_default(),
        purpose: record.kind.unwrap_or_default(),
        room_id: record.room_id,
        expire_secs: record.expire_date,
    }
}
