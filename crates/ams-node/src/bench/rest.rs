//! The HTTP requests WHIP and WHEP clients make: the offer, and the end of the session.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer read.
const ANSWER_LEN_MAX: u64 = 256 * 1024;

/// What came back for an offer.
pub(super) struct Answered {
    /// The answer's SDP.
    pub(super) sdp: String,
    /// URL of the session, where the server names one.
    pub(super) session: Option<String>,
}

/// Posts an offer. None: the server is full (503).
pub(super) fn post_sdp(url: &str, offer: &str) -> Result<Option<Answered>> {
    let (status, head, body) = request("POST", url, "Content-Type: application/sdp\r\n", offer)?;
    if status == "503" {
        return Ok(None);
    }
    if status != "201" && status != "200" {
        bail!("{url} answers {status}: {}", body.lines().next().unwrap_or_default());
    }
    let location = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    let session = location.map(|location| match location.starts_with('/') {
        true => format!("http://{}{location}", host_and_path(url).map_or("", |(host, _)| host)),
        false => location,
    });
    Ok(Some(Answered { sdp: body, session }))
}

/// Ends a session.
pub(super) fn delete(url: &str) -> Result<()> {
    let (status, ..) = request("DELETE", url, "", "")?;
    if !status.starts_with('2') {
        bail!("DELETE {url} answers {status}");
    }
    Ok(())
}

fn host_and_path(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    Some(rest.find('/').map_or((rest, "/"), |at| rest.split_at(at)))
}

/// Status, head and body of the answer.
fn request(method: &str, url: &str, headers: &str, body: &str) -> Result<(String, String, String)> {
    let (host, path) = host_and_path(url).with_context(|| format!("{url}: only http:// URLs can be loaded"))?;
    let address =
        host.to_socket_addrs().with_context(|| format!("{host}: write HOST:PORT"))?.next().context("no address")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("connecting to {host}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_LEN_MAX).read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((status, head.to_owned(), body.to_owned()))
}
