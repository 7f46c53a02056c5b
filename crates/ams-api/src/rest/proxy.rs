//! `/rest/v2/request?_path={app}/rest/v2/…`: the panel's way to an application's calls, done in this process.
//!
//! Owns how `_path` is read: once decoded, it must be the plain path of an application's call and nothing that a router
//! could take for another. Who may ask was decided on that path; the application's own guards, which are for others
//! than the panel, are not asked again.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Extension, Query, Request};
use axum::response::{IntoResponse, Response};
use http::Uri;
use tower::ServiceExt;

use super::outcome::RestError;
use super::table::Entry;
use crate::client::{ClientAddr, Front};

/// The calls that lead here, below `/rest/v2` and `/rest`.
pub(super) const PATH: &str = "/request";
/// Put into a request that the panel's proxy passes on: its guards have let it in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proxied;

/// Where a proxied call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `/{app}/rest/v2/…`, as a client would have sent it.
    pub(super) path: String,
    /// The query without `_path`.
    query: String,
}

/// Whether a path of the server is the proxy's.
pub(super) fn is_proxy(path: &str) -> bool {
    ["/rest/v2", "/rest"].iter().any(|base| path.strip_prefix(base) == Some(PATH))
}

impl Target {
    /// Reads the call's own address. `None` for one that is not plainly an application's call.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let raw = uri.query().unwrap_or_default();
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
        // Both skip empty parts, so they run side by side.
        let parts = raw.split('&').filter(|part| !part.is_empty());
        let (mut paths, mut rest) = (Vec::new(), Vec::new());
        for ((name, value), part) in pairs.into_iter().zip(parts) {
            if name == "_path" { paths.push(value) } else { rest.push(part.to_owned()) }
        }
        let [path] = paths.as_slice() else { return None };
        let (path, own_query) = path.split_once('?').unwrap_or((path, ""));
        if !own_query.is_empty() {
            rest.insert(0, escaped(own_query));
        }
        let path = format!("/{}", escaped(path.strip_prefix('/').unwrap_or(path)));
        is_plain(&path).then(|| Self { path, query: rest.join("&") })
    }

    fn uri(&self) -> Option<Uri> {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        format!("{}{query}", self.path).parse().ok()
    }
}

/// An application's call, with nothing in it that could be read as another path.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let tricks = ["%2e", "%2f", "%5c", "%25", "%3b", "%0", "%1", "%7f", "\\", ";", "#"];
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let named = segments.iter().take(3).all(|segment| !segment.contains('%'));
    matches!(segments.as_slice(), [_, "rest", "v2", _, ..])
        && named
        && segments.iter().all(|segment| !segment.is_empty() && ![".", ".."].contains(segment))
        && !tricks.iter().any(|trick| lower.contains(trick))
}

