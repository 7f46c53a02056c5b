//! Who may use the REST API: address lists, tokens, and the server's own guard.

use ams_testkit::APP;
use ams_testkit::case::case;
use ams_testkit::http;
use ams_testkit::node::{NodeOptions, NodeProcess};
use anyhow::ensure;
use serde_json::json;

use super::settings::signed;
use super::{NONE, call_with, result};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

fn standalone(net: u8) -> NodeOptions {
    NodeOptions { registry: Some("memory".to_owned()), ..NodeOptions::new("standalone", [127, 0, net, 11]) }
}

#[test]
fn an_application_is_open_to_its_addresses_and_tokens_alone() {
    case(async {
        let node = NodeProcess::start(standalone(73)).await?;
        let settings = format!("/rest/v2/applications/settings/{APP}");
        let count = format!("/{APP}/rest/v2/broadcasts/count");
        let ip = result(false, "Not allowed IP");
        let jwt = result(false, "Invalid App JWT Token");
        let number = json!({"number": 0});
        let (good, wrong, bearer) = (signed(KEY), signed(OTHER_KEY), format!("Bearer {}", signed(KEY)));
        // {"alg":"none"} with no signature.
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap_or_default());
        for (name, set, headers, status, want) in [
            ("from here", json!({}), vec![], 200, &number),
            ("a stranger", json!({}), vec![("X-Forwarded-For", "203.0.113.5")], 403, &ip),
            ("a stranger who says otherwise", json!({}), vec![("X-Forwarded-For", "127.0.0.1, 203.0.113.5")], 403, &ip),
            ("another of this machine", json!({}), vec![("X-Forwarded-For", "127.0.0.2")], 403, &ip),
            (
                "on the list",
                json!({"remoteAllowedCIDR": "203.0.113.0/24"}),
                vec![("X-Forwarded-For", "203.0.113.5")],
                200,
                &number,
            ),
            ("off the list", json!({"remoteAllowedCIDR": "203.0.113.0/24"}), vec![], 403, &ip),
            ("no list", json!({"ipFilterEnabled": false}), vec![("X-Forwarded-For", "203.0.113.5")], 200, &number),
            ("no token", json!({"jwtControlEnabled": true, "jwtSecretKey": KEY}), vec![], 403, &jwt),
            (
                "a token",
                json!({"jwtControlEnabled": true, "jwtSecretKey": KEY}),
                vec![("Authorization", &*good)],
                200,
                &number,
            ),
            (
                "a token as browsers send it",
                json!({"jwtControlEnabled": true, "jwtSecretKey": KEY}),
                vec![("Authorization", &*bearer)],
                200,
                &number,
            ),
            (
                "another key's",
                json!({"jwtControlEnabled": true, "jwtSecretKey": KEY}),
                vec![("Authorization", &*wrong)],
                403,
                &jwt,
            ),
            (
                "unsigned",
                json!({"jwtControlEnabled": true, "jwtSecretKey": KEY}),
                vec![("Authorization", &*unsigned)],
                403,
                &jwt,
            ),
            ("no key", json!({"jwtControlEnabled": true}), vec![("Authorization", &*good)], 403, &jwt),
            (
                "a token from a stranger",
                json!({"jwtControlEnabled": true, "jwtSecretKey": KEY}),
                vec![("Authorization", &*good), ("X-Forwarded-For", "203.0.113.5")],
                403,
                &ip,
            ),
        ] {
            let done = call_with(&node, "POST", &settings, &[], &set).await?;
            ensure!(done.json()["success"] == true, "{name}: {done:?}");
            let got = call_with(&node, "GET", &count, &headers, &NONE).await?;
            ensure!(got.status == status && got.json() == *want, "{name}: {got:?}");
        }
        // A browser asks first, from anywhere and without a token.
        let asks =
            [("Origin", "https://x"), ("Access-Control-Request-Method", "DELETE"), ("X-Forwarded-For", "1.2.3.4")];
        let preflight = http::send("OPTIONS", &node.url(&count), &asks, "").await?;
        ensure!(preflight.status == 204, "{preflight:?}");
        let unknown = call_with(&node, "GET", "/nobody/rest/v2/broadcasts/count", &[], &NONE).await?;
        ensure!(unknown.status == 404 && unknown.json()["success"] == false, "{unknown:?}");
        ensure!(unknown.json()["message"].as_str().is_some_and(|m| m.contains("nobody")), "{unknown:?}");
        Ok(())
    });
}

#[test]
fn the_server_is_open_to_its_token() {
    case(async {
        let plain = NodeProcess::start(standalone(74).env("AMS_API__SERVER_JWT_SECRET", "")).await?;
        let keyed =
            NodeProcess::start(standalone(75).env("AMS_API__ALLOWED_DASHBOARD_CIDR", "127.0.0.1,10.1.0.0/16")).await?;
        let (good, wrong) = (signed(KEY), signed(OTHER_KEY));
        let (friend, stranger) = (("X-Forwarded-For", "10.1.2.3"), ("X-Forwarded-For", "203.0.113.5"));
        let login = result(false, "Not authenticated user");
        let token = result(false, "Invalid Server JWT Token");
        let ip = result(false, "Not allowed IP");
        let apps = json!({"applications": [APP]});
        for (name, node, headers, status, want) in [
            ("from here", &plain, vec![], 403, &login),
            ("a token nobody asked for", &plain, vec![("ProxyAuthorization", &*good)], 403, &login),
            ("no token", &keyed, vec![], 403, &login),
            ("a token", &keyed, vec![friend, ("ProxyAuthorization", &*good)], 200, &apps),
            ("a token from elsewhere", &keyed, vec![stranger, ("ProxyAuthorization", &*good)], 403, &ip),
            ("another key's", &keyed, vec![("ProxyAuthorization", &*wrong)], 403, &token),
        ] {
            let got = http::send("GET", &node.url("/rest/v2/applications"), &headers, "").await?;
            ensure!(got.status == status && got.json() == *want, "{name}: {got:?}");
        }
        for path in ["/rest/v2/liveness", "/readyz", "/healthz", "/"] {
            let alive = http::send("GET", &keyed.url(path), &[stranger], "").await?;
            ensure!(alive.status == 200, "{path}: {alive:?}");
        }
        Ok(())
    });
}
