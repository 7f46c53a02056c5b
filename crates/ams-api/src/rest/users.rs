//! The panel's users: logging in and out, and who else may.
//!
//! Owns AMS's words for it. Answers never hold a password in any form, and a refusal to log in does not say why.

use std::str::FromStr;
use std::sync::Arc;

use ams_access::session::USER_LEN_MAX;
use ams_access::users::SYSTEM;
use ams_access::{Role, Secret, User};
use ams_registry::JsonMap;
use ams_types::AppName;
use axum::extract::Extension;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::call::{Call, Object, Text};
use super::cookie;
use super::guard::Who;
use super::outcome::{Answer, Outcome, RestError, ok};
use crate::client::{ClientAddr, Front};
use crate::login::{self, LoginError, SignedIn, Tried};

/// The `errorId` of every answer to the first user.
const INITIAL: i32 = -1;
/// Fields that say what a user may do: written together, so that an older one does not stay beside a newer.
const ROLE_FIELDS: [&str; 3] = ["userType", "scope", "appNameUserType"];
/// Fields for people.
const OWN_FIELDS: [&str; 4] = ["firstName", "lastName", "fullName", "picture"];
/// Longest text in one of them.
const TEXT_LEN_MAX: usize = 1024;
/// Most scopes of a user.
const SCOPES_MAX: usize = 1000;