/// What a query's decoding has opened and an address cannot hold, closed again. An escape that is left stays one.
fn escaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_escape =
        |at: usize| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let mut escaped = String::with_capacity(text.len());
    for (at, byte) in bytes.iter().enumerate() {
        let stays = match byte {
            b'%' => is_escape(at),
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            byte => byte.is_ascii_graphic(),
        };
        match stays {
            true => escaped.push(char::from(*byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The proxy's calls: `apps` answers those of the applications.
pub(super) fn calls(apps: &Router) -> impl Iterator<Item = Entry> + use<> {
    let apps = apps.clone();
    ["GET", "POST", "PUT", "DELETE"].into_iter().map(move |method| {
        let apps = apps.clone();
        let pass = move |Extension(target): Extension<Target>, request: Request| pass(apps.clone(), target, request);
        Entry::new(method, PATH, pass).differs("`_path` names an application's call, which is done by this node itself")
    })
}

async fn pass(apps: Router, target: Target, request: Request) -> Response {
    let Some(uri) = target.uri() else { return RestError::NotFound.into_response() };
    let (parts, body) = request.into_parts();
    let mut passed = Request::new(Body::new(body));
    *passed.method_mut() = parts.method;
    *passed.uri_mut() = uri;
    *passed.headers_mut() = parts.headers;
    let extensions = passed.extensions_mut();
    extensions.insert(Proxied);
    if let Some(client) = parts.extensions.get::<ClientAddr>() {
        extensions.insert(*client);
    }
    if let Some(front) = parts.extensions.get::<Front>() {
        extensions.insert(front.clone());
    }
    if let Some(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        extensions.insert(*peer);
    }
    match apps.oneshot(passed).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(query: &str) -> Option<(String, String)> {
        let uri = format!("/rest/v2/request?{query}").parse().unwrap();
        Target::of(&uri).map(|target| (target.path, target.query))
    }

    #[test]
    fn an_applications_calls_are_found() {
        for (query, path, rest) in [
            ("_path=live/rest/v2/broadcasts/count", "/live/rest/v2/broadcasts/count", ""),
            ("_path=/live/rest/v2/version", "/live/rest/v2/version", ""),
            ("_path=live%2Frest%2Fv2%2Fbroadcasts%2Fs", "/live/rest/v2/broadcasts/s", ""),
            (
                "a=1&_path=live/rest/v2/vods/list/0/5&sort_by=date&x=%26",
                "/live/rest/v2/vods/list/0/5",
                "a=1&sort_by=date&x=%26",
            ),
            ("_path=live/rest/v2/vods/list/0/5?search=a%20b&c=d", "/live/rest/v2/vods/list/0/5", "search=a%20b&c=d"),
            ("_path=live/rest/v2/broadcasts/count/a%20b", "/live/rest/v2/broadcasts/count/a%20b", ""),
            ("_path=live/rest/v2/broadcasts/count/a%2520b", "/live/rest/v2/broadcasts/count/a%20b", ""),
            ("&&_path=live/rest/v2/broadcasts/count/%C3%A9&", "/live/rest/v2/broadcasts/count/%C3%A9", ""),
        ] {
            assert_eq!(target(query), Some((path.to_owned(), rest.to_owned())), "{query}");
        }
        let uri = Target::of(&"/rest/request?_path=a/rest/v2/b?c&d=%20".parse().unwrap()).unwrap().uri().unwrap();
        assert_eq!(uri.to_string(), "/a/rest/v2/b?c&d=%20");
    }

    #[test]
    fn what_tries_to_be_another_path_is_none() {
        for query in [
            "",
            "_path=",
            "path=live/rest/v2/version",
            "_path=live/rest/v2/version&_path=other/rest/v2/version",
            "_path=live/rest/v2/version&%5Fpath=other/rest/v2/version",
            "_path=live",
            "_path=live/rest/v2",
            "_path=live/rest/v2/",
            "_path=live/rest/v1/version",
            "_path=rest/v2/users/initial",
            "_path=live/websocket",
            "_path=//live/rest/v2/version",
            "_path=http://10.0.0.1/rest/v2/version",
            "_path=//evil.example/rest/v2/version",
            "_path=live/rest/v2/../../other/rest/v2/version",
            "_path=live/rest/v2/./version",
            "_path=live/rest/v2//version",
            "_path=live/rest/v2/broadcasts/%2e%2e/version",
            "_path=live/rest/v2/broadcasts/%252e%252e/version",
            "_path=live/rest/v2/broadcasts/%252f/version",
            "_path=live/rest/v2/broadcasts/%25252e/version",
            "_path=live%255c/rest/v2/version",
            "_path=live/rest/v2/a\\b",
            "_path=live/rest/v2/a;b=c",
            "_path=live/rest/v2/a%3Bb",
            "_path=live/rest/v2/a%23b",
            "_path=live/rest/v2/a%00b",
            "_path=live/rest/v2/a%0d%0ab",
            "_path=li%2576e/rest/v2/version",
        ] {
            assert_eq!(target(query), None, "{query}");
        }
    }

    #[test]
    fn only_two_addresses_are_the_proxys() {
        for (path, want) in [
            ("/rest/v2/request", true),
            ("/rest/request", true),
            ("/rest/v2/request/", false),
            ("/rest/v2/requests", false),
            ("/rest/v2/x/request", false),
        ] {
            assert_eq!(is_proxy(path), want, "{path}");
        }
    }
}
