//! Numbers of 128 bits that name something: 32 hex digits wherever they are written, since not every store has such
//! numbers.

/// Gives a tuple struct around a `u128` its text form, in and out.
macro_rules! hex_id {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                let id = (text.len() == 32).then(|| u128::from_str_radix(&text, 16).ok()).flatten();
                id.map(Self).ok_or_else(|| serde::de::Error::custom("an id is 32 hex digits"))
            }
        }
    };
}

pub(crate) use hex_id;

#[cfg(test)]
mod tests {
    use crate::session::SessionId;

    #[test]
    fn ids_are_text() {
        let text = "\"0000000000000000000000000000002a\"";
        assert_eq!(serde_json::to_string(&SessionId(42)).unwrap(), text);
        assert_eq!(serde_json::from_str::<SessionId>(text).unwrap(), SessionId(42));
        for wrong in ["\"2a\"", "42", "\"+000000000000000000000000000002g\"", "\"\""] {
            assert!(serde_json::from_str::<SessionId>(wrong).is_err(), "{wrong}");
        }
    }
}
