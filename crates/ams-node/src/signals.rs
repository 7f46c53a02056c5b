//! Signals: the first SIGINT or SIGTERM asks the node to end, the second ends it at once; SIGUSR1 asks it to drain, SIGUSR2
//! takes that back; a hang-up reloads the log level.
//!
//! Owns the mapping from signals to a [`CancellationToken`] and the wish to drain. Never shuts anything down itself: whoever holds them does, in its own
//! order.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Exit code after a second signal: 128 + SIGINT, what a shell reports for an interrupted command.
const EXIT_INTERRUPTED: i32 = 130;

/// Watches SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP until the runtime ends. `on_hangup` must be quick: it runs on the runtime.
///
/// # Errors
/// The system's, when a handler cannot be installed.
pub(crate) fn watch(
    cancel: CancellationToken,
    drain: watch::Sender<bool>,
    on_hangup: impl Fn() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut signals = Signals {
        drain: signal(SignalKind::user_defined1())?,
        stay: signal(SignalKind::user_defined2())?,
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hangup: signal(SignalKind::hangup())?,
    };
    Ok(tokio::spawn(async move {
        let mut ending = false;
        loop {
            match signals.next().await {
                Ask::Reload => on_hangup(),
                Ask::Drain(wish) => {
                    drain.send_replace(wish);
                }
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
    /// To drain, or to stay after all.
    Drain(bool),
}

struct Signals {
    drain: Signal,
    stay: Signal,
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
            _ = self.drain.recv() => Ask::Drain(true),
            _ = self.stay.recv() => Ask::Drain(false),
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
        let (drain, mut wishes) = watch::channel(false);
        let watching = watch(cancel.clone(), drain, move || called.try_send(()).unwrap()).unwrap();
        for (signal, wish) in [(Number::USR1, true), (Number::USR2, false)] {
            kill_process(getpid(), signal).unwrap();
            timeout(deadline, wishes.wait_for(|now| *now == wish)).await.unwrap().unwrap();
        }
        assert!(!cancel.is_cancelled(), "a drain is not an end");
        kill_process(getpid(), Number::HUP).unwrap();
        timeout(deadline, calls.recv()).await.unwrap().unwrap();
        assert!(!cancel.is_cancelled(), "a hang-up ends nothing");
        kill_process(getpid(), Number::TERM).unwrap();
        timeout(deadline, cancel.cancelled()).await.unwrap();
        watching.abort();
    }
}
