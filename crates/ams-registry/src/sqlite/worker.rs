//! A thread that owns one SQLite connection and does one job after another, or such a connection without a thread.
//!
//! Owns the connection's life. Its queue is bounded: a job that finds it full is refused, and one whose caller has
//! gone is not begun.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::schema::{self, Access};
use crate::error::RegistryError;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    queue: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Jobs are done here, by whoever brings them, and there is no thread.
    in_place: Option<Mutex<Connection>>,
}

impl Worker {
    /// Starts the thread and has it open its connection; `path` of `None` is a database in memory.
    pub(super) async fn start(path: Option<PathBuf>, access: Access, queue_len: usize) -> Result<Self, RegistryError> {
        let (queue, jobs) = sync_channel(queue_len);
        let (opened_tx, opened) = oneshot::channel();
        let shown = path.as_ref().map_or_else(|| "memory".to_owned(), |path| path.display().to_string());
        let cannot = |reason: String| RegistryError::Open { path: shown.clone(), reason };
        let thread = Builder::new().name(format!("registry-{access}")).spawn(move || {
            match schema::open(path.as_deref(), access) {
                Ok(connection) => {
                    let _ = opened_tx.send(Ok(()));
                    work(connection, &jobs);
                }
                Err(reason) => {
                    let _ = opened_tx.send(Err(reason));
                }
            }
        });
        let thread = thread.map_err(|error| cannot(error.to_string()))?;
        match opened.await {
            Ok(Ok(())) => Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)), in_place: None }),
            Ok(Err(reason)) => Err(cannot(reason)),
            Err(_) => Err(cannot("its thread ended".to_owned())),
        }
    }

    /// A database in memory whose jobs are done where they are brought.
    pub(super) fn in_place() -> Result<Self, RegistryError> {
        let opened = schema::open(None, Access::Write { patience: Duration::ZERO });
        let connection = opened.map_err(|reason| RegistryError::Open { path: "memory".to_owned(), reason })?;
        Ok(Self { queue: Mutex::default(), thread: Mutex::default(), in_place: Some(Mutex::new(connection)) })
    }

    /// Queues `job` and waits for its answer. Dropped while it waits in the queue, the job is not begun.
    pub(super) async fn run<T, E, F>(&self, operation: &'static str, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<RegistryError> + Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    {
        if let Some(connection) = &self.in_place {
            return job(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let (answer_tx, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !answer_tx.is_closed() {
                let _ = answer_tx.send(job(connection));
            }
        });
        let queued = match &*self.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(queue) => queue.try_send(job),
            None => return Err(RegistryError::Closed.into()),
        };
        match queued {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(RegistryError::Overloaded { operation }.into()),
            Err(TrySendError::Disconnected(_)) => return Err(RegistryError::Closed.into()),
        }
        answer.await.unwrap_or_else(|_| Err(RegistryError::Closed.into()))
    }

    /// Lets the queued jobs finish, closes the connection and joins the thread. Idempotent.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn work(mut connection: Connection, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job(&mut connection);
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "registry file was not closed properly");
    }
}
