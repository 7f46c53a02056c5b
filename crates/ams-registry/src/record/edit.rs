//! What a REST client may write into a stream's record.
//!
//! Owns the line between description and publication: who publishes, since when and how well is never written from
//! outside. Fields nobody knows are ignored, nulls say nothing.

use serde_json::Value;

use super::broadcast::{BroadcastRecord, PUBLICATION_FIELDS};
use super::field::{Changes, Field, JsonMap};

/// A field of the wrong type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of {0} has the wrong type")]
pub struct WrongType(pub &'static str);

/// Changes of a record's descriptive fields.
#[derive(Clone, Debug, PartialEq)]
pub struct BroadcastEdit {
    changes: Changes,
}

impl BroadcastEdit {
    /// The descriptive fields of a JSON object that are not null.
    ///
    /// # Errors
    /// One of them has another type.
    pub fn from_json(document: JsonMap) -> Result<Self, WrongType> {
        let (record, named) = read(document)?;
        let mut changes = record.descriptive_fields();
        changes.retain(|(name, _)| named.iter().any(|n| n == name));
        Ok(Self { changes })
    }

    /// The stream becomes a subtrack of `main_track`, or of none.
    pub fn main_track(main_track: Option<&str>) -> Self {
        let field = main_track.map_or(Field::Unset, |main| Field::Text(main.to_owned()));
        Self { changes: vec![("mainTrackStreamId", field)] }
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }
}

impl BroadcastRecord {
    /// A new record as a REST client describes it: what belongs to a publication, and what nobody knows, is left out.
    ///
    /// # Errors
    /// A field has another type.
    pub fn described(document: JsonMap) -> Result<Self, WrongType> {
        Ok(read(document)?.0)
    }
}

/// The record, and the names of the fields that were given.
fn read(mut document: JsonMap) -> Result<(BroadcastRecord, Vec<String>), WrongType> {
    document.retain(|name, value| *value != Value::Null && !PUBLICATION_FIELDS.contains(&name.as_str()));
    let named = document.keys().cloned().collect();
    let (record, misread) = BroadcastRecord::from_json(document);
    match misread.first() {
        Some(name) => Err(WrongType(name)),
        None => Ok((BroadcastRecord { extra: JsonMap::new(), ..record }, named)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> JsonMap {
        if let Value::Object(map) = value { map } else { JsonMap::new() }
    }

    #[test]
    fn only_descriptions_are_taken() {
        let edit = BroadcastEdit::from_json(map(json!({
            "streamId": "other", "name": "n", "description": null, "status": "broadcasting", "zombi": true,
            "updateTime": "not even a number", "webRTCViewerLimit": 5, "dbId": "x", "unknown": 1, "amsEpoch": 9
        })))
        .unwrap();
        let mut names: Vec<_> = edit.changes().iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(names, ["name", "webRTCViewerLimit"]);
        let wrong = BroadcastEdit::from_json(map(json!({ "webRTCViewerLimit": "many" }))).unwrap_err();
        assert_eq!(wrong, WrongType("webRTCViewerLimit"));
        let made = BroadcastRecord::described(map(json!({ "streamId": "s", "unknown": 1, "status": "x" }))).unwrap();
        assert_eq!(made, BroadcastRecord { stream_id: "s".into(), ..BroadcastRecord::default() });
    }
}
