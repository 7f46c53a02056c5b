//! One HTTP POST of a session description, as WHIP and WHEP clients make it.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer read.
const ANSWER_LEN_MAX: u64 = 256 * 1024;

/// Posts an offer and returns the answer's body.
pub(super) fn post_sdp(url: &str, offer: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url}: only http:// URLs can be loaded"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let address =
        host.to_socket_addrs().with_context(|| format!("{host}: write HOST:PORT"))?.next().context("no address")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("connecting to {host}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{offer}",
        offer.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_LEN_MAX).read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    if status != "201" && status != "200" {
        bail!("{url} answers {status}: {}", body.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
