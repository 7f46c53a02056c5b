//! Whether somebody may publish or play a stream, by an application's settings.
//!
//! Owns AMS's checks, their order and their words; looks nothing up. Two steps, so that the shell asks the registry
//! for what matters and no more:
//!
//! ```text
//! needs(request) ──► which records to look up ──► the shell looks them up ──► Facts
//! decide(request, facts) ──► Allowed(Grant)   consume its token first, if it names one; then go on
//!                        ──► Denied(Denial)   AMS's word and a sentence
//!                        ──► Ask { url }      all else is in order: ask this webhook, decide again with its answer
//! ```
//!
//! Every check that is enabled must pass, as in AMS, although a request has one `token` for three of them. What is
//! enabled and cannot be checked (a key too short, a record that could not be looked up) refuses.
//!
//! - `settings`: what an application asks for
//! - `facts`: what is asked, what must be looked up and what was found
//! - `one_time`: tokens that are used up
//! - `denial`: why not

mod denial;
mod facts;
mod one_time;
mod settings;

pub use self::denial::Denial;
pub use self::facts::{BroadcastFacts, Fact, Facts, Needs, Request, SubscriberFacts};
pub use self::one_time::{Consume, Consumption, StoredToken};
pub use self::settings::{AccessPolicy, AccessSettings};
use crate::cidr::{CidrError, CidrList};
use crate::hash;
use crate::jwt::{Check, Claims, Hs256Key, JwtError};
use crate::purpose::Purpose;
use crate::secret::Secret;
use crate::time::UnixMs;
use crate::totp::{Period, TotpSecret};

/// Longest subscriber id and one-time token that are looked up, in bytes.
pub const LOOKUP_LEN_MAX: usize = 256;

/// The outcome of [`StreamRules::decide`].
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Go on, once what the grant says is done.
    Allowed(Grant),
    /// Refuse.
    Denied(Denial),
    /// The application's webhook has the last word: ask it (see [`auth_body`](crate::webhook::auth_body)), and
    /// decide again with [`Facts::webhook`] set.
    Ask {
        /// Where.
        url: String,
    },
}

/// What goes with a permission.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// A one-time token to use up, in one conditional write, before the session begins.
    pub consume: Option<Consume>,
    /// Whether the subscriber id was proven by a code, and may be believed.
    pub subscriber_proven: bool,
}

/// An application's settings, ready to decide by. Built anew when they change.
#[derive(Clone, Debug)]
pub struct StreamRules {
    settings: AccessSettings,
    policy: AccessPolicy,
    jwt_key: Result<Hs256Key, JwtError>,
    publishers: Result<CidrList, CidrError>,
}

impl StreamRules {
    /// Prepares `settings`. Settings that cannot work are no error here, see [`problems`](Self::problems): what
    /// depends on them refuses.
    pub fn new(settings: AccessSettings, policy: AccessPolicy) -> Self {
        let jwt_key = Hs256Key::new(&settings.jwt_stream_secret_key);
        let publishers = CidrList::parse(settings.allowed_publisher_cidr.as_deref().unwrap_or_default());
        Self { settings, policy, jwt_key, publishers }
    }

