//! The panel's users and shared entries in SQLite.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::store::{Result, begin, parse, text};
use super::{Side, SqliteRegistry, classify};
use crate::error::RegistryError;
use crate::gate::Lane;
use crate::panel::{EMAIL, PanelStore, SHARED_LEN_MAX, Shared, Swap, USERS_MAX, email_of, invalid, is_field};
use crate::record::JsonMap;
use crate::record::misread::Misreads;
use crate::registry::Answer;

/// The table, for words about misread fields.
const USERS: &str = "panel_user";

impl SqliteRegistry {
    fn panel<'a, T, F>(&'a self, operation: &'static str, side: Side, job: F) -> Answer<'a, T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &Misreads) -> Result<T> + Send + 'static,
    {
        self.call(Lane::Call, operation, side, move |connection, misreads| {
            job(connection, misreads).map_err(|error| classify(operation, &error))
        })
    }
}

impl PanelStore for SqliteRegistry {
    fn find_user<'a>(&'a self, email: &'a str) -> Answer<'a, Option<JsonMap>> {
        let email = email.to_owned();
        self.panel("finding a user", Side::Read, move |connection, misreads| find(connection, misreads, &email))
    }

    fn list_users(&self) -> Answer<'_, Vec<JsonMap>> {
        self.panel("listing users", Side::Read, |connection, misreads| {
            let mut query = connection.prepare_cached("SELECT document FROM panel_user ORDER BY email LIMIT ?1")?;
            let limit = i64::try_from(USERS_MAX).unwrap_or(i64::MAX);
            let rows = query.query_map([limit], |row| row.get::<_, String>(0))?;
            rows.map(|text| Ok(parse(&text?, misreads, USERS))).collect()
        })
    }

    fn has_users(&self) -> Answer<'_, bool> {
        self.panel("looking for users", Side::Read, |connection, _| Ok(count(connection)? > 0))
    }

    fn create_user<'a>(&'a self, user: &'a JsonMap, first: bool) -> Answer<'a, bool> {
        const OPERATION: &str = "making a user";
        let mut user = user.clone();
        let made = self.panel(OPERATION, Side::Write, move |connection, _| {
            let Some(email) = email_of(&user).map(str::to_owned) else {
                return Ok(Err(invalid(OPERATION, "a user needs a name")));
            };
            let transaction = begin(connection)?;
            let count = count(&transaction)?;
            if first && count > 0 {
                return Ok(Ok(false));
            }
            if count >= USERS_MAX as u64 {
                return Ok(Err(invalid(OPERATION, "there are too many users already; delete some")));
            }
            user.retain(|name, value| (is_field(name) || name == EMAIL) && !value.is_null());
            let insert = "INSERT INTO panel_user (email, document) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            let made = transaction.execute(insert, params![email, text(&user)])?;
            transaction.commit()?;
            Ok(Ok(made > 0))
        });
        Box::pin(async move { made.await? })
    }

    fn edit_user<'a>(&'a self, email: &'a str, set: &'a JsonMap, unless_changed: &'a JsonMap) -> Answer<'a, bool> {
        let (email, set, unless_changed) = (email.to_owned(), set.clone(), unless_changed.clone());
        self.panel("editing a user", Side::Write, move |connection, misreads| {
            let transaction = begin(connection)?;
            let Some(mut user) = find(&transaction, misreads, &email)? else { return Ok(false) };
            let is_as_read = |(name, value): (&String, &Value)| user.get(name).unwrap_or(&Value::Null) == value;
            if !unless_changed.iter().filter(|(name, _)| is_field(name)).all(is_as_read) {
                return Ok(false);
            }
            user.extend(set.into_iter().filter(|(name, _)| is_field(name)));
            user.retain(|_, value| !value.is_null());
            let update = "UPDATE panel_user SET document = ?2 WHERE email = ?1";
            transaction.execute(update, params![email, text(&user)])?;
            transaction.commit()?;
            Ok(true)
        })
    }

    fn delete_user<'a>(&'a self, email: &'a str) -> Answer<'a, bool> {
        let email = email.to_owned();
        self.panel("deleting a user", Side::Write, move |connection, _| {
            Ok(connection.execute("DELETE FROM panel_user WHERE email = ?1", [email])? > 0)
        })
    }

    fn get_shared<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Shared>> {
        let names = names.to_vec();
        self.panel("reading what nodes share", Side::Read, move |connection, _| {
            let mut query = connection.prepare_cached("SELECT value, version FROM shared WHERE name = ?1")?;
            let mut found = Vec::new();
            for name in names {
                let row = query.query_row([&name], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?))).optional()?;
                found.extend(row.map(|(value, version)| Shared { name, value, version: version.unsigned_abs() }));
            }
            Ok(found)
        })
    }

    fn swap_shared<'a>(&'a self, swap: &'a Swap, now_ms: i64) -> Answer<'a, bool> {
        const OPERATION: &str = "writing what nodes share";
        let swap = swap.clone();
        let swapped = self.panel(OPERATION, Side::Write, move |connection, _| {
            if swap.value.len() > SHARED_LEN_MAX {
                return Ok(Err::<bool, RegistryError>(invalid(OPERATION, "the entry is too long")));
            }
            let transaction = begin(connection)?;
            let version = i64::try_from(swap.version).unwrap_or(i64::MAX);
            let done = if version > 0 {
                let update =
                    "UPDATE shared SET value = ?3, version = ?2 + 1, until_ms = ?4 WHERE name = ?1 AND version = ?2";
                transaction.execute(update, params![swap.name, version, swap.value, swap.until_ms])?
            } else {
                transaction.execute("DELETE FROM shared WHERE until_ms < ?1", [now_ms])?;
                let insert =
                    "INSERT INTO shared (name, value, version, until_ms) VALUES (?1, ?2, 1, ?3) ON CONFLICT DO NOTHING";
                transaction.execute(insert, params![swap.name, swap.value, swap.until_ms])?
            };
            transaction.commit()?;
            Ok(Ok(done > 0))
        });
        Box::pin(async move { swapped.await? })
    }
}

fn find(connection: &Connection, misreads: &Misreads, email: &str) -> Result<Option<JsonMap>> {
    let mut query = connection.prepare_cached("SELECT document FROM panel_user WHERE email = ?1")?;
    let found: Option<String> = query.query_row([email], |row| row.get(0)).optional()?;
    Ok(found.map(|text| parse(&text, misreads, USERS)))
}

fn count(connection: &Connection) -> Result<u64> {
    let count: i64 = connection.query_row("SELECT count(*) FROM panel_user", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}
