//! SDP fragments of trickle ICE over HTTP (RFC 8840 §9, RFC 9725 §4.3): candidates and ICE restarts.
//!
//! Owns their reading and writing. What an ICE restart does is the transport's business.

use ams_types::Mid;

use super::attr;
use super::candidate::{Candidate, RemoteCandidate, parse_candidate};
use super::error::SdpError;
use super::lines;
use super::write::Writer;
use crate::ice::{IceCredentials, InvalidCredentials};

/// Longest fragment read, in bytes.
pub const FRAGMENT_LEN_MAX: usize = 64 * 1024;
/// Most candidates kept of one fragment.
pub const FRAGMENT_CANDIDATES_MAX: usize = 64;

/// What a fragment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// ICE user name fragment and password: those of the session, or new ones for a restart.
    pub ice: Option<IceCredentials>,
    /// Candidates that could be used, in order; at most [`FRAGMENT_CANDIDATES_MAX`].
    pub candidates: Vec<RemoteCandidate>,
    /// Candidates that could not: TCP, hidden addresses, names.
    pub skipped: usize,
    /// No more candidates will come.
    pub end: bool,
    /// The m-line it is about.
    pub mid: Option<Mid>,
}

/// Reads a fragment.
///
/// # Errors
/// [`SdpError::TooLong`], [`SdpError::TooManyMedia`], [`SdpError::Malformed`]; a candidate is never an error.
pub fn parse_sdpfrag(text: &str) -> Result<Fragment, SdpError> {
    let raw = lines::parse_fragment(text, FRAGMENT_LEN_MAX)?;
    let mut fragment = Fragment::default();
    let (mut ufrag, mut pwd) = (None, None);
    for attr in raw.session.iter().chain(raw.media.iter().flat_map(|media| &media.attrs)) {
        match attr.name {
            "ice-ufrag" => ufrag = ufrag.or(Some(attr)),
            "ice-pwd" => pwd = pwd.or(Some(attr)),
            "mid" if fragment.mid.is_none() => {
                fragment.mid = Some(attr::mid(attr.value).ok_or_else(|| attr.malformed("not a mid"))?);
            }
            "end-of-candidates" => fragment.end = true,
            "candidate" => match parse_candidate(&format!("candidate:{}", attr.value)) {
                Ok(candidate) if fragment.candidates.len() < FRAGMENT_CANDIDATES_MAX => {
                    fragment.candidates.push(candidate);
                }
                _ => fragment.skipped += 1,
            },
            _ => {}
        }
    }
    if let (Some(ufrag), Some(pwd)) = (ufrag, pwd) {
        let ice = IceCredentials::new(ufrag.value, pwd.value).map_err(|error| match error {
            InvalidCredentials::Ufrag => ufrag.malformed("an ICE user name fragment is 4 to 256 letters and digits"),
            InvalidCredentials::Password => pwd.malformed("an ICE password is 22 to 256 letters and digits"),
        });
        fragment.ice = Some(ice?);
    }
    Ok(fragment)
}

/// Writes the fragment that answers an ICE restart: this node's new credentials and its candidates, for the m-line that
/// carries the transport.
pub fn write_sdpfrag(mid: &Mid, ice: &IceCredentials, candidates: &[Candidate]) -> String {
    let mut out = Writer::default();
    out.line(format_args!("a=ice-lite"));
    out.line(format_args!("a=group:BUNDLE {mid}"));
    // The m-line only says where the attributes belong; its media and format mean nothing (RFC 8840 §9.2).
    out.line(format_args!("m=audio 9 UDP/TLS/RTP/SAVPF 0"));
    out.line(format_args!("a=mid:{mid}"));
    out.line(format_args!("a=ice-ufrag:{}", ice.ufrag()));
    out.line(format_args!("a=ice-pwd:{}", ice.pwd()));
    for candidate in candidates {
        out.line(format_args!("a={candidate}"));
    }
    out.line(format_args!("a=end-of-candidates"));
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trickled_candidates_are_read_and_others_counted() {
        let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
            a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
            a=candidate:3471623853 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n\
            a=candidate:1 1 udp 1 abc.local 9 typ host\r\na=end-of-candidates\r\n";
        let fragment = parse_sdpfrag(text).unwrap();
        assert_eq!(fragment.ice.as_ref().map(IceCredentials::ufrag), Some("EsAw"));
        assert_eq!((fragment.candidates.len(), fragment.skipped, fragment.end), (1, 2, true));
        assert_eq!(fragment.mid, Some(Mid("0".into())));
    }

    #[test]
    fn a_restart_is_answered_with_what_a_client_can_read() {
        let ice = IceCredentials::new("abcd", "x".repeat(24)).unwrap();
        let own = Candidate::hosts(["192.0.2.1:50000".parse().unwrap()]);
        let fragment = parse_sdpfrag(&write_sdpfrag(&Mid("0".into()), &ice, &own)).unwrap();
        assert_eq!((fragment.ice, fragment.end, fragment.candidates.len()), (Some(ice), true, 1));
    }

    #[test]
    fn bad_fragments_are_refused() {
        for (name, text) in [
            ("garbage", "hello".to_string()),
            ("short password", "a=ice-ufrag:abcd\r\na=ice-pwd:x\r\n".into()),
            ("colon in the name", format!("a=ice-ufrag:ab:cd\r\na=ice-pwd:{}\r\n", "x".repeat(22))),
            ("too long", "a=x\r\n".repeat(FRAGMENT_LEN_MAX)),
            ("NUL", "a=ice-ufrag:ab\0d\r\n".into()),
            ("many m-lines", "m=audio 9 RTP/SAVPF 0\r\n".repeat(17)),
        ] {
            assert!(parse_sdpfrag(&text).is_err(), "{name}");
        }
        assert_eq!(parse_sdpfrag(""), Ok(Fragment::default()), "nothing new is no fault");
        let many = "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n".repeat(100);
        assert_eq!(parse_sdpfrag(&many).unwrap().candidates.len(), FRAGMENT_CANDIDATES_MAX);
    }
}
