//! One test case: its runtime, its turn, its longest time, and the nodes' logs when it fails.
//!
//! Owns the order in which cases run: ordinary ones side by side as the harness has threads, heavy ones alone.

use std::cell::RefCell;
use std::future::Future;
use std::io::Write;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Longest a case may take before it counts as hung.
const CASE_MAX: Duration = Duration::from_secs(150);

static TURN: RwLock<()> = RwLock::new(());

tokio::task_local! {
    static LAST_WORDS: RefCell<Vec<String>>;
}

/// Runs a case.
///
/// # Panics
/// The case failed: with its error, and the last lines of its nodes' logs.
pub fn case(body: impl Future<Output = Result<()>>) {
    let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    run(body, CASE_MAX);
}

/// Runs a case beside others that may take as long as `limit`.
///
/// # Panics
/// As [`case`].
pub fn patient_case(limit: Duration, body: impl Future<Output = Result<()>>) {
    let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    run(body, limit);
}

/// Runs a case that needs the machine for itself.
///
/// # Panics
/// As [`case`].
pub fn heavy_case(body: impl Future<Output = Result<()>>) {
    let _turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
    run(body, CASE_MAX);
}

/// Runs a case alone that may take as long as `limit`.
///
/// # Panics
/// As [`case`].
pub fn long_case(limit: Duration, body: impl Future<Output = Result<()>>) {
    let _turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
    run(body, limit);
}

fn run(body: impl Future<Output = Result<()>>, limit: Duration) {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"));
    let (outcome, last_words) = runtime.block_on(LAST_WORDS.scope(RefCell::default(), async {
        let outcome = match tokio::time::timeout(limit, body).await {
            Ok(outcome) => outcome,
            Err(_) => bail_late(limit),
        };
        (outcome, LAST_WORDS.with(RefCell::take))
    }));
    runtime.shutdown_timeout(Duration::from_secs(2));
    if let Err(error) = outcome {
        last_words.iter().for_each(|words| say(words));
        panic!("after {:.1} s: {error:?}", begun.elapsed().as_secs_f32());
    }
}

fn bail_late(limit: Duration) -> Result<()> {
    bail!("the case did not end within {limit:?}")
}

/// Keeps what a node logged last, to be shown if the case fails.
pub(crate) fn keep_last_words(words: String) {
    if std::thread::panicking() {
        return say(&words);
    }
    let _ = LAST_WORDS.try_with(|all| all.borrow_mut().push(words));
}

/// Prints a line past the harness, which would keep it to itself when the test passes.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "    {line}");
}
