//! Which records a list shows, and in which order: the words of REST's list calls.
//!
//! Owns how a search is read. A user's regular expression never reaches a database server: the `regex` crate runs it
//! in linear time, within bounds; only plain text is searched for by the server.

use regex::{Regex, RegexBuilder};

use crate::record::broadcast::BroadcastRecord;

/// Longest search text, in bytes.
pub const SEARCH_LEN_MAX: usize = 256;
/// Most records one search by pattern looks through; what is behind is not found.
pub const SEARCH_RECORDS_MAX: usize = 100_000;
/// Largest compiled pattern, in bytes.
const PATTERN_SIZE_MAX: usize = 256 * 1024;

/// A search over `streamId` and `name`, without regard to case.
#[derive(Clone, Debug)]
pub struct Search {
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    /// Text without any sign that means something in a pattern.
    Plain { text: String, regex: Regex },
    /// A regular expression.
    Pattern(Regex),
    /// What is no regular expression: a name is found that has one of these words.
    Words(Vec<String>),
}

/// A search that is too long to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the search text is longer than {SEARCH_LEN_MAX} bytes; search for a shorter part")]
pub struct SearchTooLong;

impl Search {
    /// Reads a search: as a regular expression if it is one, else as words of a name. `None` for an empty one.
    ///
    /// # Errors
    /// It is longer than [`SEARCH_LEN_MAX`].
    pub fn parse(text: &str) -> Result<Option<Self>, SearchTooLong> {
        if text.len() > SEARCH_LEN_MAX {
            return Err(SearchTooLong);
        }
        if text.trim().is_empty() {
            return Ok(None);
        }
        let compiled =
            RegexBuilder::new(text).case_insensitive(true).size_limit(PATTERN_SIZE_MAX).nest_limit(32).build();
        let how = match compiled {
            Ok(regex) if regex::escape(text).replace("\\-", "-").replace("\\&", "&") == text => {
                How::Plain { text: text.to_owned(), regex }
            }
            Ok(regex) => How::Pattern(regex),
            Err(_) => How::Words(words(text).collect()),
        };
        Ok(Some(Self { how }))
    }

    /// Plain text that a server may search for itself, if that is all there is.
    pub(crate) fn plain(&self) -> Option<&str> {
        if let How::Plain { text, .. } = &self.how { Some(text) } else { None }
    }

    /// Whether a record is found.
    pub(crate) fn finds(&self, stream_id: &str, name: Option<&str>) -> bool {
        match &self.how {
            How::Plain { regex, .. } | How::Pattern(regex) => {
                regex.is_match(stream_id) || name.is_some_and(|name| regex.is_match(name))
            }
            How::Words(wanted) => name.is_some_and(|name| words(name).any(|word| wanted.contains(&word))),
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// By which field a list is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    pub(crate) field: &'static str,
    pub(crate) descending: bool,
}

impl Sort {
    /// By a field of the record; `None` for a name no record has.
    pub fn by(field: &str, descending: bool) -> Option<Self> {
        BroadcastRecord::field_name(field).map(|field| Self { field, descending })
    }
}

/// Which records, in which order. The default is all of them, oldest first.
#[derive(Clone, Debug, Default)]
pub struct BroadcastQuery {
    /// Only those found by this.
    pub search: Option<Search>,
    /// Only those of this `type`.
    pub kind: Option<String>,
    /// Only subtracks of this main track.
    pub main_track: Option<String>,
    /// Only those with this `role`.
    pub role: Option<String>,
    /// Only those `broadcasting` and confirmed at this time (ms since 1970) or later.
    pub live_since: Option<i64>,
    /// In this order; the oldest first within one value, and without it.
    pub sort: Option<Sort>,
}

impl BroadcastQuery {
    /// All but the order, for stores that cannot ask so themselves.
    pub(crate) fn finds(&self, record: &BroadcastRecord) -> bool {
        let is = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        is(&self.kind, &record.kind)
            && is(&self.main_track, &record.main_track_stream_id)
            && is(&self.role, &record.role)
            && self.live_since.is_none_or(|since| record.is_broadcasting_since(since))
            && self.search.as_ref().is_none_or(|search| search.finds(&record.stream_id, record.name.as_deref()))
    }
}

/// What an application's live streams come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveTotals {
    /// Live streams.
    pub streams: u64,
    /// Their WebRTC viewers.
    pub webrtc: i64,
    /// Their HLS viewers.
    pub hls: i64,
    /// Their DASH viewers.
    pub dash: i64,
    /// Their RTMP viewers.
    pub rtmp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_a_pattern_if_it_can_be_and_words_if_not() {
        for (name, text, stream_id, title, want) in [
            ("part of an id", "oom", "room1", None, true),
            ("without regard to case", "ROOM", "room1", None, true),
            ("part of a name", "morning", "x", Some("Good Morning"), true),
            ("a pattern", "^room[0-9]$", "room1", None, true),
            ("a pattern that does not fit", "^room[0-9]$", "room12", None, false),
            ("plain with a hyphen", "a-b", "xa-by", None, true),
            ("a dot is any character", "r.om", "room", None, true),
            ("no pattern: a word of the name", "room[", "x", Some("the Room"), true),
            ("no pattern: not a part of a word", "roo[", "x", Some("the room"), false),
            ("no pattern: not the id", "room[", "room", None, false),
            (
                "what would take others very long",
                "(a+)+$",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
                None,
                false,
            ),
            ("too large when compiled", "(a{1000}){1000}", "a", Some("a"), true),
        ] {
            let search = Search::parse(text).unwrap().unwrap();
            assert_eq!(search.finds(stream_id, title), want, "{name}");
        }
        assert!(Search::parse("a-b").unwrap().unwrap().plain().is_some());
        assert!(Search::parse("a.b").unwrap().unwrap().plain().is_none());
        assert!(Search::parse("  ").unwrap().is_none());
        assert!(Search::parse(&"x".repeat(SEARCH_LEN_MAX + 1)).is_err());
    }

    #[test]
    fn lists_are_ordered_by_known_fields_only() {
        assert_eq!(Sort::by("name", true), Some(Sort { field: "name", descending: true }));
        assert!(Sort::by("$where", false).is_none() && Sort::by("", false).is_none());
    }
}
