//! What only MongoDB can show: exact BSON types, indexes, servers that do not answer.

use std::time::{Duration, Instant};

use mongodb::IndexModel;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc, spec::ElementType};
use mongodb::options::IndexOptions;

use super::*;
use crate::contract::bench::{NOW, claim_by, fresh_prefix, key, live_at, mongo_uri};
use crate::{RegistryUri, connect};

const VARIABLES: [&str; 2] = ["AMS_TEST_MONGO", "AMS_TEST_MONGO_RS"];

#[test]
fn a_connection_string_is_refused_without_its_password() {
    for (name, uri) in [
        ("unescaped colon", "mongodb://root:se:cret@h"),
        ("unescaped percent", "mongodb://root:secret%@h"),
        ("unknown mechanism", "mongodb://root:secret@h/?authMechanism=NONE"),
        ("bad port", "mongodb://root:secret@h:99999"),
        ("two at signs", "mongodb://root:secret@x@h"),
    ] {
        if let Err(error) = validate(uri) {
            let words = error.to_string();
            assert!(!words.contains("cret"), "{name}: {words}");
        }
    }
    assert!(validate("mongodb://root:secret@h:99999").is_err());
    assert!(validate("mongodb://a,b,c/?replicaSet=rs0").is_ok());
    assert!(validate("mongodb+srv://cluster.example.net/").is_ok());
}

fn short() -> RegistryConfig {
    RegistryConfig { operation_timeout: Duration::from_millis(300), ..RegistryConfig::default() }
}

