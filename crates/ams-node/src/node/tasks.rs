//! The control tasks of a node.
//!
//! Owns that each is waited for at the end. In a simulation all of them can end at once, as those of a killed process do.

use std::future::Future;

use tokio::task::JoinHandle;
#[cfg(test)]
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
#[cfg(test)]
use tracing::Instrument as _;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: TaskTracker,
    /// Ends them where they stand.
    #[cfg(test)]
    killed: CancellationToken,
    /// Whose they are, for the log.
    #[cfg(test)]
    node: Option<tracing::Span>,
}

impl Tasks {
    /// Tasks that end where they stand when `killed` says so.
    #[cfg(test)]
    pub(crate) fn mortal(killed: CancellationToken, node: tracing::Span) -> Self {
        Self { killed, node: Some(node), ..Self::default() }
    }

    /// Starts one.
    #[cfg(not(test))]
    pub(super) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.running.spawn(task)
    }

    /// Starts one; it never answers when it was killed.
    #[cfg(test)]
    pub(super) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let killed = self.killed.clone();
        let mortal = async move {
            match killed.run_until_cancelled_owned(task).await {
                Some(output) => output,
                None => std::future::pending().await,
            }
        };
        self.running.spawn(mortal.instrument(self.node.clone().unwrap_or_else(tracing::Span::none)))
    }

    /// Waits until all have ended. None is started from now on.
    pub(super) async fn wait(&self) {
        self.running.close();
        self.running.wait().await;
    }
}
