//! SDP text cut into sections, m-lines and attributes, all borrowed. Owns the syntax of RFC 8866 §5 as far as
//! WebRTC uses it and the limits on size; knows no attribute's meaning.

use super::error::SdpError;

/// Longest SDP read, in bytes.
pub const SDP_LEN_MAX: usize = 256 * 1024;
/// Most lines of an SDP.
pub const LINES_MAX: usize = 4096;
/// Longest line, in bytes.
pub const LINE_LEN_MAX: usize = 8192;
/// Most m-lines of an SDP.
pub const MEDIA_MAX: usize = 16;

/// An SDP, cut up.
#[derive(Debug, Default)]
pub(super) struct RawSdp<'a> {
    /// Attributes in front of the first m-line.
    pub(super) session: Vec<Attr<'a>>,
    pub(super) media: Vec<RawMedia<'a>>,
}

/// One m-line and what belongs to it.
#[derive(Debug)]
pub(super) struct RawMedia<'a> {
    /// Line number, from 1.
    pub(super) line: usize,
    /// `audio`, `video`, `application` or something else.
    pub(super) media: &'a str,
    pub(super) port: u16,
    pub(super) proto: &'a str,
    pub(super) formats: Vec<&'a str>,
    pub(super) attrs: Vec<Attr<'a>>,
}

/// One `a=` line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attr<'a> {
    pub(super) line: usize,
    pub(super) name: &'a str,
    /// Empty where there is no colon.
    pub(super) value: &'a str,
}

impl Attr<'_> {
    pub(super) fn malformed(&self, reason: &'static str) -> SdpError {
        SdpError::Malformed { line: self.line, reason }
    }
}

/// Cuts up a session description, which starts with its version.
pub(super) fn parse(text: &str) -> Result<RawSdp<'_>, SdpError> {
    let sdp = cut(text, SDP_LEN_MAX)?;
    match sdp.first {
        Some((_, b'v', "0")) => Ok(sdp.raw),
        Some((line, ..)) => Err(SdpError::Malformed { line, reason: "an SDP starts with v=0" }),
        None => Err(SdpError::NoMedia),
    }
}

/// Cuts up a fragment, which may start with any line (RFC 8840 §9).
pub(super) fn parse_fragment(text: &str, len_max: usize) -> Result<RawSdp<'_>, SdpError> {
    cut(text, len_max).map(|cut| cut.raw)
}

struct Cut<'a> {
    raw: RawSdp<'a>,
    /// Number, type and value of the first line.
    first: Option<(usize, u8, &'a str)>,
}

fn cut(text: &str, len_max: usize) -> Result<Cut<'_>, SdpError> {
    if text.len() > len_max {
        return Err(SdpError::TooLong { len: text.len(), max: len_max });
    }
    let mut cut = Cut { raw: RawSdp::default(), first: None };
    for (no, line) in text.split('\n').enumerate() {
        let malformed = |reason| SdpError::Malformed { line: no + 1, reason };
        if no >= LINES_MAX {
            return Err(SdpError::TooLong { len: text.split('\n').count(), max: LINES_MAX });
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        if line.len() > LINE_LEN_MAX {
            return Err(malformed("the line is too long"));
        }
        if line.contains(['\0', '\r']) {
            return Err(malformed("the line holds a control character"));
        }
        let Some((kind, value)) = line.split_once('=') else {
            return Err(malformed("not of the form <letter>=<value>"));
        };
        let &[kind] = kind.as_bytes() else {
            return Err(malformed("not of the form <letter>=<value>"));
        };
        if !kind.is_ascii_lowercase() {
            return Err(malformed("not of the form <letter>=<value>"));
        }
        cut.first.get_or_insert((no + 1, kind, value));
        match kind {
            b'm' => {
                if cut.raw.media.len() >= MEDIA_MAX {
                    return Err(SdpError::TooManyMedia { max: MEDIA_MAX });
                }
                let media = media_line(no + 1, value).ok_or_else(|| malformed("not an m-line"))?;
                cut.raw.media.push(media);
            }
            b'a' => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                let attr = Attr { line: no + 1, name, value: value.trim() };
                cut.raw.media.last_mut().map_or(&mut cut.raw.session, |media| &mut media.attrs).push(attr);
            }
            _ => {}
        }
    }
    Ok(cut)
}

fn media_line(line: usize, value: &str) -> Option<RawMedia<'_>> {
    let mut words = value.split_ascii_whitespace();
    let (media, port, proto) = (words.next()?, words.next()?, words.next()?);
    let port = port.split('/').next()?.parse().ok()?;
    let formats: Vec<&str> = words.collect();
    let visible = [media, proto].iter().chain(&formats).all(|word| word.bytes().all(|b| b.is_ascii_graphic()));
    (visible && !formats.is_empty()).then(|| RawMedia { line, media, port, proto, formats, attrs: Vec::new() })
}

/// Whether `text` is one or more characters of RFC 8866's token: safe to write into another SDP.
pub(super) fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}
