//! One REST call, taken apart: the application, the names in its path, its query and its body.
//!
//! Owns how these are read, and their bounds. Whether the call is allowed was decided before.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ams_registry::{AppSettingsRecord, JsonMap, Registry};
use ams_types::{AppName, StreamId, StreamKey};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use serde_json::Value;
use std::sync::Arc;

use super::outcome::RestError;
use crate::media::read_body;
use crate::state::Shared;

/// See the module.
pub(crate) struct Call {
    pub(crate) state: Shared,
    /// The application of the path; none for the server's own calls.
    app: Option<AppName>,
    path: HashMap<String, String>,
    query: HashMap<String, String>,
}

impl FromRequestParts<Shared> for Call {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, RestError> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Path(path) = path.map_err(|_| RestError::NotFound)?;
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let query = query.map_or_else(|_| HashMap::new(), |Query(query)| query);
        let app = path.get("app").and_then(|name| state.app(name));
        Ok(Self { state: Arc::clone(state), app, path, query })
    }
}

impl Call {
    pub(crate) fn registry(&self) -> Arc<dyn Registry> {
        self.state.node.registry()
    }

    pub(crate) fn app(&self) -> Result<&AppName, RestError> {
        self.app.as_ref().ok_or_else(|| no_such_app(self.named("app")))
    }

    pub(crate) fn settings(&self) -> Result<Arc<AppSettingsRecord>, RestError> {
        Ok(self.state.node.settings(self.app()?))
    }

    /// What stands at `{name}` in the path.
    pub(crate) fn named(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// The stream in the path; `None` for a name no stream can have.
    pub(crate) fn key(&self) -> Result<Option<StreamKey>, RestError> {
        self.key_of(self.named("id"))
    }

    pub(crate) fn key_of(&self, id: &str) -> Result<Option<StreamKey>, RestError> {
        let app = self.app()?;
        Ok(id.parse::<StreamId>().ok().map(|id| StreamKey::new(app.clone(), id)))
    }

    /// A number in the path. One that is none is an address that does not exist, as with AMS.
    pub(crate) fn number(&self, name: &str) -> Result<i64, RestError> {
        self.named(name).parse().map_err(|_| RestError::NotFound)
    }

    /// `{offset}/{size}`: negative ones are nothing, and no page is longer than 50.
    pub(crate) fn page(&self) -> Result<(usize, usize), RestError> {
        let count = |number: i64| usize::try_from(number.max(0)).unwrap_or(usize::MAX);
        Ok((count(self.number("offset")?), count(self.number("size")?).min(PAGE_MAX)))
    }

    /// A parameter of the query that is not empty.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// A parameter that says yes or no.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.query(name).map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }
}

/// Longest page of a list.
pub(crate) const PAGE_MAX: usize = 50;

pub(crate) fn no_such_app(name: &str) -> RestError {
    RestError::NoSuch(format!("There is no application {:.32} on this node", name))
}

/// A body as text, within the limits of length and time.
pub(crate) struct Text(pub(crate) String);

impl FromRequest<Shared> for Text {
    type Rejection = RestError;

    async fn from_request(request: Request<Body>, state: &Shared) -> Result<Self, RestError> {
        let (parts, body) = request.into_parts();
        Ok(Self(read_body(state, &parts.headers, body).await?))
    }
}

/// A body that is a JSON object; an empty one counts as an object without fields.
pub(crate) struct Object(pub(crate) JsonMap);

impl FromRequest<Shared> for Object {
    type Rejection = RestError;

    async fn from_request(request: Request<Body>, state: &Shared) -> Result<Self, RestError> {
        let Text(text) = Text::from_request(request, state).await?;
        if text.trim().is_empty() {
            return Ok(Self(JsonMap::new()));
        }
        match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(RestError::Bad("The body must be a JSON object".to_owned())),
            Err(error) => Err(RestError::Bad(format!("The body is not JSON: {error}"))),
        }
    }
}

/// The wall clock, ms since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
