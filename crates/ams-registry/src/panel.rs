//! What the panel keeps in the registry: its users, and what the nodes of a cluster share about logins.
//!
//! Owns the contract, as `registry` does for streams. A user is a JSON document here: what its fields mean, and what a
//! password is, is decided elsewhere. Shared entries are text under a name, with a version for compare-and-set.

use std::fmt;

use serde_json::Value;

use crate::record::JsonMap;
use crate::registry::Answer;

/// Most users that are listed; one more is refused.
pub const USERS_MAX: usize = 1000;
/// Longest shared entry, in bytes.
pub const SHARED_LEN_MAX: usize = 64 * 1024;

/// The field that names a user.
pub(crate) const EMAIL: &str = "email";

/// One shared entry, as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Shared {
    /// Its name.
    pub name: String,
    /// What it says.
    pub value: String,
    /// Rises with every write; 0 is that of an entry that does not exist.
    pub version: u64,
}

impl fmt::Debug for Shared {
    /// Leaves out the value, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

/// A write to a shared entry, done only while it is as it was read.
#[derive(Clone)]
pub struct Swap {
    /// Its name.
    pub name: String,
    /// What it is to say.
    pub value: String,
    /// The version that was read; 0 if there was none.
    pub version: u64,
    /// From when on it may be forgotten, ms since 1970; none for never.
    pub until_ms: Option<i64>,
}

impl fmt::Debug for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swap").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

/// The panel's part of a registry. Deadlines and errors are as in [`crate::Registry`].
pub trait PanelStore: Send + Sync {
    /// A user by its name (field `email`), compared exactly.
    fn find_user<'a>(&'a self, email: &'a str) -> Answer<'a, Option<JsonMap>>;

    /// All users, by name; at most [`USERS_MAX`].
    fn list_users(&self) -> Answer<'_, Vec<JsonMap>>;

    /// Whether there is any user.
    fn has_users(&self) -> Answer<'_, bool>;

    /// Makes a user of the document's `email`; `false` when there is one of that name. With `first` also when there is
    /// any user: of several first users made at one time, one is.
    ///
    /// # Errors
    /// [`crate::RegistryError::InvalidRequest`] for a document without a name, or when there are [`USERS_MAX`].
    fn create_user<'a>(&'a self, user: &'a JsonMap, first: bool) -> Answer<'a, bool>;

    /// Writes fields of a user, nulls taking theirs out; all others stay. Only while the fields of `unless_changed` are
    /// as given there (null: absent). `false` when nothing was written.
    fn edit_user<'a>(&'a self, email: &'a str, set: &'a JsonMap, unless_changed: &'a JsonMap) -> Answer<'a, bool>;

    /// Deletes a user; `false` when there was none.
    fn delete_user<'a>(&'a self, email: &'a str) -> Answer<'a, bool>;

    /// The shared entries of these names that exist.
    fn get_shared<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Shared>>;

    /// Writes a shared entry, if nobody else has since it was read; whether it was written. An entry is forgotten some
    /// time after its end, and may be read until then.
    ///
    /// # Errors
    /// [`crate::RegistryError::InvalidRequest`] over [`SHARED_LEN_MAX`].
    fn swap_shared<'a>(&'a self, swap: &'a Swap, now_ms: i64) -> Answer<'a, bool>;
}

/// Whether a name can be that of a field of ours: no path, no operator, not the store's own.
pub(crate) fn is_field(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0']) && ![EMAIL, "_id"].contains(&name)
}

/// The name in a user's document.
pub(crate) fn email_of(user: &JsonMap) -> Option<&str> {
    user.get(EMAIL).and_then(Value::as_str).filter(|email| !email.is_empty())
}

pub(crate) fn invalid(operation: &'static str, reason: &str) -> crate::RegistryError {
    crate::RegistryError::InvalidRequest { operation, reason: reason.to_owned() }
}
