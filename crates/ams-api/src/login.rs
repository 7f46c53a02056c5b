//! The panel's logins: passwords tried, sessions opened, found and ended.
//!
//! Owns what `ams-access` leaves to a shell: the clock, the dice, the store, and a bound on how much hashing goes on at
//! a time. What a password is and how a cookie is made is decided there; HTTP is spoken in `rest`.
//!
//! - `shared`: what the nodes of a cluster tell each other through the registry

mod shared;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use ams_access::password::{self, Canonical};
use ams_access::session::USER_LEN_MAX;
use ams_access::{
    Blocked, Lockout, LockoutPolicy, NewPassword, PasswordPolicy, PasswordVerdict, Secret, Session, SessionError,
    SessionKeys, SessionPolicy, StoredPassword, UnixMs, User,
};
use ams_registry::{JsonMap, Registry, RegistryError};
use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use self::shared::KEY_AGE_MIN;

/// Passwords hashed at a time: each takes a core and 19 MiB for tens of milliseconds, and media goes first.
const HASHES_AT_ONCE: usize = 2;
/// Passwords that may wait for it; one more is refused.
const HASHES_WAITING_MAX: usize = 64;
/// Addresses and accounts whose failures are counted at a time.
const LOCKOUTS_MAX: usize = 20_000;
/// How often a login starts again because the user's document changed under it.
const TRIES: usize = 3;
/// Fields that say which password is stored.
const PASSWORD_FIELDS: [&str; 2] = ["password", "passwordArgon2"];

/// See the module.
pub(crate) struct Login {
    lockout: Mutex<Lockout>,
    lockouts: LockoutPolicy,
    passwords: PasswordPolicy,
    sessions: SessionPolicy,
    keys: Mutex<Option<(Arc<SessionKeys>, Instant)>>,
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Login {
    fn default() -> Self {
        let lockouts = LockoutPolicy::default();
        Self {
            lockout: Mutex::new(Lockout::new(lockouts, LOCKOUTS_MAX)),
            lockouts,
            passwords: PasswordPolicy::default(),
            sessions: SessionPolicy::default(),
            keys: Mutex::default(),
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            waiting: Semaphore::new(HASHES_WAITING_MAX),
        }
    }
}

/// Why nothing can be said about a login.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// The store did not answer.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Too many at a time.
    #[error("Too many logins at a time. Please try again in a few seconds")]
    Busy,
    /// The session key in the store is none, or a name is too long.
    #[error("no session can be opened: {0}")]
    Session(#[from] SessionError),
}

/// What became of a try.
pub(crate) enum Tried {
    /// It is the password.
    Right(Box<Right>),
    /// It is not, or there is no such user.
    Wrong,
    /// It was not looked at.
    Blocked(Blocked),
}

/// A user whose password was right.
pub(crate) struct Right {
    pub(crate) user: User,
    pub(crate) stored: StoredPassword,
    /// What the document says of the password now, for [`ams_registry::PanelStore::edit_user`].
    pub(crate) as_read: JsonMap,
}

/// A session that has just begun.
pub(crate) struct Opened {
    pub(crate) cookie: Secret,
    pub(crate) csrf: Secret,
}

/// Somebody with a session.
pub(crate) struct SignedIn {
    pub(crate) session: Session,
    pub(crate) user: User,
    keys: Arc<SessionKeys>,
    /// A new cookie value, when it is time for one.
    pub(crate) renewed: Option<Secret>,
}

impl SignedIn {
    /// What requests that change something carry beside the cookie.
    pub(crate) fn csrf(&self) -> Secret {
        self.keys.csrf_token(&self.session)
    }

    pub(crate) fn csrf_matches(&self, token: &str) -> bool {
        self.keys.csrf_matches(&self.session, token)
    }
}

impl Login {
    fn lockout(&self) -> MutexGuard<'_, Lockout> {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries a password as it was sent. Wrong ones are counted, on all nodes together.
    pub(crate) async fn try_password(
        &self,
        registry: &dyn Registry,
        email: &str,
        sent: &Secret,
        address: IpAddr,
    ) -> Result<Tried, LoginError> {
        self.learn_attempts(registry, email, address).await?;
        let mut document = registry.find_user(email).await?;
        if let Err(blocked) = self.lockout().admit(email, address, now()) {
            return Ok(Tried::Blocked(blocked));
        }
        for _ in 0..TRIES {
            let found = document.as_ref().and_then(read);
            let verdict = self.check(found.as_ref().map(|(_, stored)| stored.clone()), sent.clone()).await?;
            let (Some((user, stored)), Some(document_read), true) = (found, &document, verdict.ok) else {
                self.count_failure(registry, email, address).await;
                info!(user = ?cut(email), "a wrong password for the panel");
                return Ok(Tried::Wrong);
            };
            let as_read = password_fields(document_read);
            let right = match verdict.canonical.filter(|_| verdict.must_rehash) {
                None => Some(Right { user, stored, as_read }),
                Some(canonical) => {
                    let new = self.make(canonical).await?;
                    match registry.edit_user(email, &fields(&new), &as_read).await {
                        Ok(true) => Some(Right { user, stored: new.stored(), as_read: password_fields(&fields(&new)) }),
                        Ok(false) => None,
                        Err(error) => {
                            warn!(%error, "a password stays in AMS's form until the next login");
                            Some(Right { user, stored, as_read })
                        }
                    }
                }
            };
            let Some(right) = right else {
                // Changed under us, perhaps by another login of the same user: what is stored now counts.
                document = registry.find_user(email).await?;
                continue;
            };
            if verdict.reset_seen {
                warn!(user = ?cut(email), "the password was changed in the database by other means; that one counts now");
            }
            self.forget_failures(registry, email, address).await;
            info!(user = ?cut(email), "panel login");
            return Ok(Tried::Right(Box::new(right)));
        }
        Err(RegistryError::Contended { operation: "a login" }.into())
    }

