//! A MongoDB server of a test's own, to be killed and started again.
//!
//! Owns the process and its data: both are gone when the value is dropped.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use mongodb::Client;
use mongodb::bson::doc;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::eventually;
use crate::node::{free_port, signal};

/// The server.
#[derive(Debug)]
pub struct Mongod {
    port: u16,
    data: TempDir,
    /// The replica set it is a member of.
    set: Option<&'static str>,
    child: Child,
}

/// A replica set of three members, of which one can be lost.
#[derive(Debug)]
pub struct ReplicaSet {
    members: Vec<Mongod>,
}

/// The name of every test's replica set.
const SET: &str = "three";

impl ReplicaSet {
    /// Starts three servers and waits until one of them is primary.
    ///
    /// # Errors
    /// `AMS_TEST_MONGOD` is not set, or they did not come together.
    pub async fn start() -> Result<Self> {
        let members = futures_util::future::try_join_all((0..3).map(|_| Mongod::start_as(Some(SET)))).await?;
        let set = Self { members };
        let hosts: Vec<_> = (0i32..)
            .zip(&set.members)
            .map(|(at, member)| doc! { "_id": at, "host": format!("127.0.0.1:{}", member.port) })
            .collect();
        // Elections as quick as operators set them who care.
        let settings = doc! { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500 };
        let config = doc! { "_id": SET, "members": hosts, "settings": settings };
        let first = Client::with_uri_str(format!("{}/?directConnection=true", set.members[0].uri())).await?;
        first.database("admin").run_command(doc! { "replSetInitiate": config }).await?;
        eventually("the set has a primary", Duration::from_secs(30), || async { set.primary().await.ok() }).await?;
        Ok(set)
    }

    /// Its URI.
    pub fn uri(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
        format!("mongodb://{}/?replicaSet={SET}", hosts.join(","))
    }

    /// Which member is primary.
    async fn primary(&self) -> Result<usize> {
        for (at, member) in self.members.iter().enumerate() {
            let uri = format!("{}/?directConnection=true&serverSelectionTimeoutMS=500", member.uri());
            let hello = Client::with_uri_str(uri).await?.database("admin").run_command(doc! { "hello": 1 }).await;
            if hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false)) {
                return Ok(at);
            }
        }
        anyhow::bail!("no primary")
    }

    /// Kills the primary as `kill -9` does. Returns its place.
    ///
    /// # Errors
    /// There is none, or the system would not.
    pub async fn kill_primary(&mut self) -> Result<usize> {
        let at = self.primary().await?;
        self.members[at].kill()?;
        Ok(at)
    }

    /// Starts a killed member again.
    ///
    /// # Errors
    /// It did not start.
    pub async fn restart(&mut self, at: usize) -> Result<()> {
        self.members[at].restart().await
    }
}

impl Mongod {
    /// Starts a standalone server and waits until it takes connections.
    ///
    /// # Errors
    /// `AMS_TEST_MONGOD` is not set, or it did not start.
    pub async fn start() -> Result<Self> {
        Self::start_as(None).await
    }

    async fn start_as(set: Option<&'static str>) -> Result<Self> {
        let (port, data) = (free_port(Ipv4Addr::LOCALHOST)?, tempfile::tempdir()?);
        let child = spawn(port, &data, set)?;
        let server = Self { port, data, set, child };
        server.wait_ready().await?;
        Ok(server)
    }

    /// Its URI.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// The system would not.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal, as [`crate::node::NodeProcess::signal`] does.
    ///
    /// # Errors
    /// The system would not.
    pub fn signal(&self, name: &str) -> Result<()> {
        signal(&self.child, name)
    }

    /// Starts it again on its data, after [`Self::kill`].
    ///
    /// # Errors
    /// It did not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.child = spawn(self.port, &self.data, self.set)?;
        self.wait_ready().await
    }

    async fn wait_ready(&self) -> Result<()> {
        eventually("mongod takes connections", Duration::from_secs(20), || async {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.ok()
        })
        .await
        .map(drop)
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, data: &TempDir, set: Option<&str>) -> Result<Child> {
    let program = std::env::var_os("AMS_TEST_MONGOD")
        .context("AMS_TEST_MONGOD is not set: run this through tests/run, or tests/env/with-mongo")?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .arg("--dbpath")
        .arg(data.path())
        .args(["--port", &port.to_string(), "--bind_ip", "127.0.0.1", "--nounixsocket"])
        .args(set.map(|set| ["--replSet", set]).into_iter().flatten())
        .args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting mongod")
}
