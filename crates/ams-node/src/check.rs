//! `--check`: would this configuration start here and now?
//!
//! Owns the rows and the exit code. Binds what a node would bind and lets go of it. Changes nothing, except that a
//! SQLite registry that does not exist yet is made.

use std::process::ExitCode;

use crate::config::{self, Config, Inputs};
use crate::exit::{Exit, ExitError};
use crate::startup::{self, Door};

/// Prints one row per check on standard output. The exit code is that of the first row that failed.
pub(crate) fn run(inputs: &Inputs) -> ExitCode {
    let mut rows = Rows { failed: None };
    match config::load(inputs) {
        Err(errors) => rows.add("configuration", Err(ExitError::new(Exit::Config, errors.to_string()))),
        Ok(loaded) => {
            let file = inputs.file.as_ref().map_or_else(|| "no file".into(), |path| path.display().to_string());
            rows.add("configuration", Ok(format!("{file}; mode {}", loaded.config.mode)));
            for warning in &loaded.warnings {
                println!("warning  {warning}");
            }
            rows.of(&loaded.config);
        }
    }
    rows.failed.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8))
}

struct Rows {
    failed: Option<Exit>,
}

impl Rows {
    fn add(&mut self, name: &str, outcome: Result<String, ExitError>) {
        match outcome {
            Ok(detail) => println!("ok       {name}: {detail}"),
            Err(error) => {
                println!("failed   {name}: {error}");
                self.failed.get_or_insert(error.exit);
            }
        }
    }

    fn of(&mut self, config: &Config) {
        let descriptors = startup::raise_descriptors();
        match (descriptors.warning(), descriptors.limit) {
            (Some(warning), _) => println!("warning  {warning}"),
            (None, limit) => {
                let limit = limit.map_or("no limit".into(), |limit| limit.to_string());
                self.add("file descriptors", Ok(limit));
            }
        }
        self.add(
            "listeners",
            startup::bind(config).map(|bound| match bound.relay {
                Some(_) => {
                    format!("{} for {} and {} for {} are free", config.http, Door::Http, config.relay, Door::Relay)
                }
                None => format!("{} for {} is free", config.http, Door::Http),
            }),
        );
        self.add("media ports", media_ports(config));
        if config.mode.is_clustered() {
            let key = if config.cluster_key.is_some() { "read" } else { "none, relay links are open" };
            self.add("cluster key", Ok(key.into()));
        }
        self.add("registry", registry(config));
    }
}

fn media_ports(config: &Config) -> Result<String, ExitError> {
    let free = startup::free_udp_ports(config.udp_ports, config.shards).len();
    if free >= config.shards {
        return Ok(format!("{} of {} are free, as many as shards", free, config.udp_ports));
    }
    let what = format!(
        "{free} of the UDP ports {} are free, and each of the {} shards needs one",
        config.udp_ports, config.shards
    );
    Err(ExitError::new(Exit::PortInUse, what).hint("widen --udp-ports or lower --shards"))
}

fn registry(config: &Config) -> Result<String, ExitError> {
    let unusable =
        |what: String| ExitError::new(Exit::Registry, what).hint("check --registry, and that the database runs");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    runtime.block_on(async {
        let registry = ams_registry::connect(&config.registry, config.registry_client.clone())
            .await
            .map_err(|error| unusable(format!("{}: {error}", config.registry)))?;
        let answer = registry.ping().await;
        registry.close().await;
        answer
            .map(|_| format!("{} answers", config.registry))
            .map_err(|error| unusable(format!("{}: {error}", config.registry)))
    })
}