    /// Whether a try would not be heard.
    pub(crate) async fn is_blocked(
        &self,
        registry: &dyn Registry,
        email: &str,
        address: IpAddr,
    ) -> Result<bool, RegistryError> {
        self.learn_attempts(registry, email, address).await?;
        Ok(self.lockout().blocked_for(email, address, now()).is_some())
    }

    /// Fields of a new password as it was sent.
    pub(crate) async fn new_password(&self, sent: &Secret) -> Result<(StoredPassword, JsonMap), LoginError> {
        let new = self.make(Canonical::of_sent(sent)).await?;
        Ok((new.stored(), fields(&new)))
    }

    /// Opens a session of a user with this password.
    pub(crate) async fn open(
        &self,
        registry: &dyn Registry,
        email: &str,
        stored: &StoredPassword,
    ) -> Result<Opened, LoginError> {
        let keys = self.read_keys(registry).await?;
        let (session, cookie) = keys.issue(email, stored.version(), rand::random(), now(), &self.sessions)?;
        Ok(Opened { cookie, csrf: keys.csrf_token(&session) })
    }

    /// Who has one of these cookies, if its session still holds.
    pub(crate) async fn find(&self, registry: &dyn Registry, cookies: &[&str]) -> Result<Option<SignedIn>, LoginError> {
        if cookies.is_empty() {
            return Ok(None);
        }
        let (mut keys, read_at) = self.known_keys(registry).await?;
        let verify = |keys: &SessionKeys| cookies.iter().find_map(|cookie| keys.verify(cookie, now()).ok());
        let mut session = verify(&keys);
        if session.is_none() && read_at.elapsed() > KEY_AGE_MIN {
            // The key may be another since: a database that was emptied or restored.
            keys = self.read_keys(registry).await?;
            session = verify(&keys);
        }
        let Some(session) = session else { return Ok(None) };
        let (document, revoked) =
            tokio::try_join!(registry.find_user(&session.user), self.revocations_of(registry, &session))?;
        let Some((user, stored)) = document.as_ref().and_then(read) else { return Ok(None) };
        if session.check(&revoked, stored.version()).is_err() {
            return Ok(None);
        }
        let renewed = keys.renew(&session, now(), &self.sessions).map(|(_, cookie)| cookie);
        Ok(Some(SignedIn { session, user, keys, renewed }))
    }

    async fn check(&self, stored: Option<StoredPassword>, sent: Secret) -> Result<PasswordVerdict, LoginError> {
        let policy = self.passwords;
        self.hash(move || match stored {
            Some(stored) => password::check(&stored, &sent, &policy),
            None => password::check_nobody(&sent, &policy),
        })
        .await
    }

    async fn make(&self, canonical: Canonical) -> Result<NewPassword, LoginError> {
        let (policy, salt) = (self.passwords, rand::random());
        self.hash(move || NewPassword::make(&canonical, salt, &policy)).await
    }

    /// Runs what hashes, in its turn.
    async fn hash<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoginError> {
        let _place = self.waiting.try_acquire().map_err(|_| LoginError::Busy)?;
        let turn = Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| LoginError::Busy)?;
        // The turn goes along: it lasts as long as the work does, also when nobody waits for that any more.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|_| LoginError::Busy)
    }
}

/// The user in a document. One that cannot be read has no rights and no password: a role that is misread could be any.
pub(crate) fn read(document: &JsonMap) -> Option<(User, StoredPassword)> {
    let value = || Value::Object(document.clone());
    let read = serde_json::from_value(value()).and_then(|user| Ok((user, serde_json::from_value(value())?)));
    match read {
        Ok(found) => Some(found),
        Err(_) => {
            // The reason could repeat a part of it.
            let email = document.get("email").and_then(Value::as_str).unwrap_or_default();
            warn!(user = ?cut(email), "a user's document has fields of another type than they should have; it is left out");
            None
        }
    }
}

fn fields(new: &NewPassword) -> JsonMap {
    new.fields().into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
}

/// What says which password is stored, nulls for what is not there.
fn password_fields(document: &JsonMap) -> JsonMap {
    let field = |name: &str| (name.to_owned(), document.get(name).cloned().unwrap_or_default());
    PASSWORD_FIELDS.map(field).into_iter().collect()
}

/// A name for the log: anybody may send any.
fn cut(email: &str) -> String {
    email.chars().take(USER_LEN_MAX / 4).collect()
}

fn now() -> UnixMs {
    UnixMs::from(SystemTime::now())
}
