//! What AMS's REST API answers with: its `Result`, records, numbers, and the statuses that go with them.
//!
//! Owns AMS's habit of refusing with 200 and `success:false`, and the few cases that have a status of their own.

use ams_registry::RegistryError;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use tracing::{debug, warn};

use crate::problem::Problem;

/// AMS's `Result`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    success: bool,
    message: Option<String>,
    data_id: Option<String>,
    error_id: i32,
}

impl Outcome {
    pub(crate) fn done() -> Self {
        Self { success: true, ..Self::default() }
    }

    /// Not done, and AMS does not say why.
    pub(crate) fn not_done() -> Self {
        Self::default()
    }

    pub(crate) fn of(success: bool) -> Self {
        Self { success, ..Self::default() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::not_done().saying(message)
    }

    #[must_use]
    pub(crate) fn saying(self, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..self }
    }

    #[must_use]
    pub(crate) fn with_data(self, data_id: impl Into<String>) -> Self {
        Self { data_id: Some(data_id.into()), ..self }
    }

    #[must_use]
    pub(crate) fn with_error(self, error_id: i32) -> Self {
        Self { error_id, ..self }
    }

    pub(crate) fn status(self, status: StatusCode) -> Response {
        json(status, &self)
    }

    pub(crate) fn is_success(&self) -> bool {
        self.success
    }
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        self.status(StatusCode::OK)
    }
}

/// What a handler answers.
pub(crate) type Answer = Result<Response, RestError>;

/// Why a handler did not get to its answer.
#[derive(Debug)]
pub(crate) enum RestError {
    /// The request makes no sense (400).
    Bad(String),
    /// As 400, with another status.
    Status(StatusCode, String),
    /// No such thing, without a word, as AMS does it (404).
    NotFound,
    /// No such thing (404).
    NoSuch(String),
    /// The registry failed.
    Registry(RegistryError),
}

impl From<RegistryError> for RestError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<Problem> for RestError {
    fn from(problem: Problem) -> Self {
        let (status, detail) = problem.into_parts();
        Self::Status(status, detail)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let says = |status, sentence: String| Outcome::failed(sentence).status(status);
        match self {
            Self::Bad(sentence) => says(StatusCode::BAD_REQUEST, sentence),
            Self::Status(status, sentence) => says(status, sentence),
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::NoSuch(sentence) => says(StatusCode::NOT_FOUND, sentence),
            Self::Registry(RegistryError::InvalidRequest { reason, .. }) => says(StatusCode::BAD_REQUEST, reason),
            Self::Registry(error) => {
                // That it is away is said once, elsewhere.
                let sentence = if error.is_transient() || error.is_away() == Some(true) {
                    debug!(%error, "a REST call could not be answered");
                    "Database is not available. Please try again"
                } else {
                    warn!(%error, "a REST call could not be answered");
                    "The database refused the call; the log of this node says why"
                };
                says(StatusCode::INTERNAL_SERVER_ERROR, sentence.to_owned())
            }
        }
    }
}

/// A JSON answer that nobody keeps.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    match serde_json::to_string(body) {
        Ok(text) => (status, headers, text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// 200 with JSON.
pub(crate) fn ok(body: &impl Serialize) -> Answer {
    Ok(json(StatusCode::OK, body))
}

/// AMS's `SimpleStat`.
pub(crate) fn number(number: u64) -> Answer {
    ok(&serde_json::json!({ "number": number }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_all_four_fields() {
        for (outcome, want) in [
            (Outcome::done(), r#"{"success":true,"message":null,"dataId":null,"errorId":0}"#),
            (Outcome::failed("no"), r#"{"success":false,"message":"no","dataId":null,"errorId":0}"#),
            (Outcome::done().with_data("7"), r#"{"success":true,"message":null,"dataId":"7","errorId":0}"#),
        ] {
            assert_eq!(serde_json::to_string(&outcome).unwrap(), want);
        }
    }
}
