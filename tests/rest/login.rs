//! The panel: who may log in, what a session opens, and what closes it.

use std::net::SocketAddr;

use ams_testkit::APP;
use ams_testkit::balancer::Balancer;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::http::{self, Answer};
use ams_testkit::mongo::bson::{Document, doc};
use ams_testkit::mongod::Mongod;
use ams_testkit::node::{NodeOptions, NodeProcess};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{SOON, result};

/// A password, what the panel sends of it, and what AMS stores.
const PLAIN: &str = "secret";
const SENT: &str = "5ebe2294ecd0e0f08eab7690d2a6ee69";
const STORED: &str = "7022cd14c42ff272619d6beacdc9ffde";
/// Another one.
const OTHER_PLAIN: &str = "other";
const OTHER_SENT: &str = "795f3202b17cb6bc3d4b771d8c6c9eaf";

const NOT_ALLOWED: &str = "Not allowed to access this resource. Contact system admin";
const NOT_AUTHENTICATED: &str = "Not authenticated user";

/// No first user is made by the nodes: the cases bring their own.
const NO_FIRST: [&str; 2] = ["--set", "first_user=none"];

/// A person with a browser, at any node.
#[derive(Clone, Debug)]
struct Browser {
    cookie: String,
    token: String,
}

impl Browser {
    fn of(answer: &Answer) -> Result<Self> {
        let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
        let pairs: Vec<&str> = set.filter_map(|(_, value)| value.split(';').next()).collect();
        let token = answer.header("x-csrf-token").context("no token is told")?.to_owned();
        ensure!(pairs.contains(&&*format!("ams_csrf={token}")), "the token is in a cookie too: {pairs:?}");
        Ok(Self { cookie: pairs.join("; "), token })
    }

    async fn ask(&self, node: &NodeProcess, method: &str, path: &str, body: Value) -> Result<Answer> {
        self.ask_as(node, method, path, &[("X-CSRF-Token", &self.token)], body).await
    }

    async fn ask_as(
        &self,
        node: &NodeProcess,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Result<Answer> {
        let mut all = vec![("Cookie", &*self.cookie)];
        all.extend_from_slice(headers);
        ask(node, method, path, &all, body).await
    }
}

async fn ask(node: &NodeProcess, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Result<Answer> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    http::send(method, &node.url(path), headers, text).await.with_context(|| format!("{method} {path}"))
}

async fn log_in_from(node: &NodeProcess, address: &str, email: &str, sent: &str) -> Result<Answer> {
    let body = json!({"email": email, "password": sent});
    let answer = ask(node, "POST", "/rest/v2/users/authenticate", &[("X-Forwarded-For", address)], body).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer)
}

async fn log_in(node: &NodeProcess, email: &str, sent: &str) -> Result<Browser> {
    let answer = log_in_from(node, "127.0.0.1", email, sent).await?;
    ensure!(answer.json()["success"] == true, "{email}: {answer:?}");
    Browser::of(&answer)
}

fn is_refused(answer: &Answer, sentence: &str) -> bool {
    answer.status == 403 && answer.json() == result(false, sentence)
}

fn admin(email: &str) -> Document {
    doc! { "className": "io.antmedia.rest.model.User", "email": email, "password": STORED, "userType": "ADMIN" }
}

async fn plant(cluster: &Cluster, collection: &str, user: Document) -> Result<()> {
    cluster.databases.collection("serverdb", collection).insert_one(user).await?;
    Ok(())
}

