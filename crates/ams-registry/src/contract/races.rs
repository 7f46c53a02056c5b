//! Contract: any number at once, one of them first.

use std::sync::{Arc, Mutex};

use ams_types::Epoch;

use super::bench::{Bench, NOW, claim_by, id, key};
use crate::{BroadcastRecord, ClaimError, ClaimRequest, Registry, ReleaseReason};

const RACES: usize = 1000;

pub(super) async fn of_two_claims_at_once_exactly_one_is_granted(bench: &Bench) {
    // Ten ids that publishers made, ten that REST made, ten of which each race finds a stale holder.
    let kinds = ["new", "made", "stale"];
    let names: Vec<String> = (0..30).map(|n| format!("{}-{n}", kinds[n % 3])).collect();
    for name in names.iter().filter(|name| name.starts_with("made")) {
        bench.a.create_broadcast(&key(name), &BroadcastRecord::default()).await.unwrap();
    }
    let mut last = vec![Epoch(0); names.len()];
    for race in 0..RACES {
        let at = race % names.len();
        let name = &names[at];
        // Each round over all ids is later than the lease of the last.
        let now_ms = NOW + 30_000 * (race / names.len()) as i64;
        let request = |by: &str| ClaimRequest { now_ms, session: format!("{by}-{race}"), ..claim_by(by, name) };
        let claims = tokio::join!(spawn(&bench.a, request("a")), spawn(&bench.b, request("b")));
        let (winner, loser) = match claims {
            (Ok(winner), Err(loser)) | (Err(loser), Ok(winner)) => (winner, loser),
            other => panic!("race {race} for {name}: {other:?}"),
        };
        assert!(matches!(loser, ClaimError::InUse(_)), "race {race} for {name}: {loser:?}");
        assert!(winner.lease.epoch > last[at], "race {race} for {name}: {} <= {}", winner.lease.epoch, last[at]);
        last[at] = winner.lease.epoch;
        if !name.starts_with("stale") {
            bench.a.release(&winner.lease, ReleaseReason::Finished, now_ms).await.unwrap();
        }
    }
}

async fn spawn(registry: &Arc<dyn Registry>, request: ClaimRequest) -> Result<crate::Claim, ClaimError> {
    let registry = Arc::clone(registry);
    tokio::spawn(async move { registry.claim(request).await }).await.unwrap()
}

pub(super) async fn epochs_of_successive_publications_rise_under_contention(bench: &Bench) {
    const PUBLISHERS: usize = 6;
    const WINS: usize = 120;
    // Each publisher takes the id when it can and gives it up at once: deletion and creation overlap all the time.
    let won = Arc::new(Mutex::new(Vec::new()));
    let mut publishers = Vec::new();
    for n in 0..PUBLISHERS {
        let registry = Arc::clone(if n % 2 == 0 { &bench.a } else { &bench.b });
        let won = Arc::clone(&won);
        publishers.push(tokio::spawn(async move {
            let name = ["a", "b", "c", "d", "e", "f"][n];
            // A clock that is off, each by another amount.
            let now_ms = NOW - 1000 * n as i64;
            while won.lock().unwrap().len() < WINS {
                match registry.claim(ClaimRequest { now_ms, ..claim_by(name, "s") }).await {
                    Ok(claim) => {
                        won.lock().unwrap().push(claim.lease.epoch);
                        registry.release(&claim.lease, ReleaseReason::Finished, now_ms).await.unwrap();
                    }
                    Err(ClaimError::InUse(_)) => tokio::task::yield_now().await,
                    Err(error) if matches!(&error, ClaimError::Registry(e) if e.is_transient()) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }));
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let won = won.lock().unwrap();
    let fall = won.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(fall, None, "an epoch fell");
}

pub(super) async fn of_two_that_make_a_record_one_does(bench: &Bench) {
    for round in 0..50 {
        let name = format!("s{round}");
        let key = key(&name);
        let record = BroadcastRecord::default();
        let (a, b) = tokio::join!(bench.a.create_broadcast(&key, &record), bench.b.create_broadcast(&key, &record));
        assert!(a.unwrap() != b.unwrap(), "{name}");
        let found = bench.a.get_broadcast(&key).await.unwrap().unwrap();
        assert_eq!(found.stream_id, id(&name).as_str());
    }
    assert_eq!(bench.a.count_broadcasts(&super::bench::app()).await.unwrap(), 50);
}
