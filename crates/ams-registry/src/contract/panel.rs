//! Contract: the panel's users, and what nodes share about logins.

use serde_json::{Value, json};

use super::bench::{Bench, NOW};
use crate::RegistryError;
use crate::panel::{SHARED_LEN_MAX, Swap};
use crate::record::JsonMap;

fn map(value: Value) -> JsonMap {
    if let Value::Object(map) = value { map } else { JsonMap::new() }
}

fn user(email: &str) -> JsonMap {
    map(
        json!({ "email": email, "password": "p", "appNameUserType": { "system": "ADMIN" }, "theirs": [1], "none": null }),
    )
}

pub(super) async fn a_user_is_made_once_and_edited_field_by_field(bench: &Bench) {
    assert!(!bench.a.has_users().await.unwrap());
    assert!(bench.a.create_user(&user("b@x"), false).await.unwrap());
    assert!(bench.b.create_user(&user("a@x"), false).await.unwrap());
    assert!(!bench.b.create_user(&user("b@x"), false).await.unwrap(), "there is one");
    assert!(bench.b.has_users().await.unwrap());
    let nameless = bench.a.create_user(&map(json!({ "password": "p" })), false).await;
    assert!(matches!(nameless, Err(RegistryError::InvalidRequest { .. })), "{nameless:?}");
    let names: Vec<_> = bench.b.list_users().await.unwrap().iter().map(|user| user["email"].clone()).collect();
    assert_eq!(names, ["a@x", "b@x"]);

    let none = JsonMap::new();
    let set = map(json!({ "password": "q", "firstName": "B", "theirs": null, "email": "c@x", "$bad": 1, "a.b": 2 }));
    for (name, email, condition, written) in [
        ("nobody", "z@x", json!({}), false),
        ("names are exact", "B@x", json!({}), false),
        ("changed meanwhile", "b@x", json!({ "password": "other" }), false),
        ("made meanwhile", "b@x", json!({ "password": "p", "passwordArgon2": "x" }), false),
        ("gone meanwhile", "b@x", json!({ "password": null }), false),
        ("as it was read", "b@x", json!({ "password": "p", "passwordArgon2": null }), true),
    ] {
        assert_eq!(bench.a.edit_user(email, &set, &map(condition)).await.unwrap(), written, "{name}");
    }
    let found = bench.b.find_user("b@x").await.unwrap().unwrap();
    let want = json!({ "email": "b@x", "password": "q", "appNameUserType": { "system": "ADMIN" }, "firstName": "B" });
    assert_eq!(Value::Object(found), want);
    assert!(bench.a.edit_user("b@x", &none, &none).await.unwrap(), "nothing is written, and nothing is wrong");

    assert!(bench.b.delete_user("b@x").await.unwrap());
    assert!(!bench.a.delete_user("b@x").await.unwrap());
    assert!(bench.a.find_user("b@x").await.unwrap().is_none());
    assert_eq!(bench.a.find_user("a@x").await.unwrap().unwrap()["theirs"], json!([1]));
}

pub(super) async fn of_many_first_users_one_is(bench: &Bench) {
    let made =
        async |registry: &dyn crate::Registry, email: &str| registry.create_user(&user(email), true).await.unwrap();
    let made = tokio::join!(
        made(&*bench.a, "a@x"),
        made(&*bench.b, "b@x"),
        made(&*bench.a, "c@x"),
        made(&*bench.b, "d@x"),
        made(&*bench.a, "e@x"),
    );
    let made = [made.0, made.1, made.2, made.3, made.4];
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
    let email = bench.a.list_users().await.unwrap().pop().unwrap()["email"].as_str().unwrap().to_owned();
    assert!(!bench.a.create_user(&user("f@x"), true).await.unwrap());
    assert!(bench.b.delete_user(&email).await.unwrap());
    assert!(bench.a.create_user(&user("f@x"), true).await.unwrap(), "nobody is there any more");
}

pub(super) async fn shared_entries_are_compared_and_set(bench: &Bench) {
    let swap = |value: &str, version| Swap { name: "n".into(), value: value.into(), version, until_ms: None };
    let names = ["n".to_owned(), "nothing".to_owned()];
    assert!(bench.a.get_shared(&names).await.unwrap().is_empty());
    let made =
        async |registry: &dyn crate::Registry, value: &str| registry.swap_shared(&swap(value, 0), NOW).await.unwrap();
    let made = tokio::join!(made(&*bench.a, "1"), made(&*bench.b, "2"), made(&*bench.a, "3"), made(&*bench.b, "4"));
    let made = [made.0, made.1, made.2, made.3];
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
    let winner = made.iter().position(|made| *made).unwrap() + 1;
    let read = bench.b.get_shared(&names).await.unwrap();
    assert_eq!((read.len(), read[0].name.as_str(), read[0].value.clone()), (1, "n", winner.to_string()));
    assert!(!format!("{read:?}").contains("value"), "it may be a key");
    let version = read[0].version;
    assert!(bench.a.swap_shared(&swap("later", version), NOW).await.unwrap());
    assert!(!bench.b.swap_shared(&swap("too late", version), NOW).await.unwrap());
    assert!(!bench.b.swap_shared(&swap("not the first", 0), NOW).await.unwrap());
    let read = bench.b.get_shared(&names).await.unwrap();
    assert_eq!((read[0].value.as_str(), read[0].version), ("later", version + 1));
    let long = bench.a.swap_shared(&swap(&"x".repeat(SHARED_LEN_MAX + 1), version + 1), NOW).await;
    assert!(matches!(long, Err(RegistryError::InvalidRequest { .. })), "{long:?}");
}

pub(super) async fn shared_entries_are_forgotten_after_their_end(bench: &Bench) {
    let swap = |name: &str, until_ms| Swap { name: name.into(), value: "v".into(), version: 0, until_ms };
    assert!(bench.a.swap_shared(&swap("past", Some(NOW - 1)), NOW - 10).await.unwrap());
    let far = NOW + 400 * 86_400_000;
    assert!(bench.a.swap_shared(&swap("coming", Some(far)), NOW).await.unwrap());
    assert!(bench.a.swap_shared(&swap("always", None), NOW).await.unwrap());
    let names = ["past", "coming", "always"].map(str::to_owned);
    // MongoDB sweeps now and then.
    for _ in 0..200 {
        if bench.b.get_shared(&names).await.unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let mut left: Vec<_> = bench.b.get_shared(&names).await.unwrap().into_iter().map(|shared| shared.name).collect();
    left.sort();
    assert_eq!(left, ["always", "coming"]);
}
