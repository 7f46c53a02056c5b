//! Logs: a sentence per line for a terminal, JSON lines (RFC 3339 UTC) for everything else, on standard error.
//!
//! Owns the format and the level, which can be changed while the node runs ([`LogHandle`]). Never writes an event
//! itself. Records of the `log` crate pass through the same filter; the `rtc-*` crates are kept at `error` unless a
//! directive names one, because some of them log per packet.

use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// Targets that say too much at the level asked for everybody: a prefix and the most it may say.
const QUIETER: &[(&str, LevelFilter)] = &[
    ("rtc_", LevelFilter::ERROR),
    ("hyper", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
    ("tokio_tungstenite", LevelFilter::INFO),
    ("tungstenite", LevelFilter::INFO),
];

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Always text.
    Text,
    /// Always JSON lines.
    Json,
}

/// Changes the level of a running node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogHandle(reload::Handle<Targets, Registry>);

impl LogHandle {
    /// Takes `directives` from now on.
    ///
    /// # Errors
    /// A sentence when they cannot be read; the level stays as it was.
    pub(crate) fn set(&self, directives: &str) -> Result<(), String> {
        let filter = parse(directives)?;
        let most = most(&filter);
        self.0.reload(filter).map_err(|error| error.to_string())?;
        log::set_max_level(most);
        Ok(())
    }
}

/// Starts logging for this process. To be called once; a second call changes nothing and is an error.
///
/// # Errors
/// A sentence when `directives` cannot be read, or logging runs already.
pub(crate) fn init(directives: &str, format: LogFormat) -> Result<LogHandle, String> {
    let filter = parse(directives)?;
    let most = most(&filter);
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = io::stderr().is_terminal();
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Json => Box::new(json()),
        LogFormat::Auto if !terminal => Box::new(json()),
        LogFormat::Auto | LogFormat::Text => {
            let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            Box::new(fmt::layer().with_ansi(colour).with_target(false).with_writer(io::stderr))
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())?;
    log::set_max_level(most);
    Ok(LogHandle(handle))
}

/// One JSON object per line with `timestamp`, `level`, `target`, `message`, the event's fields and `spans`.
fn json<S>() -> impl Layer<S> + Send + Sync
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(true).with_writer(io::stderr)
}

/// Reads `LEVEL` or a comma-separated list of `LEVEL` and `TARGET=LEVEL`.
///
/// # Errors
/// A sentence that names the part that cannot be read. A bare word that is no level is one: it is a typing error far
/// more often than a target.
pub(crate) fn parse(directives: &str) -> Result<Targets, String> {
    let mut default = LevelFilter::INFO;
    let mut named = Vec::new();
    let parts: Vec<&str> = directives.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(format!("it is empty; allowed are {LEVELS} or TARGET=LEVEL, separated by commas"));
    }
    for part in parts {
        match part.split_once('=') {
            None => default = level(part)?,
            Some((target, _)) if !is_target(target) => {
                return Err(format!("{target:?} is no module path; write for example ams_rtc=debug"));
            }
            Some((target, text)) => named.push((target.to_owned(), level(text)?)),
        }
    }
    let quieter = QUIETER.iter().map(|(target, most)| ((*target).to_owned(), (*most).min(default)));
    Ok(Targets::new().with_default(default).with_targets(quieter).with_targets(named))
}

const LEVELS: &str = "off, error, warn, info, debug, trace";

fn level(text: &str) -> Result<LevelFilter, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!("{text:?} is no level; allowed are {LEVELS} or TARGET=LEVEL, separated by commas")),
    }
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c))
}

/// The most any target may say, as the `log` crate counts it.
fn most(filter: &Targets) -> log::LevelFilter {
    let default = filter.default_level().unwrap_or(LevelFilter::OFF);
    match filter.iter().map(|(_, level)| level).fold(default, LevelFilter::max) {
        LevelFilter::OFF => log::LevelFilter::Off,
        LevelFilter::ERROR => log::LevelFilter::Error,
        LevelFilter::WARN => log::LevelFilter::Warn,
        LevelFilter::INFO => log::LevelFilter::Info,
        LevelFilter::DEBUG => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn directives_decide_who_may_say_what() {
        for (name, directives, target, said, silent) in [
            ("a level", "info", "ams_node", Level::INFO, Level::DEBUG),
            ("in any case, with spaces", " WARN ", "ams_node", Level::WARN, Level::INFO),
            ("rtc crates stay quiet", "debug", "rtc_dtls::conn", Level::ERROR, Level::WARN),
            ("and are never raised", "error", "rtc_dtls::conn", Level::ERROR, Level::WARN),
            ("unless named", "info,rtc_dtls=info", "rtc_dtls::conn", Level::INFO, Level::DEBUG),
            ("a target of its own", "warn,ams_rtc=debug", "ams_rtc::peer", Level::DEBUG, Level::TRACE),
            ("the rest keeps the default", "ams_rtc=debug", "ams_api", Level::INFO, Level::DEBUG),
        ] {
            let filter = parse(directives).unwrap();
            assert!(filter.would_enable(target, &said), "{name}: {said} is said");
            assert!(!filter.would_enable(target, &silent), "{name}: {silent} is not");
        }
    }

    #[test]
    fn typing_errors_are_named() {
        for (name, directives, part) in [
            ("no level", "inof", "\"inof\" is no level"),
            ("no level after =", "ams_rtc=loud", "\"loud\" is no level"),
            ("no target", "a b=info", "\"a b\" is no module path"),
            ("nothing", " , ", "it is empty"),
        ] {
            let error = parse(directives).unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
            assert!(name == "no target" || error.contains("debug"), "{name} tells what is allowed: {error}");
        }
    }

    #[test]
    fn the_log_crate_is_let_through_as_far_as_anyone_may_speak() {
        assert_eq!(most(&parse("warn").unwrap()), log::LevelFilter::Warn);
        assert_eq!(most(&parse("off,ams_rtc=debug").unwrap()), log::LevelFilter::Debug);
        assert_eq!(most(&parse("off").unwrap()), log::LevelFilter::Off);
    }
}
