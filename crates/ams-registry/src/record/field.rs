//! One field of a stored document: the few types documents are made of, and lenient reading of each.
//!
//! Knows nothing of a store: [`Field`] says which width a number has, each store writes it in its own way.

use serde_json::{Map, Value};

/// A document as JSON; what a store cannot express in JSON is only ever looked at, never written back.
pub type JsonMap = Map<String, Value>;

/// A value with the exact type it has in a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    /// Absent from the document. Null is not written.
    Unset,
    Text(String),
    Bool(bool),
    /// A Java `int`.
    Int32(i32),
    /// A Java `long`.
    Int64(i64),
    Double(f64),
    /// A list or a nested document.
    Json(Value),
}

impl Field {
    /// As JSON; `Unset` is null.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Unset => Value::Null,
            Self::Text(text) => Value::String(text.clone()),
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int32(number) => Value::from(*number),
            Self::Int64(number) => Value::from(*number),
            Self::Double(number) => Value::from(*number),
            Self::Json(value) => value.clone(),
        }
    }
}

/// Fields to set in a document; [`Field::Unset`] takes one out.
pub(crate) type Changes = Vec<(&'static str, Field)>;

/// Puts `changes` into `document`; all else in it stays.
pub(crate) fn apply(document: &mut JsonMap, changes: &Changes) {
    for (name, field) in changes {
        match field {
            Field::Unset => {
                document.remove(*name);
            }
            field => {
                document.insert((*name).to_owned(), field.to_json());
            }
        }
    }
}

/// A Rust type that a document field can hold.
pub(crate) trait Stored: Sized {
    /// `None` when the value has another type; null never comes here.
    fn from_json(value: Value) -> Option<Self>;
    fn to_field(&self) -> Field;
}

/// An integer, also when a shell wrote it as a double.
fn integer(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let number = value.as_f64()?;
    // 2^53: beyond it a double no longer names one integer.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

impl Stored for String {
    fn from_json(value: Value) -> Option<Self> {
        if let Value::String(text) = value { Some(text) } else { None }
    }
    fn to_field(&self) -> Field {
        Field::Text(self.clone())
    }
}

impl Stored for bool {
    fn from_json(value: Value) -> Option<Self> {
        value.as_bool()
    }
    fn to_field(&self) -> Field {
        Field::Bool(*self)
    }
}

impl Stored for i32 {
    fn from_json(value: Value) -> Option<Self> {
        integer(&value)?.try_into().ok()
    }
    fn to_field(&self) -> Field {
        Field::Int32(*self)
    }
}

impl Stored for i64 {
    fn from_json(value: Value) -> Option<Self> {
        integer(&value)
    }
    fn to_field(&self) -> Field {
        Field::Int64(*self)
    }
}

impl Stored for f64 {
    fn from_json(value: Value) -> Option<Self> {
        value.as_f64()
    }
    fn to_field(&self) -> Field {
        Field::Double(*self)
    }
}

impl Stored for Vec<Value> {
    fn from_json(value: Value) -> Option<Self> {
        if let Value::Array(items) = value { Some(items) } else { None }
    }
    fn to_field(&self) -> Field {
        Field::Json(Value::Array(self.clone()))
    }
}

impl Stored for JsonMap {
    fn from_json(value: Value) -> Option<Self> {
        if let Value::Object(map) = value { Some(map) } else { None }
    }
    fn to_field(&self) -> Field {
        Field::Json(Value::Object(self.clone()))
    }
}

impl<T: Stored> Stored for Option<T> {
    fn from_json(value: Value) -> Option<Self> {
        T::from_json(value).map(Some)
    }
    fn to_field(&self) -> Field {
        self.as_ref().map_or(Field::Unset, T::to_field)
    }
}

/// Takes `name` out of `document`. Missing and null read as `default`; so does another type, which is noted.
pub(crate) fn take<T: Stored>(
    document: &mut JsonMap,
    name: &'static str,
    default: T,
    misread: &mut Vec<&'static str>,
) -> T {
    match document.remove(name) {
        None | Some(Value::Null) => default,
        Some(value) => T::from_json(value).unwrap_or_else(|| {
            misread.push(name);
            default
        }),
    }
}

/// Declares a record: its fields with Rust name, type, default and the name in documents.
///
/// Every record keeps what it does not know in `extra`, decodes leniently and lists its fields with exact types.
macro_rules! record {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$doc:meta])* $field:ident: $type:ty = $default:expr => $wire:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq)]
        pub struct $name {
            $( $(#[$doc])* pub $field: $type, )*
            /// Fields this version does not know, as they were read. Updates leave them in place.
            pub extra: $crate::record::field::JsonMap,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* extra: $crate::record::field::JsonMap::new() }
            }
        }

        impl $name {
            /// Reads a document field by field. A missing or null field has its default; so has one of another type,
            /// and its name is among the returned ones. Never fails.
            pub fn from_json(mut document: $crate::record::field::JsonMap) -> (Self, Vec<&'static str>) {
                let mut misread = Vec::new();
                let record = Self {
                    $( $field: $crate::record::field::take(&mut document, $wire, $default, &mut misread), )*
                    extra: document,
                };
                (record, misread)
            }

            /// The field of that name in documents, if there is one.
            pub fn field_name(name: &str) -> Option<&'static str> {
                [$( $wire ),*].into_iter().find(|known| *known == name)
            }

            /// Every field as JSON: known ones always, unset as null, and the unknown ones.
            pub fn to_json(&self) -> $crate::record::field::JsonMap {
                let mut shown = self.extra.clone();
                shown.extend(self.fields().into_iter().map(|(name, field)| (name.to_owned(), field.to_json())));
                shown
            }

            /// Every known field with its exact type, in the order of the declaration.
            pub(crate) fn fields(&self) -> $crate::record::field::Changes {
                use $crate::record::field::Stored;
                vec![ $( ($wire, self.$field.to_field()), )* ]
            }
        }
    };
}
pub(crate) use record;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_of_another_type_reads_as_the_default_and_is_named() {
        for (name, value, want, named) in [
            ("an int", json!(7), 7, false),
            ("a double a shell wrote", json!(7.0), 7, false),
            ("null", Value::Null, -1, false),
            ("a fraction", json!(7.5), -1, true),
            ("text", json!("7"), -1, true),
            ("too large for an int", json!(3_000_000_000_i64), -1, true),
            ("a list", json!([7]), -1, true),
            ("a document", json!({"a": 1}), -1, true),
            ("a very large double", json!(1e300), -1, true),
        ] {
            let mut document = JsonMap::from_iter([("n".to_owned(), value)]);
            let mut misread = Vec::new();
            assert_eq!(take(&mut document, "n", -1_i32, &mut misread), want, "{name}");
            assert_eq!(!misread.is_empty(), named, "{name}");
            assert!(document.is_empty(), "{name}");
        }
    }
}
