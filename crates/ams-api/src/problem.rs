//! Refusals as HTTP: status, headers and a sentence in problem JSON (RFC 9457).
//!
//! Owns the mapping from the port's refusals to status codes, and nothing else does.

use std::time::Duration;

use ams_access::Denial;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::port::{BadDescription, Refusal};

/// When to try again after a stream was not live or a registry was away.
const RETRY_SOON: Duration = Duration::from_secs(2);
/// When to try again after an id was in use: about the time a dead publisher needs to be noticed.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Whom a refusal is for: codecs that do not match are told differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Publisher,
    Viewer,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        self.headers.extend(value.try_into().ok().map(|value| (name, value)));
        self
    }

    pub(crate) fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Status and sentence, for those who say it in another shape.
    pub(crate) fn into_parts(self) -> (StatusCode, String) {
        (self.status, self.detail)
    }

    pub(crate) fn from_refusal(refusal: &Refusal, end: End) -> Self {
        let (status, retry) = match refusal {
            Refusal::NotLive(_) => (StatusCode::CONFLICT, Some(RETRY_SOON)),
            Refusal::InUse(_) => (StatusCode::CONFLICT, Some(RETRY_LATER)),
            Refusal::EdgeTakesNoPublishers(_) | Refusal::OriginTakesNoViewers => (StatusCode::FORBIDDEN, None),
            Refusal::Denied(Denial::TokenMissing) => (StatusCode::UNAUTHORIZED, None),
            Refusal::Denied(_) => (StatusCode::FORBIDDEN, None),
            Refusal::RegistryUnavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_SOON)),
            Refusal::Busy { retry_after, .. } => (StatusCode::SERVICE_UNAVAILABLE, Some(*retry_after)),
            Refusal::TooMany { retry_after, .. } => (StatusCode::TOO_MANY_REQUESTS, Some(*retry_after)),
            Refusal::BadDescription(BadDescription::Malformed(_)) => (StatusCode::BAD_REQUEST, None),
            Refusal::BadDescription(BadDescription::Unsupported(_)) => (StatusCode::UNPROCESSABLE_ENTITY, None),
            Refusal::BadDescription(BadDescription::NoCommonCodec(_)) => match end {
                End::Publisher => (StatusCode::UNPROCESSABLE_ENTITY, None),
                End::Viewer => (StatusCode::NOT_ACCEPTABLE, None),
            },
            Refusal::NoSession => (StatusCode::NOT_FOUND, None),
            Refusal::StaleTag => (StatusCode::PRECONDITION_FAILED, None),
            Refusal::Internal => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        let mut problem = Self::new(status, refusal.to_string());
        if status == StatusCode::UNAUTHORIZED {
            problem = problem.with(header::WWW_AUTHENTICATE, "Bearer");
        }
        match retry {
            Some(after) => problem.retry_after(after),
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_status_and_their_time() {
        let stream = || "s".parse().unwrap();
        let text = || "x".to_owned();
        let busy = Refusal::Busy { reason: text(), retry_after: Duration::from_millis(1500) };
        let too_many = Refusal::TooMany { reason: text(), retry_after: Duration::from_secs(5) };
        for (refusal, end, status, retry) in [
            (Refusal::NotLive(stream()), End::Viewer, 409, Some("2")),
            (Refusal::InUse(stream()), End::Publisher, 409, Some("5")),
            (Refusal::EdgeTakesNoPublishers(None), End::Publisher, 403, None),
            (Refusal::OriginTakesNoViewers, End::Viewer, 403, None),
            (Refusal::RegistryUnavailable, End::Viewer, 503, Some("2")),
            (Refusal::Denied(Denial::TokenMissing), End::Viewer, 401, None),
            (Refusal::Denied(Denial::TokenExpired), End::Publisher, 403, None),
            (busy, End::Viewer, 503, Some("2")),
            (too_many, End::Viewer, 429, Some("5")),
            (Refusal::BadDescription(BadDescription::Malformed(text())), End::Viewer, 400, None),
            (Refusal::BadDescription(BadDescription::Unsupported(text())), End::Viewer, 422, None),
            (Refusal::BadDescription(BadDescription::NoCommonCodec(text())), End::Viewer, 406, None),
            (Refusal::BadDescription(BadDescription::NoCommonCodec(text())), End::Publisher, 422, None),
            (Refusal::NoSession, End::Viewer, 404, None),
            (Refusal::StaleTag, End::Viewer, 412, None),
            (Refusal::Internal, End::Viewer, 500, None),
        ] {
            let response = Problem::from_refusal(&refusal, end).into_response();
            assert_eq!(response.status().as_u16(), status, "{refusal:?}");
            let got = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().unwrap());
            assert_eq!(got, retry, "{refusal:?}");
            let challenge = response.headers().get(header::WWW_AUTHENTICATE).is_some();
            assert_eq!(challenge, status == 401, "{refusal:?}");
        }
    }
}