/// Every kind of call, against a server that is not there for us: each ends in time, with an error to retry upon.
async fn all_calls_end(registry: &dyn Registry) {
    let (key, app) = (key("s"), key("s").app);
    let lease = Lease { key: key.clone(), epoch: Epoch(1), host: "h".into() };
    let leftovers = LeftoverRequest {
        apps: vec![app.clone()],
        node: "a".parse().unwrap(),
        incarnation: ams_types::Incarnation(1),
        host: "h".into(),
        origin_port: 5000,
        now_ms: NOW,
    };
    let in_life = |error: ClaimError| match error {
        ClaimError::Registry(error) => error,
        other => panic!("{other}"),
    };
    let begun_at = Instant::now();
    let (ids, quality, record) = ([key.id.clone()], StreamQuality::default(), BroadcastRecord::default());
    let row = ClusterNodeRecord { id: "a".into(), ..ClusterNodeRecord::default() };
    let node = "a".parse().unwrap();
    let answers = tokio::join!(
        registry.ping(),
        async { registry.claim(claim_by("a", "s")).await.map(|_| ()).map_err(in_life) },
        async { registry.mark_live(&lease, live_at(NOW)).await.map_err(in_life) },
        async { registry.heartbeat(&lease, NOW, &quality).await.map(|_| ()).map_err(in_life) },
        async { registry.release(&lease, ReleaseReason::Finished, NOW).await.map(|_| ()).map_err(in_life) },
        async { registry.lookup(&key, NOW).await.map(|_| ()) },
        async { registry.find_live(&app, &ids, NOW).await.map(|_| ()) },
        async { registry.list_broadcasts(&app, 0, 1).await.map(|_| ()) },
        async { registry.upsert_broadcast(&key, &record).await.map(|_| ()) },
        async { registry.delete_broadcast(&key).await.map(|_| ()) },
        async { registry.clean_own_leftovers(&leftovers).await.map(|_| ()) },
        registry.heartbeat_node(&row),
        async { registry.list_nodes().await.map(|_| ()) },
        async { registry.remove_node(&node).await.map(|_| ()) },
    );
    let took = begun_at.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (a, b, c, d, e, f, g, h, i, j, k, l, m, n) = answers;
    for (nr, answer) in [a, b, c, d, e, f, g, h, i, j, k, l, m, n].into_iter().enumerate() {
        assert!(answer.as_ref().is_err_and(RegistryError::is_transient), "call {nr}: {answer:?}");
    }
    let begun_at = Instant::now();
    registry.close().await;
    assert!(begun_at.elapsed() < Duration::from_secs(2), "closing took {:?}", begun_at.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_answers_costs_no_more_than_the_deadline() {
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = hole.local_addr().unwrap().port();
    let swallow = tokio::spawn(async move {
        let mut swallowed = Vec::new();
        while let Ok((stream, _)) = hole.accept().await {
            swallowed.push(stream);
        }
    });
    let begun_at = Instant::now();
    let uri: RegistryUri = format!("127.0.0.1:{port}").parse().unwrap();
    let registry = connect(&uri, short()).await.unwrap();
    assert!(begun_at.elapsed() < Duration::from_millis(600), "a node starts without its server");
    all_calls_end(&*registry).await;
    swallow.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_costs_no_more_than_the_deadline() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let uri: RegistryUri = format!("mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=30000").parse().unwrap();
    let registry = connect(&uri, short()).await.unwrap();
    all_calls_end(&*registry).await;
}

async fn open(uri: &str, prefix: &str) -> std::sync::Arc<dyn Registry> {
    let config = RegistryConfig { database_prefix: prefix.to_owned(), ..RegistryConfig::default() };
    connect(&uri.parse().unwrap(), config).await.unwrap()
}

async fn drop_databases(client: Client, prefix: &str) {
    for name in ["live", "clusterdb"] {
        client.database(&format!("{prefix}{name}")).drop().await.unwrap();
    }
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_have_the_types_other_readers_expect() {
    for uri in VARIABLES.iter().filter_map(|variable| mongo_uri(variable)) {
        let prefix = fresh_prefix();
        let registry = open(&uri, &prefix).await;
        let client = Client::with_uri_str(&uri).await.unwrap();
        let lease = registry.claim(claim_by("a", "s")).await.unwrap().lease;
        registry.mark_live(&lease, live_at(NOW)).await.unwrap();
        let quality = StreamQuality {
            bitrate: Some(1),
            speed: Some(1.0),
            width: Some(1),
            received_bytes: Some(1),
            rtt_ms: Some(1),
            ..StreamQuality::default()
        };
        registry.heartbeat(&lease, NOW, &quality).await.unwrap();
        let row = ClusterNodeRecord {
            id: "node-a".into(),
            ip: Some("10.0.0.1".into()),
            memory: Some("1/2".into()),
            cpu: Some("3".into()),
            ..ClusterNodeRecord::default()
        };
        registry.heartbeat_node(&row).await.unwrap();
        registry.close().await;

        let text = ElementType::String;
        let (int, long, flag) = (ElementType::Int32, ElementType::Int64, ElementType::Boolean);
        let broadcast: &[(&str, ElementType)] = &[
            ("_id", ElementType::ObjectId),
            ("streamId", text),
            ("status", text),
            ("type", text),
            ("publishType", text),
            ("originAdress", text),
            ("date", long),
            ("updateTime", long),
            ("startTime", long),
            ("absoluteStartTimeMs", long),
            ("plannedStartDate", long),
            ("duration", long),
            ("seekTimeInMs", long),
            ("receivedBytes", long),
            ("bitrate", long),
            ("speed", ElementType::Double),
            ("packetLostRatio", ElementType::Double),
            ("width", int),
            ("height", int),
            ("rttMs", int),
            ("mp4Enabled", int),
            ("webMEnabled", int),
            ("webRTCViewerCount", int),
            ("webRTCViewerLimit", int),
            ("subtracksLimit", int),
            ("expireDurationMS", int),
            ("zombi", flag),
            ("publish", flag),
            ("is360", flag),
            ("virtual", flag),
            ("encoderSettingsList", ElementType::Array),
            ("amsEpoch", long),
            ("amsNodeId", text),
            ("amsIncarnation", text),
            ("amsSession", text),
        ];
        let info: &[(&str, ElementType)] = &[
            ("streamId", text),
            ("host", text),
            ("height", int),
            ("width", int),
            ("videoBitrate", int),
            ("audioBitrate", int),
            ("videoRTimebase", int),
            ("audioRTimebase", int),
            ("originPort", int),
            ("videoEnabled", flag),
            ("audioEnabled", flag),
            ("dataChannelEnabled", flag),
            ("videoCodec", text),
            ("nodeGroup", text),
            ("isGlobalHost", flag),
        ];
        let node: &[(&str, ElementType)] = &[
            ("_id", text),
            ("ip", text),
            ("lastUpdateTime", long),
            ("memory", text),
            ("cpu", text),
            ("dbQueryAveargeTimeMs", long),
        ];
        for (database, collection, fields) in
            [("live", "broadcast", broadcast), ("live", "StreamInfo", info), ("clusterdb", "clusternode", node)]
        {
            let collection = client.database(&format!("{prefix}{database}")).collection::<RawDocumentBuf>(collection);
            let document = collection.find_one(Document::new()).await.unwrap().unwrap();
            for (name, want) in fields {
                let got = document.get(name).unwrap().map(|value| value.element_type());
                assert_eq!(got, Some(*want), "{}.{name}", collection.name());
            }
            let nulls: Vec<_> = document.iter().map(Result::unwrap).filter(|(_, v)| v.as_null().is_some()).collect();
            assert!(nulls.is_empty(), "{nulls:?}");
        }
        drop_databases(client, &prefix).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_are_made_and_those_of_another_program_kept() {
    for uri in VARIABLES.iter().filter_map(|variable| mongo_uri(variable)) {
        let prefix = fresh_prefix();
        let client = Client::with_uri_str(&uri).await.unwrap();
        let broadcasts = client.database(&format!("{prefix}live")).collection::<Document>("broadcast");
        // The same keys under another name, and a text index over other fields: both would conflict.
        let named = IndexOptions::builder().name("theirs".to_owned()).build();
        for model in [
            IndexModel::builder().keys(doc! { "status": 1 }).options(named).build(),
            IndexModel::builder().keys(doc! { "name": "text", "description": "text" }).build(),
        ] {
            broadcasts.create_index(model).await.unwrap();
        }
        let registry = open(&uri, &prefix).await;
        let app = key("s").app;
        registry.prepare_app(&app).await.unwrap();
        registry.prepare_app(&app).await.unwrap();
        let again = open(&uri, &prefix).await;
        again.prepare_app(&app).await.unwrap();
        let names = broadcasts.list_index_names().await.unwrap();
        for name in ["streamId_unique_index", "theirs"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        let twins = broadcasts.insert_many([doc! { "streamId": "x" }, doc! { "streamId": "x" }]).await;
        assert!(twins.is_err(), "a stream id is unique");
        again.close().await;
        registry.close().await;
        drop_databases(client, &prefix).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_counter_somebody_broke_counts_again() {
    for uri in VARIABLES.iter().filter_map(|variable| mongo_uri(variable)) {
        let prefix = fresh_prefix();
        let client = Client::with_uri_str(&uri).await.unwrap();
        let counters = client.database(&format!("{prefix}live")).collection::<Document>(EPOCH_COLLECTION);
        let registry = open(&uri, &prefix).await;
        for (stream_id, epoch) in [
            ("text", Bson::from("x")),
            ("negative", Bson::Int64(-5)),
            ("huge", Bson::Int64(i64::MAX)),
            ("double", Bson::Double(3.5)),
            ("null", Bson::Null),
        ] {
            counters.insert_one(doc! { "_id": stream_id, "epoch": epoch }).await.unwrap();
            let mut last = Epoch(0);
            for _ in 0..2 {
                let lease = registry.claim(claim_by("a", stream_id)).await.unwrap().lease;
                assert!(lease.epoch > last, "{stream_id}");
                last = lease.epoch;
                registry.release(&lease, ReleaseReason::Finished, NOW).await.unwrap();
            }
        }
        registry.close().await;
        drop_databases(client, &prefix).await;
    }
}

/// Passes connections on to a server until it is told to swallow everything, old connections included.
struct Tunnel {
    address: std::net::SocketAddr,
    open: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Tunnel {
    async fn to(server: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, mut is_open) = tokio::sync::watch::channel(true);
        let task = tokio::spawn(async move {
            let mut links = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let (server, mut is_open) = (server.clone(), is_open.clone());
                links.spawn(async move {
                    if *is_open.borrow_and_update() {
                        let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                            _ = is_open.changed() => {}
                        }
                    }
                    // Swallowed: neither answered nor closed, until the tunnel opens again.
                    let _ = is_open.wait_for(|open| *open).await;
                });
            }
            let _ = is_open.changed().await;
        });
        Self { address, open, task }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_is_used_again() {
    for uri in VARIABLES.iter().filter_map(|variable| mongo_uri(variable)) {
        let server = uri.trim_start_matches("mongodb://").split('/').next().unwrap().to_owned();
        let tunnel = Tunnel::to(server).await;
        let prefix = fresh_prefix();
        let config = RegistryConfig { database_prefix: prefix.clone(), ..short() };
        let through = format!("mongodb://{}/?directConnection=true", tunnel.address);
        let registry = connect(&through.parse().unwrap(), config).await.unwrap();
        let patient = Instant::now() + Duration::from_secs(20);
        while registry.prepare_app(&key("s").app).await.is_err() {
            assert!(Instant::now() < patient, "indexes are made in several attempts if need be");
        }
        let lease = registry.claim(claim_by("a", "s")).await.unwrap().lease;

        tunnel.open.send(false).unwrap();
        let begun_at = Instant::now();
        let answer = registry.heartbeat(&lease, NOW, &StreamQuality::default()).await;
        assert!(matches!(&answer, Err(ClaimError::Registry(e)) if e.is_transient()), "{answer:?}");
        assert!(begun_at.elapsed() < Duration::from_secs(1));

        tunnel.open.send(true).unwrap();
        let begun_at = Instant::now();
        while let Err(error) = registry.heartbeat(&lease, NOW, &StreamQuality::default()).await {
            assert!(matches!(&error, ClaimError::Registry(e) if e.is_transient()), "{error:?}");
            assert!(begun_at.elapsed() < Duration::from_secs(10), "the registry did not come back");
        }
        registry.close().await;
        tunnel.task.abort();
        drop_databases(Client::with_uri_str(&uri).await.unwrap(), &prefix).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_read_from_both_collections_and_written_where_they_are() {
    for uri in VARIABLES.iter().filter_map(|variable| mongo_uri(variable)) {
        let prefix = fresh_prefix();
        let registry = open(&uri, &prefix).await;
        let client = Client::with_uri_str(&uri).await.unwrap();
        let users = |name: &str| client.database(&format!("{prefix}serverdb")).collection::<Document>(name);
        let seed =
            doc! { "className": "io.antmedia.rest.model.User", "email": "old", "password": "p", "userType": "ADMIN" };
        users("User").insert_one(seed).await.unwrap();
        assert_eq!(registry.find_user("old").await.unwrap().unwrap()["userType"], "ADMIN");
        let made = |email: &str| crate::JsonMap::from_iter([("email".to_owned(), email.into())]);
        assert!(!registry.create_user(&made("first"), true).await.unwrap(), "somebody is there, in the other one");
        assert!(registry.create_user(&made("beside"), false).await.unwrap());
        assert!(users("User").find_one(doc! { "email": "beside" }).await.unwrap().is_some(), "beside the others");

        users("user").insert_one(doc! { "_t": "User", "email": "new", "password": "p" }).await.unwrap();
        users("user").insert_one(doc! { "_t": "User", "email": "old", "password": "newer" }).await.unwrap();
        assert!(registry.create_user(&made("present"), false).await.unwrap());
        assert!(users("user").find_one(doc! { "email": "present" }).await.unwrap().is_some(), "AMS reads here now");
        let list = registry.list_users().await.unwrap();
        let listed: Vec<_> = list.iter().map(|user| user["email"].as_str().unwrap()).collect();
        assert_eq!(listed, ["beside", "new", "old", "present"]);
        assert_eq!(registry.find_user("old").await.unwrap().unwrap()["password"], "newer", "the present one counts");

        let set = crate::JsonMap::from_iter([("password".to_owned(), "q".into())]);
        for email in ["beside", "new"] {
            assert!(registry.edit_user(email, &set, &crate::JsonMap::new()).await.unwrap());
        }
        let former = users("User").find_one(doc! { "email": "beside", "password": "q" }).await.unwrap();
        assert!(former.is_some_and(|user| user.get_object_id("_id").is_ok()), "with an id as AMS's mapper takes it");
        let present = users("user").find_one(doc! { "email": "new", "password": "q" }).await.unwrap();
        assert_eq!(present.unwrap().get_str("_t").unwrap(), "User", "fields of others stay");
        assert!(registry.delete_user("old").await.unwrap());
        assert!(registry.find_user("old").await.unwrap().is_none(), "in none of them");

        registry.close().await;
        client.database(&format!("{prefix}serverdb")).drop().await.unwrap();
        client.shutdown().await;
    }
}
