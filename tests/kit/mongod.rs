//! A MongoDB server of a test's own, to be killed and started again.
//!
//! Owns the process and its data: both are gone when the value is dropped.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::eventually;
use crate::node::free_port;

/// The server.
#[derive(Debug)]
pub struct Mongod {
    port: u16,
    data: TempDir,
    child: Child,
}

impl Mongod {
    /// Starts a standalone server and waits until it takes connections.
    ///
    /// # Errors
    /// `AMS_TEST_MONGOD` is not set, or it did not start.
    pub async fn start() -> Result<Self> {
        let (port, data) = (free_port(Ipv4Addr::LOCALHOST)?, tempfile::tempdir()?);
        let child = spawn(port, &data)?;
        let server = Self { port, data, child };
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

    /// Starts it again on its data, after [`Self::kill`].
    ///
    /// # Errors
    /// It did not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.child = spawn(self.port, &self.data)?;
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

fn spawn(port: u16, data: &TempDir) -> Result<Child> {
    let program = std::env::var_os("AMS_TEST_MONGOD")
        .context("AMS_TEST_MONGOD is not set: run this through tests/run, or tests/env/with-mongo")?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .arg("--dbpath")
        .arg(data.path())
        .args(["--port", &port.to_string(), "--bind_ip", "127.0.0.1", "--nounixsocket"])
        .args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting mongod")
}
