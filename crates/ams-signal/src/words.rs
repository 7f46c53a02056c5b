//! The names of errors and notifications, spelled as clients compare them.
//!
//! Owns the spelling only; when each is sent is decided by the session.

/// A message without a stream id.
pub const NO_STREAM_NAME_SPECIFIED: &str = "noStreamNameSpecified";
/// A stream id with characters outside the alphabet.
pub const INVALID_STREAM_NAME: &str = "invalidStreamName";
/// Another publisher holds the id.
pub const STREAM_ID_IN_USE: &str = "streamIdInUse";
/// This socket already publishes the id.
pub const ALREADY_PUBLISHING: &str = "already_publishing";
/// This socket already plays the stream.
pub const ALREADY_PLAYING: &str = "already_playing";
/// The stream is unknown or not live.
pub const NO_STREAM_EXIST: &str = "no_stream_exist";
/// What a viewer's network takes and what it gets.
pub const BITRATE_MEASUREMENT: &str = "bitrateMeasurement";
/// A viewer's picture changed its size.
pub const RESOLUTION_CHANGE_INFO: &str = "resolutionChangeInfo";
/// No media came from the publisher in time.
pub const PUBLISH_TIMEOUT: &str = "publishTimeoutError";
/// A running or starting session got no packets in time.
pub const NO_PACKET_RECEIVED: &str = "noPacketReceivedForTimeoutDuration";
/// The client's session description could not be applied.
pub const NOT_SET_REMOTE_DESCRIPTION: &str = "notSetRemoteDescription";
/// The registry cannot be reached.
pub const DATA_STORE_NOT_AVAILABLE: &str = "data_store_not_available";
/// The node, or this connection, has no room for more.
pub const HIGH_RESOURCE_USAGE: &str = "highResourceUsage";
/// What was asked for is not allowed here. Also said where a node's role excludes it: an edge that takes no
/// publishers, an origin that takes no viewers. Clients know the word and do not retry on it; `information` carries
/// the sentence that says where to go.
pub const UNAUTHORIZED_ACCESS: &str = "unauthorized_access";
/// Our own fault.
pub const SERVER_ERROR: &str = "server_error_check_logs";
/// A room command without a room.
pub const NO_ROOM_SPECIFIED: &str = "no_room_specified";
/// The room does not exist.
pub const ROOM_NOT_ACTIVE: &str = "room_not_active_or_expired";
/// The room has no streams.
pub const NO_ACTIVE_STREAMS_IN_ROOM: &str = "no_active_streams_in_room";
/// There is no other peer to pass the message to.
pub const NO_PEER_ASSOCIATED: &str = "no_peer_associated_before";

/// `information` of [`NO_STREAM_EXIST`] that makes a player wait for [`STREAMING_STARTED`] on the same socket.
pub const STREAM_NOT_EXIST_OR_NOT_STREAMING: &str = "stream_not_exist_or_not_streaming";
/// `error_code` of [`NO_STREAM_EXIST`]: text, not a number.
pub const CODE_NOT_FOUND: &str = "404";

/// Media of the publisher has arrived.
pub const PUBLISH_STARTED: &str = "publish_started";
/// The publisher's session is over.
pub const PUBLISH_FINISHED: &str = "publish_finished";
/// The viewer is connected.
pub const PLAY_STARTED: &str = "play_started";
/// The viewer's session is over.
pub const PLAY_FINISHED: &str = "play_finished";
/// A publisher took up its interrupted stream; viewers were kept.
pub const SESSION_RESTORED: &str = "session_restored";
/// A stream this socket waits for is live now.
pub const STREAMING_STARTED: &str = "streaming_started";
/// This node is stopping; reconnect elsewhere.
pub const SERVER_WILL_STOP: &str = "server_will_stop";
/// Answer to `getBroadcastObject`.
pub const BROADCAST_OBJECT: &str = "broadcastObject";
/// Answer to `getSubscriberCount`.
pub const SUBSCRIBER_COUNT: &str = "subscriberCount";
/// Answer to `getSubscribers`.
pub const SUBSCRIBER_LIST: &str = "subscriberList";
/// Answer to `getSubtracks`.
pub const SUBTRACK_LIST: &str = "subtrackList";
/// Answer to `getSubtracksCount`.
pub const SUBTRACK_COUNT: &str = "subtrackCount";
/// Answer to `leaveFromRoom`.
pub const LEAVED_FROM_ROOM: &str = "leavedFromRoom";
/// Answer to `getDebugInfo`.
pub const DEBUG_INFO: &str = "debugInfo";
