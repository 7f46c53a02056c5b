//! What a contract case works with: two connections to one fresh registry, and a way to its documents behind its back.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use ams_types::{AppName, Incarnation, NodeId, StreamId, StreamKey};
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::{Client, Database};
use tempfile::TempDir;

use crate::mongo::convert;
use crate::record::{JsonMap, broadcast, node, stream_info};
use crate::sqlite::SqliteRegistry;
use crate::{
    ClaimRequest, LiveInfo, PublishType, Registry, RegistryConfig, RegistryUri, StreamInfoRecord, Takeover, connect,
};

/// The caller's clock in every case: 2026-01-01.
pub(crate) const NOW: i64 = 1_767_225_600_000;

/// Which registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Memory,
    SqliteFile,
    MongoStandalone,
    MongoReplicaSet,
}

/// See the module.
pub(super) struct Bench {
    /// One connection.
    pub(super) a: Arc<dyn Registry>,
    /// Another one to the same records; for memory the same.
    pub(super) b: Arc<dyn Registry>,
    raw: Raw,
    _folder: Option<TempDir>,
}

enum Raw {
    Sqlite(Arc<SqliteRegistry>),
    Mongo { client: Client, prefix: String },
}

/// Each MongoDB bench has databases of its own.
pub(crate) fn fresh_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}_{}_", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The server a variable names, or a loud word that it is missing, past the harness that hides what passing tests say.
pub(crate) fn mongo_uri(variable: &'static str) -> Option<String> {
    static STANDALONE: Once = Once::new();
    static REPLICA_SET: Once = Once::new();
    let uri = std::env::var(variable).ok().filter(|uri| !uri.is_empty());
    if uri.is_none() {
        let once = if variable == "AMS_TEST_MONGO" { &STANDALONE } else { &REPLICA_SET };
        once.call_once(|| {
            let _ = writeln!(std::io::stderr(), "\n*** skipped: {variable} not set ***");
        });
    }
    uri
}

