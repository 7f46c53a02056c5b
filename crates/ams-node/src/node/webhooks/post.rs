//! One webhook request: an address that may be used, a connection of its own, the status that comes back.
//!
//! Owns TLS and the deadline. Follows no redirect: a receiver that is elsewhere is to be named. Private addresses are
//! allowed, because operators have receivers there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// From the first packet to the status.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest address.
const URL_LEN_MAX: usize = 4096;

/// Where a webhook goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    is_tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    path: String,
}

impl Target {
    /// Reads `http://…` or `https://…`; the error says what is wrong.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        if url.len() > URL_LEN_MAX {
            return Err("it is too long");
        }
        let uri: Uri = url.parse().map_err(|_| "it is no URL")?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("only http and https are supported"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("user names and passwords in it are not supported; put a secret into the path or query");
        }
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() || host.len() > 255 {
            return Err("it names no host");
        }
        let port = match (authority.port(), is_tls) {
            (Some(port), _) => Some(port.as_u16()).filter(|port| *port > 0).ok_or("it has no usable port")?,
            (None, _) if authority.as_str().len() != authority.host().len() => {
                return Err("it has no usable port");
            }
            (None, true) => 443,
            (None, false) => 80,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_tls, host, port, path })
    }

    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// What goes slow or away as a whole.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

/// Sends requests.
#[derive(Clone)]
pub(crate) struct Poster(TlsConnector);

impl Poster {
    /// Trusts the public certificate authorities, and those in the PEM file `ca_file`.
    ///
    /// # Errors
    /// A sentence about that file.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca_file {
            let problem = |error: &dyn std::fmt::Display| format!("{} cannot be used: {error}", path.display());
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| problem(&error))?;
            let before = roots.len();
            for certificate in certificates {
                let certificate = certificate.map_err(|error| problem(&error))?;
                roots.add(certificate).map_err(|error| problem(&error))?;
            }
            if roots.len() == before {
                return Err(problem(&"it holds no certificate"));
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Posts a body; the status that came back, or what kept it from coming, in words.
    pub(super) async fn post(
        &self,
        target: &Target,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<u16, String> {
        let mut request = Request::post(&target.path)
            .header(header::HOST, target.authority())
            .header(header::USER_AGENT, concat!("ams-node/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        let mut status = None;
        let talk = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|e| e.to_string())?;
            if target.is_tls {
                let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
                let stream = self.0.connect(name, stream).await.map_err(|error| error.to_string())?;
                exchange(stream, request, &mut status).await
            } else {
                exchange(stream, request, &mut status).await
            }
        };
        let ended = tokio::time::timeout(REQUEST_TIMEOUT, talk).await;
        // What came counts, however the connection ended.
        match (status, ended) {
            (Some(status), _) => Ok(status),
            (None, Ok(Err(problem))) => Err(problem),
            (None, Ok(Ok(()))) => Err("the connection was closed without an answer".to_owned()),
            (None, Err(_)) => Err(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())),
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    request: Request<Full<Bytes>>,
    status: &mut Option<u16>,
) -> Result<(), String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let answer = async move {
        // The connection ends when the sender and the answer's body are dropped.
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        *status = Some(answer.status().as_u16());
        Ok(())
    };
    tokio::join!(answer, connection).0
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[test]
    fn only_addresses_with_a_host_are_used() {
        for (url, want) in [
            ("http://receiver/hook", Ok("http://receiver:80 /hook")),
            ("HTTP://Receiver:8080/a?b=c#d", Ok("http://receiver:8080 /a?b=c")),
            ("https://10.0.0.1", Ok("https://10.0.0.1:443 /")),
            ("http://[::1]:81/x", Ok("http://[::1]:81 /x")),
            ("http://receiver?x=1", Ok("http://receiver:80 /?x=1")),
            ("ftp://receiver/", Err(())),
            ("file:///etc/passwd", Err(())),
            ("/hook", Err(())),
            ("receiver/hook", Err(())),
            ("http:///hook", Err(())),
            ("http://me:secret@receiver/", Err(())),
            ("http://receiver:0/", Err(())),
            ("http://receiver:99999/", Err(())),
            ("http://a b/", Err(())),
            ("http://receiver/\r\nX: y", Err(())),
            ("", Err(())),
        ] {
            let got = Target::parse(url).map(|target| format!("{} {}", target.origin(), target.path));
            assert_eq!(got.as_deref().map_err(|_| ()), want, "{url:?}: {got:?}");
        }
        assert!(Target::parse(&format!("http://a/{}", "x".repeat(URL_LEN_MAX))).is_err());
    }

    /// Answers one request with `answer` and gives what was asked.
    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
        let mut asked = Vec::new();
        let mut bytes = [0; 1024];
        while !asked.windows(4).any(|w| w == b"body") {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(n) => asked.extend_from_slice(&bytes[..n]),
            }
        }
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        String::from_utf8_lossy(&asked).into_owned()
    }

    async fn post(target: &str, poster: &Poster) -> Result<u16, String> {
        let headers = [("X-Ams-Event-Id", "7".to_owned()), ("content-type", "application/json".to_owned())];
        poster.post(&Target::parse(target).unwrap(), &headers, "body".to_owned()).await
    }

    #[tokio::test]
    async fn a_status_is_what_came_back_and_a_redirect_is_not_followed() {
        for (answer, want) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok(204)),
            ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", Ok(302)),
            // A body that never ends does not take the answer back.
            ("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx", Ok(200)),
            ("nonsense\r\n\r\n", Err(())),
            ("", Err(())),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
            let poster = Poster::new(None).unwrap();
            let (got, asked) =
                tokio::join!(post(&url, &poster), async { serve(listener.accept().await.unwrap().0, answer).await });
            assert_eq!(got.as_ref().map(|s| *s).map_err(|_| ()), want, "{answer:?}: {got:?}");
            assert!(asked.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{asked}");
            assert!(asked.to_lowercase().contains("x-ams-event-id: 7\r\n") && asked.ends_with("body"), "{asked}");
        }
    }

    #[tokio::test]
    async fn https_is_spoken_to_those_whose_authority_is_known() {
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, signed.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        for (name, poster, want) in
            [("known", Poster::new(Some(&ca_file)).unwrap(), true), ("unknown", Poster::new(None).unwrap(), false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
            let (got, ()) = tokio::join!(post(&url, &poster), async {
                if let Ok(stream) = acceptor.accept(listener.accept().await.unwrap().0).await {
                    serve(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
            });
            assert_eq!(got == Ok(200), want, "{name}: {got:?}");
        }
        std::fs::write(&ca_file, "no certificate").unwrap();
        assert!(Poster::new(Some(&ca_file)).is_err_and(|problem| problem.contains("ca.pem")));
    }
}
