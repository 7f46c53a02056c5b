//! HTTP to others: to nodes of the cluster, and to the webhooks of applications.
//!
//! Owns one exchange on one connection, and its bounds: no redirect is followed, no connection kept, no answer read that
//! is longer than [`ANSWER_LEN_MAX`]. Whom to ask and what an answer means is the caller's.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http::{HeaderValue, Request, StatusCode, Uri, header, response, uri::Scheme};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest answer that is read, in bytes.
pub const ANSWER_LEN_MAX: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    /// The address cannot be asked.
    #[error("the address {0}")]
    Address(&'static str),
    /// Nobody can be reached there.
    #[error("it cannot be reached: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came is no answer.
    #[error("it does not answer as HTTP wants it: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is too long, or broke off.
    #[error("its answer cannot be read: {0}")]
    Body(#[from] axum::Error),
    /// It took too long.
    #[error("it did not answer within {0:?}")]
    Late(Duration),
}

/// Sends one request on a connection of its own.
pub(crate) async fn exchange(
    stream: TcpStream,
    request: Request<Body>,
) -> Result<(response::Parts, Bytes), OutgoingError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok((parts, to_bytes(Body::new(body), ANSWER_LEN_MAX).await?))
    };
    // The connection ends when the sender, which goes with the answer, is gone.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

/// Whether something can be posted to `url`; the error says why not.
///
/// # Errors
/// [`OutgoingError::Address`].
pub fn check(url: &str) -> Result<(), OutgoingError> {
    target(url).map(drop)
}

/// Host, port and the rest of an address.
fn target(url: &str) -> Result<(String, u16, Uri), OutgoingError> {
    let uri: Uri = url.trim().parse().map_err(|_| OutgoingError::Address("is none"))?;
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => {}
        Some(scheme) if *scheme == Scheme::HTTPS => {
            let sentence =
                "is https, which this node does not speak; name an http address, such as a proxy's beside it";
            return Err(OutgoingError::Address(sentence));
        }
        _ => return Err(OutgoingError::Address("does not begin with http://")),
    }
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or(OutgoingError::Address("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(OutgoingError::Address("names a user, which is not supported"));
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    Ok((host, authority.port_u16().unwrap_or(80), uri))
}

/// Posts `body`, and says with which status that was answered.
///
/// # Errors
/// There was no answer within `patience`.
pub async fn post(
    url: &str,
    content_type: &'static str,
    body: Vec<u8>,
    patience: Duration,
) -> Result<StatusCode, OutgoingError> {
    let (host, port, uri) = target(url)?;
    let bad = |_| OutgoingError::Address("is none");
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path).body(Body::from(body)).map_err(bad)?;
    let headers = request.headers_mut();
    let name = HeaderValue::try_from(authority).map_err(|_| OutgoingError::Address("is none"))?;
    headers.insert(header::HOST, name);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let asked = async {
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(OutgoingError::Connect)?;
        exchange(stream, request).await
    };
    let (parts, _) = timeout(patience, asked).await.map_err(|_| OutgoingError::Late(patience))??;
    Ok(parts.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_addresses_can_be_asked() {
        for (url, want) in [
            ("http://a", Some(("a", 80))),
            (" http://a.example:8080/hook?x=1 ", Some(("a.example", 8080))),
            ("http://[::1]:81/", Some(("::1", 81))),
            ("https://a/", None),
            ("http://user:secret@a/", None),
            ("/hook", None),
            ("a:80", None),
            ("ftp://a/", None),
            ("", None),
        ] {
            let got = target(url);
            let got = got.as_ref().ok().map(|(host, port, _)| (host.as_str(), *port));
            assert_eq!(got, want, "{url}");
        }
        assert!(check("https://secret.example/").unwrap_err().to_string().contains("https"));
    }
}
