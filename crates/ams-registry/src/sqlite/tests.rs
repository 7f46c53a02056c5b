//! What only a file can show: that it survives, and that one which is no registry is refused.

use super::*;
use crate::contract::bench::{NOW, claim_by, key, live_at};

async fn open(path: &std::path::Path) -> Result<SqliteRegistry, RegistryError> {
    SqliteRegistry::open(Some(path.to_owned()), RegistryConfig::default()).await
}

#[tokio::test]
async fn a_file_keeps_its_records_also_when_it_was_not_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let registry = open(&path).await.unwrap();
    let lease = registry.claim(claim_by("a", "s")).await.unwrap().lease;
    registry.mark_live(&lease, live_at(NOW)).await.unwrap();
    // As after kill -9: the file and its log as they are, nothing folded in.
    let copy = folder.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(folder.path().join("registry.db-wal"), folder.path().join("copy.db-wal")).unwrap();
    let reopened = open(&copy).await.unwrap();
    let seen = reopened.lookup(&key("s"), NOW).await.unwrap().unwrap();
    assert!(seen.is_live());
    assert_eq!(seen.epoch, lease.epoch);
    reopened.close().await;
    registry.close().await;

    let reopened = open(&path).await.unwrap();
    assert!(reopened.lookup(&key("s"), NOW).await.unwrap().unwrap().is_live());
    reopened.close().await;
    assert!(!folder.path().join("registry.db-wal").exists(), "closing folds the log in");
}

#[tokio::test]
async fn what_cannot_be_a_registry_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, vec![7; 8192]).unwrap();
    let later = folder.path().join("later.db");
    Connection::open(&later).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for (name, path, words) in [
        ("not a database", garbage, "not a database"),
        ("of a later version", later, "later version"),
        ("in no folder", folder.path().join("no/registry.db"), "folder does not exist"),
        ("a folder", folder.path().to_owned(), "unable to open"),
    ] {
        let error = open(&path).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, RegistryError::Open { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_document_that_is_no_json_reads_as_an_empty_one() {
    let registry = SqliteRegistry::open(None, RegistryConfig::default()).await.unwrap();
    registry.raw(|c| c.execute("INSERT INTO broadcast VALUES ('live', 's', '{broken')", []).unwrap()).await;
    let record = registry.get_broadcast(&key("s")).await.unwrap().unwrap();
    assert_eq!(record.stream_id, "s");
    assert_eq!(registry.stats().fields_misread, 1);
    assert!(registry.claim(claim_by("a", "s")).await.is_ok());
    registry.close().await;
}

#[tokio::test]
async fn another_process_that_holds_the_file_costs_no_more_than_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let config =
        RegistryConfig { operation_timeout: std::time::Duration::from_millis(200), ..RegistryConfig::default() };
    let registry = SqliteRegistry::open(Some(path.clone()), config).await.unwrap();
    let mut other = Connection::open(&path).unwrap();
    let held = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let begun_at = std::time::Instant::now();
    let answer = registry.claim(claim_by("a", "s")).await;
    assert!(begun_at.elapsed() < std::time::Duration::from_secs(2));
    assert!(matches!(&answer, Err(ClaimError::Registry(error)) if error.is_transient()), "{answer:?}");
    assert!(registry.lookup(&key("s"), NOW).await.unwrap().is_none(), "reading goes on");
    drop(held);
    let deadline = begun_at + std::time::Duration::from_secs(10);
    while registry.claim(claim_by("a", "s")).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the registry did not recover");
    }
    registry.close().await;
}
