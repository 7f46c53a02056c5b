//! AMS's REST API, call by call: status, body, and what it does to the documents and the streams.
//!
//! Owns a row for each call that AMS has, with its success, its failures and its bad input. Nodes are processes of their
//! own beside a real MongoDB. Needs what `tests/env/with-mongo` provides.

mod access;
mod broadcasts;
mod guards;
mod live;
mod login;
mod off;
mod owners;
mod server;
mod settings;
mod tokens;
mod webhooks;

use std::time::Duration;

use ams_testkit::APP;
use ams_testkit::http::{self, Answer};
use ams_testkit::node::{NodeProcess, SERVER_KEY};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Longest wait for what takes no longer than a message or a call to the registry.
const SOON: Duration = Duration::from_secs(5);
/// What is promised for settings to be in force everywhere.
const SETTINGS: Duration = Duration::from_secs(2);

/// Which call, with what, and what is to come back.
struct Row {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    body: Value,
    status: u16,
    want: Value,
}

/// A row whose body is JSON, or text, or nothing when it is null.
fn row(name: &'static str, method: &'static str, path: &'static str, body: Value, status: u16, want: Value) -> Row {
    Row { name, method, path, body, status, want }
}

/// AMS's `Result`, whole.
fn result(success: bool, message: impl Into<Value>) -> Value {
    json!({ "success": success, "message": message.into(), "dataId": null, "errorId": 0 })
}

/// Sends a call to the application's REST API.
async fn call(node: &NodeProcess, method: &str, path: &str, body: &Value) -> Result<Answer> {
    call_with(node, method, &format!("/{APP}/rest/v2{path}"), &[], body).await
}

/// Sends a call; one of the server's with its token, unless another is given.
async fn call_with(
    node: &NodeProcess,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Answer> {
    let text = match body {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let token = settings::signed(SERVER_KEY);
    let mut headers = headers.to_vec();
    if path.starts_with("/rest/") && !headers.iter().any(|(name, _)| *name == "ProxyAuthorization") {
        headers.push(("ProxyAuthorization", &token));
    }
    http::send(method, &node.url(path), &headers, text).await.with_context(|| format!("{method} {path}"))
}

/// Whether `got` is `want`: of an object, the fields that `want` names.
fn is_like(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            want.iter().all(|(name, want)| got.get(name).is_some_and(|got| is_like(got, want)))
        }
        (Value::Array(got), Value::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| is_like(got, want))
        }
        _ => got == want,
    }
}

/// Sends the calls one after the other and checks every answer; an empty body is a null.
async fn check(node: &NodeProcess, rows: &[Row]) -> Result<()> {
    let mut wrong = Vec::new();
    for row in rows {
        let got = call(node, row.method, row.path, &row.body).await?;
        let body: Value = if got.body.is_empty() { Value::Null } else { serde_json::from_str(&got.body)? };
        if got.status != row.status || !is_like(&body, &row.want) {
            wrong.push(format!("{}: {} {} gave {} {}", row.name, row.method, row.path, got.status, got.body));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} calls are wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    Ok(())
}

/// A body that is wanted to be empty.
const EMPTY: Value = Value::Null;
/// No body is sent.
const NONE: Value = Value::Null;
