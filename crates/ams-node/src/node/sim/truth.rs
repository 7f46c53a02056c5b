//! What must be true of the cluster, whatever happens to it.
//!
//! Owns what is known of every publication that ever was, from the clients' side. Looks at nodes and never changes them.

use std::collections::{BTreeMap, HashMap};

use ams_api::port::SessionId;
use ams_registry::Status;
use ams_types::StreamKey;

use super::World;
use super::clients::{Client, Standing};
use super::host::Run;
use crate::config::Mode;
use crate::node::directory::{Origin, Role};

/// Longest a viewer of a live stream may be without a picture once all is well, in ms.
const PICTURE_AGE_MS: u64 = 1500;

/// See the module.
#[derive(Default)]
pub(super) struct Truth {
    /// Whose an epoch of a stream is.
    owners: BTreeMap<(StreamKey, u64), SessionId>,
    /// What a publication's packets are marked with.
    tags: HashMap<SessionId, u64>,
    /// What was found wrong, first things first.
    wrong: Vec<String>,
    /// What was not well in the end, when it was last looked at.
    pub(super) settled_wrong: Vec<String>,
}

impl Truth {
    /// A publisher was accepted.
    pub(super) fn publishes(&mut self, run: &Run, key: &StreamKey, session: &SessionId) {
        let tag = self.tags.len() as u64 + 1;
        self.tags.entry(session.clone()).or_insert(tag);
        self.note_owners(run);
        let _ = key;
    }

    pub(super) fn tag_of(&self, session: &SessionId) -> u64 {
        self.tags.get(session).copied().unwrap_or(0)
    }

    fn note_owners(&mut self, run: &Run) {
        let directory = run.core.directory();
        for (key, stream) in &directory.streams {
            let Origin::Published { session, .. } = &stream.origin else { continue };
            let mut epochs = vec![stream.epoch.0];
            if let Some(Role::Publisher(publication)) = directory.sessions.get(session).map(|s| &s.role) {
                epochs.push(publication.lease.epoch.0);
            }
            for epoch in epochs {
                let owner = self.owners.entry((key.clone(), epoch)).or_insert_with(|| session.clone());
                if owner != session {
                    self.wrong.push(format!("{key}: epoch {epoch} has two owners"));
                }
            }
        }
    }

    /// What must be true at any time.
    pub(super) fn check_always(&mut self, world: &World) {
        for run in world.hosts.iter().filter_map(|host| host.run()) {
            self.note_owners(&run);
        }
        for (host, run) in world.hosts.iter().filter_map(|host| Some((host, host.run()?))) {
            for shard in &run.shards {
                for key in shard.streams() {
                    let Some(seen) = shard.seen(&key) else { continue };
                    let owner = self.owners.get(&(key.clone(), seen.epoch.0)).map(|session| self.tag_of(session));
                    if owner.is_some_and(|tag| tag != 0 && tag != seen.owner) {
                        let name = &host.name;
                        self.wrong.push(format!("{key} on {name}: media of two publishers in {}", seen.epoch));
                    }
                }
            }
        }
        self.wrong.dedup();
    }

    /// All that was wrong.
    pub(super) fn wrong(self) -> Vec<String> {
        let mut wrong = self.wrong;
        wrong.extend(self.settled_wrong);
        wrong
    }
}

/// What must be true once all is well and has been for a while.
pub(super) async fn check_settled(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut publishers: BTreeMap<String, Vec<(usize, SessionId, u64)>> = BTreeMap::new();
    for (at, run) in world.hosts.iter().enumerate().filter_map(|(at, host)| Some((at, host.run()?))) {
        let directory = run.core.directory();
        for (key, stream) in &directory.streams {
            let Origin::Published { session, live: true, .. } = &stream.origin else { continue };
            let lease = match directory.sessions.get(session).map(|s| &s.role) {
                Some(Role::Publisher(publication)) => publication.lease.epoch.0,
                _ => 0,
            };
            publishers.entry(key.id.to_string()).or_default().push((at, session.clone(), lease));
        }
    }
    for key in &world.streams {
        let wanted = world.clients.iter().any(|c| c.publishes && c.key == *key && c.wants.get());
        let owners = publishers.remove(key.id.as_str()).unwrap_or_default();
        if owners.len() != usize::from(wanted) {
            wrong.push(format!("{key}: {} live publications, {} wanted", owners.len(), u8::from(wanted)));
            continue;
        }
        let viewers: Vec<_> = world.clients.iter().filter(|c| !c.publishes && c.key == *key && c.wants.get()).collect();
        check_record(&mut wrong, world, key, owners.first(), viewers.len()).await;
        if let Some((_, session, _)) = owners.first() {
            let tag = world.truth.borrow().tag_of(session);
            for viewer in viewers {
                if let Err(what) = check_viewer(world, viewer, tag) {
                    wrong.push(format!("{key}: {} {what}", viewer.name));
                }
            }
        }
    }
    check_leaks(&mut wrong, world).await;
    wrong
}

