//! HAProxy as the balancer in front of a cluster: publishers to origins, with health checks as operators set them.
//!
//! Owns the process and its configuration; both are gone when the value is dropped.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::node::free_port;
use crate::{APP, eventually};

/// The balancer.
#[derive(Debug)]
pub struct Balancer {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _config: TempDir,
}

impl Balancer {
    /// Starts one at 127.0.0.1 before these nodes.
    ///
    /// # Errors
    /// HAProxy is not installed, or did not start.
    pub async fn start(nodes: &[SocketAddr]) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)?));
        let config = tempfile::tempdir()?;
        let file = config.path().join("haproxy.cfg");
        let mut text = format!(
            "defaults\n mode http\n timeout connect 1s\n timeout client 90s\n timeout server 90s\n timeout tunnel 1h\n \
             option redispatch\n retries 3\n option forwardfor\n\
             frontend publishers\n bind {address}\n default_backend origins\n\
             backend origins\n balance roundrobin\n option httpchk GET /readyz\n \
             default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n"
        );
        for (at, node) in nodes.iter().enumerate() {
            writeln!(text, " server origin{at} {node}")?;
        }
        std::fs::write(&file, text)?;
        let child = Command::new("haproxy")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let balancer = Self { address, child: child.context("starting haproxy")?, _config: config };
        eventually("haproxy listens", Duration::from_secs(5), || async { TcpStream::connect(address).await.ok() })
            .await?;
        Ok(balancer)
    }

    /// The socket of the application that all tests use.
    pub fn socket(&self) -> String {
        format!("ws://{}/{APP}/websocket", self.address)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
