//! The panel's first user, made by the first node of a cluster that takes publishers.
//!
//! Owns its name and where its password comes from: the id of the EC2 instance, as AMS's images do it, or dice. The
//! registry lets one node make it. The metadata service is asked at its one link-local address, past every proxy, and
//! what it says is believed only if it looks like an instance id.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ams_access::password::Canonical;
use ams_access::{NewPassword, PasswordPolicy, Secret, User};
use ams_registry::{JsonMap, RegistryError};
use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::{debug, info, warn};

use super::NodeCore;
use crate::config::FirstUser;

/// As AMS calls it.
const NAME: &str = "JamesBond";
/// Characters of a random password: 119 bits.
const PASSWORD_LEN: usize = 20;
/// How long a registry that is away is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// Where the metadata service is.
const METADATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)), 80);
/// Longest wait for it, both questions together.
const METADATA_PATIENCE: Duration = Duration::from_millis(300);
/// Longest answer of it, in bytes.
const METADATA_LEN_MAX: usize = 4096;

impl NodeCore {
    /// Makes the first user as soon as the registry can say that there is none.
    pub(super) async fn first_user_loop(self: Arc<Self>) {
        if self.config.first_user == FirstUser::None || !self.config.mode.takes_publishers() {
            return;
        }
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = async {
                while let Err(error) = self.make_first_user().await {
                    debug!(%error, "whether there is a first user is not known yet");
                    tokio::time::sleep(PAUSE).await;
                }
            } => {}
        }
    }

    async fn make_first_user(&self) -> Result<(), RegistryError> {
        if self.registry.has_users().await? {
            return Ok(());
        }
        let instance = match self.config.first_user {
            FirstUser::Auto => instance_id(METADATA).await,
            FirstUser::Random | FirstUser::None => None,
        };
        let password = instance.clone().unwrap_or_else(random_password);
        let canonical = Canonical::of_sent(&Secret::from(password.as_str()));
        let salt = rand::random();
        let made = tokio::task::spawn_blocking(move || NewPassword::make(&canonical, salt, &PasswordPolicy::default()));
        let Ok(made) = made.await else { return Ok(()) };
        if !self.registry.create_user(&document(&made), true).await? {
            return Ok(());
        }
        match instance {
            Some(_) => {
                info!(user = NAME, "made the panel's first user; its password is this machine's EC2 instance id")
            }
            None => {
                let sentence = "made the panel's first user; its password is said this once: log in and change it";
                warn!(user = NAME, %password, "{sentence}");
            }
        }
        Ok(())
    }
}

fn document(password: &NewPassword) -> JsonMap {
    let mut user = match serde_json::to_value(User::administrator(NAME)) {
        Ok(Value::Object(user)) => user,
        _ => JsonMap::new(),
    };
    user.extend(password.fields().map(|(name, text)| (name.to_owned(), text.into())));
    user
}

fn random_password() -> String {
    rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LEN).map(char::from).collect()
}

/// What the metadata service (version 2: a token first) at `service` calls this machine.
async fn instance_id(service: SocketAddr) -> Option<String> {
    let asked = async {
        let header = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 0";
        let token = ask(service, "PUT /latest/api/token", header).await?;
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let header = format!("X-aws-ec2-metadata-token: {}", Some(token).filter(|_| is_token)?);
        ask(service, "GET /latest/meta-data/instance-id", &header).await
    };
    let id = tokio::time::timeout(METADATA_PATIENCE, asked).await.ok().flatten()?;
    let digits = id.strip_prefix("i-")?;
    let is_id = (8..=17).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then_some(id)
}

/// One question over HTTP; the answer's body, if its status is 200.
async fn ask(service: SocketAddr, request: &str, header: &str) -> Option<String> {
    let mut stream = TcpStream::connect(service).await.ok()?;
    let host = service.ip();
    let text = format!("{request} HTTP/1.1\r\nHost: {host}\r\n{header}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            if head.split_whitespace().nth(1) != Some("200") {
                return None;
            }
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length: Option<usize> = length.and_then(|(_, length)| length.trim().parse().ok());
            if length.is_some_and(|length| body.len() >= length) {
                return Some(body.trim().to_owned());
            }
        }
        if answer.len() > METADATA_LEN_MAX {
            return None;
        }
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return text.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A metadata service that gives these answers, one connection each; what it was asked.
    async fn service(answers: Vec<&'static str>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (address, served)
    }

    const TOKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nt0ken";

    #[tokio::test]
    async fn an_instance_tells_its_id_to_who_has_a_token() {
        let id = "HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\ni-0123456789abcdef0";
        let (address, served) = service(vec![TOKEN, id]).await;
        assert_eq!(instance_id(address).await.as_deref(), Some("i-0123456789abcdef0"));
        let asked = served.await.unwrap();
        assert!(asked[0].starts_with("PUT /latest/api/token HTTP/1.1\r\n"), "{}", asked[0]);
        assert!(asked[0].contains("X-aws-ec2-metadata-token-ttl-seconds: 60\r\n"));
        assert!(asked[1].starts_with("GET /latest/meta-data/instance-id HTTP/1.1\r\n"), "{}", asked[1]);
        assert!(asked[1].contains("X-aws-ec2-metadata-token: t0ken\r\n"));
    }

    #[tokio::test]
    async fn whatever_else_answers_there_is_no_instance() {
        for (name, answers) in [
            ("no service", vec![]),
            ("no token", vec!["HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"]),
            ("a page", vec![TOKEN, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"]),
            ("an odd id", vec![TOKEN, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\ni-0123\nx: yy"]),
            ("nothing", vec![TOKEN, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]),
        ] {
            let (address, served) = service(answers).await;
            let begun = std::time::Instant::now();
            assert_eq!(instance_id(address).await, None, "{name}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{name}");
            served.abort();
        }
    }

    #[test]
    fn a_random_password_is_none_the_panel_sends() {
        let password = random_password();
        assert!(password.len() == PASSWORD_LEN && password != random_password());
        let user = document(&NewPassword::make(
            &Canonical::of_sent(&Secret::from(password)),
            [1; 16],
            &PasswordPolicy {
                cost: ams_access::password::ArgonCost { memory_kib: 8, passes: 1, lanes: 1 },
                ..Default::default()
            },
        ));
        assert_eq!((&user["email"], &user["scope"]), (&NAME.into(), &"system".into()));
        assert!(user["passwordArgon2"].as_str().unwrap().starts_with("$argon2id$"));
    }
}
