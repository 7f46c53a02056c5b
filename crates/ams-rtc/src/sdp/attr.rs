//! Attributes of WebRTC's SDP, one parser and one spelling each. Owns their grammar; who may say what is the business
//! of the negotiations.

use std::fmt;

use ams_types::{Mid, Pt, Rid, Ssrc};

use super::lines::is_token;
use crate::dtls::{DtlsRole, Fingerprint, FingerprintHash, InvalidFingerprint};

/// Longest MID, in bytes. With RIDs it travels in every packet of a simulcast.
pub const MID_LEN_MAX: usize = 32;
/// Longest RID, in bytes.
pub const RID_LEN_MAX: usize = 32;
/// Longest format parameters kept, in bytes: H.264 parameter sets make them long.
pub const FMTP_LEN_MAX: usize = 2048;

/// Which way the media of an m-line flows, seen from who wrote the SDP (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// From the writer.
    SendOnly,
    /// To the writer.
    RecvOnly,
    /// Not at all.
    Inactive,
}

impl Direction {
    /// The attribute's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive].into_iter().find(|d| d.as_str() == name)
    }

    /// The writer sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// The writer receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who opens the DTLS connection (RFC 4145, RFC 5763 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The writer opens it: DTLS client.
    Active,
    /// The writer waits: DTLS server.
    Passive,
    /// The other end may choose.
    ActPass,
}

impl Setup {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
        }
    }

    pub(super) fn from_value(value: &str) -> Option<Self> {
        [Self::Active, Self::Passive, Self::ActPass].into_iter().find(|s| s.as_str() == value)
    }
}

/// The part in the DTLS handshake that remains for this node when the other end wrote `setup`; server wherever there is
/// a choice. Without the attribute the other end is active (RFC 4145 §4).
pub(super) fn role_beside(setup: Option<Setup>) -> DtlsRole {
    match setup {
        Some(Setup::Passive) => DtlsRole::Client,
        _ => DtlsRole::Server,
    }
}

/// What an answer says of this node's part in the DTLS handshake.
pub(super) fn setup_of(role: DtlsRole) -> Setup {
    match role {
        DtlsRole::Server => Setup::Passive,
        DtlsRole::Client => Setup::Active,
    }
}

/// Reads an `a=fingerprint`: `Ok(None)` when its hash function is not one that is used.
pub(super) fn fingerprint(value: &str) -> Result<Option<Fingerprint>, &'static str> {
    match value.parse() {
        Ok(fingerprint) => Ok(Some(fingerprint)),
        Err(InvalidFingerprint::Hash) => Ok(None),
        Err(InvalidFingerprint::Digest) => Err("a fingerprint is a hash function and its digest in hex"),
    }
}

/// Of several hashes of one certificate the strongest is to be checked (RFC 8122 §5.1).
pub(super) fn strength(fingerprint: &Fingerprint) -> u8 {
    match fingerprint.hash() {
        FingerprintHash::Sha1 => 0,
        FingerprintHash::Sha256 => 1,
        FingerprintHash::Sha384 => 2,
        FingerprintHash::Sha512 => 3,
    }
}

/// Which media stream and track an m-line belongs to in the browser (RFC 8830).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Msid {
    /// Id of the `MediaStream`.
    pub stream: String,
    /// Id of the `MediaStreamTrack`.
    pub track: String,
}

impl Msid {
    /// Reads `stream` or `stream track`; `-` is no stream. Ids of other characters than tokens are not kept.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let stream = words.next()?;
        let track = words.next().unwrap_or(stream);
        // Ids are UUIDs in braces with Firefox, and short words elsewhere.
        let fits = |id: &str| id.len() <= 256 && is_token(id);
        (fits(stream) && fits(track)).then(|| Self { stream: stream.into(), track: track.into() })
    }
}

/// Reads a payload type; `*` and anything else is `None`.
pub(super) fn payload_type(text: &str) -> Option<Pt> {
    text.parse().ok().filter(|pt| *pt <= 127).map(Pt)
}

/// Splits `<payload type> <rest>`.
pub(super) fn with_payload_type(value: &str) -> Option<(Pt, &str)> {
    let (pt, rest) = value.split_once(' ')?;
    Some((payload_type(pt)?, rest.trim()))
}

/// Encoding name, clock rate and channels of an `a=rtpmap`.
pub(super) fn rtpmap(rest: &str) -> Option<(&str, u32, u32)> {
    let mut parts = rest.split('/');
    let name = parts.next().filter(|name| is_token(name))?;
    let clock = parts.next()?.parse().ok()?;
    let channels = parts.next().map_or(Some(1), |n| n.parse().ok())?;
    Some((name, clock, channels))
}

/// Id, direction and URI of an `a=extmap`.
pub(super) fn extmap(value: &str) -> Option<(u16, Direction, &str)> {
    let mut words = value.split_ascii_whitespace();
    let (id, direction) = match words.next()?.split_once('/') {
        Some((id, direction)) => (id, Direction::from_name(direction)?),
        None => (value.split_ascii_whitespace().next()?, Direction::SendRecv),
    };
    Some((id.parse().ok().filter(|id| *id != 0)?, direction, words.next()?))
}

/// SSRC and attribute of an `a=ssrc`.
pub(super) fn ssrc(value: &str) -> Option<(Ssrc, &str)> {
    let (ssrc, rest) = value.split_once(' ').unwrap_or((value, ""));
    Some((Ssrc(ssrc.parse().ok()?), rest.trim()))
}

/// A MID that is short enough and of token characters.
pub(super) fn mid(text: &str) -> Option<Mid> {
    (text.len() <= MID_LEN_MAX && is_token(text)).then(|| Mid(text.into()))
}

/// A RID likewise.
pub(super) fn rid(text: &str) -> Option<Rid> {
    (text.len() <= RID_LEN_MAX && is_token(text)).then(|| Rid(text.into()))
}

/// A parameter of an `a=fmtp`; names compare without case, blanks around them do not count.
pub(super) fn fmtp_param<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_with_numbers_are_read_or_refused() {
        assert_eq!(extmap("3 urn:x"), Some((3, Direction::SendRecv, "urn:x")));
        assert_eq!(extmap("3/recvonly urn:x more"), Some((3, Direction::RecvOnly, "urn:x")));
        for bad in ["", "3", "0 urn:x", "65536 urn:x", "3/up urn:x", "x urn:x"] {
            assert_eq!(extmap(bad), None, "{bad:?}");
        }
        assert_eq!(rtpmap("opus/48000/2"), Some(("opus", 48_000, 2)));
        assert_eq!(rtpmap("VP8/90000"), Some(("VP8", 90_000, 1)));
        for bad in ["", "VP8", "VP8/", "VP8/x", "V P8/90000", "opus/48000/x"] {
            assert_eq!(rtpmap(bad), None, "{bad:?}");
        }
        assert_eq!(payload_type("127"), Some(Pt(127)));
        for bad in ["128", "-1", "*", "", "1.5", "999999999999"] {
            assert_eq!(payload_type(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn format_parameters_bear_blanks_and_case() {
        let edited = "minptime=10;useinbandfec=1; stereo=1";
        assert_eq!(fmtp_param(edited, "stereo"), Some("1"));
        assert_eq!(fmtp_param("Profile-Level-ID = 42e01f ", "profile-level-id"), Some("42e01f"));
        assert_eq!(fmtp_param(edited, "none"), None);
    }
}
