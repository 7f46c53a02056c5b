//! An application's settings, as every node of the cluster applies them.
//!
//! Owns names, types and defaults of AMS's `AppSettings`. A setting of something this product does not do is kept and
//! shown all the same.

use std::fmt;

use serde_json::Value;

use super::edit::WrongType;
use super::field::{JsonMap, record};

/// Name of the collection in MongoDB, in database `clusterdb`.
pub(crate) const COLLECTION: &str = "AppSettings";

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

record! {
    /// One document of collection `AppSettings`.
    pub struct AppSettingsRecord {
        /// The application.
        app_name: Option<String> = None => "appName",
        /// A word for its state.
        app_status: Option<String> = None => "appStatus",
        /// When the settings were last written, ms since 1970.
        update_time: i64 = 0 => "updateTime",
        /// Where webhooks go.
        listener_hook_url: Option<String> = text("") => "listenerHookURL",
        /// `application/json`, or another for forms.
        webhook_content_type: Option<String> = text("application/json") => "webhookContentType",
        /// Further tries of a webhook.
        webhook_retry_count: i32 = 0 => "webhookRetryCount",
        /// Time between them, ms.
        webhook_retry_delay: i64 = 1000 => "webhookRetryDelay",
        /// Period of `liveStreamStatus`, ms; -1 for none.
        webhook_stream_status_update_period_ms: i64 = -1 => "webhookStreamStatusUpdatePeriodMs",
        /// Asked before a stream is published.
        webhook_authenticate_url: Option<String> = text("") => "webhookAuthenticateURL",
        /// Asked before a stream is played.
        webhook_play_auth_url: Option<String> = text("") => "webhookPlayAuthUrl",
        /// First UDP port.
        webrtc_port_range_min: i32 = 50_000 => "webRTCPortRangeMin",
        /// Last UDP port.
        webrtc_port_range_max: i32 = 60_000 => "webRTCPortRangeMax",
        /// STUN or TURN server.
        stun_server_uri: Option<String> = text("stun:stun1.l.google.com:19302") => "stunServerURI",
        /// Account on the TURN server.
        turn_server_username: Option<String> = text("") => "turnServerUsername",
        /// Its password.
        turn_server_credential: Option<String> = text("") => "turnServerCredential",
        /// Whether TCP candidates are offered.
        webrtc_tcp_candidates_enabled: bool = false => "webRTCTcpCandidatesEnabled",
        /// Whether candidates carry the server's address.
        replace_candidate_addr_with_server_addr: bool = false => "replaceCandidateAddrWithServerAddr",
        /// Whether IPv6 candidates are left out.
        disable_ipv6_candidates: bool = true => "disableIPv6Candidates",
        /// Flags of a port allocator.
        port_allocator_flags: i32 = 0 => "portAllocatorFlags",
        /// Longest gathering of candidates.
        ice_gathering_timeout_ms: i64 = 2000 => "iceGatheringTimeoutMs",
        /// Longest start of a client.
        webrtc_client_start_timeout_ms: i32 = 10_000 => "webRTCClientStartTimeoutMs",
        /// Frames per second of an encoder.
        webrtc_frame_rate: i32 = 30 => "webRTCFrameRate",
        /// Time between keyframes, ms.
        webrtc_keyframe_time: i32 = 2000 => "webRTCKeyframeTime",
        /// Whether H.264 is taken.
        h264_enabled: bool = true => "h264Enabled",
        /// Whether VP8 is taken.
        vp8_enabled: bool = false => "vp8Enabled",
        /// Whether H.265 is taken.
        h265_enabled: bool = false => "h265Enabled",
        /// Whether AV1 is taken.
        av1_enabled: bool = false => "av1Enabled",
        /// Audio bits per second.
        audio_bitrate_sfu: i32 = 96_000 => "audioBitrateSFU",
        /// Whether there are data channels.
        data_channel_enabled: bool = true => "dataChannelEnabled",
        /// Who gets what viewers say: `all`, `publisher` or `none`.
        data_channel_player_distribution: Option<String> = text("all") => "dataChannelPlayerDistribution",
        /// Where data channel messages go.
        data_channel_web_hook_url: Option<String> = text("") => "dataChannelWebHookURL",
        /// Most WebRTC viewers of a stream; -1 for no limit.
        webrtc_viewer_limit: i32 = -1 => "webRTCViewerLimit",
        /// Most streams published; -1 for no limit.
        ingesting_stream_limit: i64 = -1 => "ingestingStreamLimit",
        /// Seconds an edge keeps a stream nobody watches.
        origin_edge_idle_timeout: i32 = 2 => "originEdgeIdleTimeout",
        /// Whether a session plays a stream once only.
        play_webrtc_stream_once_for_each_session: bool = true => "playWebRTCStreamOnceForEachSession",
        /// Whether the layer follows a viewer's statistics.
        stats_based_abr_enabled: bool = true => "statsBasedABREnabled",
        /// Loss in percent from which it goes down.
        abr_down_scale_packet_lost_ratio: f64 = 1.0 => "abrDownScalePacketLostRatio",
        /// Loss in percent below which it goes up.
        abr_up_scale_packet_lost_ratio: f64 = 0.1 => "abrUpScalePacketLostRatio",
        /// Round trip below which it goes up.
        abr_up_scale_rtt_ms: i32 = 150 => "abrUpScaleRTTMs",
        /// Jitter below which it goes up.
        abr_up_scale_jitter_ms: i32 = 30 => "abrUpScaleJitterMs",
        /// Whether a publisher that sends nothing is dropped.
        drop_webrtc_ingest_if_no_packet_received: bool = false => "dropWebRTCIngestIfNoPacketReceived",
        /// Most video tracks of a room; -1 for no limit.
        max_video_track_count: i32 = -1 => "maxVideoTrackCount",
        /// Most audio tracks of a room; -1 for no limit.
        max_audio_track_count: i32 = -1 => "maxAudioTrackCount",
        /// Whether viewers are told audio levels.
        send_audio_level_to_viewers: bool = false => "sendAudioLevelToViewers",
        /// From which level on.
        audio_level_threshold: i32 = 120 => "audioLevelThreshold",
        /// Whether there is HLS.
        hls_muxing_enabled: bool = true => "hlsMuxingEnabled",
        /// Segments of a playlist.
        hls_list_size: Option<String> = text("15") => "hlsListSize",
        /// Seconds of a segment.
        hls_time: Option<String> = text("2") => "hlsTime",
        /// Flags of the muxer.
        hls_flags: Option<String> = text("delete_segments+program_date_time") => "hlsflags",
        /// Whether streams are recorded as MP4.
        mp4_muxing_enabled: bool = false => "mp4MuxingEnabled",
        /// Whether streams are recorded as WebM.
        webm_muxing_enabled: bool = false => "webMMuxingEnabled",
        /// Whether there is DASH.
        dash_muxing_enabled: bool = false => "dashMuxingEnabled",
        /// Whether [`AppSettingsRecord::remote_allowed_cidr`] is applied.
        ip_filter_enabled: bool = true => "ipFilterEnabled",
        /// Who may use the REST API: addresses and networks, with commas.
        remote_allowed_cidr: Option<String> = text("127.0.0.1") => "remoteAllowedCIDR",
        /// From where streams may be published; empty for anywhere.
        allowed_publisher_cidr: Option<String> = text("") => "allowedPublisherCIDR",
        /// Whether the REST API needs a JWT.
        jwt_control_enabled: bool = false => "jwtControlEnabled",
        /// Its key.
        jwt_secret_key: Option<String> = text("") => "jwtSecretKey",
        /// Where keys of JWTs are published.
        jwks_url: Option<String> = text("") => "jwksURL",
        /// What AMS's nodes sign their calls to each other with; ours use the cluster key.
        cluster_communication_key: Option<String> = None => "clusterCommunicationKey",
        /// Whether publishing takes a one-time token.
        publish_token_control_enabled: bool = false => "publishTokenControlEnabled",
        /// Whether playing takes one.
        play_token_control_enabled: bool = false => "playTokenControlEnabled",
        /// Whether publishing takes a JWT.
        publish_jwt_control_enabled: bool = false => "publishJwtControlEnabled",
        /// Whether playing takes one.
        play_jwt_control_enabled: bool = false => "playJwtControlEnabled",
        /// Key of these JWTs.
        jwt_stream_secret_key: Option<String> = text("") => "jwtStreamSecretKey",
        /// Whether publishing takes a hash.
        hash_control_publish_enabled: bool = false => "hashControlPublishEnabled",
        /// Whether playing takes one.
        hash_control_play_enabled: bool = false => "hashControlPlayEnabled",
        /// Secret of these hashes.
        token_hash_secret: Option<String> = text("") => "tokenHashSecret",
        /// Whether playing takes a time code.
        enable_time_token_for_play: bool = false => "enableTimeTokenForPlay",
        /// Whether publishing takes one.
        enable_time_token_for_publish: bool = false => "enableTimeTokenForPublish",
        /// Secret of time codes to play.
        time_token_secret_for_play: Option<String> = text("") => "timeTokenSecretForPlay",
        /// Secret of time codes to publish.
        time_token_secret_for_publish: Option<String> = text("") => "timeTokenSecretForPublish",
        /// Seconds a time code is good for.
        time_token_period: i32 = 60 => "timeTokenPeriod",
        /// Whether only streams made by REST may be published.
        accept_only_streams_in_data_store: bool = false => "acceptOnlyStreamsInDataStore",
        /// Most frames per second; 0 for no limit.
        max_fps_accept: i32 = 0 => "maxFpsAccept",
        /// Most lines; 0 for no limit.
        max_resolution_accept: i32 = 0 => "maxResolutionAccept",
        /// Most bits per second; 0 for no limit.
        max_bitrate_accept: i32 = 0 => "maxBitrateAccept",
        /// Whether statistics are written.
        write_stats_to_datastore: bool = true => "writeStatsToDatastore",
        /// Frames waiting at an encoder.
        encoding_queue_size: i32 = 150 => "encodingQueueSize",
        /// Whether streams are played by RTMP.
        rtmp_playback_enabled: bool = false => "rtmpPlaybackEnabled",
        /// Whether another server signals.
        signaling_enabled: bool = false => "signalingEnabled",
        /// Which.
        signaling_address: Option<String> = text("") => "signalingAddress",
        /// Renditions to encode, as stored.
        encoder_settings: Vec<Value> = Vec::new() => "encoderSettings",
    }
}

impl AppSettingsRecord {
    /// The settings an object of a client describes: what it leaves out has its default.
    ///
    /// # Errors
    /// A setting has another type.
    pub fn described(document: JsonMap) -> Result<Self, WrongType> {
        let (record, misread) = Self::from_json(document);
        match misread.first() {
            Some(name) => Err(WrongType(name)),
            None => Ok(record),
        }
    }

    /// The defaults for an application nobody has set anything for.
    pub fn of_app(app: &str) -> Self {
        Self { app_name: Some(app.to_owned()), ..Self::default() }
    }
}

impl fmt::Debug for AppSettingsRecord {
    /// Leaves out what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppSettingsRecord")
            .field("app_name", &self.app_name)
            .field("update_time", &self.update_time)
            .finish_non_exhaustive()
    }
}
