//! Opens a SQLite database and makes its tables.
//!
//! Owns the schema and the durability settings. A document is one JSON text; the columns beside it are what is
//! searched by.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Counts changes of the tables below; a file with a higher number is from a later version and left alone.
const SCHEMA_VERSION: i64 = 3;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS broadcast (
        app TEXT NOT NULL, stream_id TEXT NOT NULL, document TEXT NOT NULL, UNIQUE (app, stream_id));
    CREATE TABLE IF NOT EXISTS stream_info (
        app TEXT NOT NULL, stream_id TEXT NOT NULL, host TEXT, origin_port INTEGER NOT NULL, epoch INTEGER NOT NULL,
        document TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS stream_info_stream ON stream_info (app, stream_id);
    CREATE TABLE IF NOT EXISTS cluster_node (id TEXT NOT NULL PRIMARY KEY, document TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS epoch (
        app TEXT NOT NULL, stream_id TEXT NOT NULL, epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (app, stream_id)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS epoch_at ON epoch (at_ms);
    CREATE TABLE IF NOT EXISTS app_settings (app TEXT NOT NULL PRIMARY KEY, document TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS stream_document (
        app TEXT NOT NULL, shelf TEXT NOT NULL, stream_id TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS stream_document_stream ON stream_document (app, shelf, stream_id, id);
    CREATE INDEX IF NOT EXISTS stream_document_id ON stream_document (app, shelf, id);
    CREATE TABLE IF NOT EXISTS webhook_outbox (
        app TEXT NOT NULL, id TEXT NOT NULL, stream_id TEXT NOT NULL, epoch INTEGER NOT NULL, place INTEGER NOT NULL,
        action TEXT NOT NULL, target TEXT NOT NULL, created INTEGER NOT NULL, not_before INTEGER NOT NULL,
        document TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, next_attempt INTEGER NOT NULL,
        leased_by TEXT, leased_until INTEGER NOT NULL, withdrawn_by INTEGER NOT NULL, forget_at INTEGER NOT NULL,
        UNIQUE (app, id));
    CREATE INDEX IF NOT EXISTS webhook_outbox_due ON webhook_outbox (app, state, next_attempt);
    CREATE INDEX IF NOT EXISTS webhook_outbox_stream ON webhook_outbox (app, stream_id, state, epoch, place);
    CREATE INDEX IF NOT EXISTS webhook_outbox_forget ON webhook_outbox (app, forget_at);
    CREATE TABLE IF NOT EXISTS panel_user (email TEXT NOT NULL PRIMARY KEY, document TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS shared (
        name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL, until_ms INTEGER);
";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The one that changes things, and makes the tables.
    Write {
        /// How long to wait for another process.
        patience: Duration,
    },
    /// Reads beside the writer.
    Read {
        /// How long to wait for another process.
        patience: Duration,
    },
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Write { .. }) { "write" } else { "read" })
    }
}

/// Opens the database; the error is a sentence.
pub(super) fn open(path: Option<&Path>, access: Access) -> Result<Connection, String> {
    let connection = connect(path, access)?;
    // Otherwise a statement whose plan may depend on its parameters, such as a LIMIT, is compiled again for each of their
    // values, which costs several times what the statement does.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(words)?;
    Ok(connection)
}

fn connect(path: Option<&Path>, access: Access) -> Result<Connection, String> {
    let Some(path) = path else {
        let connection = Connection::open_in_memory().map_err(words)?;
        connection.execute_batch(TABLES).map_err(words)?;
        return Ok(connection);
    };
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match access {
        Access::Read { patience } => {
            let connection =
                Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(words)?;
            connection.busy_timeout(patience).map_err(words)?;
            Ok(connection)
        }
        Access::Write { patience } => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if folder.is_some_and(|folder| !folder.is_dir()) {
                return Err("its folder does not exist: make it, or choose another".to_owned());
            }
            let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            let mut connection = Connection::open_with_flags(path, flags).map_err(words)?;
            connection.busy_timeout(patience).map_err(words)?;
            make_tables(&mut connection)?;
            Ok(connection)
        }
    }
}

fn make_tables(connection: &mut Connection) -> Result<(), String> {
    connection.pragma_update(None, "journal_mode", "WAL").map_err(words)?;
    // An epoch that was given out must not be forgotten when the power fails.
    connection.pragma_update(None, "synchronous", "FULL").map_err(words)?;
    let version = |c: &Connection| c.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(words)?;
    match version(&transaction).map_err(words)? {
        // Every version so far has only added tables and indexes.
        0..SCHEMA_VERSION => {
            transaction.execute_batch(TABLES).map_err(words)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(words)?;
        }
        SCHEMA_VERSION => {}
        later => return Err(format!("it was made by a later version (schema {later}, known is {SCHEMA_VERSION})")),
    }
    transaction.commit().map_err(words)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn words(error: rusqlite::Error) -> String {
    error.to_string()
}
