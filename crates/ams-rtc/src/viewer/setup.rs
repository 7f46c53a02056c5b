//! What is known of a viewer when its peer is made.
//!
//! Owns how negotiated tracks become egress tracks. Never changes once media flows.

use ams_types::{Codec, Mid, Pt, Ssrc, TrackNo};

use crate::ext::{Ext, ExtMap};
use crate::sdp::{NegotiatedTrack, OfferedTrack};
use crate::transport::{RemoteTransport, TransportConfig};

/// One track as this viewer gets it.
#[derive(Clone, Debug)]
pub struct EgressTrack {
    /// Which track of the stream.
    pub no: TrackNo,
    /// Its codec.
    pub codec: Codec,
    /// Its m-line.
    pub mid: Mid,
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Its payload type.
    pub pt: Pt,
    /// Source and payload type of retransmissions, where negotiated.
    pub rtx: Option<(Ssrc, Pt)>,
    /// Negotiated header extensions.
    pub exts: ExtMap,
    /// False where the viewer declined the track.
    pub accepted: bool,
}

impl From<&OfferedTrack> for EgressTrack {
    fn from(offered: &OfferedTrack) -> Self {
        Self {
            no: offered.track.no,
            codec: offered.track.codec.codec,
            mid: offered.mid.clone(),
            ssrc: offered.track.ssrc,
            pt: offered.pt,
            rtx: offered.track.rtx_ssrc.zip(offered.rtx_pt),
            exts: offered.exts,
            accepted: true,
        }
    }
}

impl From<&NegotiatedTrack> for EgressTrack {
    fn from(agreed: &NegotiatedTrack) -> Self {
        Self {
            no: agreed.no,
            codec: agreed.codec.codec,
            mid: agreed.mid.clone(),
            ssrc: agreed.ssrc,
            pt: agreed.pt,
            rtx: agreed.rtx_ssrc.zip(agreed.rtx_pt),
            exts: agreed.exts,
            accepted: true,
        }
    }
}

/// What is known of a viewer when its peer is made.
#[derive(Debug)]
pub struct ViewerSetup {
    /// Our end of the transport.
    pub transport: TransportConfig,
    /// The viewer's end; none while our offer is not answered.
    pub remote: Option<RemoteTransport>,
    /// Its tracks; as offered while the offer is not answered.
    pub tracks: Vec<EgressTrack>,
    /// Name of the data channel we open, if one was negotiated.
    pub channel_label: Option<String>,
    /// Value of the `playout-delay` extension where the publisher sends none.
    pub playout_delay: Option<[u8; 3]>,
}

/// Without RTX a lost packet goes out again under its own number, and must then be the same to the byte: extensions
/// that change with each sending are left out.
pub(super) fn fixed_bytes_without_rtx(mut setup: EgressTrack) -> EgressTrack {
    if setup.rtx.is_none() {
        setup.exts.remove(Ext::TransportCc);
        setup.exts.remove(Ext::AbsSendTime);
    }
    setup
}