#[test]
fn every_form_a_password_was_ever_stored_in_opens() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(110, 0).args(&NO_FIRST)).await?;
        for (at, (name, stored, sent)) in [
            ("the panel's", STORED, SENT),
            ("a script's", STORED, PLAIN),
            ("the documented reset's", SENT, SENT),
            ("the documented reset's, for a script", SENT, PLAIN),
        ]
        .into_iter()
        .enumerate()
        {
            let (email, collection) = (format!("user{at}"), if at % 2 == 0 { "User" } else { "user" });
            let user = doc! { "email": &email, "password": stored, "userType": "ADMIN", "plugin": { "deep": [1] } };
            plant(&cluster, collection, user).await?;
            let wrong = log_in_from(&cluster.origin, "127.0.0.1", &email, OTHER_SENT).await?;
            ensure!(wrong.json() == result(false, ""), "{name}: {wrong:?}");
            let right = log_in_from(&cluster.origin, "127.0.0.1", &email, sent).await?;
            ensure!(right.json()["success"] == true, "{name}: {right:?}");
            let kept = cluster.databases.find("serverdb", collection, doc! { "email": &email }).await?;
            let [kept] = kept.as_slice() else { anyhow::bail!("{name}: {kept:?}") };
            ensure!(
                kept.get_str("passwordArgon2").is_ok_and(|hash| hash.starts_with("$argon2id$")),
                "{name}: {kept:?}"
            );
            ensure!(kept.get_str("password").ok() == Some(STORED), "{name}, AMS can read it: {kept:?}");
            ensure!(kept.get_document("plugin").is_ok(), "{name}: {kept:?}");
            for sent in [SENT, PLAIN] {
                log_in(&cluster.origin, &email, sent).await.with_context(|| format!("{name}, again"))?;
            }
        }
        let nobody = log_in_from(&cluster.origin, "127.0.0.1", "nobody", SENT).await?;
        ensure!(nobody.json() == result(false, ""), "{nobody:?}");
        // A role that cannot be read could be any: such a user has none.
        plant(&cluster, "user", doc! { "email": "odd", "password": STORED, "userType": 5 }).await?;
        ensure!(log_in_from(&cluster.origin, "127.0.0.1", "odd", SENT).await?.json()["success"] == false);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_password_that_is_reset_in_the_database_counts_at_once() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(111, 0).args(&NO_FIRST)).await?;
        plant(&cluster, "User", admin("JamesBond")).await?;
        let before = log_in(&cluster.origin, "JamesBond", SENT).await?;
        ensure!(before.ask(&cluster.origin, "GET", "/rest/v2/version", Value::Null).await?.status == 200);

        let users = cluster.databases.collection("serverdb", "User");
        users.update_one(doc! { "email": "JamesBond" }, doc! { "$set": { "password": OTHER_SENT } }).await?;
        let over = before.ask(&cluster.origin, "GET", "/rest/v2/version", Value::Null).await?;
        ensure!(is_refused(&over, NOT_AUTHENTICATED), "a session of the former password: {over:?}");
        let former = log_in_from(&cluster.origin, "127.0.0.1", "JamesBond", SENT).await?;
        ensure!(former.json()["success"] == false, "{former:?}");
        for sent in [OTHER_SENT, OTHER_PLAIN] {
            log_in(&cluster.origin, "JamesBond", sent).await?;
        }
        let log = cluster.origin.log();
        ensure!(log.contains("changed in the database by other means"), "{log}");
        ensure!(!log.contains(OTHER_SENT) && !log.contains(STORED), "no form of a password is logged");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_session_is_every_nodes_until_it_ends_everywhere() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(112, 1).args(&NO_FIRST)).await?;
        plant(&cluster, "user", admin("a")).await?;
        let (origin, edge) = (&cluster.origin, cluster.edge(0)?);
        let answer = log_in_from(origin, "127.0.0.1", "a", SENT).await?;
        for (cookie, want) in [
            ("ams_session=", &["; Path=/", "; HttpOnly", "; SameSite=Lax"][..]),
            ("ams_csrf=", &["; Path=/", "; SameSite=Lax"]),
        ] {
            let set = answer.headers.iter().find(|(name, value)| name == "set-cookie" && value.starts_with(cookie));
            let set = &set.with_context(|| format!("no {cookie}"))?.1;
            ensure!(want.iter().all(|word| set.contains(word)) && !set.contains("Secure"), "{set}");
        }
        let one = Browser::of(&answer)?;
        let two = log_in(edge, "a", SENT).await?;
        for node in [origin, edge] {
            for browser in [&one, &two] {
                let got = browser.ask(node, "GET", "/rest/v2/authentication-status", Value::Null).await?;
                ensure!(got.json()["success"] == true, "{got:?}");
                ensure!(got.header("x-csrf-token") == Some(&browser.token), "{got:?}");
                let got = browser.ask(node, "GET", "/rest/v2/applications", Value::Null).await?;
                ensure!(got.status == 200, "{got:?}");
            }
        }
        // Whoever is asked in turn.
        let nodes: [SocketAddr; 2] = [origin.http, edge.http];
        let balancer = Balancer::start(&nodes, &nodes).await?;
        eventually("the balancer has its nodes", SOON, || async {
            let got = http::get(&balancer.url("/rest/v2/liveness")).await.ok()?;
            (got.status == 200).then_some(())
        })
        .await?;
        let https = [("X-Forwarded-Proto", "https")];
        let body = json!({"email": "a", "password": SENT}).to_string();
        let answer = http::send("POST", &balancer.url("/rest/v2/users/authenticate"), &https, body).await?;
        let secure = answer.headers.iter().filter(|(name, value)| name == "set-cookie" && value.ends_with("; Secure"));
        ensure!(secure.count() == 2, "{answer:?}");
        let three = Browser::of(&answer)?;
        for _ in 0..6 {
            let got =
                http::send("GET", &balancer.url("/rest/v2/applications"), &[("Cookie", &three.cookie)], "").await?;
            ensure!(got.status == 200, "{got:?}");
        }

        let out = one.ask(edge, "DELETE", "/rest/v2/users/logout", Value::Null).await?;
        ensure!(out.json() == result(true, Value::Null), "{out:?}");
        let cleared = out.headers.iter().filter(|(name, value)| name == "set-cookie" && value.contains("Max-Age=0"));
        ensure!(cleared.count() == 2, "{out:?}");
        for node in [origin, edge] {
            let got = one.ask(node, "GET", "/rest/v2/applications", Value::Null).await?;
            ensure!(is_refused(&got, NOT_AUTHENTICATED), "{got:?}");
            let got = one.ask(node, "GET", "/rest/v2/authentication-status", Value::Null).await?;
            ensure!(got.status == 200 && got.json()["success"] == false, "{got:?}");
            ensure!(
                two.ask(node, "GET", "/rest/v2/applications", Value::Null).await?.status == 200,
                "another's goes on"
            );
        }

        // A new password ends the others.
        for (name, body, message) in [
            ("no new one", json!({"password": SENT}), "User name does not exist or there is no new password"),
            (
                "a wrong one",
                json!({"password": OTHER_SENT, "newPassword": OTHER_SENT}),
                "User not exist with that name and pass",
            ),
        ] {
            let got = two.ask(origin, "POST", "/rest/v2/users/password", body).await?;
            ensure!(got.json() == result(false, message), "{name}: {got:?}");
        }
        let body = json!({"email": "a", "password": SENT, "newPassword": OTHER_SENT});
        let changed = two.ask(origin, "POST", "/rest/v2/users/password", body).await?;
        ensure!(changed.json() == result(true, "Success"), "{changed:?}");
        let four = Browser::of(&changed)?;
        for node in [origin, edge] {
            for browser in [&two, &three] {
                let got = browser.ask(node, "GET", "/rest/v2/applications", Value::Null).await?;
                ensure!(is_refused(&got, NOT_AUTHENTICATED), "{got:?}");
            }
            ensure!(four.ask(node, "GET", "/rest/v2/applications", Value::Null).await?.status == 200);
        }
        ensure!(log_in_from(edge, "127.0.0.1", "a", SENT).await?.json()["success"] == false);
        log_in(edge, "a", OTHER_PLAIN).await?;
        let (mut end, mut flipped) = (four.clone(), four.cookie.clone().into_bytes());
        flipped[20] ^= 1;
        end.cookie = String::from_utf8(flipped)?;
        let got = end.ask(origin, "GET", "/rest/v2/applications", Value::Null).await?;
        ensure!(is_refused(&got, NOT_AUTHENTICATED), "{got:?}");
        drop(balancer);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn three_failures_lock_one_address_out_on_all_nodes_and_no_other() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(113, 1).args(&NO_FIRST)).await?;
        plant(&cluster, "user", admin("a")).await?;
        plant(&cluster, "user", admin("b")).await?;
        let (origin, edge) = (&cluster.origin, cluster.edge(0)?);
        let (thief, owner) = ("203.0.113.1", "203.0.113.2");
        for node in [origin, edge, origin] {
            let got = log_in_from(node, thief, "a", OTHER_SENT).await?;
            ensure!(got.json() == result(false, ""), "{got:?}");
        }
        for node in [origin, edge] {
            let got = log_in_from(node, thief, "a", SENT).await?.json();
            let message = got["message"].as_str().unwrap_or_default();
            ensure!(
                got["success"] == false && message.starts_with("Too many login attempts. User is blocked for "),
                "{got}"
            );
            for (address, want) in [(thief, true), (owner, false)] {
                let from = [("X-Forwarded-For", address)];
                let got = ask(node, "GET", "/rest/v2/users/a/blocked", &from, Value::Null).await?;
                ensure!(got.json() == result(want, Value::Null), "{address}: {got:?}");
            }
            ensure!(log_in_from(node, owner, "a", SENT).await?.json()["success"] == true, "the owner gets in");
            ensure!(log_in_from(node, thief, "b", SENT).await?.json()["success"] == true, "another account");
        }
        // A success forgets.
        for _ in 0..2 {
            for _ in 0..2 {
                ensure!(log_in_from(edge, owner, "a", OTHER_SENT).await?.json() == result(false, ""));
            }
            ensure!(log_in_from(origin, owner, "a", SENT).await?.json()["success"] == true);
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn pages_of_other_origins_change_nothing() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(114, 0).args(&NO_FIRST)).await?;
        let node = &cluster.origin;
        let sentence =
            "The request does not come from the panel itself: send its X-CSRF-Token, or come from the same origin";
        let first = json!({"email": "a", "password": SENT});
        let evil = [("Origin", "https://evil.example")];
        let forged = ask(node, "POST", "/rest/v2/users/initial", &evil, first.clone()).await?;
        ensure!(is_refused(&forged, sentence), "{forged:?}");
        let made = ask(node, "POST", "/rest/v2/users/initial", &[], first.clone()).await?;
        ensure!(made.json()["success"] == true, "{made:?}");
        let forged = ask(node, "POST", "/rest/v2/users/authenticate", &evil, first).await?;
        ensure!(is_refused(&forged, sentence), "{forged:?}");

        let browser = log_in(node, "a", SENT).await?;
        let other = log_in(node, "a", SENT).await?;
        let own = format!("http://{}", node.http);
        let call = "/rest/v2/cluster/node/nobody";
        for (name, headers, allowed) in [
            ("a script with a cookie", vec![], true),
            ("the panel", vec![("Sec-Fetch-Site", "same-origin"), ("Origin", &own)], true),
            ("the panel of another server", vec![("Origin", &own)], true),
            ("the panel with its token", vec![("Origin", "http://in.front"), ("X-CSRF-Token", &browser.token)], true),
            ("another page", vec![("Origin", "https://evil.example")], false),
            ("another site", vec![("Sec-Fetch-Site", "cross-site"), ("Origin", &own)], false),
            ("a neighbour", vec![("Sec-Fetch-Site", "same-site")], false),
            ("a sandbox", vec![("Origin", "null")], false),
            ("another session's token", vec![("Origin", "http://in.front"), ("X-CSRF-Token", &other.token)], false),
            ("nonsense", vec![("Sec-Fetch-Site", "cross-site"), ("X-CSRF-Token", "x")], false),
        ] {
            let got = browser.ask_as(node, "DELETE", call, &headers, Value::Null).await?;
            ensure!(if allowed { got.status == 200 } else { is_refused(&got, sentence) }, "{name}: {got:?}");
            let old = browser.ask_as(node, "GET", "/rest/cluster/deleteNode/nobody", &headers, Value::Null).await?;
            ensure!(
                if allowed { old.status == 200 } else { is_refused(&old, sentence) },
                "{name}, the old way: {old:?}"
            );
            let read = browser.ask_as(node, "GET", "/rest/v2/version", &headers, Value::Null).await?;
            ensure!(read.status == 200, "{name}, reading: {read:?}");
            let path = format!("/rest/v2/request?_path={APP}/rest/v2/broadcasts/s");
            let passed = browser.ask_as(node, "DELETE", &path, &headers, Value::Null).await?;
            ensure!(passed.status == if allowed { 200 } else { 403 }, "{name}, passed on: {passed:?}");
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn roles_open_what_they_open() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(115, 0).args(&NO_FIRST)).await?;
        let node = &cluster.origin;
        plant(&cluster, "user", admin("admin")).await?;
        let admin = log_in(node, "admin", SENT).await?;
        let mut browsers = vec![admin.clone()];
        for (email, roles) in [
            ("member", json!({"system": "USER"})),
            ("reader", json!({"system": "READ_ONLY"})),
            ("app-admin", json!({APP: "ADMIN"})),
            ("app-member", json!({APP: "USER"})),
            ("app-reader", json!({APP: "READ-ONLY"})),
            ("elsewhere", json!({"other": "ADMIN"})),
        ] {
            let body = json!({"email": email, "password": SENT, "appNameUserType": roles});
            let made = admin.ask(node, "POST", "/rest/v2/users", body).await?;
            ensure!(made.json() == result(true, Value::Null), "{email}: {made:?}");
            browsers.push(log_in(node, email, SENT).await?);
        }
        let here = |path: &str| format!("/rest/v2/request?_path={APP}/rest/v2{path}");
        let settings = format!("/rest/v2/applications/settings/{APP}");
        let tricks = [
            format!("/rest/v2/request?_path=other/../{APP}/rest/v2/version"),
            format!("/rest/v2/request?_path=other/rest/v2/%2e%2e/%2e%2e/%2e%2e/{APP}/rest/v2/version"),
            format!("/rest/v2/request?_path=other%252frest/rest/v2/{APP}"),
            format!("/rest/v2/request?_path={APP}/rest/v2/version&_path=other/rest/v2/version"),
            "/rest/v2/request?_path=http://127.0.0.1/rest/v2/version".to_owned(),
            "/rest/v2/request?_path=rest/v2/user-list".to_owned(),
            "/rest/v2/request?_path=//rest/v2/user-list".to_owned(),
            "/rest/v2/request".to_owned(),
        ];
        let mut rows = vec![
            ("GET", "/rest/v2/system-resources".to_owned(), [200, 200, 200, 403, 403, 403, 403]),
            ("GET", "/rest/v2/user-list".to_owned(), [200, 200, 200, 403, 403, 403, 403]),
            ("GET", "/rest/v2/version".to_owned(), [200; 7]),
            ("POST", "/rest/v2/server-settings".to_owned(), [200, 403, 403, 403, 403, 403, 403]),
            ("POST", "/rest/v2/users".to_owned(), [200, 403, 403, 403, 403, 403, 403]),
            ("DELETE", "/rest/v2/users/nobody".to_owned(), [200, 403, 403, 403, 403, 403, 403]),
            ("GET", "/rest/cluster/deleteNode/nobody".to_owned(), [200, 403, 403, 403, 403, 403, 403]),
            ("GET", settings.clone(), [200, 200, 200, 200, 200, 200, 403]),
            ("POST", settings, [200, 403, 403, 200, 403, 403, 403]),
            ("GET", here("/broadcasts/count"), [200, 200, 200, 200, 200, 200, 403]),
            ("GET", here("/broadcasts/list/0/5&search=a%20b"), [200, 200, 200, 200, 200, 200, 403]),
            ("GET", format!("/rest/request?_path={APP}/rest/v2/version"), [200, 200, 200, 200, 200, 200, 403]),
            ("DELETE", here("/broadcasts/nobody"), [200, 200, 403, 200, 200, 403, 403]),
            ("POST", here("/push-notification/topics/t"), [200, 403, 403, 200, 403, 403, 403]),
            (
                "GET",
                "/rest/v2/request?_path=other/rest/v2/broadcasts/count".to_owned(),
                [404, 404, 404, 403, 403, 403, 404],
            ),
        ];
        rows.extend(tricks.into_iter().map(|path| ("GET", path, [403; 7])));
        for (method, path, want) in &rows {
            for (browser, want) in browsers.iter().zip(want) {
                let got = browser.ask(node, method, path, Value::Null).await?;
                ensure!(got.status == *want, "{method} {path}, {want}: {got:?}");
                ensure!(*want != 403 || is_refused(&got, NOT_ALLOWED), "{method} {path}: {got:?}");
            }
        }
        for (browser, want) in browsers.iter().zip([true, false, false, false, false, false, false]) {
            let got = browser.ask(node, "GET", "/rest/v2/admin-status", Value::Null).await?;
            ensure!(got.json() == result(want, Value::Null), "{got:?}");
        }
        // The application's own guards are for others than the panel.
        let body = json!({"remoteAllowedCIDR": "10.0.0.1", "jwtControlEnabled": true, "jwtSecretKey": "x".repeat(32)});
        let done = admin.ask(node, "POST", &format!("/rest/v2/applications/settings/{APP}"), body).await?;
        ensure!(done.json()["success"] == true, "{done:?}");
        ensure!(ask(node, "GET", &format!("/{APP}/rest/v2/version"), &[], Value::Null).await?.status == 403);
        let made = admin.ask(node, "POST", &here("/broadcasts/create"), json!({"streamId": "s", "name": "n"})).await?;
        ensure!(made.status == 200 && made.json()["streamId"] == "s", "{made:?}");
        ensure!(admin.ask(node, "GET", &here("/broadcasts/s"), Value::Null).await?.json()["name"] == "n");
        let token = [("ProxyAuthorization", &*super::settings::signed(ams_testkit::node::SERVER_KEY))];
        ensure!(ask(node, "GET", &here("/broadcasts/s"), &token, Value::Null).await?.status == 200);
        ensure!(ask(node, "GET", "/rest/v2/request?_path=rest/v2/version", &token, Value::Null).await?.status == 403);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn users_are_made_changed_and_deleted() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(116, 0).args(&NO_FIRST)).await?;
        let node = &cluster.origin;
        plant(&cluster, "user", admin("admin")).await?;
        let admin = log_in(node, "admin", SENT).await?;
        let new =
            json!({"email": "new@x", "password": SENT, "scope": "system", "userType": "READ_ONLY", "firstName": "N"});
        for (name, method, body, want) in [
            ("no body", "POST", Value::Null, result(false, "User object is null")),
            ("no password", "POST", json!({"email": "new@x"}), json!({"success": false})),
            ("no role", "POST", json!({"email": "new@x", "password": SENT}), json!({"success": false})),
            (
                "a role that is none",
                "POST",
                json!({"email": "n", "password": "p", "userType": "ROOT"}),
                json!({"success": false}),
            ),
            (
                "a name that is a path",
                "POST",
                json!({"email": "a/b", "password": "p", "userType": "USER"}),
                json!({"success": false}),
            ),
            ("one", "POST", new.clone(), result(true, Value::Null)),
            ("again", "POST", new, result(false, "User with the same e-mail already exists")),
            ("oneself", "PUT", json!({"email": "admin", "userType": "USER"}), result(false, "User cannot edit itself")),
            (
                "nobody",
                "PUT",
                json!({"email": "nobody", "userType": "USER"}),
                result(false, "Edited user is not found in database"),
            ),
            ("no role left", "PUT", json!({"email": "new@x", "userType": null}), json!({"success": false})),
        ] {
            let got = admin.ask(node, method, "/rest/v2/users", body).await?;
            ensure!(got.status == 200 && super::is_like(&got.json(), &want), "{name}: {got:?}");
        }
        let list = admin.ask(node, "GET", "/rest/v2/user-list", Value::Null).await?;
        let want = json!([
            {"email": "admin", "userType": "ADMIN"},
            {"email": "new@x", "userType": "READ_ONLY", "scope": "system", "firstName": "N", "appNameUserType": null},
        ]);
        ensure!(super::is_like(&list.json(), &want) && !list.body.contains("assword"), "{list:?}");

        let them = log_in(node, "new@x", PLAIN).await?;
        let edit = json!({"email": "new@x", "appNameUserType": {APP: "USER"}, "newPassword": OTHER_SENT});
        let done = admin.ask(node, "PUT", "/rest/v2/users", edit).await?;
        ensure!(done.json() == result(true, Value::Null), "{done:?}");
        let over = them.ask(node, "GET", "/rest/v2/version", Value::Null).await?;
        ensure!(is_refused(&over, NOT_AUTHENTICATED), "{over:?}");
        let answer = log_in_from(node, "127.0.0.1", "new@x", OTHER_SENT).await?;
        ensure!(answer.json()["message"] == format!("{{\"{APP}\":\"USER\"}}"), "{answer:?}");
        let them = Browser::of(&answer)?;
        let kept = cluster.databases.find("serverdb", "user", doc! { "email": "new@x" }).await?;
        ensure!(
            kept.len() == 1 && kept[0].get_str("firstName").ok() == Some("N") && !kept[0].contains_key("scope"),
            "{kept:?}"
        );

        let own = admin.ask(node, "DELETE", "/rest/v2/users/admin", Value::Null).await?;
        ensure!(own.json() == result(false, "You cannot delete yourself"), "{own:?}");
        for want in [true, false] {
            let got = admin.ask(node, "DELETE", "/rest/v2/users/new%40x", Value::Null).await?;
            ensure!(got.json() == result(want, Value::Null), "{got:?}");
        }
        let over = them.ask(node, "GET", "/rest/v2/version", Value::Null).await?;
        ensure!(is_refused(&over, NOT_AUTHENTICATED), "{over:?}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn no_call_of_the_server_answers_who_is_not_logged_in() {
    case(async {
        let options =
            NodeOptions { registry: Some("memory".to_owned()), ..NodeOptions::new("standalone", [127, 0, 117, 11]) };
        let node = NodeProcess::start(options).await?;
        // A test holds this list against the routes.
        let routes = include_str!("../../docs/compatibility.md");
        let (_, routes) = routes.split_once("## Below `/rest/v2`").context("no such part")?;
        let mut calls: Vec<(String, String)> = routes
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`')?.0.split_once(' '))
            .map(|(method, path)| (method.to_owned(), format!("/rest/v2{path}")))
            .collect();
        ensure!(calls.len() > 40, "{calls:?}");
        for path in [
            "/rest/cluster/deleteNode/x",
            "/rest/request",
            "/rest/v2/nonsense",
            "/rest/x",
            "/rest/v2/users/a/b/blocked",
        ] {
            for method in ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"] {
                calls.push((method.to_owned(), path.to_owned()));
            }
        }
        let public = [
            ("GET", "/rest/v2/authentication-status"),
            ("GET", "/rest/v2/first-login-status"),
            ("POST", "/rest/v2/users/initial"),
            ("POST", "/rest/v2/users/authenticate"),
            ("GET", "/rest/v2/users/x/blocked"),
        ];
        let mut open = Vec::new();
        for (method, path) in &calls {
            let path = path.replace("{app}", APP).replace("{offset}", "0").replace("{size}", "5");
            let path = path.replace("{node}", "x").replace("{user}", "x");
            ensure!(!path.contains('{'), "{path}");
            for query in ["", "?_path=WebRTCAppEE/rest/v2/version"] {
                for cookie in ["", "ams_session=x", "JSESSIONID=x; ams_session=v1.e30.AAAA"] {
                    let got = ask(&node, method, &format!("{path}{query}"), &[("Cookie", cookie)], Value::Null).await?;
                    if got.status != 403 {
                        open.push((method.clone(), path.clone()));
                    } else if method != "HEAD" {
                        ensure!(is_refused(&got, NOT_AUTHENTICATED), "{method} {path}: {got:?}");
                    }
                }
            }
        }
        open.sort();
        open.dedup();
        let mut want: Vec<_> = public.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        want.sort();
        ensure!(open == want, "{open:?}");
        Ok(())
    });
}

#[test]
fn the_first_user_is_made_once_by_a_node_or_by_whoever_comes_first() {
    case(async {
        let first = json!({"email": "a@x", "password": SENT, "userType": "READ_ONLY", "fullName": "A"});
        let done = |success: bool| json!({"success": success, "message": null, "dataId": null, "errorId": -1});
        let options =
            NodeOptions { registry: Some("memory".to_owned()), ..NodeOptions::new("standalone", [127, 0, 118, 11]) };
        let own = NodeProcess::start(options.clone().args(&["--set", "first_user=random", "--set", "log_format=json"]))
            .await?;
        let password = eventually("the password is said", SOON, || async {
            let log = own.log();
            let line = log.lines().find(|line| line.contains("its password is said this once"))?;
            let (_, rest) = line.split_once("\"password\":\"")?;
            Some(rest.split('"').next()?.to_owned())
        })
        .await?;
        log_in(&own, "JamesBond", &password).await?;
        let status = ask(&own, "GET", "/rest/v2/first-login-status", &[], Value::Null).await?;
        ensure!(status.json() == result(false, Value::Null), "{status:?}");
        let late = ask(&own, "POST", "/rest/v2/users/initial", &[], first.clone()).await?;
        ensure!(late.json() == done(false), "{late:?}");

        let cluster = Cluster::start(ClusterOptions::new(118, 0).args(&NO_FIRST)).await?;
        // An edge makes none, whatever it is told.
        let _edge = NodeProcess::start(cluster.node("edge", 12).args(&["--set", "first_user=random"])).await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let status = ask(&cluster.origin, "GET", "/rest/v2/first-login-status", &[], Value::Null).await?;
        ensure!(status.json() == result(true, Value::Null), "{status:?}");
        for success in [true, false] {
            let made = ask(&cluster.origin, "POST", "/rest/v2/users/initial", &[], first.clone()).await?;
            ensure!(made.json() == done(success), "{made:?}");
        }
        let answer = log_in_from(&cluster.origin, "127.0.0.1", "a@x", SENT).await?;
        ensure!(answer.json() == result(true, "system/ADMIN"), "{answer:?}");
        let users = cluster.databases.find("serverdb", "user", doc! {}).await?;
        ensure!(users.len() == 1 && users[0].get_object_id("_id").is_ok(), "{users:?}");
        ensure!(
            users[0].get_document("appNameUserType").is_ok_and(|roles| roles.get_str("system").ok() == Some("ADMIN"))
        );

        // Two origins at once.
        cluster.databases.collection("serverdb", "user").delete_many(doc! {}).await?;
        let node = |host| NodeProcess::start(cluster.node("origin", host).args(&["--set", "first_user=random"]));
        let (one, two) = tokio::join!(node(13), node(14));
        let (one, two) = (one?, two?);
        eventually("somebody made it", SOON, || async {
            let users = cluster.databases.find("serverdb", "user", doc! {}).await.ok()?;
            (!users.is_empty()).then_some(())
        })
        .await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let users = cluster.databases.find("serverdb", "user", doc! {}).await?;
        ensure!(users.len() == 1 && users[0].get_str("email").ok() == Some("JamesBond"), "{users:?}");
        let said = [&one, &two].iter().filter(|node| node.log().contains("its password is said this once")).count();
        ensure!(said == 1, "{said} nodes say a password");
        drop((one, two));
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_database_that_is_away_is_said_to_be() {
    case(async {
        let mut mongod = Mongod::start().await?;
        let cluster = Cluster::start(ClusterOptions::new(119, 0).registry(mongod.uri()).args(&NO_FIRST)).await?;
        plant(&cluster, "user", admin("a")).await?;
        let node = &cluster.origin;
        let browser = log_in(node, "a", SENT).await?;
        mongod.kill()?;
        let sentence = result(false, "Database is not available. Please try again");
        for (method, path, body) in [
            ("GET", "/rest/v2/version", Value::Null),
            ("GET", "/rest/v2/authentication-status", Value::Null),
            ("GET", "/rest/v2/first-login-status", Value::Null),
            ("POST", "/rest/v2/users/authenticate", json!({"email": "a", "password": SENT})),
            ("DELETE", "/rest/v2/users/logout", Value::Null),
        ] {
            let got = browser.ask(node, method, path, body).await?;
            ensure!(got.status == 500 && got.json() == sentence, "{method} {path}: {got:?}");
        }
        let nobody = ask(node, "GET", "/rest/v2/version", &[], Value::Null).await?;
        ensure!(is_refused(&nobody, NOT_AUTHENTICATED), "nobody's call costs the database nothing: {nobody:?}");
        mongod.restart().await?;
        eventually("the session goes on", SOON, || async {
            let got = browser.ask(node, "GET", "/rest/v2/version", Value::Null).await.ok()?;
            (got.status == 200).then_some(())
        })
        .await?;
        drop(cluster);
        Ok(())
    });
}
