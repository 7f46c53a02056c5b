//! HAProxy as the balancer in front of a cluster: publishers to origins, viewers to edges, with health checks as operators
//! set them.
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
    origins: SocketAddr,
    edges: SocketAddr,
    child: Child,
    _config: TempDir,
}

impl Balancer {
    /// Starts one at 127.0.0.1 before these origins and edges.
    ///
    /// # Errors
    /// HAProxy is not installed, or did not start.
    pub async fn start(origins: &[SocketAddr], edges: &[SocketAddr]) -> Result<Self> {
        let address =
            || Ok::<_, anyhow::Error>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)?)));
        let fronts = [("origins", address()?, origins), ("edges", address()?, edges)];
        let mut text = "defaults\n mode http\n timeout connect 1s\n timeout client 90s\n timeout server 90s\n \
            timeout tunnel 1h\n option redispatch 1\n retries 3\n retry-on conn-failure empty-response 503\n \
            option forwardfor\n option httpchk GET /readyz\n default-server check inter 500ms fall 2 rise 1\n"
            .to_owned();
        for (name, address, nodes) in &fronts {
            write!(text, "frontend to_{name}\n bind {address}\n default_backend {name}\n")?;
            write!(text, "backend {name}\n balance roundrobin\n")?;
            for (at, node) in nodes.iter().enumerate() {
                writeln!(text, " server {name}{at} {node}")?;
            }
        }
        let config = tempfile::tempdir()?;
        let file = config.path().join("haproxy.cfg");
        std::fs::write(&file, text)?;
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("starting haproxy")?;
        let [(_, origins, _), (_, edges, _)] = fronts;
        let balancer = Self { origins, edges, child, _config: config };
        for address in [origins, edges] {
            eventually("haproxy listens", Duration::from_secs(5), || async { TcpStream::connect(address).await.ok() })
                .await?;
        }
        Ok(balancer)
    }

    /// `http://…` of a path, at an origin.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.origins)
    }

    /// The socket that leads to an origin.
    pub fn to_origins(&self) -> String {
        format!("ws://{}/{APP}/websocket", self.origins)
    }

    /// The socket that leads to an edge.
    pub fn to_edges(&self) -> String {
        format!("ws://{}/{APP}/websocket", self.edges)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
