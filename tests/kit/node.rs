//! A node as a process of its own.
//!
//! Owns the process: it is killed when the value is dropped. Its log goes to a file whose end is shown when
//! its case fails.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::case::keep_last_words;
use crate::{APP, eventually, http};

/// Key of the tokens that open the server's REST calls of every node started here.
pub const SERVER_KEY: &str = "0123456789abcdef0123456789abcdef";

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// `origin`, `edge`, `standalone`; or `demo`.
    pub mode: &'static str,
    /// Its address: every node of a test has its own, as hosts have.
    pub ip: Ipv4Addr,
    /// Where others are told it is, if that is another address.
    pub advertise: Option<Ipv4Addr>,
    /// Registry URI; none for `demo` and the default.
    pub registry: Option<String>,
    /// Database prefix, so that tests share a server.
    pub prefix: Option<String>,
    /// Cluster key file.
    pub key: Option<PathBuf>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Further environment.
    pub env: Vec<(String, String)>,
}

impl NodeOptions {
    /// A node of this mode at this address.
    pub fn new(mode: &'static str, ip: [u8; 4]) -> Self {
        let env = vec![("AMS_API__SERVER_JWT_SECRET".to_owned(), SERVER_KEY.to_owned())];
        Self { mode, ip: ip.into(), advertise: None, registry: None, prefix: None, key: None, args: Vec::new(), env }
    }

    /// With these arguments too.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running node.
#[derive(Debug)]
pub struct NodeProcess {
    /// Where its HTTP is.
    pub http: SocketAddr,
    /// Where its relay is.
    pub relay: SocketAddr,
    options: NodeOptions,
    child: Child,
    log: PathBuf,
}

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    // target/debug/deps/cluster-… → target/debug/ams-node
    let mut path = std::env::current_exe()?;
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = std::env::var_os("AMS_TEST_NODE").map_or(path.join("ams-node"), PathBuf::from);
    ensure!(path.exists(), "{} is not built: run `cargo build -p ams-node` first", path.display());
    Ok(path)
}

/// Sends a signal to a process.
pub(crate) fn signal(process: &Child, name: &str) -> Result<()> {
    let signalled = Command::new("kill").arg(format!("-{name}")).arg(process.id().to_string()).status()?;
    ensure!(signalled.success(), "kill -{name} failed");
    Ok(())
}

/// A TCP port nobody listens on at `ip`.
pub fn free_port(ip: Ipv4Addr) -> Result<u16> {
    Ok(TcpListener::bind((ip, 0))?.local_addr()?.port())
}

impl NodeProcess {
    /// Starts a node and waits until it is ready.
    ///
    /// # Errors
    /// It did not become ready in time.
    pub async fn start(options: NodeOptions) -> Result<Self> {
        // Both held at one time, or they might be one.
        let (http, relay) = (TcpListener::bind((options.ip, 0))?, TcpListener::bind((options.ip, 0))?);
        let (http_at, relay_at) = (http.local_addr()?, relay.local_addr()?);
        drop((http, relay));
        Self::start_at(options, http_at, relay_at).await
    }

    /// Starts a node at given addresses and waits until it is ready.
    ///
    /// # Errors
    /// It did not become ready in time.
    pub async fn start_at(options: NodeOptions, http: SocketAddr, relay: SocketAddr) -> Result<Self> {
        let log = std::env::temp_dir().join(format!("ams-node-{}-{:08x}.log", options.mode, rand::random::<u32>()));
        let file = File::create(&log)?;
        let mut command = Command::new(binary()?);
        if options.mode == "demo" {
            command.args(["demo", "--origin-http", &http.to_string(), "--edge-http", &relay.to_string()]);
        } else {
            command.args(["--mode", options.mode, "--http", &http.to_string(), "--relay", &relay.to_string()]);
            command.args(["--advertise", &options.advertise.unwrap_or(options.ip).to_string()]);
        }
        if let Some(registry) = &options.registry {
            command.args(["--registry", registry]);
        }
        if let Some(prefix) = &options.prefix {
            command.env("AMS_REGISTRY_CLIENT__DATABASE_PREFIX", prefix);
        }
        if let Some(key) = &options.key {
            command.arg("--cluster-key-file").arg(key);
        }
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        command.args(&options.args).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context("starting the node")?;
        let mut node = Self { http, relay, options, child, log };
        node.wait_ready().await?;
        Ok(node)
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let url = self.url("/readyz");
        for _ in 0..300 {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} node ended with {status}:\n{}", self.options.mode, self.log());
            }
            if http::get(&url).await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("{} node is not ready:\n{}", self.options.mode, self.log())
    }

    /// `http://…` of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// `ws://…` of an application's socket.
    pub fn websocket(&self, app: &str) -> String {
        format!("ws://{}/{app}/websocket", self.http)
    }

    /// The socket of the application that all tests use.
    pub fn socket(&self) -> String {
        self.websocket(APP)
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.options.ip
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// All it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
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

    /// Starts it again with the same addresses, after [`Self::kill`] or [`Self::terminate`].
    ///
    /// # Errors
    /// It did not become ready in time.
    pub async fn restart(&mut self) -> Result<()> {
        let again = Self::start_at(self.options.clone(), self.http, self.relay).await?;
        *self = again;
        Ok(())
    }

    /// Sends a signal: `STOP` makes it stand still as an overloaded machine does, `CONT` lets it go on.
    ///
    /// # Errors
    /// The system would not.
    pub fn signal(&self, name: &str) -> Result<()> {
        signal(&self.child, name)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.ended(Duration::from_secs(15)).await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended = eventually("the node ends", limit, || {
            let ended = child.try_wait().ok().flatten();
            async move { ended }
        })
        .await;
        ended.with_context(|| self.log())
    }

    /// Runs a sub-command of the binary about this node.
    ///
    /// # Errors
    /// It failed; says what it printed.
    pub fn command(&self, name: &str, args: &[&str]) -> Result<()> {
        let output = Command::new(binary()?).arg(name).args(args).args(["--pid", &self.pid().to_string()]).output()?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Waits until a path is answered with this status.
    ///
    /// # Errors
    /// It was not within `limit`.
    pub async fn wait_status(&self, path: &str, status: u16, limit: Duration) -> Result<()> {
        let url = self.url(path);
        eventually(&format!("{path} answers {status}"), limit, || async {
            http::get(&url).await.is_ok_and(|answer| answer.status == status).then_some(())
        })
        .await
    }

    /// Resident memory in kB.
    pub fn rss_kb(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n");
        keep_last_words(format!("--- end of the log of the {} node at {}:\n{tail}", self.options.mode, self.http));
        let _ = std::fs::remove_file(&self.log);
    }
}