    /// Settings that are enabled and cannot work: their names, and why. For whoever saves or shows settings.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let s = &self.settings;
        let mut problems = Vec::new();
        let mut unset = |on: bool, name: &'static str, secret: &Secret| {
            if on && secret.is_blank() {
                problems.push((name, "is not set".to_owned()));
            }
        };
        unset(s.hash_control_publish_enabled || s.hash_control_play_enabled, "tokenHashSecret", &s.token_hash_secret);
        if s.uses(Purpose::Publish).jwt || s.uses(Purpose::Play).jwt {
            problems.extend(self.jwt_key.as_ref().err().map(|error| ("jwtStreamSecretKey", error.to_string())));
        }
        problems.extend(self.publishers.as_ref().err().map(|error| ("allowedPublisherCIDR", error.to_string())));
        problems
    }

    /// Whether the application asks nothing of those who come for `purpose`: what is looked up for them may as well
    /// stay unknown.
    pub fn is_open(&self, purpose: Purpose) -> bool {
        let (s, uses) = (&self.settings, self.settings.uses(purpose));
        let tokens = uses.one_time || uses.jwt || uses.hash || uses.time;
        let publishers = s.accept_only_streams_in_data_store
            || s.ingesting_stream_limit >= 0
            || self.publishers.as_ref().map_or(true, |list| !list.is_empty());
        let others = match purpose {
            Purpose::Publish => publishers,
            Purpose::Play => s.web_rtc_viewer_limit >= 0,
        };
        !tokens && !others && s.webhook(purpose).is_none()
    }

    /// What must be looked up before [`decide`](Self::decide).
    pub fn needs<'a>(&self, request: &Request<'a>) -> Needs<'a> {
        let sized = |text: &&str| !text.is_empty() && text.len() <= LOOKUP_LEN_MAX;
        let uses = self.settings.uses(request.purpose);
        Needs {
            token: request.token.map(Secret::expose).filter(|token| uses.one_time && sized(token)),
            subscriber: request.subscriber_id.filter(sized),
            broadcast: true,
            ingesting: request.purpose == Purpose::Publish && self.settings.ingesting_stream_limit >= 0,
        }
    }

    /// Whether `request` may go on. Pure: asked twice with the same arguments it says the same.
    pub fn decide(&self, request: &Request<'_>, facts: &Facts) -> Verdict {
        match self.check(request, facts) {
            Ok(grant) => match (self.settings.webhook(request.purpose), facts.webhook) {
                (None, _) | (Some(_), Some(true)) => Verdict::Allowed(grant),
                (Some(url), None) => Verdict::Ask { url: url.to_owned() },
                (Some(_), Some(false)) => Verdict::Denied(Denial::Webhook),
            },
            Err(denial) => Verdict::Denied(denial),
        }
    }

    fn check(&self, request: &Request<'_>, facts: &Facts) -> Result<Grant, Denial> {
        let publishes = request.purpose == Purpose::Publish;
        if publishes {
            self.check_address(request)?;
            self.check_registered(facts)?;
        }
        check_window(request, facts)?;
        let uses = self.settings.uses(request.purpose);
        let mut grant = Grant::default();
        if uses.one_time {
            grant.consume = self.check_one_time(request, facts)?;
        }
        if uses.jwt {
            self.check_jwt(request)?;
        }
        if uses.hash {
            self.check_hash(request)?;
        }
        if uses.time {
            self.check_code(request, facts)?;
            grant.subscriber_proven = true;
        }
        if let Fact::Found(subscriber) = &facts.subscriber {
            subscriber.check_blocked(request)?;
        }
        if publishes {
            self.check_ingesting(facts)?
        } else {
            self.check_viewers(facts)?
        }
        Ok(grant)
    }

    fn check_address(&self, request: &Request<'_>) -> Result<(), Denial> {
        let list = self.publishers.as_ref().map_err(|_| Denial::Misconfigured { setting: "allowedPublisherCIDR" })?;
        let inside = |address| list.contains(address);
        if list.is_empty() || request.client.is_some_and(inside) { Ok(()) } else { Err(Denial::Address) }
    }

    fn check_registered(&self, facts: &Facts) -> Result<(), Denial> {
        match facts.broadcast {
            _ if !self.settings.accept_only_streams_in_data_store => Ok(()),
            Fact::Found(_) => Ok(()),
            Fact::Missing => Err(Denial::Unregistered),
            Fact::Unknown => Err(Denial::DataStore),
        }
    }

    fn check_one_time(&self, request: &Request<'_>, facts: &Facts) -> Result<Option<Consume>, Denial> {
        let len = token(request)?.expose().len();
        match &facts.token {
            // Longer ones were never made, and are not looked up.
            _ if len > LOOKUP_LEN_MAX => Err(Denial::TokenUnknown),
            Fact::Found(stored) => stored.check(request, self.policy.token_resume),
            Fact::Missing => Err(Denial::TokenUnknown),
            Fact::Unknown => Err(Denial::DataStore),
        }
    }

    fn check_jwt(&self, request: &Request<'_>) -> Result<(), Denial> {
        let token = token(request)?;
        let key = self.jwt_key.as_ref().map_err(|_| Denial::Misconfigured { setting: "jwtStreamSecretKey" })?;
        let mut check = Check::at(request.now).leeway(self.policy.jwt_leeway);
        check.require_expiry = self.policy.jwt_expiry_required;
        let claims = key.verify(token.expose(), &check).map_err(Denial::Jwt)?;
        if claims.text("type") != Some(request.purpose.as_str()) {
            return Err(Denial::TokenPurpose);
        }
        let stream = claims.text("streamId") == Some(request.stream_id);
        let room = claims.text("roomId").is_some_and(|room| request.is_in(room));
        if stream || room { Ok(()) } else { Err(Denial::TokenStream) }
    }

    fn check_hash(&self, request: &Request<'_>) -> Result<(), Denial> {
        let secret = &self.settings.token_hash_secret;
        if secret.is_blank() {
            return Err(Denial::Misconfigured { setting: "tokenHashSecret" });
        }
        let token = token(request)?;
        let right = hash::matches(token.expose(), request.stream_id, request.purpose, secret);
        if right { Ok(()) } else { Err(Denial::Hash) }
    }

    fn check_code(&self, request: &Request<'_>, facts: &Facts) -> Result<(), Denial> {
        let id = request.subscriber_id.filter(|id| !id.trim().is_empty()).ok_or(Denial::SubscriberMissing)?;
        let code = request.subscriber_code.filter(|code| !code.is_blank()).ok_or(Denial::CodeMissing)?;
        if id.len() > LOOKUP_LEN_MAX {
            return Err(Denial::SubscriberMissing);
        }
        let subscriber = match &facts.subscriber {
            Fact::Found(subscriber) => Some(subscriber),
            Fact::Missing => None,
            // A code of the application's secret proves itself; another one may be right, and cannot be checked.
            Fact::Unknown => {
                let source = self.code_source(None, id, request.stream_id, request.purpose);
                let right =
                    source.is_ok_and(|(secret, period)| secret.verify(code.expose(), period, request.now).is_some());
                return if right { Ok(()) } else { Err(Denial::DataStore) };
            }
        };
        let (secret, period) = self.code_source(subscriber, id, request.stream_id, request.purpose)?;
        if secret.verify(code.expose(), period, request.now).is_none() {
            return Err(Denial::Code);
        }
        subscriber.map_or(Ok(()), |subscriber| subscriber.check_use(request))
    }

    /// The present code of a subscriber, recorded or not: what `GET …/subscribers/{id}/totp` answers.
    ///
    /// # Errors
    /// [`Denial::SubscriberSecret`] or [`Denial::Misconfigured`] when there is nothing to make it from.
    pub fn code(
        &self,
        subscriber: Option<&SubscriberFacts>,
        subscriber_id: &str,
        stream_id: &str,
        purpose: Purpose,
        now: UnixMs,
    ) -> Result<String, Denial> {
        let (secret, period) = self.code_source(subscriber, subscriber_id, stream_id, purpose)?;
        Ok(secret.code(period, now))
    }

    /// The subscriber's own secret, or one made from the application's. Only who has a secret of their own may have a
    /// period of their own.
    fn code_source(
        &self,
        subscriber: Option<&SubscriberFacts>,
        id: &str,
        stream_id: &str,
        purpose: Purpose,
    ) -> Result<(TotpSecret, Period), Denial> {
        let whole = self.settings.time_token_period;
        match subscriber.filter(|subscriber| !subscriber.b32_secret.is_blank()) {
            Some(own) => {
                let secret = TotpSecret::from_base32(&own.b32_secret).map_err(|_| Denial::SubscriberSecret)?;
                Ok((secret, Period::from_secs(own.totp_period_secs.unwrap_or(whole))))
            }
            None => {
                let (setting, secret) = self.settings.time_token_secret(purpose);
                let secret = TotpSecret::derived(secret, id, stream_id, purpose);
                Ok((secret.map_err(|_| Denial::Misconfigured { setting })?, Period::from_secs(whole)))
            }
        }
    }

    /// A JWT that opens a stream, or a room: what `GET …/{id}/jwt-token` answers.
    ///
    /// # Errors
    /// [`Denial::Misconfigured`] while the application's key is unset or too short.
    pub fn sign_jwt(
        &self,
        stream_id: &str,
        purpose: Purpose,
        room: Option<&str>,
        expire_secs: u64,
    ) -> Result<Secret, Denial> {
        let key = self.jwt_key.as_ref().map_err(|_| Denial::Misconfigured { setting: "jwtStreamSecretKey" })?;
        let mut claims = Claims::until(expire_secs).and("streamId", stream_id).and("type", purpose.as_str());
        if let Some(room) = room.filter(|room| !room.is_empty()) {
            claims = claims.and("roomId", room);
        }
        Ok(key.sign(&claims).into())
    }

    fn check_ingesting(&self, facts: &Facts) -> Result<(), Denial> {
        let limit = u64::try_from(self.settings.ingesting_stream_limit).ok();
        match (limit, facts.ingesting) {
            (Some(limit), Some(now)) if now >= limit => Err(Denial::IngestLimit),
            _ => Ok(()),
        }
    }

    /// The stream's own limit goes before the application's.
    fn check_viewers(&self, facts: &Facts) -> Result<(), Denial> {
        let own = match &facts.broadcast {
            Fact::Found(broadcast) => u64::try_from(broadcast.viewer_limit).ok(),
            _ => None,
        };
        match own.or(u64::try_from(self.settings.web_rtc_viewer_limit).ok()) {
            Some(limit) if facts.viewers >= limit => Err(Denial::ViewerLimit),
            _ => Ok(()),
        }
    }
}

fn token<'a>(request: &Request<'a>) -> Result<&'a Secret, Denial> {
    request.token.filter(|token| !token.is_blank()).ok_or(Denial::TokenMissing)
}

fn check_window(request: &Request<'_>, facts: &Facts) -> Result<(), Denial> {
    match &facts.broadcast {
        Fact::Found(broadcast) if !broadcast.is_open(request.now) => Err(Denial::Window),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
