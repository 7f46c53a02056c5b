//! The panel's two cookies: the session, which only this server reads, and the token against forged requests.
//!
//! Owns names, attributes and reading. Both last as long as the browser is open; the session's own end is within it.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};

use crate::client::Front;
use crate::login::Opened;

/// The session. Not AMS's `JSESSIONID`: behind one balancer its nodes and ours would overwrite each other's.
pub(super) const SESSION: &str = "ams_session";
/// The token, for the panel to read.
pub(super) const CSRF: &str = "ams_csrf";
/// Where a request carries the token, and the answer to a login tells it.
pub(super) const CSRF_HEADER: &str = "x-csrf-token";
/// Most cookies of that name that are looked at: a neighbour in the same domain may have set others.
const COOKIES_MAX: usize = 4;

/// The sessions a request names.
pub(super) fn sessions(headers: &HeaderMap) -> Vec<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == SESSION).map(|(_, value)| value.trim_matches('"')).take(COOKIES_MAX).collect()
}

/// Gives a session to the client.
pub(super) fn give(response: &mut Response, opened: &Opened, front: &Front) {
    give_session(response, opened.cookie.expose(), front);
    set(response, CSRF, opened.csrf.expose(), "", front);
    tell_token(response, opened.csrf.expose());
}

pub(super) fn give_session(response: &mut Response, cookie: &str, front: &Front) {
    set(response, SESSION, cookie, "; HttpOnly", front);
}

/// Says the token in a header too.
pub(super) fn tell_token(response: &mut Response, token: &str) {
    if let Ok(value) = HeaderValue::try_from(token) {
        response.headers_mut().insert(CSRF_HEADER, value);
    }
}

/// Takes both away.
pub(super) fn take(response: &mut Response, front: &Front) {
    set(response, SESSION, "", "; HttpOnly; Max-Age=0", front);
    set(response, CSRF, "", "; Max-Age=0", front);
}

fn set(response: &mut Response, name: &str, value: &str, more: &str, front: &Front) {
    let secure = if front.https { "; Secure" } else { "" };
    if let Ok(value) = HeaderValue::try_from(format!("{name}={value}; Path=/; SameSite=Lax{more}{secure}")) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; ams_session=one;xams_session=no"));
        headers.append(header::COOKIE, HeaderValue::from_static("ams_session=\"two\"; ams_session; ams_csrf=x"));
        assert_eq!(sessions(&headers), ["one", "two"]);
        let many = "ams_session=x; ".repeat(100);
        headers.insert(header::COOKIE, HeaderValue::try_from(many).unwrap());
        assert_eq!(sessions(&headers).len(), COOKIES_MAX);
    }
}