impl Bench {
    /// A fresh registry; `None` when its server is not named.
    pub(super) async fn open(kind: Kind) -> Option<Self> {
        let config = RegistryConfig { operation_timeout: std::time::Duration::from_secs(10), ..Default::default() };
        Some(match kind {
            Kind::Memory => {
                let registry = Arc::new(SqliteRegistry::open(None, config).await.unwrap());
                Self { a: registry.clone(), b: registry.clone(), raw: Raw::Sqlite(registry), _folder: None }
            }
            Kind::SqliteFile => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("registry.db");
                let a = Arc::new(SqliteRegistry::open(Some(path.clone()), config.clone()).await.unwrap());
                let b = connect(&RegistryUri::sqlite(&path), config).await.unwrap();
                Self { a: a.clone(), b, raw: Raw::Sqlite(a), _folder: Some(folder) }
            }
            Kind::MongoStandalone => Self::mongo(mongo_uri("AMS_TEST_MONGO")?, config).await,
            Kind::MongoReplicaSet => Self::mongo(mongo_uri("AMS_TEST_MONGO_RS")?, config).await,
        })
    }

    async fn mongo(uri: String, config: RegistryConfig) -> Self {
        let prefix = fresh_prefix();
        let client = Client::with_uri_str(&uri).await.unwrap();
        let config = RegistryConfig { database_prefix: prefix.clone(), ..config };
        let uri: RegistryUri = uri.parse().unwrap();
        let a = connect(&uri, config.clone()).await.unwrap();
        let b = connect(&uri, config).await.unwrap();
        Self { a, b, raw: Raw::Mongo { client, prefix }, _folder: None }
    }

    /// Ends both connections and takes what the case made with them.
    pub(super) async fn close(self) {
        self.a.close().await;
        self.b.close().await;
        if let Raw::Mongo { client, prefix } = self.raw {
            for name in client.list_database_names().await.unwrap() {
                if name.starts_with(&prefix) {
                    client.database(&name).drop().await.unwrap();
                }
            }
            client.shutdown().await;
        }
    }

    fn database(client: &Client, prefix: &str, collection: &str) -> Database {
        let name = if collection == node::COLLECTION { "clusterdb" } else { "live" };
        client.database(&format!("{prefix}{name}"))
    }

    /// Puts a document into a collection (of application `live`), as another program might have.
    pub(super) async fn plant(&self, collection: &'static str, document: Document) {
        match &self.raw {
            Raw::Mongo { client, prefix } => {
                let database = Self::database(client, prefix, collection);
                database.collection::<Document>(collection).insert_one(document).await.unwrap();
            }
            Raw::Sqlite(registry) => {
                let text = serde_json::Value::Object(json(&document)).to_string();
                let name = document.get_str("streamId").unwrap_or_default().to_owned();
                let host = document.get_str("host").unwrap_or_default().to_owned();
                let port = document.get_i32("originPort").unwrap_or_default();
                let epoch = document.get_i64("amsEpoch").unwrap_or_default();
                let id = document.get_str("_id").unwrap_or_default().to_owned();
                let planted = registry.raw(move |c| match collection {
                    broadcast::COLLECTION => c.execute("INSERT INTO broadcast VALUES ('live', ?1, ?2)", [name, text]),
                    stream_info::COLLECTION => c.execute(
                        "INSERT INTO stream_info VALUES ('live', ?1, ?2, ?3, ?4, ?5)",
                        (name, host, port, epoch, text),
                    ),
                    _ => c.execute("INSERT INTO cluster_node VALUES (?1, ?2)", [id, text]),
                });
                planted.await.unwrap();
            }
        }
    }

    /// Sets fields of a broadcast, as another program might.
    pub(super) async fn meddle(&self, stream_id: &'static str, set: Document) {
        match &self.raw {
            Raw::Mongo { client, prefix } => {
                let database = Self::database(client, prefix, broadcast::COLLECTION);
                let broadcasts = database.collection::<Document>(broadcast::COLLECTION);
                let done = broadcasts.update_one(doc! { "streamId": stream_id }, doc! { "$set": set }).await.unwrap();
                assert_eq!(done.matched_count, 1);
            }
            Raw::Sqlite(registry) => {
                let mut document = self.fetch(broadcast::COLLECTION, stream_id).await.pop().unwrap();
                document.extend(json(&set));
                let text = serde_json::Value::Object(document).to_string();
                let update = "UPDATE broadcast SET document = ?2 WHERE app = 'live' AND stream_id = ?1";
                registry.raw(move |c| c.execute(update, [stream_id, &text])).await.unwrap();
            }
        }
    }

    /// Documents of application `live` (or nodes' rows) with that stream id (or id), as they are stored.
    pub(super) async fn fetch(&self, collection: &'static str, id: &'static str) -> Vec<JsonMap> {
        let (key, query) = match collection {
            broadcast::COLLECTION => {
                ("streamId", "SELECT document FROM broadcast WHERE app = 'live' AND stream_id = ?1")
            }
            stream_info::COLLECTION => {
                ("streamId", "SELECT document FROM stream_info WHERE app = 'live' AND stream_id = ?1")
            }
            _ => ("_id", "SELECT document FROM cluster_node WHERE id = ?1"),
        };
        match &self.raw {
            Raw::Mongo { client, prefix } => {
                let database = Self::database(client, prefix, collection);
                let documents = database.collection::<RawDocumentBuf>(collection).find(doc! { key: id }).await;
                let mut documents = documents.unwrap();
                let mut found = Vec::new();
                while documents.advance().await.unwrap() {
                    found.push(convert::to_json(documents.current()));
                }
                found
            }
            Raw::Sqlite(registry) => {
                let texts: Vec<String> = registry
                    .raw(move |c| {
                        let mut query = c.prepare(query).unwrap();
                        let texts = query.query_map([id], |row| row.get(0)).unwrap();
                        texts.map(Result::unwrap).collect()
                    })
                    .await;
                texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
            }
        }
    }
}

pub(super) fn json(document: &Document) -> JsonMap {
    convert::to_json(&RawDocumentBuf::try_from(document).unwrap())
}

pub(super) fn app() -> AppName {
    "live".parse().unwrap()
}

pub(super) fn id(id: &str) -> StreamId {
    id.parse().unwrap()
}

pub(crate) fn key(stream_id: &str) -> StreamKey {
    StreamKey::new(app(), id(stream_id))
}

pub(super) fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// A claim by node `a` or `b` in its first run, at addresses 10.0.0.a and 10.0.0.b.
pub(crate) fn claim_by(name: &str, stream_id: &str) -> ClaimRequest {
    ClaimRequest {
        key: key(stream_id),
        node: node(name),
        incarnation: Incarnation(1),
        host: format!("10.0.0.{name}"),
        session: format!("session-{name}"),
        publish_type: PublishType::WebRtc,
        user_agent: Some("browser".into()),
        remote_ip: Some("192.0.2.1".into()),
        name: None,
        meta_data: None,
        now_ms: NOW,
        takeover: Takeover::IfFree,
    }
}

/// Media with one rendition, relayed on port 5000.
pub(crate) fn live_at(now_ms: i64) -> LiveInfo {
    let info = StreamInfoRecord {
        width: 1280,
        height: 720,
        video_bitrate: 1_500_000,
        video_enabled: true,
        audio_enabled: true,
        video_codec: Some("H264".into()),
        node_group: Some("default".into()),
        origin_port: 5000,
        ..StreamInfoRecord::default()
    };
    LiveInfo { now_ms, publish_type: PublishType::WebRtc, width: 1280, height: 720, infos: vec![info] }
}
