//! One rendition of a live stream: its picture size, its bitrates, and where to pull it.

use std::fmt;

use ams_types::Epoch;

use super::broadcast::epoch_from_stored;
use super::field::record;

/// Name of the collection in MongoDB.
pub(crate) const COLLECTION: &str = "StreamInfo";

record! {
    /// One document of collection `StreamInfo`: an edge finds the origin's address and relay port here.
    pub struct StreamInfoRecord {
        /// The stream's id.
        stream_id: String = String::new() => "streamId",
        /// Picture height in pixels.
        height: i32 = 0 => "height",
        /// Picture width in pixels.
        width: i32 = 0 => "width",
        /// Video bits per second.
        video_bitrate: i32 = 0 => "videoBitrate",
        /// Audio bits per second.
        audio_bitrate: i32 = 0 => "audioBitrate",
        /// Denominator of the video time base.
        video_r_timebase: i32 = 0 => "videoRTimebase",
        /// Denominator of the audio time base.
        audio_r_timebase: i32 = 0 => "audioRTimebase",
        /// Address of the origin that other nodes dial.
        host: Option<String> = None => "host",
        /// Whether it carries video.
        video_enabled: bool = false => "videoEnabled",
        /// Whether it carries audio.
        audio_enabled: bool = false => "audioEnabled",
        /// Whether it carries data channel messages.
        data_channel_enabled: bool = false => "dataChannelEnabled",
        /// Video codec, such as `H264`.
        video_codec: Option<String> = None => "videoCodec",
        /// Group of the node.
        node_group: Option<String> = None => "nodeGroup",
        /// Whether `host` is the stream's main origin rather than a group's secondary one.
        is_global_host: bool = true => "isGlobalHost",
        /// TCP port of the relay at `host`.
        origin_port: i32 = 0 => "originPort",
        /// Epoch of the publication this rendition belongs to; 0 when another program wrote it.
        ams_epoch: i64 = 0 => "amsEpoch",
    }
}

impl StreamInfoRecord {
    /// The publication this rendition belongs to; epoch 0 when another program wrote it.
    pub fn epoch(&self) -> Epoch {
        epoch_from_stored(self.ams_epoch)
    }
}

impl fmt::Debug for StreamInfoRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamInfoRecord")
            .field("stream_id", &self.stream_id)
            .field("size", &format_args!("{}x{}", self.width, self.height))
            .field("host", &self.host)
            .field("origin_port", &self.origin_port)
            .field("ams_epoch", &self.ams_epoch)
            .finish_non_exhaustive()
    }
}
