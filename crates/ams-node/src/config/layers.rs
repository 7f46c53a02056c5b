//! Defaults < file < environment < flags: one value per key, and where it came from.
//!
//! Owns the merging and the checks that need no knowledge of a key's meaning: unknown names and wrong types. The
//! known keys are those of the serialised defaults, so a new key in any section needs no line here. Reads nothing
//! but the files named by `AMS_…_FILE`; the environment is handed in.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::error::{ConfigError, did_you_mean};
use super::secret::is_secret;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Built in.
    Default,
    /// The file, with the line counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A file named by an environment variable.
    EnvFile(String, PathBuf),
    /// A command-line flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::EnvFile(name, path) => write!(f, "{}, named by {name}", path.display()),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One value with its origin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Leaf {
    pub(crate) value: Value,
    pub(crate) source: Source,
}

/// The keys, dotted, with their values.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    leaves: BTreeMap<String, Leaf>,
    /// The defaults, never overwritten: they tell a key's type.
    types: BTreeMap<String, Value>,
    errors: Vec<ConfigError>,
}

impl Layers {
    /// Starts from the defaults. Every key must serialise to something: a type with an `Option` that is `None` would
    /// have a key that nobody can set.
    pub(crate) fn new(defaults: &impl Serialize) -> Self {
        let mut types = BTreeMap::new();
        let mut errors = Vec::new();
        match Table::try_from(defaults) {
            Ok(table) => flatten("", &table, &mut types),
            Err(error) => errors.push(problem("", "", format!("the defaults cannot be written down: {error}"), "")),
        }
        let leaves = types
            .iter()
            .map(|(key, value)| (key.clone(), Leaf { value: value.clone(), source: Source::Default }))
            .collect();
        Self { leaves, types, errors }
    }

