//! The node's figures in the Prometheus text format.
//!
//! Owns names, help texts and types. Labels are few; a stream's or viewer's name is never one.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::NodeCore;
use super::places::Reason;
use crate::shard::histogram::Histogram;
use crate::shard::protocol::{Census, ShardCommand};

/// Whether a figure only rises.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

type Row = (&'static str, Kind, &'static str, fn(&Census) -> u64);

/// Figures of all shards together.
const ROWS: [Row; 20] = [
    ("ams_publishers", Kind::Gauge, "Publishers' transports.", |c| c.publishers as u64),
    ("ams_viewers", Kind::Gauge, "Viewers' transports.", |c| c.viewers as u64),
    ("ams_streams", Kind::Gauge, "Streams on this node, published and pulled, once per shard.", |c| c.streams as u64),
    ("ams_relay_links", Kind::Gauge, "Relay links, dialled and accepted.", |c| c.links as u64),
    ("ams_relay_streams_served", Kind::Gauge, "Streams sent to edges, over all links.", |c| c.served as u64),
    ("ams_media_addresses", Kind::Gauge, "Addresses datagrams are mapped to peers by.", |c| c.addresses as u64),
    ("ams_relay_packets_sent_total", Kind::Counter, "Media packets put on relay links.", |c| c.relay_packets_out),
    ("ams_relay_packets_received_total", Kind::Counter, "Media packets that came over relay links.", |c| {
        c.relay_packets_in
    }),
    ("ams_relay_packets_dropped_total", Kind::Counter, "Media packets dropped because a relay link was slow.", |c| {
        c.relay_packets_dropped
    }),
    ("ams_egress_packets_total", Kind::Counter, "Packets sent to viewers.", |c| c.egress_packets),
    ("ams_retransmissions_total", Kind::Counter, "Packets sent to viewers again.", |c| c.retransmissions),
    ("ams_keyframe_requests_total", Kind::Counter, "Keyframe requests sent to publishers.", |c| c.keyframe_requests),
    ("ams_datagrams_unknown_total", Kind::Counter, "Datagrams no peer was found for.", |c| c.unknown_datagrams),
    (
        "ams_datagrams_refused_total",
        Kind::Counter,
        "Datagrams refused: wrong integrity, forged, replayed, malformed.",
        |c| c.refused_datagrams,
    ),
    ("ams_sends_blocked_total", Kind::Counter, "Sends the kernel would not take.", |c| c.send_blocked),
    ("ams_events_waiting", Kind::Gauge, "Shard events the control runtime has not taken yet.", |c| {
        c.events_waiting as u64
    }),
    ("ams_media_ring_drops_total", Kind::Counter, "Turns of media lost between shards.", |c| c.ring_drops),
    (
        "ams_messages_dropped_total",
        Kind::Counter,
        "Data channel messages dropped: a backlog was full, or a viewer said too much.",
        |c| c.messages_dropped,
    ),
    ("ams_viewer_nacks", Kind::Gauge, "Packets the present viewers asked for again.", |c| c.nacks),
    ("ams_viewer_keyframe_requests", Kind::Gauge, "Keyframes the present viewers asked for.", |c| c.keyframes_wanted),
];

type Timing = (&'static str, &'static str, fn(&Census) -> &Histogram);

/// Times of all shards together.
const TIMINGS: [Timing; 3] = [
    (
        "ams_forward_delay_seconds",
        "From the intake of a turn's oldest packet on this node to the last viewer's send.",
        |c| &c.forward_delay,
    ),
    ("ams_join_connected_seconds", "From a viewer's description to its connection.", |c| &c.join_connected),
    ("ams_join_picture_seconds", "From a viewer's description to its first whole picture.", |c| &c.join_picture),
];

/// One histogram in the text format.
fn write_histogram(text: &mut String, name: &str, help: &str, histogram: &Histogram) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (bound, count) in histogram.cumulative() {
        let bound = bound.map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(text, "{name}_sum {}\n{name}_count {}", histogram.sum().as_secs_f64(), histogram.count());
}

