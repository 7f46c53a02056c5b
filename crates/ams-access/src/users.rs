//! The panel's users: their documents, their roles, and what a role may ask for.
//!
//! Owns AMS's rules of who may call which path; never who somebody is. A path here is one of the server
//! (`/rest/v2/…`) or of an application (`/live/rest/v2/…`, which is what `_path` of the panel's proxy names).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The scope that is the whole server. No application may have this name, nor `rest`: its administrators would be the
/// server's, or its paths the server's.
pub const SYSTEM: &str = "system";

/// What a user may do in a scope, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// See everything.
    ReadOnly,
    /// Work with streams and recordings too.
    User,
    /// Everything.
    Admin,
}

impl Role {
    /// AMS's word, in the spelling of its code or its documentation. Others are nobody.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "ADMIN" => Some(Self::Admin),
            "USER" => Some(Self::User),
            "READ_ONLY" | "READ-ONLY" => Some(Self::ReadOnly),
            _ => None,
        }
    }

    /// AMS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "ADMIN",
            Self::User => "USER",
            Self::ReadOnly => "READ_ONLY",
        }
    }
}

/// A user's document without its password: as it is stored, and as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// The name to log in with; need not be an address.
    pub email: String,
    /// Its role, before AMS 2.10.
    pub user_type: Option<String>,
    /// Where, before AMS 2.10: `system`, or an application.
    pub scope: Option<String>,
    /// Scope to role, since then.
    pub app_name_user_type: Option<BTreeMap<String, String>>,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// Both, in older documents.
    pub full_name: Option<String>,
    /// Address of a picture.
    pub picture: Option<String>,
}

impl User {
    /// An administrator of the whole server, in the words of all of AMS's versions.
    pub fn administrator(email: &str) -> Self {
        let role = Role::Admin.as_str().to_owned();
        Self {
            email: email.to_owned(),
            user_type: Some(role.clone()),
            scope: Some(SYSTEM.to_owned()),
            app_name_user_type: Some(BTreeMap::from([(SYSTEM.to_owned(), role)])),
            ..Self::default()
        }
    }

    /// Its role in `scope`: there, or in the whole server, whichever is more.
    ///
    /// As in AMS, a document without roles by scope has one role in one scope; without a scope that is the server,
    /// without a role it is an administrator's.
    pub fn role_in(&self, scope: &str) -> Option<Role> {
        match self.app_name_user_type.as_ref().filter(|roles| !roles.is_empty()) {
            Some(roles) => {
                let role = |scope: &str| roles.get(scope).and_then(|word| Role::parse(word));
                role(scope).max(role(SYSTEM))
            }
            None => {
                let own = self.scope.as_deref().filter(|scope| !scope.is_empty()).unwrap_or(SYSTEM);
                let role = self.user_type.as_deref().map_or(Some(Role::Admin), Role::parse);
                role.filter(|_| own == SYSTEM || own == scope)
            }
        }
    }

    /// Whether it is an administrator of the whole server.
    pub fn is_admin(&self) -> bool {
        self.role_in(SYSTEM) == Some(Role::Admin)
    }

    /// The `message` of AMS's answer to a login: `system/ADMIN`, or the roles by scope as JSON text.
    pub fn login_message(&self) -> String {
        match (&self.scope, &self.user_type, &self.app_name_user_type) {
            (Some(scope), Some(role), _) => format!("{scope}/{role}"),
            (.., Some(roles)) => serde_json::to_string(roles).unwrap_or_default(),
            _ => String::new(),
        }
    }
}

/// A refusal, with AMS's sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Not allowed to access this resource. Contact system admin")]
pub struct Forbidden;

/// Whether nobody needs to be logged in for this, as the panel before its login.
pub fn is_public(method: &str, path: &str) -> bool {
    let Some(segments) = segments(path) else { return false };
    matches!(
        (method, segments.as_slice()),
        ("GET", ["rest", "v2", "authentication-status" | "first-login-status" | "liveness"])
            | ("GET", ["rest", "v2", "users", _, "blocked"])
            | ("POST", ["rest", "v2", "users", "initial" | "authenticate"])
    )
}

/// Whether `user` may ask for this. `path` is without its query, in the form clients sent it.
///
/// # Errors
/// [`Forbidden`], also for paths that try to be another than they look.
pub fn may(user: &User, method: &str, path: &str) -> Result<(), Forbidden> {
    let segments = segments(path).ok_or(Forbidden)?;
    let reads = ["GET", "HEAD", "OPTIONS"].contains(&method);
    let allowed = match segments.as_slice() {
        ["rest", "v2", server @ ..] | ["rest", server @ ..] => may_server(user, method, reads, server),
        [app, "rest", rest @ ..] => match user.role_in(app) {
            Some(Role::Admin) => true,
            Some(Role::User) => reads || matches!(rest, ["v2", "broadcasts" | "vods", ..]),
            Some(Role::ReadOnly) => reads,
            None => false,
        },
        _ => false,
    };
    if allowed { Ok(()) } else { Err(Forbidden) }
}