async fn check_record(
    wrong: &mut Vec<String>,
    world: &World,
    key: &StreamKey,
    owner: Option<&(usize, SessionId, u64)>,
    viewers: usize,
) {
    let record = world.server.truth().get_broadcast(key).await.expect("memory");
    match (owner, record) {
        (None, None) => {}
        (None, Some(record)) => {
            wrong.push(format!("{key}: nobody publishes it, and its record stays: {:?}", record.status));
        }
        (Some(_), None) => wrong.push(format!("{key}: it has no record")),
        (Some((at, _, lease)), Some(record)) => {
            let host = world.hosts.get(*at).map(|host| host.address.to_string());
            let stored = (record.origin_address.clone(), record.epoch().0, record.status.as_deref());
            if stored != (host.clone(), *lease, Some(Status::Broadcasting.as_str())) {
                wrong.push(format!("{key}: recorded as {stored:?}, is at {host:?} in epoch {lease}"));
            }
            if record.webrtc_viewer_count != i32::try_from(viewers).unwrap_or(i32::MAX) {
                let counted = record.webrtc_viewer_count;
                wrong.push(format!("{key}: {counted} viewers counted, {viewers} there"));
            }
        }
    }
}

async fn check_leaks(wrong: &mut Vec<String>, world: &World) {
    for host in &world.hosts {
        let Some(run) = host.run() else { continue };
        let here = |client: &&std::rc::Rc<Client>| {
            client.standing.borrow().as_ref().is_some_and(|s: &Standing| std::rc::Rc::ptr_eq(&s.run, &run))
        };
        let clients = world.clients.iter().filter(here).count();
        let (mut peers, mut links) = (0, 0);
        for shard in &run.shards {
            let census = shard.census();
            peers += census.publishers + census.viewers;
            links += census.links;
        }
        let directory = run.core.directory();
        let held = [
            ("sessions", directory.sessions.len(), clients),
            ("peers", directory.peers.len(), clients),
            ("transports", peers, clients),
            ("places taken", directory.load.iter().sum(), clients),
            ("links", links, directory.links.len()),
            ("ids being claimed", directory.claiming.len(), 0),
            ("ids being released", directory.releasing.len(), 0),
            ("claims to be released", run.core.unreleased.len(), 0),
        ];
        for (what, there, want) in held {
            if there != want {
                wrong.push(format!("{}: {there} {what}, {want} wanted", host.name));
            }
        }
        if host.mode == Mode::Edge {
            let idle = directory.streams.iter().filter(|(_, s)| s.viewers.is_empty() && s.idle_since.is_none());
            for (key, _) in idle {
                wrong.push(format!("{}: {key} is kept for nobody", host.name));
            }
        }
    }
    let rows = world.server.truth().list_nodes().await.expect("memory").len();
    if rows != world.hosts.len() {
        wrong.push(format!("{rows} nodes recorded, {} there", world.hosts.len()));
    }
}

/// Whether a viewer gets its stream's pictures.
fn check_viewer(world: &World, viewer: &Client, owner: u64) -> Result<(), String> {
    let standing = viewer.standing.borrow().clone().ok_or("is nowhere")?;
    let (_, shard) = standing.run.shard_of(standing.peer).ok_or("has no transport")?;
    if !shard.feeds(&viewer.key, standing.peer) {
        return Err("is not fed".to_owned());
    }
    let seen = shard.seen(&viewer.key).ok_or("has never got a picture")?;
    let age = world.now_ms().saturating_sub(seen.sent_ms);
    if age > PICTURE_AGE_MS {
        return Err(format!("got its last picture {age} ms ago"));
    }
    if seen.owner != owner {
        return Err("watches a publication that is over".to_owned());
    }
    Ok(())
}
