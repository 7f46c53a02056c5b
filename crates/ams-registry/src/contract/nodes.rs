//! Contract: the nodes' rows.

use ams_types::Incarnation;
use mongodb::bson::doc;
use serde_json::json;

use super::bench::{Bench, NOW, node};
use crate::record::node as rows;
use crate::{ClusterNodeRecord, RegistryError};

fn row(id: &str) -> ClusterNodeRecord {
    ClusterNodeRecord {
        id: id.into(),
        ip: Some("10.0.0.1".into()),
        last_update_time: NOW,
        memory: Some("100/2000".into()),
        cpu: Some("12".into()),
        db_query_average_time_ms: 3,
        incarnation: Some(Incarnation(0xabc).to_string()),
        http_port: 5080,
        relay_port: 5000,
        role: Some("edge".into()),
        state: Some("ready".into()),
        seats_left: 100,
        streams: 2,
        viewers: 30,
        ..ClusterNodeRecord::default()
    }
}

pub(super) async fn a_node_is_listed_until_it_is_removed(bench: &Bench) {
    assert!(bench.a.list_nodes().await.unwrap().is_empty());
    for id in ["node-b", "node-a"] {
        bench.a.heartbeat_node(&row(id)).await.unwrap();
    }
    let later = ClusterNodeRecord { last_update_time: NOW + 5000, viewers: 31, role: None, ..row("node-a") };
    bench.b.heartbeat_node(&later).await.unwrap();
    let nodes = bench.b.list_nodes().await.unwrap();
    assert_eq!(nodes, [later, row("node-b")]);
    assert_eq!(nodes[0].node_id(), Some(node("node-a")));
    assert_eq!(nodes[0].incarnation(), Some(Incarnation(0xabc)));
    assert!(nodes[1].is_fresh(NOW + 20_000) && !nodes[1].is_fresh(NOW + 20_001));
    assert!(bench.a.remove_node(&node("node-a")).await.unwrap());
    assert!(!bench.a.remove_node(&node("node-a")).await.unwrap());
    assert_eq!(bench.a.list_nodes().await.unwrap().len(), 1);
}

pub(super) async fn a_heartbeat_keeps_fields_of_others(bench: &Bench) {
    bench.plant(rows::COLLECTION, doc! { "_id": "node-a", "note": "rack 4", "lastUpdateTime": 1_i64 }).await;
    bench.a.heartbeat_node(&row("node-a")).await.unwrap();
    let stored = bench.fetch(rows::COLLECTION, "node-a").await.pop().unwrap();
    assert_eq!(stored.get("note"), Some(&json!("rack 4")));
    assert_eq!(stored.get("lastUpdateTime"), Some(&json!(NOW)));
    assert_eq!(stored.get("dbQueryAveargeTimeMs"), Some(&json!(3)));
    assert_eq!(bench.b.list_nodes().await.unwrap()[0].extra.get("note"), Some(&json!("rack 4")));
}

pub(super) async fn a_node_without_a_name_is_refused(bench: &Bench) {
    for id in ["", "two words"] {
        let refused = bench.a.heartbeat_node(&row(id)).await;
        assert!(matches!(refused, Err(RegistryError::InvalidRequest { .. })), "{id:?}: {refused:?}");
    }
    assert!(bench.a.list_nodes().await.unwrap().is_empty());
}

pub(super) async fn a_broken_row_does_not_hide_the_others(bench: &Bench) {
    let broken = doc! { "_id": "broken", "ip": 7, "lastUpdateTime": "now", "cpu": 12, "viewers": [] };
    bench.plant(rows::COLLECTION, broken).await;
    bench.a.heartbeat_node(&row("node-a")).await.unwrap();
    let nodes = bench.a.list_nodes().await.unwrap();
    assert_eq!(nodes.len(), 2);
    assert_eq!((nodes[0].id.as_str(), nodes[0].ip.as_deref(), nodes[0].last_update_time), ("broken", None, 0));
    assert_eq!(bench.a.stats().fields_misread, 4);
}