fn write_refused(text: &mut String, refused: impl Iterator<Item = (Reason, u64)>) {
    let name = "ams_sessions_refused_total";
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} Sessions refused for want of room, by what is full.\n# TYPE {name} counter");
    for (reason, count) in refused {
        let _ = writeln!(text, "{name}{{reason=\"{}\"}} {count}", reason.label());
    }
}

impl NodeCore {
    /// What all shards hold together.
    pub(super) async fn census(&self) -> Census {
        let mut sum = Census::default();
        for shard in &self.shards {
            let (reply, answer) = oneshot::channel();
            if shard.commands.send(ShardCommand::Census(reply)).await.is_ok()
                && let Ok(census) = answer.await
            {
                sum.add(&census);
            }
        }
        sum
    }

    /// The figures as text.
    pub(super) async fn metrics(&self) -> String {
        let census = self.census().await;
        let mut text = String::new();
        let mut row = |name: &str, kind: Kind, help: &str, value: u64| {
            let kind = match kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        for (name, kind, help, value) in ROWS {
            row(name, kind, help, value(&census));
        }
        let (sessions, begun, waiting) = {
            let directory = self.directory();
            let waiting = directory.waiting.values().sum::<usize>();
            (directory.sessions.len() as u64, directory.begun, waiting as u64)
        };
        row("ams_sessions", Kind::Gauge, "Sessions, connected or not.", sessions);
        row("ams_sessions_total", Kind::Counter, "Sessions that began.", begun);
        row(
            "ams_places",
            Kind::Gauge,
            "Places that sessions have, or that are kept for them.",
            self.places.taken() as u64,
        );
        let tasks = Handle::current().metrics().num_alive_tasks() as u64;
        row("ams_tasks", Kind::Gauge, "Tasks of the control runtime.", tasks);
        let load = u64::from(self.loads.highest()) / 10;
        row("ams_shard_load_percent", Kind::Gauge, "Share of its time that the busiest media thread works.", load);
        let late = u64::from(self.loads.latest()) / 10;
        row(
            "ams_shard_late_percent",
            Kind::Gauge,
            "Share of its turns that a media thread sends over 10 ms late.",
            late,
        );
        row("ams_seats_left", Kind::Gauge, "Viewers the node would still take.", self.seats_left().into());
        let known = self.known_nodes.len() as u64;
        row("ams_known_nodes", Kind::Gauge, "Other origins this node can ask for streams.", known);
        row(
            "ams_unreleased",
            Kind::Gauge,
            "Ended streams the registry has not been told of.",
            self.unreleased.len() as u64,
        );
        let registry_ok = u64::from(self.is_registry_ok());
        row("ams_registry_ok", Kind::Gauge, "Whether the registry answers.", registry_ok);
        let lag = self.heartbeat_lag.load(Ordering::Relaxed);
        row(
            "ams_heartbeat_lag_milliseconds",
            Kind::Gauge,
            "How late this node's last heartbeat reached the registry.",
            lag,
        );
        row("ams_waiting", Kind::Gauge, "Places on the waiting list.", waiting);
        let refused = self.links_refused.load(Ordering::Relaxed);
        row(
            "ams_relay_links_refused_total",
            Kind::Counter,
            "Relay links refused: wrong key, version or limits.",
            refused,
        );
        let [pending, sent, failed, dropped] = self.webhooks.figures();
        row("ams_webhooks_pending", Kind::Gauge, "Webhook events of the cluster that wait to be delivered.", pending);
        row("ams_webhooks_sent_total", Kind::Counter, "Webhook events this node delivered.", sent);
        row("ams_webhooks_failed_total", Kind::Counter, "Tries of this node that were not taken.", failed);
        row(
            "ams_webhooks_dropped_total",
            Kind::Counter,
            "Webhook events lost: given up, too many, or an address that cannot be used.",
            dropped,
        );
        let registry = self.registry.stats();
        row("ams_registry_calls_total", Kind::Counter, "Calls to the registry.", registry.calls);
        row("ams_registry_failures_total", Kind::Counter, "Calls to the registry that failed.", registry.failed);
        write_refused(&mut text, self.places.refused());
        for (name, help, histogram) in TIMINGS {
            write_histogram(&mut text, name, help, histogram(&census));
        }
        text
    }
}
