//! Scripts that drive browsers and foreign clients; each prints JSON lines and ends by itself or when its input closes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A running script.
#[derive(Debug)]
pub struct Driver {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

fn tests_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

impl Driver {
    /// Starts `tests/browser/SCRIPT` with Node, or with Python if it ends in `.py`.
    ///
    /// # Errors
    /// The interpreter is missing.
    pub fn start(script: &str, args: &[&str]) -> Result<Self> {
        let path = tests_dir().join("browser").join(script);
        let interpreter = match script.ends_with(".py") {
            true => std::env::var("AMS_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned()),
            false => "node".to_owned(),
        };
        Self::spawn(script, Command::new(interpreter).arg(path).args(args))
    }

    /// Starts any command as a script.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { name: name.to_owned(), child, input, output })
    }

    /// The next JSON line.
    ///
    /// # Errors
    /// None came within `limit`; says what the script wrote to its error output.
    pub async fn line(&mut self, limit: Duration) -> Result<Value> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let line = tokio::time::timeout_at(deadline, self.output.next_line()).await;
            match line {
                Ok(Ok(Some(line))) => match serde_json::from_str(&line) {
                    Ok(value) => return Ok(value),
                    Err(_) => eprintln!("{}: {line}", self.name),
                },
                Ok(_) => {
                    let errors = self.errors().await;
                    bail!("{} ended without a result: {errors}", self.name)
                }
                Err(_) => {
                    let _ = self.child.start_kill();
                    let errors = self.errors().await;
                    bail!("{} said nothing for {limit:?}: {errors}", self.name)
                }
            }
        }
    }

    /// The next line of this `event`.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub async fn event(&mut self, event: &str, limit: Duration) -> Result<Value> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let line = self.line(left).await.with_context(|| format!("waiting for {event}"))?;
            if line["event"] == event {
                return Ok(line);
            }
        }
    }

    /// Closes the script's input, which ends it, and returns its last line.
    ///
    /// # Errors
    /// It did not end in time or said nothing.
    pub async fn finish(mut self, limit: Duration) -> Result<Value> {
        drop(self.input.take());
        let mut last = None;
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            match tokio::time::timeout_at(deadline, self.output.next_line()).await {
                Ok(Ok(Some(line))) => last = serde_json::from_str(&line).ok().or(last),
                Ok(_) => break,
                Err(_) => {
                    let _ = self.child.start_kill();
                    let errors = self.errors().await;
                    bail!("{} did not end within {limit:?}: {errors}", self.name)
                }
            }
        }
        match last {
            Some(value) => Ok(value),
            None => {
                let errors = self.errors().await;
                bail!("{} said nothing: {errors}", self.name)
            }
        }
    }

    async fn errors(&mut self) -> String {
        let _ = self.child.start_kill();
        let mut text = String::new();
        if let Some(errors) = self.child.stderr.as_mut() {
            let _ = tokio::time::timeout(Duration::from_secs(1), errors.read_to_string(&mut text)).await;
        }
        text
    }
}
