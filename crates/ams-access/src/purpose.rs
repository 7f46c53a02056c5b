//! What a token is good for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What somebody wants to do with a stream, as AMS writes it in tokens and subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Bring its media.
    Publish,
    /// Watch it.
    Play,
}

impl Purpose {
    /// AMS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
