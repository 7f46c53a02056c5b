//! What was refused at this door, counted for the metrics.
//!
//! Owns the counters and their text. Labels are status and close codes: a client cannot make new ones.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Statuses counted apart; all others go into one.
const STATUSES: [u16; 17] = [400, 401, 403, 404, 405, 406, 408, 409, 411, 412, 413, 415, 422, 428, 429, 500, 503];
/// Close codes counted apart.
const CODES: [u16; 6] = [1001, 1002, 1007, 1008, 1009, 1011];

/// Refusals since the start.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    connections: AtomicU64,
    statuses: [AtomicU64; STATUSES.len() + 1],
    codes: [AtomicU64; CODES.len() + 1],
    descriptions: AtomicU64,
}

impl Refusals {
    /// A connection was not taken because there are too many.
    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered with this status.
    pub(crate) fn answered(&self, status: u16) {
        if status >= 400 {
            count(&self.statuses, &STATUSES, status);
        }
    }

    /// A WebSocket was closed with this code by the server.
    pub(crate) fn closed(&self, code: u16) {
        if code != 1000 {
            count(&self.codes, &CODES, code);
        }
    }

    /// A session description that came over a WebSocket could not be used.
    pub(crate) fn description(&self) {
        self.descriptions.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters in the Prometheus text format.
    pub(crate) fn write(&self, text: &mut String) {
        // Writing to a string cannot fail.
        let mut row = |name: &str, help: &str, counters: &[AtomicU64], label: &str, values: &[u16]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (n, counter) in counters.iter().enumerate() {
                let value = values.get(n).map_or_else(|| "other".to_owned(), u16::to_string);
                let labels = if label.is_empty() { String::new() } else { format!("{{{label}=\"{value}\"}}") };
                let _ = writeln!(text, "{name}{labels} {}", counter.load(Ordering::Relaxed));
            }
        };
        row("ams_http_refused_total", "Requests answered with an error.", &self.statuses, "status", &STATUSES);
        row("ams_sockets_closed_total", "WebSockets closed for cause.", &self.codes, "code", &CODES);
        let one = std::slice::from_ref;
        row("ams_connections_refused_total", "Connections over a limit.", one(&self.connections), "", &[]);
        row(
            "ams_descriptions_refused_total",
            "Session descriptions over WebSockets that could not be used; those over HTTP are answered with a status.",
            one(&self.descriptions),
            "",
            &[],
        );
    }
}

fn count(counters: &[AtomicU64], values: &[u16], value: u16) {
    let at = values.iter().position(|known| *known == value).unwrap_or(values.len());
    if let Some(counter) = counters.get(at) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_row() {
        let refusals = Refusals::default();
        [200, 404, 404, 418, 503].into_iter().for_each(|status| refusals.answered(status));
        [1000, 1008, 4000].into_iter().for_each(|code| refusals.closed(code));
        refusals.connection();
        refusals.description();
        let mut text = String::new();
        refusals.write(&mut text);
        for line in [
            "ams_http_refused_total{status=\"404\"} 2",
            "ams_http_refused_total{status=\"other\"} 1",
            "ams_http_refused_total{status=\"503\"} 1",
            "ams_http_refused_total{status=\"400\"} 0",
            "ams_sockets_closed_total{code=\"1008\"} 1",
            "ams_sockets_closed_total{code=\"other\"} 1",
            "ams_connections_refused_total 1",
            "ams_descriptions_refused_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing:\n{text}");
        }
    }
}
