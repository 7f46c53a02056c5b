//! Who may do what: formats and decisions of tokens, logins, sessions and webhooks, without IO.
//!
//! Owns formats and verdicts; never storage, a socket, a clock or a die. Time and random bytes are arguments, what
//! must be looked up is said first and passed in. Secrets sit in types that print stars, and no error repeats one.
//!
//! - [`secret`], [`time`], [`purpose`]: the words the rest is written in
//! - [`jwt`]: JSON Web Tokens with HS256, and with RS256 and ES256 from a key set
//! - [`hash`], [`totp`]: AMS's hash tokens and time-based codes
//! - [`cidr`]: lists of addresses and networks

mod base32;
pub mod cidr;
pub mod hash;
pub mod jwt;
pub mod purpose;
pub mod secret;
pub mod time;
pub mod totp;

pub use cidr::{CidrError, CidrList};
pub use jwt::{Check, Claims, Hs256Key, Jwks, JwksError, JwtError};
pub use purpose::Purpose;
pub use secret::{MacKey, Secret};
pub use time::UnixMs;
pub use totp::{Period, TotpSecret, TotpSecretError};
