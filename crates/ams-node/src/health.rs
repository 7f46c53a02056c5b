//! `ams-node health`: asks a running node and says it with the exit code, so that a container needs no other tool.
//!
//! Owns one HTTP GET over a plain TCP connection, bounded in time and size. Speaks no TLS: it asks its own machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::exit::{Exit, ExitError};

const PORT_DEFAULT: u16 = 5080;
/// Each step's limit. Container health checks give 5 s or more.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// Enough for the status line.
const ANSWER_LEN_MAX: u64 = 1024;

/// Asks `url`, or this machine's node. `http_key` is the value of AMS_HTTP, if there is one.
///
/// # Errors
/// [`Exit::Unhealthy`] unless the answer is 200.
pub(crate) fn run(url: Option<&str>, http_key: Option<&str>) -> Result<(), ExitError> {
    let url = url.map_or_else(|| own_url(http_key), str::to_owned);
    match status(&url) {
        Ok(200) => Ok(()),
        Ok(code) => Err(ExitError::new(Exit::Unhealthy, format!("{url} answers {code}"))),
        Err(what) => Err(ExitError::new(Exit::Unhealthy, format!("{url}: {what}"))),
    }
}

fn own_url(http_key: Option<&str>) -> String {
    let listen = http_key.and_then(|text| text.parse::<SocketAddr>().ok());
    let port = listen.map_or(PORT_DEFAULT, |listen| listen.port());
    match listen.filter(|listen| !listen.ip().is_unspecified()) {
        Some(listen) => format!("http://{listen}/healthz"),
        None => format!("http://127.0.0.1:{port}/healthz"),
    }
}

fn status(url: &str) -> Result<u16, String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// URLs can be asked")?;
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/healthz"),
    };
    if rest.chars().any(|c| c.is_control() || c == ' ') {
        return Err("not a URL".into());
    }
    let with_port = if has_port(host) { host.to_owned() } else { format!("{host}:80") };
    let addresses = with_port.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut refused = "the host has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, STEP_TIMEOUT) {
            Ok(stream) => return ask(stream, host, path).map_err(|error| error.to_string()),
            Err(error) => refused = error.to_string(),
        }
    }
    Err(refused)
}

/// IPv6 hosts stand in brackets, so a colon after the last bracket is a port's.
fn has_port(host: &str) -> bool {
    host.rsplit(']').next().is_some_and(|end| end.contains(':'))
}

fn ask(mut stream: TcpStream, host: &str, path: &str) -> std::io::Result<u16> {
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    // One write: a server that answers and hangs up early then cannot break it in the middle.
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ams-node-health\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 256];
    while !answer.contains(&b'\n') && (answer.len() as u64) < ANSWER_LEN_MAX {
        match stream.read(&mut piece)? {
            0 => break,
            len => answer.extend_from_slice(piece.get(..len).unwrap_or_default()),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let mut words = line.split_whitespace();
    let version = words.next().unwrap_or_default();
    let code = words.next().and_then(|code| code.parse().ok()).filter(|_| version.starts_with("HTTP/1."));
    code.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one connection with `text` and returns what was asked.
    fn answer_once(text: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                asked.push(byte[0]);
            }
            stream.write_all(text.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (url, server)
    }

    #[test]
    fn the_answer_decides() {
        for (name, text, want) in [
            ("healthy", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
            ("unhealthy", "HTTP/1.1 503 Service Unavailable\r\n\r\n", Some("answers 503")),
            ("not HTTP", "SSH-2.0-x\r\n", Some("not HTTP")),
            ("hangs up", "", Some("not HTTP")),
        ] {
            let (url, server) = answer_once(text);
            let got = run(Some(&url), None);
            assert!(server.join().unwrap().starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"), "{name}");
            match want {
                None => assert_eq!(got, Ok(()), "{name}"),
                Some(part) => {
                    let error = got.unwrap_err();
                    assert_eq!(error.exit, Exit::Unhealthy, "{name}");
                    assert!(error.to_string().contains(part), "{name}: {error}");
                }
            }
        }
    }

    #[test]
    fn nobody_there_is_unhealthy() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(run(Some(&format!("http://{free}")), None).unwrap_err().exit, Exit::Unhealthy);
        for url in ["https://localhost/healthz", "localhost", "http://", "http://a b/"] {
            assert_eq!(run(Some(url), None).unwrap_err().exit, Exit::Unhealthy, "{url}");
        }
    }

    #[test]
    fn the_node_asked_is_the_one_configured() {
        for (key, want) in [
            (None, "http://127.0.0.1:5080/healthz"),
            (Some("0.0.0.0:8080"), "http://127.0.0.1:8080/healthz"),
            (Some("10.0.0.5:8080"), "http://10.0.0.5:8080/healthz"),
            (Some("nonsense"), "http://127.0.0.1:5080/healthz"),
        ] {
            assert_eq!(own_url(key), want);
        }
    }
}