impl From<LoginError> for RestError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Registry(error) => Self::Registry(error),
            LoginError::Busy => Self::Status(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            LoginError::Session(_) => {
                tracing::warn!(%error, "nobody can log in");
                Self::Status(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

/// A text of a body; empty if there is none.
fn text<'a>(body: &'a JsonMap, name: &str) -> &'a str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn secret(body: &JsonMap, name: &str) -> Secret {
    Secret::from(text(body, name))
}

/// `GET /authentication-status`
pub(super) async fn authentication_status(call: Call, headers: HeaderMap) -> Answer {
    let found = call.state.login.find(&*call.registry(), &cookie::sessions(&headers)).await?;
    let mut response = Outcome::of(found.is_some()).into_response();
    // A panel that was loaded again has lost it.
    if let Some(signed_in) = found {
        cookie::tell_token(&mut response, signed_in.csrf().expose());
    }
    Ok(response)
}

/// `GET /first-login-status`: whether the first user is still to be made.
pub(super) async fn first_login_status(call: Call) -> Answer {
    Ok(Outcome::of(!call.registry().has_users().await?).into_response())
}

/// `POST /users/initial`: the first user, an administrator whatever the body says.
pub(super) async fn initial(call: Call, Object(body): Object) -> Answer {
    let (email, password) = (text(&body, "email"), secret(&body, "password"));
    let registry = call.registry();
    if !is_name(email) || password.expose().is_empty() || registry.has_users().await? {
        return Ok(Outcome::not_done().with_error(INITIAL).into_response());
    }
    let (_, fields) = call.state.login.new_password(&password).await?;
    let mut user = document(&User::administrator(email));
    let about = described(&body).unwrap_or_default();
    user.extend(about.into_iter().filter(|(name, _)| OWN_FIELDS.contains(&name.as_str())));
    user.extend(fields);
    let made = registry.create_user(&user, true).await?;
    Ok(Outcome::of(made).with_error(INITIAL).into_response())
}

/// `POST /users/authenticate`: always 200.
pub(super) async fn authenticate(
    call: Call,
    Extension(client): Extension<ClientAddr>,
    Extension(front): Extension<Front>,
    Object(body): Object,
) -> Answer {
    let (email, sent) = (text(&body, "email"), secret(&body, "password"));
    // An empty password is nobody's, and must not take longer for some names than for others.
    if email.is_empty() || email.len() > USER_LEN_MAX || sent.expose().is_empty() {
        return Ok(Outcome::failed("").into_response());
    }
    let registry = call.registry();
    let right = match call.state.login.try_password(&*registry, email, &sent, client.0).await? {
        Tried::Right(right) => right,
        Tried::Wrong => return Ok(Outcome::failed("").into_response()),
        Tried::Blocked(blocked) => return Ok(Outcome::failed(blocked.to_string()).into_response()),
    };
    let opened = call.state.login.open(&*registry, email, &right.stored).await?;
    let mut response = Outcome::done().saying(right.user.login_message()).into_response();
    cookie::give(&mut response, &opened, &front);
    Ok(response)
}

/// `GET /users/{user}/blocked`
pub(super) async fn blocked(call: Call, Extension(client): Extension<ClientAddr>) -> Answer {
    let blocked = call.state.login.is_blocked(&*call.registry(), call.named("user"), client.0).await?;
    Ok(Outcome::of(blocked).into_response())
}

/// `DELETE /users/logout`
pub(super) async fn logout(call: Call, Extension(who): Extension<Who>, Extension(front): Extension<Front>) -> Answer {
    if let Who::User(signed_in) = who {
        call.state.login.revoke(&*call.registry(), &signed_in.session).await?;
    }
    let mut response = Outcome::done().into_response();
    cookie::take(&mut response, &front);
    Ok(response)
}

/// `POST /users/password`: one's own. All sessions of the user end with it, and a new one begins for who asked.
pub(super) async fn change_password(
    call: Call,
    Extension(who): Extension<Who>,
    Extension(client): Extension<ClientAddr>,
    Extension(front): Extension<Front>,
    Object(body): Object,
) -> Answer {
    let (old, new) = (secret(&body, "password"), secret(&body, "newPassword"));
    let signed_in = signed_in(&who).filter(|_| !new.expose().is_empty());
    let Some(SignedIn { session, .. }) = signed_in.as_deref() else {
        return Ok(Outcome::failed("User name does not exist or there is no new password").into_response());
    };
    let (login, registry, email) = (&call.state.login, call.registry(), session.user.as_str());
    let right = match login.try_password(&*registry, email, &old, client.0).await? {
        Tried::Right(right) => right,
        Tried::Wrong => return Ok(Outcome::failed("User not exist with that name and pass").into_response()),
        Tried::Blocked(blocked) => return Ok(Outcome::failed(blocked.to_string()).into_response()),
    };
    let (stored, fields) = login.new_password(&new).await?;
    if !registry.edit_user(email, &fields, &right.as_read).await? {
        // Changed or deleted at the same moment.
        return Ok(Outcome::failed("User not exist with that name and pass").into_response());
    }
    let opened = login.open(&*registry, email, &stored).await?;
    let mut response = Outcome::done().saying("Success").into_response();
    cookie::give(&mut response, &opened, &front);
    Ok(response)
}

/// `GET /user-list`
pub(super) async fn list(call: Call) -> Answer {
    let users: Vec<User> =
        call.registry().list_users().await?.iter().filter_map(login::read).map(|(user, _)| user).collect();
    ok(&users)
}

/// `GET /admin-status`
pub(super) async fn admin_status(Extension(who): Extension<Who>) -> Answer {
    let is_admin = match &who {
        Who::Anybody => false,
        Who::KeyHolder => true,
        Who::User(signed_in) => signed_in.user.is_admin(),
    };
    Ok(Outcome::of(is_admin).into_response())
}

/// `POST /users`
pub(super) async fn create(call: Call, Text(body): Text) -> Answer {
    let body = match serde_json::from_str::<Option<JsonMap>>(if body.trim().is_empty() { "null" } else { &body }) {
        Ok(Some(body)) => body,
        Ok(None) => return Ok(Outcome::failed("User object is null").into_response()),
        Err(_) => return Err(RestError::Bad("The body must be a JSON object".to_owned())),
    };
    let (email, password) = (text(&body, "email"), secret(&body, "password"));
    if !is_name(email) || password.expose().is_empty() {
        return Ok(Outcome::failed("A user needs an email, without / \\ ; % in it, and a password").into_response());
    }
    let fields = match described(&body) {
        Ok(fields) => fields,
        Err(sentence) => return Ok(Outcome::failed(sentence).into_response()),
    };
    // A document without a role is an administrator's: nobody becomes that by what was left out.
    if !names_role(&fields) {
        return Ok(Outcome::failed("Name the user's role, in userType or appNameUserType").into_response());
    }
    if call.registry().find_user(email).await?.is_some() {
        return Ok(exists());
    }
    let (_, of_password) = call.state.login.new_password(&password).await?;
    let mut user = JsonMap::from_iter([("email".to_owned(), email.into())]);
    user.extend(fields);
    user.extend(of_password);
    match call.registry().create_user(&user, false).await? {
        true => Ok(Outcome::done().into_response()),
        false => Ok(exists()),
    }
}

fn exists() -> axum::response::Response {
    Outcome::failed("User with the same e-mail already exists").into_response()
}

/// `PUT /users`: another's. A new password, if there is one, in `newPassword`.
pub(super) async fn edit(call: Call, Extension(who): Extension<Who>, Object(body): Object) -> Answer {
    let email = text(&body, "email");
    if signed_in(&who).is_some_and(|signed_in| signed_in.session.user == email) {
        return Ok(Outcome::failed("User cannot edit itself").into_response());
    }
    let fields = match described(&body) {
        Ok(fields) => fields,
        Err(sentence) => return Ok(Outcome::failed(sentence).into_response()),
    };
    let changes_role = ROLE_FIELDS.iter().any(|name| fields.contains_key(*name));
    if changes_role && !names_role(&fields) {
        return Ok(Outcome::failed("Name the user's role, in userType or appNameUserType").into_response());
    }
    let mut set = fields;
    if changes_role {
        for name in ROLE_FIELDS {
            set.entry(name).or_insert(Value::Null);
        }
    }
    let password = secret(&body, "newPassword");
    if !password.expose().is_empty() {
        let (_, of_password) = call.state.login.new_password(&password).await?;
        set.extend(of_password);
    }
    match call.registry().edit_user(email, &set, &JsonMap::new()).await? {
        true => Ok(Outcome::done().into_response()),
        false => Ok(Outcome::failed("Edited user is not found in database").into_response()),
    }
}

/// `DELETE /users/{user}`
pub(super) async fn delete(call: Call, Extension(who): Extension<Who>) -> Answer {
    let email = call.named("user");
    if signed_in(&who).is_some_and(|signed_in| signed_in.session.user == email) {
        return Ok(Outcome::failed("You cannot delete yourself").into_response());
    }
    Ok(Outcome::of(call.registry().delete_user(email).await?).into_response())
}

fn signed_in(who: &Who) -> Option<Arc<SignedIn>> {
    match who {
        Who::User(signed_in) => Some(Arc::clone(signed_in)),
        Who::Anybody | Who::KeyHolder => None,
    }
}

/// Whether somebody can have this name: it must fit into a session, and into a path.
fn is_name(email: &str) -> bool {
    let fits = |c: char| !c.is_control() && !"/\\;%".contains(c);
    (1..=USER_LEN_MAX).contains(&email.len()) && email.chars().all(fits) && ![".", "..", "logout"].contains(&email)
}

fn document(user: &User) -> JsonMap {
    match serde_json::to_value(user) {
        Ok(Value::Object(map)) => map,
        _ => JsonMap::new(),
    }
}

/// The fields of a user that a body names, in AMS's spelling; a sentence for what cannot be one.
fn described(body: &JsonMap) -> Result<JsonMap, String> {
    let mut fields = JsonMap::new();
    for name in OWN_FIELDS.iter().chain(&ROLE_FIELDS).filter(|name| body.contains_key(**name)) {
        let value = match (*name, &body[*name]) {
            (_, Value::Null) => Value::Null,
            ("userType", Value::String(word)) => role(word)?,
            ("scope", Value::String(scope)) => scope_of(scope)?.into(),
            ("appNameUserType", Value::Object(roles)) if roles.len() <= SCOPES_MAX => {
                let mut checked = JsonMap::new();
                for (scope, word) in roles {
                    checked.insert(scope_of(scope)?, role(word.as_str().unwrap_or_default())?);
                }
                Value::Object(checked)
            }
            (name, Value::String(text)) if OWN_FIELDS.contains(&name) && text.len() <= TEXT_LEN_MAX => {
                text.as_str().into()
            }
            (name, _) => return Err(format!("The value of {name} cannot be used")),
        };
        fields.insert((*name).to_owned(), value);
    }
    Ok(fields)
}

/// Whether fields say what a user may do.
fn names_role(fields: &JsonMap) -> bool {
    ["userType", "appNameUserType"].iter().filter_map(|name| fields.get(*name)).any(|value| match value {
        Value::Object(roles) => !roles.is_empty(),
        value => !value.is_null(),
    })
}

fn role(word: &str) -> Result<Value, String> {
    let known = Role::parse(word).map(|role| role.as_str().into());
    known.ok_or_else(|| "A role is ADMIN, USER or READ_ONLY".to_owned())
}

fn scope_of(scope: &str) -> Result<String, String> {
    match scope == SYSTEM || AppName::from_str(scope).is_ok() {
        true => Ok(scope.to_owned()),
        false => Err("A scope is system, or the name of an application".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_describe_users_in_amss_words_or_not_at_all() {
        let described = |body: Value| match body {
            Value::Object(body) => described(&body).map(Value::Object),
            _ => Err(String::new()),
        };
        let full = json!({"userType": "READ-ONLY", "scope": "live", "firstName": "A", "picture": null, "password": "x",
            "passwordArgon2": "x", "appNameUserType": {"system": "ADMIN"}, "email": "a"});
        let want = json!({"userType": "READ_ONLY", "scope": "live", "firstName": "A", "picture": null,
            "appNameUserType": {"system": "ADMIN"}});
        assert_eq!(described(full), Ok(want));
        for wrong in [
            json!({"userType": "ROOT"}),
            json!({"userType": 1}),
            json!({"scope": "a.b"}),
            json!({"scope": ["live"]}),
            json!({"appNameUserType": {"$where": "ADMIN"}}),
            json!({"appNameUserType": {"live": "admin"}}),
            json!({"appNameUserType": {"live": null}}),
            json!({"appNameUserType": "system"}),
            json!({"firstName": {}}),
            json!({"picture": "x".repeat(TEXT_LEN_MAX + 1)}),
        ] {
            assert!(described(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_fit_into_a_session_and_a_path() {
        for (name, want) in [
            ("JamesBond", true),
            ("a+b@x.example", true),
            ("é", true),
            ("", false),
            ("a/b", false),
            ("a%2fb", false),
            ("a;b", false),
            ("a\nb", false),
            ("..", false),
            ("logout", false),
        ] {
            assert_eq!(is_name(name), want, "{name}");
        }
        assert!(!is_name(&"x".repeat(USER_LEN_MAX + 1)));
    }
}
