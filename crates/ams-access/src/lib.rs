//! Who may do what: formats and decisions of tokens, logins, sessions and webhooks, without IO.
//!
//! Owns formats and verdicts; never storage, a socket, a clock or a die. Time and random bytes are arguments, what
//! must be looked up is said first and passed in. Secrets sit in types that print stars, and no error repeats one.
//!
//! - [`secret`], [`time`], [`purpose`]: the words the rest is written in
//! - [`jwt`]: JSON Web Tokens with HS256, and with RS256 and ES256 from a key set
//! - [`hash`], [`totp`]: AMS's hash tokens and time-based codes
//! - [`cidr`]: lists of addresses and networks
//! - [`rules`]: whether somebody may publish or play a stream
//! - [`password`], [`lockout`], [`session`], [`users`]: the panel's login, from the password to what a role may do
//! - [`webhook`]: bodies, signatures and retries of events

mod base32;
pub mod cidr;
pub mod hash;
mod id128;
pub mod jwt;
pub mod lockout;
pub mod password;
pub mod purpose;
pub mod rules;
pub mod secret;
pub mod session;
pub mod time;
pub mod totp;
pub mod users;
pub mod webhook;

pub use cidr::{CidrError, CidrList};
pub use jwt::{Check, Claims, Hs256Key, Jwks, JwksError, JwtError};
pub use lockout::{Blocked, Lockout, LockoutPolicy};
pub use password::{NewPassword, PasswordPolicy, PasswordVerdict, PasswordVersion, StoredPassword};
pub use purpose::Purpose;
pub use rules::{AccessPolicy, AccessSettings, Denial, Fact, Facts, Grant, Needs, Request, StreamRules, Verdict};
pub use secret::{MacKey, Secret};
pub use session::{Revocations, Session, SessionError, SessionKeys, SessionPolicy};
pub use time::UnixMs;
pub use totp::{Period, TotpSecret, TotpSecretError};
pub use users::{Forbidden, Role, User};
