//! A registry that is slow, hangs, dies, forgets and is cut off, by the seed. What it stores and decides is real.
//!
//! Owns the way to the store and back: an answer may be lost after the call was done, as with any server.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ams_registry::{
    Answer, AppSettingsRecord, BroadcastEdit, BroadcastQuery, BroadcastRecord, Claim, ClaimError, ClaimRequest,
    ClusterNodeRecord, InPlaceRegistry, JsonMap, Lease, LeftoverRequest, Leftovers, LiveInfo, LiveTotals, OutboxRecord,
    OutboxReport, OutboxRules, PanelStore, Registry, RegistryConfig, RegistryError, RegistryStats, ReleaseReason,
    Released, Shared, Shelf, Status, StreamLocation, StreamQuality, Swap, TakeEvents, TokenRecord, TokenUse, Upserted,
};
use ams_types::{AppName, Epoch, NodeId, StreamId, StreamKey};
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::net::Network;

/// How often a client tries a server that is not there.
const RETRY: Duration = Duration::from_millis(100);

/// How the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    /// Takes calls and does not answer until then.
    Stalled(Instant),
    /// Takes no calls.
    Down,
}

struct State {
    health: Health,
    chance: StdRng,
}

/// The database server.
#[derive(Clone)]
pub(super) struct Server {
    address: IpAddr,
    network: Network,
    store: InPlaceRegistry,
    state: Arc<Mutex<State>>,
    timeout: Duration,
}

impl Server {
    pub(super) fn new(address: IpAddr, network: Network, seed: u64) -> Self {
        let config = RegistryConfig::default();
        Self {
            address,
            network,
            store: InPlaceRegistry::new(&config).expect("memory"),
            state: Arc::new(Mutex::new(State { health: Health::Well, chance: StdRng::seed_from_u64(seed) })),
            timeout: config.operation_timeout,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is stored, past all that can go wrong.
    pub(super) fn truth(&self) -> Arc<dyn Registry> {
        self.store.registry()
    }

    pub(super) fn stop(&self) {
        self.state().health = Health::Down;
    }

    pub(super) fn start(&self) {
        self.state().health = Health::Well;
    }

    pub(super) fn stall(&self, for_: Duration) {
        self.state().health = Health::Stalled(Instant::now() + for_);
    }

    pub(super) async fn keep(&self, slot: u8) {
        self.store.keep(slot).await.expect("memory");
    }

    pub(super) async fn forget_since(&self, slot: u8) {
        self.store.restore(slot).await.expect("kept");
    }

    /// A node's way to it.
    pub(super) fn client(&self, host: IpAddr) -> Arc<dyn Registry> {
        Arc::new(Client { server: self.clone(), host, inner: self.store.registry() })
    }

    /// One way of a call.
    async fn pass(&self, host: IpAddr) {
        let way = {
            let mut state = self.state();
            Duration::from_micros(state.chance.random_range(100..2000))
        };
        sleep(way).await;
        loop {
            let health = self.state().health;
            let until = match health {
                Health::Stalled(until) if until > Instant::now() => until,
                Health::Down => Instant::now() + RETRY,
                _ if self.network.is_cut(host, self.address) => Instant::now() + RETRY,
                _ => return,
            };
            sleep_until(until).await;
        }
    }

    /// Whether a server that is down is noticed at once, as by a refused connection.
    fn is_refusing(&self) -> bool {
        let mut state = self.state();
        state.health == Health::Down && state.chance.random_bool(0.5)
    }
}

struct Client {
    server: Server,
    host: IpAddr,
    inner: Arc<dyn Registry>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated registry, seen from {}", self.host)
    }
}

impl Client {
    fn call<'a, T: Send + 'a, E: From<RegistryError> + Send + 'a>(
        &'a self,
        operation: &'static str,
        call: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> Answer<'a, T, E> {
        Box::pin(async move {
            let after = self.server.timeout;
            if self.server.is_refusing() {
                return Err(RegistryError::Unavailable { operation, reason: "connection refused".to_owned() }.into());
            }
            let there_and_back = async {
                self.server.pass(self.host).await;
                let answer = call.await;
                self.server.pass(self.host).await;
                answer
            };
            let in_time = timeout_at(Instant::now() + after, there_and_back).await;
            in_time.unwrap_or_else(|_| Err(RegistryError::Deadline { operation, after }.into()))
        })
    }
}