fn may_server(user: &User, method: &str, reads: bool, path: &[&str]) -> bool {
    let in_app = |app: &str, role: Role| user.role_in(app).is_some_and(|own| own >= role);
    match (method, path) {
        ("POST", ["users", "password"] | ["support", "request"]) | ("DELETE", ["users", "logout"]) => true,
        ("GET", ["version" | "enterprise-edition" | "admin-status"]) => true,
        ("GET", ["applications", "settings", app]) if in_app(app, Role::ReadOnly) => true,
        ("POST" | "PUT", ["applications", "settings", app]) if in_app(app, Role::Admin) => true,
        _ => user.role_in(SYSTEM).is_some_and(|role| reads || role == Role::Admin),
    }
}

/// The segments of a path, unless a router could take it for another: dots, empty segments, matrix parameters, and
/// encoded separators or dots.
fn segments(path: &str) -> Option<Vec<&str>> {
    let path = path.split('?').next()?;
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments: Vec<&str> = path.split('/').collect();
    let is_plain = |segment: &&str| {
        let lower = segment.to_ascii_lowercase();
        let tricks = ["%2e", "%2f", "%5c", "%25", "%3b", "%00", "\\", ";"];
        !segment.is_empty() && ![".", ".."].contains(segment) && !tricks.iter().any(|trick| lower.contains(trick))
    };
    // What the rules look at is never written with escapes.
    let deciding = segments.iter().take(3).all(|segment| !segment.contains('%'));
    (deciding && segments.iter().all(is_plain)).then_some(segments)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(roles: &[(&str, &str)]) -> User {
        let roles = roles.iter().map(|(scope, role)| ((*scope).to_owned(), (*role).to_owned())).collect();
        User { email: "a".into(), app_name_user_type: Some(roles), ..User::default() }
    }

    fn old(scope: Option<&str>, role: Option<&str>) -> User {
        User { scope: scope.map(Into::into), user_type: role.map(Into::into), ..User::default() }
    }

    #[test]
    fn roles_come_from_both_kinds_of_documents() {
        for (name, user, scope, want) in [
            ("new", user(&[("live", "USER")]), "live", Some(Role::User)),
            ("new, elsewhere", user(&[("live", "USER")]), "live2", None),
            ("new, the server", user(&[("live", "ADMIN")]), SYSTEM, None),
            ("the server's goes everywhere", user(&[("system", "ADMIN")]), "live", Some(Role::Admin)),
            ("the higher counts", user(&[("system", "READ_ONLY"), ("live", "ADMIN")]), "live", Some(Role::Admin)),
            ("the documentation's spelling", user(&[("live", "READ-ONLY")]), "live", Some(Role::ReadOnly)),
            ("an unknown word", user(&[("live", "admin")]), "live", None),
            ("old", old(Some("system"), Some("ADMIN")), "live", Some(Role::Admin)),
            ("old, one application", old(Some("live"), Some("USER")), "live", Some(Role::User)),
            ("old, elsewhere", old(Some("live"), Some("USER")), "live2", None),
            ("old, the server", old(Some("live"), Some("ADMIN")), SYSTEM, None),
            ("no scope", old(None, Some("READ_ONLY")), SYSTEM, Some(Role::ReadOnly)),
            ("no role", old(Some("live"), None), "live", Some(Role::Admin)),
            ("the seed's document", old(None, Some("ADMIN")), SYSTEM, Some(Role::Admin)),
            ("an unknown role", old(None, Some("ROOT")), SYSTEM, None),
        ] {
            assert_eq!(user.role_in(scope), want, "{name}");
        }
        let empty = User { app_name_user_type: Some(BTreeMap::new()), ..old(Some("live"), Some("USER")) };
        assert_eq!(empty.role_in("live"), Some(Role::User), "an empty map says nothing");
    }

    #[test]
    fn roles_may_what_they_may() {
        let admin = user(&[("system", "ADMIN")]);
        let member = user(&[("system", "USER")]);
        let reader = user(&[("system", "READ_ONLY")]);
        let app_admin = user(&[("live", "ADMIN")]);
        let app_member = user(&[("live", "USER")]);
        let app_reader = user(&[("live", "READ_ONLY")]);
        let all = [&admin, &member, &reader, &app_admin, &app_member, &app_reader];
        for (method, path, want) in [
            ("GET", "/rest/v2/system-resources", [true, true, true, false, false, false]),
            ("GET", "/rest/v2/user-list", [true, true, true, false, false, false]),
            ("GET", "/rest/v2/version", [true; 6]),
            ("GET", "/rest/v2/admin-status", [true; 6]),
            ("POST", "/rest/v2/users/password", [true; 6]),
            ("DELETE", "/rest/v2/users/logout", [true; 6]),
            ("POST", "/rest/v2/users", [true, false, false, false, false, false]),
            ("DELETE", "/rest/v2/users/a@b", [true, false, false, false, false, false]),
            ("GET", "/rest/v2/drain", [true, true, true, false, false, false]),
            ("POST", "/rest/v2/drain", [true, false, false, false, false, false]),
            ("DELETE", "/rest/v2/drain", [true, false, false, false, false, false]),
            ("POST", "/rest/v2/server-settings", [true, false, false, false, false, false]),
            ("POST", "/rest/v2/applications/new", [true, false, false, false, false, false]),
            ("GET", "/rest/v2/applications/settings/live", [true; 6]),
            ("GET", "/rest/v2/applications/settings/live2", [true, true, true, false, false, false]),
            ("POST", "/rest/v2/applications/settings/live", [true, false, false, true, false, false]),
            ("POST", "/rest/v2/applications/settings/live2", [true, false, false, false, false, false]),
            ("POST", "/rest/v2/applications/live/reset", [true, false, false, false, false, false]),
            ("GET", "/live/rest/v2/broadcasts/list/0/10", [true; 6]),
            ("POST", "/live/rest/v2/broadcasts/create", [true, true, false, true, true, false]),
            ("PUT", "live/rest/v2/broadcasts/stream1", [true, true, false, true, true, false]),
            ("DELETE", "/live/rest/v2/vods/1/", [true, true, false, true, true, false]),
            ("POST", "/live/rest/v2/push-notification/subscribers", [true, false, false, true, false, false]),
            ("GET", "/live2/rest/v2/broadcasts/list/0/10", [true, true, true, false, false, false]),
            ("POST", "/live2/rest/v2/broadcasts/create", [true, true, false, false, false, false]),
            ("GET", "/", [false; 6]),
            ("GET", "/live/streams/a.m3u8", [false; 6]),
        ] {
            let got: Vec<bool> = all.iter().map(|user| may(user, method, path).is_ok()).collect();
            assert_eq!(got, want, "{method} {path}");
        }
    }

    #[test]
    fn paths_that_pretend_are_refused() {
        let admin = user(&[("system", "ADMIN")]);
        for path in [
            "/live/rest/v2/broadcasts/../../../rest/v2/users",
            "/live/rest/v2/broadcasts/%2e%2e/x",
            "/live/rest/v2/broadcasts/%2E./x",
            "/live/rest/v2/broadcasts/a%2fb",
            "/live/rest/v2/broadcasts/a%252fb",
            "/live/rest/v2/broadcasts//x",
            "//rest/v2/users",
            "/rest/v2/users;x=1",
            "/rest/v2\\users",
            "/l%69ve/rest/v2/broadcasts/create",
        ] {
            assert_eq!(may(&admin, "GET", path), Err(Forbidden), "{path}");
        }
        assert!(may(&admin, "GET", "/live/rest/v2/broadcasts/count/a%20b").is_ok());
        let sly = user(&[("rest", "ADMIN"), ("settings", "ADMIN")]);
        for path in ["/rest/v2/users", "/rest/rest/v2/users", "/rest/v2/server-settings"] {
            assert!(may(&sly, "POST", path).is_err(), "{path}: an application's name makes nobody administrator");
        }
    }

    #[test]
    fn the_login_page_needs_no_login() {
        for (method, path, public) in [
            ("GET", "/rest/v2/first-login-status", true),
            ("POST", "/rest/v2/users/authenticate", true),
            ("POST", "/rest/v2/users/initial", true),
            ("GET", "/rest/v2/users/a@b.c/blocked", true),
            ("GET", "/rest/v2/liveness", true),
            ("DELETE", "/rest/v2/users/a/blocked", false),
            ("GET", "/rest/v2/users/x/../blocked", false),
            ("GET", "/rest/v2/users/a/b/blocked", false),
            ("GET", "/rest/v2/user-list", false),
        ] {
            assert_eq!(is_public(method, path), public, "{method} {path}");
        }
    }

    #[test]
    fn documents_keep_amss_names() {
        let json = r#"{"email":"a","password":"x","userType":"ADMIN","scope":"system","appNameUserType":null}"#;
        let user: User = serde_json::from_str(json).unwrap();
        assert_eq!(user.login_message(), "system/ADMIN");
        assert!(user.is_admin());
        let shown = serde_json::to_string(&user).unwrap();
        assert!(!shown.contains("password") && shown.contains("\"appNameUserType\":null"), "{shown}");
        assert_eq!(super::tests::user(&[("system", "ADMIN")]).login_message(), r#"{"system":"ADMIN"}"#);
        let first = User::administrator("a");
        assert!(first.is_admin() && first.login_message() == "system/ADMIN");
    }

    proptest! {
        #[test]
        fn strangers_may_nothing_of_others(method in "GET|POST|DELETE|PUT", path in "/[a-z0-9/.%;]{0,40}") {
            let stranger = user(&[("elsewhere", "ADMIN")]);
            let own = path.starts_with("/elsewhere/") || path.starts_with("/rest");
            prop_assert!(own || may(&stranger, &method, &path).is_err());
            is_public(&method, &path);
        }
    }
}
