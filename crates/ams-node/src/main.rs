//! `ams-node`: one node of a streaming cluster, or a whole one for trying out.
//!
//! Owns the way from the command line to a running node and back to an exit code; everything that happens in between
//! belongs to the modules below.
//!
//! - [`cli`], [`config`]: what was asked for
//! - [`logging`], [`startup`], [`signals`], [`exit`]: the process
//! - [`check`], [`health`], [`drain`]: `--check`, `ams-node health` and `ams-node drain`
//! - [`bench`]: what this machine carries
//! - [`node`], [`demo`]: what runs then; [`shard`]: the media threads; [`system`]: this machine's load
//! - [`clock`], [`net`]: time and other nodes, as they are or simulated

// Nothing in a binary can be reached from outside; `pub` says "for the other modules" as well as `pub(crate)` does.
#![allow(unreachable_pub)]

mod bench;
mod check;
mod cli;
mod clock;
mod config;
mod demo;
mod drain;
mod exit;
mod health;
mod logging;
mod net;
mod node;
mod shard;
mod signals;
mod startup;
mod system;
mod version;

use std::process::ExitCode;

use clap::Parser;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use cli::{Cli, Command, DemoArgs, NodeArgs};
use config::{Config, Inputs};
use exit::{Exit, ExitError};
use logging::LogHandle;
use node::Orders;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two providers are compiled in, each wanted by some dependency; TLS to MongoDB would refuse to choose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ended = match cli.command {
        Some(Command::Health(args)) => {
            health::run(args.url.as_deref(), std::env::var("AMS_HTTP").ok().as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Drain(args)) => drain::run(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Demo(args)) => run_demo(&args),
        Some(Command::Bench(args)) => {
            startup::raise_descriptors();
            bench::run(&args)
                .map(|()| ExitCode::SUCCESS)
                .map_err(|error| ExitError::new(Exit::Internal, format!("{error:#}")))
        }
        None => run_node(&cli.node),
    };
    ended.unwrap_or_else(|error| error.report())
}

fn run_node(args: &NodeArgs) -> Result<ExitCode, ExitError> {
    let inputs = args.inputs().map_err(|name| {
        ExitError::new(Exit::Config, format!("environment variable {name} is not UTF-8")).hint("set it to plain text")
    })?;
    if args.print_config {
        let (text, loaded) = config::print(&inputs);
        print!("{text}");
        return Ok(loaded.map(|_| ExitCode::SUCCESS)?);
    }
    if args.check {
        return Ok(check::run(&inputs));
    }
    let loaded = config::load(&inputs)?;
    let log = start_logging(&loaded.config)?;
    loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
    let listeners = startup::bind(&loaded.config)?;
    let config = loaded.config;
    run(
        move || reload(&inputs, &log),
        |orders| {
            info!(mode = %config.mode, node_id = %config.node_id, registry = %config.registry, "starting");
            node::run(config, listeners, orders)
        },
    )
}

fn run_demo(args: &DemoArgs) -> Result<ExitCode, ExitError> {
    let (origin, edge) = config::demo(args)?;
    start_logging(&origin)?;
    let listeners = (startup::bind(&origin)?, startup::bind(&edge)?);
    run(
        || info!("the demo has no configuration to reload"),
        |orders| demo::run((origin, listeners.0), (edge, listeners.1), orders.cancel),
    )
}

/// Starts logging and takes the descriptors the system gives.
fn start_logging(config: &Config) -> Result<LogHandle, ExitError> {
    let log = logging::init(&config.log, config.log_format).map_err(|what| ExitError::new(Exit::Internal, what))?;
    if let Some(warning) = startup::raise_descriptors().warning() {
        warn!("{warning}");
    }
    info!(version = version::LONG, "ams-node");
    Ok(log)
}

/// Runs `work` on the control runtime until it ends by itself or after a signal.
fn run<F>(on_hangup: impl Fn() + Send + 'static, work: impl FnOnce(Orders) -> F) -> Result<ExitCode, ExitError>
where
    F: Future<Output = Result<(), ExitError>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("control")
        .build()
        .map_err(|error| startup::refused("the control runtime cannot start", &error))?;
    runtime.block_on(async {
        let cancel = CancellationToken::new();
        let drain = watch::Sender::new(false);
        let signals = signals::watch(cancel.clone(), drain.clone(), on_hangup)
            .map_err(|error| startup::refused("signal handlers cannot be installed", &error))?;
        let ended = work(Orders { cancel, drain }).await;
        signals.abort();
        info!("ended");
        ended
    })?;
    Ok(ExitCode::SUCCESS)
}

/// SIGHUP: reads the configuration again and takes its `log` key. Everything else needs a restart.
fn reload(inputs: &Inputs, log: &LogHandle) {
    match config::load(inputs) {
        Ok(loaded) => match log.set(&loaded.config.log) {
            Ok(()) => info!(log = loaded.config.log, "log level reloaded; other keys need a restart"),
            Err(what) => warn!("log level not reloaded: {what}"),
        },
        Err(errors) => warn!("configuration not reloaded: {errors}"),
    }
}