impl PanelStore for Client {
    fn find_user<'a>(&'a self, email: &'a str) -> Answer<'a, Option<JsonMap>> {
        self.call("finding a user", async move { self.inner.find_user(email).await })
    }

    fn list_users(&self) -> Answer<'_, Vec<JsonMap>> {
        self.call("listing users", async move { self.inner.list_users().await })
    }

    fn has_users(&self) -> Answer<'_, bool> {
        self.call("counting users", async move { self.inner.has_users().await })
    }

    fn create_user<'a>(&'a self, user: &'a JsonMap, first: bool) -> Answer<'a, bool> {
        self.call("making a user", async move { self.inner.create_user(user, first).await })
    }

    fn edit_user<'a>(&'a self, email: &'a str, set: &'a JsonMap, unless_changed: &'a JsonMap) -> Answer<'a, bool> {
        self.call("editing a user", async move { self.inner.edit_user(email, set, unless_changed).await })
    }

    fn delete_user<'a>(&'a self, email: &'a str) -> Answer<'a, bool> {
        self.call("deleting a user", async move { self.inner.delete_user(email).await })
    }

    fn get_shared<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Shared>> {
        self.call("reading what is shared", async move { self.inner.get_shared(names).await })
    }

    fn swap_shared<'a>(&'a self, swap: &'a Swap, now_ms: i64) -> Answer<'a, bool> {
        self.call("writing what is shared", async move { self.inner.swap_shared(swap, now_ms).await })
    }
}

