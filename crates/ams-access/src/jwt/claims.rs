//! What a token says.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The claims of a token: dates in seconds since 1970, the rest as it stands.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Claims {
    /// Not valid from here on.
    #[serde(default, deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Not valid before.
    #[serde(default, deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// All others.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Claims {
    /// Claims that end at `exp`, in seconds since 1970.
    pub fn until(exp: u64) -> Self {
        Self { exp: Some(exp), ..Self::default() }
    }

    /// These, and `name` says `value`.
    #[must_use]
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.other.insert(name.to_owned(), value.into());
        self
    }

    /// The text of claim `name`, if it is there and text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.other.get(name)?.as_str()
    }

    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    pub(super) fn to_json(&self) -> String {
        // A map of JSON values is always JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A NumericDate (RFC 7519 §2), which may have a fraction. What is no number is an error: a date that cannot be read
/// must not count as none.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    // Casts of floats saturate: before 1970 is 1970.
    Ok(Some(number.as_u64().unwrap_or_else(|| number.as_f64().unwrap_or_default() as u64)))
}
