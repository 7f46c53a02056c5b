//! What the fuzz targets share: cutting one input into the parts a target needs, and this side of a negotiation.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// An input, eaten from the front. Past its end there are zeros and nothing.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// An input to cut up.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// So many bytes, or what there is.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A part with its length in front, as two bytes.
    pub fn part(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.take(len.into())
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}

/// A moment that stays the same for the whole run, so that an input always does the same.
pub fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    // Far enough from the clock's own beginning for a target to look back.
    *START.get_or_init(|| Instant::now() + Duration::from_secs(1000))
}

/// So many milliseconds after [`start`].
pub fn at(ms: u64) -> Instant {
    start() + Duration::from_millis(ms)
}

/// What SDP targets share.
pub mod sdp {
    use ams_rtc::dtls::Fingerprint;
    use ams_rtc::ice::IceCredentials;
    use ams_rtc::sdp::{Candidate, LocalSdp, Msid, PlayTrack};
    use ams_types::{Codec, CodecParams, Ssrc, StreamId, TrackNo};

    /// This node's side of every negotiation.
    pub fn local() -> LocalSdp {
        let digest = ["AB"; 32].join(":");
        LocalSdp {
            ice: IceCredentials::new("abcdefgh", "0123456789012345678901").expect("valid credentials"),
            fingerprint: format!("sha-256 {digest}").parse::<Fingerprint>().expect("a fingerprint"),
            candidates: Candidate::hosts(["192.0.2.1:50000".parse().expect("an address")]),
            session_id: 1,
            session_version: 1,
            cname: "ams".into(),
            codecs: Codec::ALL.to_vec(),
            data_channel: true,
            max_message_size: 65_536,
        }
    }

    /// A stream of sound and pictures to play.
    pub fn tracks() -> Vec<PlayTrack> {
        let id: StreamId = "stream1".parse().expect("a valid id");
        let codecs = [(Codec::Opus, "minptime=10"), (Codec::H264, "packetization-mode=1;profile-level-id=42e01f")];
        let track = |(no, (codec, fmtp)): (u8, (Codec, &str))| PlayTrack {
            no: TrackNo(no),
            codec: CodecParams { codec, fmtp: fmtp.into() },
            msid: Msid::ams(&id, codec.kind()),
            track_id: id.to_string(),
            ssrc: Ssrc(1000 + u32::from(no)),
            rtx_ssrc: Some(Ssrc(2000 + u32::from(no))),
        };
        (0..).zip(codecs).map(track).collect()
    }
}
