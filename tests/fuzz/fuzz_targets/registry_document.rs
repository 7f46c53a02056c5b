//! Documents of the registry, which other programs write too: every type in every field.
#![no_main]

use ams_registry::{BroadcastRecord, ClusterNodeRecord, JsonMap, StreamInfoRecord};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = serde_json::from_slice::<JsonMap>(bytes) else { return };
    let (broadcast, misread) = BroadcastRecord::from_json(document.clone());
    assert!(misread.iter().all(|name| document.contains_key(*name)), "a field that is not there was misread");
    for now_ms in [i64::MIN, -1, 0, 1_700_000_000_000, i64::MAX] {
        broadcast.effective_status(now_ms);
        broadcast.is_held(now_ms);
        broadcast.to_rest_json(now_ms);
    }
    broadcast.owner_node();
    broadcast.owner_incarnation();
    broadcast.epoch();
    // What REST shows reads as the same record again, or at least as one.
    BroadcastRecord::from_json(broadcast.to_rest_json(0));
    let (node, _) = ClusterNodeRecord::from_json(document.clone());
    for now_ms in [i64::MIN, 0, i64::MAX] {
        node.is_fresh(now_ms);
    }
    node.node_id();
    node.incarnation();
    StreamInfoRecord::from_json(document).0.epoch();
});