    /// All keys in order, with their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Leaf)> {
        self.leaves.iter().map(|(key, leaf)| (key.as_str(), leaf))
    }

    /// Where `key`'s value came from; `Default` for a key that does not exist.
    pub(crate) fn source(&self, key: &str) -> Source {
        self.leaves.get(key).map_or(Source::Default, |leaf| leaf.source.clone())
    }

    /// Lays a file's text over what is there.
    pub(crate) fn add_file(&mut self, path: &Path, text: &str) {
        let parsed = match DeTable::parse(text) {
            Ok(parsed) => parsed,
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, &span));
                let source = Source::File(path.to_owned(), line).to_string();
                let fix = "see config/ams-node.toml for a complete example";
                return self.errors.push(problem("", &source, format!("not TOML: {}", error.message()), fix));
            }
        };
        self.add_table("", parsed.get_ref(), path, text);
    }

    fn add_table(&mut self, prefix: &str, table: &DeTable<'_>, path: &Path, text: &str) {
        for (name, value) in table.iter() {
            let key = join(prefix, name.get_ref());
            let source = Source::File(path.to_owned(), line_of(text, &name.span()));
            match (value.get_ref(), self.types.contains_key(&key), self.is_section(&key)) {
                (DeValue::Table(inner), false, true) => self.add_table(&key, inner, path, text),
                (_, false, true) => {
                    let fix = format!("write [{key}] on a line of its own and its keys below");
                    self.errors.push(problem(&key, &source.to_string(), "is a section, not a value".into(), &fix));
                }
                (_, false, false) => self.unknown(&key, &source),
                (_, true, _) => match plain(value.get_ref()) {
                    Ok(value) => self.set(&key, value, source),
                    Err(what) => self.errors.push(problem(&key, &source.to_string(), what, "")),
                },
            }
        }
    }

    /// Lays environment variables over what is there. Takes all of them and picks out those that are meant.
    ///
    /// An empty variable counts as not set, because that is how orchestrators write "none".
    pub(crate) fn add_env<'a>(&mut self, vars: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let vars: BTreeMap<&str, &str> =
            vars.into_iter().filter(|(name, value)| name.starts_with(ENV_PREFIX) && !value.is_empty()).collect();
        let keys: BTreeMap<String, String> = self.types.keys().map(|key| (env_name(key), key.clone())).collect();
        if let (Some(host), None) = (vars.get("AMS_HOST_ADDRESS"), vars.get("AMS_ADVERTISE")) {
            self.set_text("advertise", host, Source::Env("AMS_HOST_ADDRESS".into()));
        }
        for (&name, &text) in &vars {
            if let Some(key) = keys.get(name) {
                self.set_text(key, text, Source::Env(name.into()));
            } else if let Some(key) = name.strip_suffix("_FILE").and_then(|value| keys.get(value)) {
                self.add_env_file(key, name, text, vars.contains_key(env_name(key).as_str()));
            } else if !is_foreign(name) {
                let meant = did_you_mean(name, keys.keys().map(String::as_str));
                let fix = meant.map_or_else(
                    || "variables are spelled AMS_KEY or AMS_SECTION__KEY, with two underscores after a section".into(),
                    |meant| format!("did you mean {meant}?"),
                );
                self.errors.push(problem("", &format!("environment variable {name}"), "names no key".into(), &fix));
            }
        }
    }

    fn add_env_file(&mut self, key: &str, name: &str, path: &str, both: bool) {
        let source = Source::EnvFile(name.into(), path.into());
        let refuse = |what: String, fix: &str| problem(key, &format!("environment variable {name}"), what, fix);
        if !is_secret(key) {
            let fix = format!("set {} instead", env_name(key));
            self.errors.push(refuse("only secrets are read from files of their own".into(), &fix));
        } else if both {
            self.errors.push(refuse(format!("{} is set as well", env_name(key)), "set only one of the two"));
        } else {
            match std::fs::read_to_string(path) {
                Ok(text) => self.set_text(key, text.trim(), source),
                Err(error) => {
                    let what = format!("{path} cannot be read: {error}");
                    self.errors.push(refuse(what, "name a file this user may read"));
                }
            }
        }
    }

    /// Lays flags over what is there: flag with dashes, key, text.
    pub(crate) fn add_flags<'a>(&mut self, flags: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) {
        for (flag, key, text) in flags {
            let source = Source::Flag(flag.into());
            if self.types.contains_key(key) { self.set_text(key, text, source) } else { self.unknown(key, &source) }
        }
    }

    /// Sets a key from text, read as the type of its default.
    fn set_text(&mut self, key: &str, text: &str, source: Source) {
        let Some(kind) = self.types.get(key) else { return self.unknown(key, &source) };
        match read_as(kind, text) {
            Ok(value) => self.set(key, value, source),
            Err(wanted) => {
                let hidden = is_secret(key) || kind.is_array() || kind.is_table();
                let shown = if hidden { "its value".into() } else { format!("{text:?}") };
                let what = format!("{shown} is not {wanted}");
                self.errors.push(problem(key, &source.to_string(), what, &self.example(key)));
            }
        }
    }

    fn set(&mut self, key: &str, value: Value, source: Source) {
        let Some(kind) = self.types.get(key) else { return self.unknown(key, &source) };
        let fits = value.same_type(kind) || (kind.is_float() && value.is_integer());
        if fits {
            self.leaves.insert(key.into(), Leaf { value, source });
        } else {
            let what = format!("is {}, wanted is {}", type_name(&value), type_name(kind));
            self.errors.push(problem(key, &source.to_string(), what, &self.example(key)));
        }
    }

    fn unknown(&mut self, key: &str, source: &Source) {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let here = || {
            let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
            self.types.keys().filter_map(move |key| key.strip_prefix(&prefix)?.split('.').next())
        };
        let elsewhere = self.types.keys().find(|known| known.rsplit('.').next() == Some(name));
        let fix = if let Some(meant) = did_you_mean(name, here()) {
            format!("did you mean `{}`?", join(section, meant))
        } else if let Some(elsewhere) = elsewhere {
            format!("did you mean `{elsewhere}`?")
        } else {
            let mut names: Vec<&str> = here().collect();
            names.dedup();
            match (names.is_empty(), section.is_empty()) {
                (true, _) => format!("there is no section [{section}]; `ams-node --print-config` shows them all"),
                (false, true) => format!("known are {}", names.join(", ")),
                (false, false) => format!("[{section}] has {}", names.join(", ")),
            }
        };
        self.errors.push(problem(key, &source.to_string(), "there is no such key".into(), &fix));
    }

    fn is_section(&self, key: &str) -> bool {
        self.types.keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    /// `for example `key = default``, as the least that can be said about any key.
    fn example(&self, key: &str) -> String {
        if let Some((_, allowed, example)) = super::raw::ALLOWED.iter().find(|(named, ..)| *named == key) {
            return format!("allowed: {allowed}, for example {example}");
        }
        self.types.get(key).map(|default| format!("for example {default}, the default")).unwrap_or_default()
    }

    /// Reads all keys into `T`, or says which of them cannot be read.
    pub(crate) fn read<T: DeserializeOwned>(mut self) -> (Self, Result<T, Vec<ConfigError>>) {
        let defaults = nest(self.types.iter());
        // One key at a time over the defaults: an error then belongs to that key, whatever its section's type says.
        for (key, leaf) in self.leaves.iter().filter(|(_, leaf)| leaf.source != Source::Default) {
            let mut table = defaults.clone();
            insert(&mut table, key, leaf.value.clone());
            if let Err(error) = table.try_into::<T>() {
                let shown = if is_secret(key) { String::new() } else { format!("{}: ", leaf.value) };
                let what = format!("{shown}{}", error.message().trim());
                self.errors.push(problem(key, &leaf.source.to_string(), what, &self.example(key)));
            }
        }
        if !self.errors.is_empty() {
            let errors = std::mem::take(&mut self.errors);
            return (self, Err(errors));
        }
        let all = nest(self.leaves.iter().map(|(key, leaf)| (key, &leaf.value)));
        let read = all.try_into::<T>().map_err(|error| vec![problem("", "", error.message().trim().into(), "")]);
        (self, read)
    }
}

