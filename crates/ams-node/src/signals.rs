//! Signals: the first one asks the node to end, the second ends it at once, a hang-up reloads the log level.
//!
//! Owns the mapping from signals to a [`CancellationToken`]. Never shuts anything down itself: whoever holds the
//! token does, in its own order.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Exit code after a second signal: 128 + SIGINT, what a shell reports for an interrupted command.
const EXIT_INTERRUPTED: i32 = 130;

/// Watches SIGINT, SIGTERM and SIGHUP until the runtime ends. `on_hangup` must be quick: it runs on the runtime.
///
/// # Errors
/// The system's, when a handler cannot be installed.
pub(crate) fn watch(cancel: CancellationToken, on_hangup: impl Fn() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hangup: signal(SignalKind::hangup())?,
    };
    Ok(tokio::spawn(async move {
        let mut ending = false;
        loop {
            match signals.next().await {
                Ask::Reload => on_hangup(),
                Ask::End(name) if !ending => {
                    ending = true;
                    info!(signal = name, "ending; a second signal ends it at once");
                    cancel.cancel();
                }
                Ask::End(name) => {
                    eprintln!("ams-node: second signal ({name}), ending at once");
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        }
    }))
}

enum Ask {
    End(&'static str),
    Reload,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.interrupt.recv() => Ask::End("SIGINT"),
            _ = self.terminate.recv() => Ask::End("SIGTERM"),
            _ = self.hangup.recv() => Ask::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Number, getpid, kill_process};
    use std::time::Duration;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_hangup_calls_back_and_the_first_signal_cancels() {
        let deadline = Duration::from_secs(10);
        let cancel = CancellationToken::new();
        let (called, mut calls) = mpsc::channel(4);
        let watching = watch(cancel.clone(), move || called.try_send(()).unwrap()).unwrap();
        kill_process(getpid(), Number::HUP).unwrap();
        timeout(deadline, calls.recv()).await.unwrap().unwrap();
        assert!(!cancel.is_cancelled(), "a hang-up ends nothing");
        kill_process(getpid(), Number::TERM).unwrap();
        timeout(deadline, cancel.cancelled()).await.unwrap();
        watching.abort();
    }
}
