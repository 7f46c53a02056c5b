//! A cluster as operators run it: an origin and edges as processes with a shared key and a real MongoDB.
//!
//! Owns the key file and the databases. Every cluster of a test run has a network of its own, so that none meets
//! another's ports.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::mongo::{self, Databases};
use crate::node::{NodeOptions, NodeProcess};

/// The cluster. Its first origin is at 127.0.NET.11, its edges follow from .12.
#[derive(Debug)]
pub struct Cluster {
    /// The databases.
    pub databases: Databases,
    /// The origin.
    pub origin: NodeProcess,
    /// The edges.
    pub edges: Vec<NodeProcess>,
    net: u8,
    registry: String,
    key: PathBuf,
    _secrets: TempDir,
}

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Third byte of its addresses; each case has its own.
    pub net: u8,
    /// Edges.
    pub edges: u8,
    /// Registry; the standalone server of the run by default.
    pub registry: Option<String>,
    /// Further arguments of all nodes.
    pub args: Vec<String>,
}

impl ClusterOptions {
    /// This many edges in this network.
    pub fn new(net: u8, edges: u8) -> Self {
        Self { net, edges, registry: None, args: Vec::new() }
    }

    /// With these arguments at every node.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }

    /// With this registry.
    #[must_use]
    pub fn registry(mut self, uri: String) -> Self {
        self.registry = Some(uri);
        self
    }
}

impl Cluster {
    /// Starts all nodes and waits until they are ready.
    ///
    /// # Errors
    /// No server, or a node did not become ready.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let registry = options.registry.clone().map_or_else(mongo::uri, Ok)?;
        let databases = Databases::on(&registry).await?;
        let secrets = tempfile::tempdir()?;
        let key = secrets.path().join("cluster.key");
        std::fs::write(&key, format!("{:032x}\n", rand::random::<u128>()))?;
        let node = |mode, host| {
            let args: Vec<&str> = options.args.iter().map(String::as_str).collect();
            let node = NodeOptions {
                registry: Some(registry.clone()),
                prefix: Some(databases.prefix.clone()),
                key: Some(key.clone()),
                ..NodeOptions::new(mode, [127, 0, options.net, host])
            };
            NodeProcess::start(node.args(&args))
        };
        let (origin, edges) = tokio::join!(
            node("origin", 11),
            futures_util::future::try_join_all((0..options.edges).map(|n| node("edge", 12 + n)))
        );
        let (origin, edges) = (origin?, edges?);
        Ok(Self { databases, origin, edges, net: options.net, registry, key, _secrets: secrets })
    }

    /// How another node of this cluster is started, at 127.0.NET.HOST.
    pub fn node(&self, mode: &'static str, host: u8) -> NodeOptions {
        NodeOptions {
            registry: Some(self.registry.clone()),
            prefix: Some(self.databases.prefix.clone()),
            key: Some(self.key.clone()),
            ..NodeOptions::new(mode, [127, 0, self.net, host])
        }
    }

    /// An edge.
    ///
    /// # Errors
    /// There are not that many.
    pub fn edge(&self, at: usize) -> Result<&NodeProcess> {
        self.edges.get(at).context("no such edge")
    }

    /// An edge, to be killed and the like.
    ///
    /// # Errors
    /// There are not that many.
    pub fn edge_mut(&mut self, at: usize) -> Result<&mut NodeProcess> {
        self.edges.get_mut(at).context("no such edge")
    }

    /// The shared secret's file.
    pub fn key(&self) -> &PathBuf {
        &self.key
    }

    /// Ends the nodes and drops the databases.
    pub async fn end(self) {
        let Self { databases, origin, edges, .. } = self;
        drop((origin, edges));
        databases.drop_all().await;
    }
}