impl Registry for Client {
    fn ping(&self) -> Answer<'_, ()> {
        self.call("a ping", self.inner.ping())
    }

    fn prepare_app<'a>(&'a self, app: &'a AppName) -> Answer<'a, ()> {
        self.call("making indexes", self.inner.prepare_app(app))
    }

    fn claim(&self, request: ClaimRequest) -> Answer<'_, Claim, ClaimError> {
        self.call("a claim", async move { self.inner.claim(request).await })
    }

    fn mark_live<'a>(&'a self, lease: &'a Lease, live: LiveInfo) -> Answer<'a, (), ClaimError> {
        self.call("going live", async move { self.inner.mark_live(lease, live).await })
    }

    fn heartbeat<'a>(
        &'a self,
        lease: &'a Lease,
        now_ms: i64,
        quality: &'a StreamQuality,
    ) -> Answer<'a, Status, ClaimError> {
        self.call("a heartbeat", async move { self.inner.heartbeat(lease, now_ms, quality).await })
    }

    fn release<'a>(&'a self, lease: &'a Lease, reason: ReleaseReason, now_ms: i64) -> Answer<'a, Released, ClaimError> {
        self.call("ending a stream", async move { self.inner.release(lease, reason, now_ms).await })
    }

    fn find_stale<'a>(&'a self, app: &'a AppName, now_ms: i64) -> Answer<'a, Vec<(Lease, i64)>> {
        self.call("finding stale streams", async move { self.inner.find_stale(app, now_ms).await })
    }

    fn lookup<'a>(&'a self, key: &'a StreamKey, now_ms: i64) -> Answer<'a, Option<StreamLocation>> {
        self.call("finding a stream", async move { self.inner.lookup(key, now_ms).await })
    }

    fn find_live<'a>(&'a self, app: &'a AppName, ids: &'a [StreamId], now_ms: i64) -> Answer<'a, Vec<StreamId>> {
        self.call("finding live streams", async move { self.inner.find_live(app, ids, now_ms).await })
    }

    fn get_broadcast<'a>(&'a self, key: &'a StreamKey) -> Answer<'a, Option<BroadcastRecord>> {
        self.call("reading", async move { self.inner.get_broadcast(key).await })
    }

    fn list_broadcasts<'a>(&'a self, app: &'a AppName, offset: usize, size: usize) -> Answer<'a, Vec<BroadcastRecord>> {
        self.call("listing", async move { self.inner.list_broadcasts(app, offset, size).await })
    }

    fn count_broadcasts<'a>(&'a self, app: &'a AppName) -> Answer<'a, u64> {
        self.call("counting", async move { self.inner.count_broadcasts(app).await })
    }

    fn create_broadcast<'a>(&'a self, key: &'a StreamKey, record: &'a BroadcastRecord) -> Answer<'a, bool> {
        self.call("making a record", async move { self.inner.create_broadcast(key, record).await })
    }

    fn upsert_broadcast<'a>(&'a self, key: &'a StreamKey, record: &'a BroadcastRecord) -> Answer<'a, Upserted> {
        self.call("updating a record", async move { self.inner.upsert_broadcast(key, record).await })
    }

    fn delete_broadcast<'a>(&'a self, key: &'a StreamKey) -> Answer<'a, bool> {
        self.call("deleting a record", async move { self.inner.delete_broadcast(key).await })
    }

    fn set_viewer_count<'a>(&'a self, key: &'a StreamKey, epoch: Option<Epoch>, viewers: u32) -> Answer<'a, bool> {
        self.call("counting viewers", async move { self.inner.set_viewer_count(key, epoch, viewers).await })
    }

    fn clean_own_leftovers<'a>(&'a self, request: &'a LeftoverRequest) -> Answer<'a, Leftovers> {
        self.call("cleaning up", async move { self.inner.clean_own_leftovers(request).await })
    }

    fn heartbeat_node<'a>(&'a self, node: &'a ClusterNodeRecord) -> Answer<'a, ()> {
        self.call("a node's heartbeat", async move { self.inner.heartbeat_node(node).await })
    }

    fn list_nodes(&self) -> Answer<'_, Vec<ClusterNodeRecord>> {
        self.call("listing nodes", async move { self.inner.list_nodes().await })
    }

    fn remove_node<'a>(&'a self, id: &'a NodeId) -> Answer<'a, bool> {
        self.call("removing a node", async move { self.inner.remove_node(id).await })
    }

    fn query_broadcasts<'a>(
        &'a self,
        app: &'a AppName,
        query: &'a BroadcastQuery,
        offset: usize,
        size: usize,
    ) -> Answer<'a, Vec<BroadcastRecord>> {
        self.call("searching", async move { self.inner.query_broadcasts(app, query, offset, size).await })
    }

    fn count_matching<'a>(&'a self, app: &'a AppName, query: &'a BroadcastQuery) -> Answer<'a, u64> {
        self.call("counting", async move { self.inner.count_matching(app, query).await })
    }

    fn live_totals<'a>(&'a self, app: &'a AppName, since_ms: i64) -> Answer<'a, LiveTotals> {
        self.call("counting", async move { self.inner.live_totals(app, since_ms).await })
    }

    fn edit_broadcast<'a>(&'a self, key: &'a StreamKey, edit: &'a BroadcastEdit) -> Answer<'a, Option<Upserted>> {
        self.call("editing a record", async move { self.inner.edit_broadcast(key, edit).await })
    }

    fn list_app_settings(&self) -> Answer<'_, Vec<AppSettingsRecord>> {
        self.call("reading settings", async move { self.inner.list_app_settings().await })
    }

    fn put_app_settings<'a>(&'a self, app: &'a AppName, settings: &'a AppSettingsRecord) -> Answer<'a, ()> {
        self.call("writing settings", async move { self.inner.put_app_settings(app, settings).await })
    }

    fn put_document<'a>(
        &'a self,
        key: &'a StreamKey,
        shelf: Shelf,
        id: &'a str,
        document: &'a JsonMap,
    ) -> Answer<'a, Upserted> {
        self.call("writing a document", async move { self.inner.put_document(key, shelf, id, document).await })
    }

    fn get_document<'a>(&'a self, key: &'a StreamKey, shelf: Shelf, id: &'a str) -> Answer<'a, Option<JsonMap>> {
        self.call("reading a document", async move { self.inner.get_document(key, shelf, id).await })
    }

    fn list_documents<'a>(
        &'a self,
        key: &'a StreamKey,
        shelf: Shelf,
        id: Option<&'a str>,
        offset: usize,
        size: usize,
    ) -> Answer<'a, Vec<JsonMap>> {
        self.call("listing documents", async move { self.inner.list_documents(key, shelf, id, offset, size).await })
    }

    fn delete_documents<'a>(&'a self, key: &'a StreamKey, shelf: Shelf, id: Option<&'a str>) -> Answer<'a, u64> {
        self.call("deleting documents", async move { self.inner.delete_documents(key, shelf, id).await })
    }

    fn delete_expired_tokens<'a>(&'a self, key: &'a StreamKey, now_secs: i64) -> Answer<'a, u64> {
        self.call("deleting tokens", async move { self.inner.delete_expired_tokens(key, now_secs).await })
    }

    fn find_token<'a>(&'a self, app: &'a AppName, token_id: &'a str) -> Answer<'a, Option<TokenRecord>> {
        self.call("finding a token", async move { self.inner.find_token(app, token_id).await })
    }

    fn use_token<'a>(
        &'a self,
        key: &'a StreamKey,
        token_id: &'a str,
        before: Option<&'a TokenUse>,
        after: &'a TokenUse,
    ) -> Answer<'a, bool> {
        self.call("using a token", async move { self.inner.use_token(key, token_id, before, after).await })
    }

    fn enqueue_event<'a>(&'a self, app: &'a AppName, event: &'a OutboxRecord) -> Answer<'a, bool> {
        self.call("keeping an event", async move { self.inner.enqueue_event(app, event).await })
    }

    fn withdraw_events<'a>(&'a self, key: &'a StreamKey, action: &'a str, by: Epoch, at_ms: i64) -> Answer<'a, bool> {
        self.call("withdrawing events", async move { self.inner.withdraw_events(key, action, by, at_ms).await })
    }

    fn take_events<'a>(&'a self, app: &'a AppName, take: &'a TakeEvents) -> Answer<'a, Vec<OutboxRecord>> {
        self.call("taking events", async move { self.inner.take_events(app, take).await })
    }

    fn event_done<'a>(&'a self, key: &'a StreamKey, id: &'a str, node: &'a NodeId, now_ms: i64) -> Answer<'a, bool> {
        self.call("closing an event", async move { self.inner.event_done(key, id, node, now_ms).await })
    }

    fn event_failed<'a>(&'a self, key: &'a StreamKey, id: &'a str, node: &'a NodeId, next_ms: i64) -> Answer<'a, bool> {
        self.call("putting an event off", async move { self.inner.event_failed(key, id, node, next_ms).await })
    }

    fn tend_outbox<'a>(&'a self, app: &'a AppName, rules: &'a OutboxRules) -> Answer<'a, OutboxReport> {
        self.call("tending the outbox", async move { self.inner.tend_outbox(app, rules).await })
    }

    fn list_dead_events<'a>(&'a self, app: &'a AppName, offset: usize, size: usize) -> Answer<'a, Vec<OutboxRecord>> {
        self.call("listing events", async move { self.inner.list_dead_events(app, offset, size).await })
    }

    fn stats(&self) -> RegistryStats {
        self.inner.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
