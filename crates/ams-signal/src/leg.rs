//! The state of one publisher or viewer within a session.

use ams_types::StreamId;

/// Which of the two ends of a stream the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Publisher,
    Viewer,
}

/// How far a leg has come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// The node was asked; an offer that came early is kept.
    Opening { early_offer: Option<String> },
    /// The client is to send its description.
    AwaitingSdp,
    /// The client's description is with the node. A start reported before the answer is kept until it is sent.
    Negotiating { early_start: Option<bool> },
    /// Descriptions are exchanged.
    Connecting,
    /// The client was told that it runs.
    Started,
}

#[derive(Clone, Debug)]
pub(crate) struct LegState {
    pub(crate) stream: StreamId,
    pub(crate) role: Role,
    pub(crate) subscriber_id: Option<String>,
    pub(crate) phase: Phase,
    /// The stream was reported live while the viewer was being opened: a "not live" answer is already stale.
    pub(crate) start_seen: bool,
}

impl LegState {
    pub(crate) fn new(stream: StreamId, role: Role, subscriber_id: Option<String>) -> Self {
        Self { stream, role, subscriber_id, phase: Phase::Opening { early_offer: None }, start_seen: false }
    }
}
