//! Between documents as MongoDB keeps them and records.
//!
//! Reading never fails: what BSON can hold and JSON cannot is turned into something to look at, and what cannot be
//! read at all is left out. Writing gives every field its exact type.

use mongodb::bson::{Bson, Document, RawBsonRef, RawDocument, doc};
use serde_json::{Number, Value};

use crate::record::JsonMap;
use crate::record::field::{Changes, Field};

/// Deepest nesting that is read; MongoDB itself stores up to 100.
const DEPTH_MAX: u8 = 100;

/// A document as JSON. Stops at the first element that cannot be read.
pub(crate) fn to_json(document: &RawDocument) -> JsonMap {
    map(document, 0)
}

fn map(document: &RawDocument, depth: u8) -> JsonMap {
    let readable = document.iter().map_while(Result::ok);
    readable.map(|(name, element)| (name.as_str().to_owned(), value(element, depth))).collect()
}

fn value(element: RawBsonRef<'_>, depth: u8) -> Value {
    let special = |name: &str, value: Value| Value::Object(JsonMap::from_iter([(name.to_owned(), value)]));
    match element {
        RawBsonRef::Double(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => Value::from(text),
        RawBsonRef::Boolean(flag) => Value::from(flag),
        RawBsonRef::Int32(number) => Value::from(number),
        RawBsonRef::Int64(number) => Value::from(number),
        RawBsonRef::Document(document) if depth < DEPTH_MAX => Value::Object(map(document, depth + 1)),
        RawBsonRef::Array(items) if depth < DEPTH_MAX => {
            Value::Array(items.into_iter().map_while(Result::ok).map(|item| value(item, depth + 1)).collect())
        }
        RawBsonRef::ObjectId(id) => special("$oid", Value::from(id.to_hex())),
        RawBsonRef::DateTime(time) => special("$date", Value::from(time.timestamp_millis())),
        RawBsonRef::Decimal128(number) => special("$numberDecimal", Value::from(number.to_string())),
        RawBsonRef::Null | RawBsonRef::Undefined => Value::Null,
        _ => special("$unreadable", Value::Bool(true)),
    }
}

/// A field as BSON; `None` for one that is not to be stored.
pub(super) fn field_to_bson(field: &Field) -> Option<Bson> {
    Some(match field {
        Field::Unset => return None,
        Field::Text(text) => Bson::String(text.clone()),
        Field::Bool(flag) => Bson::Boolean(*flag),
        Field::Int32(number) => Bson::Int32(*number),
        Field::Int64(number) => Bson::Int64(*number),
        Field::Double(number) => Bson::Double(*number),
        Field::Json(value) => json_to_bson(value),
    })
}

/// JSON as BSON. Integers take 32 bits where they fit, as a shell or a Java mapper would store them.
pub(super) fn json_to_bson(value: &Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(*flag),
        Value::String(text) => Bson::String(text.clone()),
        Value::Array(items) => Bson::Array(items.iter().map(json_to_bson).collect()),
        Value::Object(map) => {
            Bson::Document(map.iter().map(|(name, value)| (name.clone(), json_to_bson(value))).collect())
        }
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32),
            (None, Some(number)) => Bson::Double(number),
            (None, None) => Bson::Null,
        },
    }
}

/// A whole new document.
pub(super) fn document(changes: &Changes) -> Document {
    changes.iter().filter_map(|(name, field)| Some(((*name).to_owned(), field_to_bson(field)?))).collect()
}

/// An update that sets the given fields and takes out those that are unset. Never empty.
pub(super) fn update(changes: &Changes) -> Document {
    let unset: Document = changes
        .iter()
        .filter(|(_, field)| *field == Field::Unset)
        .map(|(name, _)| ((*name).to_owned(), Bson::String(String::new())))
        .collect();
    let mut update = Document::new();
    let set = document(changes);
    if !set.is_empty() || unset.is_empty() {
        update.insert("$set", set);
    }
    if !unset.is_empty() {
        update.insert("$unset", unset);
    }
    update
}

/// Fields that show who holds a record: if all are as they were read, nobody came in between.
const GUARD_FIELDS: [&str; 7] =
    ["status", "updateTime", "originAdress", "amsEpoch", "amsNodeId", "amsIncarnation", "amsSession"];

/// A filter that matches `read` only while nobody else has changed who holds it, whatever types its fields have.
pub(super) fn guard(read: &RawDocument) -> Document {
    let mut filter = Document::new();
    for name in ["_id", "streamId"].into_iter().chain(GUARD_FIELDS) {
        let seen = read.get(name).ok().flatten().and_then(|element| Bson::try_from(element).ok());
        let condition = match seen {
            // `$eq`, so that a regular expression in the document is compared, not applied.
            Some(value) => doc! { "$eq": value },
            None => doc! { "$exists": false },
        };
        filter.insert(name, condition);
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{DateTime, RawDocumentBuf, Timestamp, oid::ObjectId};
    use serde_json::json;

    #[test]
    fn whatever_a_document_holds_can_be_looked_at() {
        let stored = doc! {
            "_id": ObjectId::parse_str("65a000000000000000000001").unwrap(),
            "when": DateTime::from_millis(5),
            "many": [1, 2_i64, "x", { "deep": true }],
            "nan": f64::NAN,
            "stamp": Timestamp { time: 1, increment: 2 },
            "nothing": Bson::Null,
        };
        let raw = RawDocumentBuf::try_from(&stored).unwrap();
        let want = json!({
            "_id": { "$oid": "65a000000000000000000001" },
            "when": { "$date": 5 },
            "many": [1, 2, "x", { "deep": true }],
            "nan": null,
            "stamp": { "$unreadable": true },
            "nothing": null,
        });
        assert_eq!(Value::Object(to_json(&raw)), want);
    }

    #[test]
    fn a_broken_element_costs_only_what_follows_it() {
        let raw = RawDocumentBuf::try_from(&doc! { "before": 1, "broken": "abcd", "after": 2 }).unwrap();
        let mut bytes = raw.into_bytes();
        let at = bytes.windows(4).position(|w| w == b"abcd").unwrap();
        bytes[at] = 0xff;
        let raw = RawDocumentBuf::from_bytes(bytes).unwrap();
        assert_eq!(Value::Object(to_json(&raw)), json!({ "before": 1 }));
    }

    #[test]
    fn numbers_keep_the_width_other_readers_expect() {
        for (name, field, want) in [
            ("a Java int", Field::Int32(1), Some(Bson::Int32(1))),
            ("a Java long", Field::Int64(1), Some(Bson::Int64(1))),
            ("a double", Field::Double(1.0), Some(Bson::Double(1.0))),
            ("unset is not null", Field::Unset, None),
            ("a nested small number", Field::Json(json!([1])), Some(Bson::Array(vec![Bson::Int32(1)]))),
            ("a nested large number", Field::Json(json!(1_i64 << 40)), Some(Bson::Int64(1 << 40))),
        ] {
            assert_eq!(field_to_bson(&field), want, "{name}");
        }
    }
}