const ENV_PREFIX: &str = "AMS_";

/// `media.connect_timeout` → `AMS_MEDIA__CONNECT_TIMEOUT`. Two underscores, because names have single ones.
pub(crate) fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Variables with our prefix that are not ours to judge: the test suite's, the build's, and those that Kubernetes
/// sets in every container for a service whose name starts with `ams`.
fn is_foreign(name: &str) -> bool {
    let of_a_service = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    of_a_service
        || matches!(name, "AMS_CONFIG" | "AMS_HOST_ADDRESS" | "AMS_BUILD_COMMIT" | "AMS_SKIP_WEBAPP")
        || ["AMS_TEST_", "AMS_TESTS_", "AMS_SIM_", "AMS_FUZZ_", "AMS_SOAK_", "AMS_BENCH_"]
            .iter()
            .any(|ours| name.starts_with(ours))
}

fn problem(key: &str, source: &str, problem: String, fix: &str) -> ConfigError {
    ConfigError { key: key.into(), source: source.into(), problem, fix: fix.into() }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") }
}

/// A table with keys is a section; an empty one is a value, a map to be filled.
fn flatten(prefix: &str, table: &Table, into: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = join(prefix, name);
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, into),
            value => {
                into.insert(key, value.clone());
            }
        }
    }
}

fn nest<'a>(leaves: impl Iterator<Item = (&'a String, &'a Value)>) -> Table {
    let mut table = Table::new();
    leaves.for_each(|(key, value)| insert(&mut table, key, value.clone()));
    table
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
        }
        Some((section, rest)) => {
            if let Value::Table(inner) = table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
                insert(inner, rest, value);
            }
        }
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

/// The value without its places in the text.
fn plain(value: &DeValue<'_>) -> Result<Value, String> {
    let too_large = |text: &str| format!("{text} is too large");
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            Value::Integer(i64::from_str_radix(digits, number.radix()).map_err(|_| too_large(digits))?)
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().map_err(|_| too_large(number.as_str()))?),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| plain(item.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Table(
            table
                .iter()
                .map(|(name, value)| Ok((name.get_ref().to_string(), plain(value.get_ref())?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}

/// Reads text from a variable or flag as the type of `kind`; the error is what was wanted.
fn read_as(kind: &Value, text: &str) -> Result<Value, &'static str> {
    let as_toml = || toml::from_str::<Table>(&format!("v = {text}")).ok().and_then(|mut table| table.remove("v"));
    match kind {
        Value::String(_) => Ok(Value::String(text.into())),
        Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| "a whole number"),
        Value::Float(_) => text.trim().parse().map(Value::Float).map_err(|_| "a number"),
        Value::Boolean(_) => text.trim().parse().map(Value::Boolean).map_err(|_| "true or false"),
        Value::Array(_) if text.trim_start().starts_with('[') => as_toml().ok_or("a list"),
        Value::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(Value::Array(parts.map(|part| Value::String(part.into())).collect()))
        }
        Value::Table(_) => as_toml().ok_or("a table such as { name = \"value\" }"),
        Value::Datetime(_) => as_toml().ok_or("a date and time"),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date and time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
