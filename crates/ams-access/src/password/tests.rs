//! Every stored form with every sent form, and what resets look like.

use proptest::prelude::*;

use super::*;

/// Cheap: these tests are not about cost.
fn policy() -> PasswordPolicy {
    PasswordPolicy { cost: ArgonCost { memory_kib: 8, passes: 1, lanes: 1 }, ..PasswordPolicy::default() }
}

fn legacy(password: impl Into<Secret>) -> StoredPassword {
    StoredPassword { password: password.into(), ..StoredPassword::default() }
}

fn login(stored: &StoredPassword, sent: &str) -> PasswordVerdict {
    check(stored, &sent.into(), &policy())
}

#[test]
fn sums_are_as_everywhere() {
    assert_eq!(md5_hex(""), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(md5_hex("password"), "5f4dcc3b5aa765d61d8327deb882cf99");
}

#[test]
fn all_of_amss_forms_are_read() {
    let (once, twice) = (md5_hex("secret"), md5_hex(&md5_hex("secret")));
    for (name, stored, sent, ok) in [
        ("the panel", twice.as_str(), once.as_str(), true),
        ("a client that sends what is typed", &twice, "secret", true),
        ("a reset by the book, the panel", &once, &once, true),
        ("a reset by the book, what is typed", &once, "secret", true),
        ("upper case in the database", &twice.to_uppercase(), &once, true),
        ("blanks in the database", &format!(" {twice}\n"), &once, true),
        ("another password", &twice, &md5_hex("Secret"), false),
        ("what is typed in plain in the database", "secret", "secret", false),
        ("empty", &twice, "", false),
        ("nothing stored", "", "", false),
        ("nothing stored, something sent", "", "secret", false),
        ("the sum of nothing stored", "", &md5_hex(""), false),
        ("long", &twice, &"s".repeat(PASSWORD_LEN_MAX + 1), false),
    ] {
        let verdict = login(&legacy(stored), sent);
        assert_eq!((verdict.ok, verdict.must_rehash, verdict.reset_seen), (ok, ok, false), "{name}");
        let strict = PasswordPolicy { accept_single_md5: false, ..policy() };
        let by_the_book = stored == once;
        assert_eq!(check(&legacy(stored), &sent.into(), &strict).ok, ok && !by_the_book, "{name}, strictly");
    }
}

#[test]
fn after_the_first_login_argon_decides() {
    let (once, twice) = (md5_hex("secret"), md5_hex(&md5_hex("secret")));
    for stored in [&once, &twice] {
        for sent in [once.as_str(), "secret"] {
            let verdict = login(&legacy(stored.as_str()), sent);
            let new = NewPassword::make(&verdict.canonical.unwrap(), [7; 16], &policy());
            assert_eq!(new.password.expose(), twice, "AMS's panel can log in, whatever stood there before");
            let stored = new.stored();
            for again in [once.as_str(), "secret"] {
                let verdict = login(&stored, again);
                assert_eq!((verdict.ok, verdict.must_rehash, verdict.reset_seen), (true, false, false), "{again}");
            }
            for wrong in [twice.as_str(), "Secret", ""] {
                assert!(!login(&stored, wrong).ok, "what is in the database is no password: {wrong}");
            }
        }
    }
}

#[test]
fn a_reset_by_hand_counts() {
    let new = NewPassword::make(&Canonical::of_sent(&"old".into()), [7; 16], &policy());
    let reset = StoredPassword { password: md5_hex("new").into(), ..new.stored() };
    for (sent, ok) in [("new", true), (&md5_hex("new"), true), ("old", false), (&md5_hex("old"), false)] {
        let verdict = login(&reset, sent);
        assert_eq!((verdict.ok, verdict.must_rehash, verdict.reset_seen), (ok, ok, true), "{sent}");
    }
    let emptied = StoredPassword { password: Secret::default(), ..new.stored() };
    assert!(!login(&emptied, "old").ok, "who empties the field locks the user out");
    assert!(login(&emptied, "old").reset_seen);
}

#[test]
fn the_old_field_can_be_retired() {
    let strict = PasswordPolicy { legacy: LegacyField::Retired, ..policy() };
    let kept = NewPassword::make(&Canonical::of_sent(&"secret".into()), [7; 16], &policy()).stored();
    let verdict = check(&kept, &"secret".into(), &strict);
    assert!(verdict.must_rehash, "so that the old sum goes");
    let retired = NewPassword::make(&verdict.canonical.unwrap(), [8; 16], &strict).stored();
    assert!(retired.password.expose().starts_with("retired:"));
    let verdict = check(&retired, &"secret".into(), &strict);
    assert_eq!((verdict.ok, verdict.must_rehash, verdict.reset_seen), (true, false, false));
    assert!(!check(&retired, &retired.password, &strict).ok);
    let reset = StoredPassword { password: md5_hex("new").into(), ..retired };
    assert!(check(&reset, &"new".into(), &strict).reset_seen);
}

#[test]
fn a_new_cost_is_taken_up() {
    let stored = NewPassword::make(&Canonical::of_sent(&"secret".into()), [7; 16], &policy()).stored();
    let dearer = PasswordPolicy { cost: ArgonCost { memory_kib: 16, passes: 1, lanes: 1 }, ..policy() };
    assert!(check(&stored, &"secret".into(), &dearer).must_rehash);
    assert!(!check(&stored, &"wrong".into(), &dearer).must_rehash);
}

#[test]
fn a_hash_that_cannot_be_read_is_none() {
    let mut stored = NewPassword::make(&Canonical::of_sent(&"secret".into()), [7; 16], &policy()).stored();
    stored.argon2 = "$argon2id$v=19$m=4294967295,t=1,p=1$AAAA$AAAA".into();
    let verdict = login(&stored, "secret");
    assert_eq!((verdict.ok, verdict.must_rehash), (true, true));
}

#[test]
fn versions_follow_the_fields() {
    let one = NewPassword::make(&Canonical::of_sent(&"a".into()), [1; 16], &policy()).stored();
    assert_eq!(one.version(), one.clone().version());
    let reset = StoredPassword { password: "x".into(), ..one.clone() };
    assert_ne!(one.version(), reset.version());
    assert_ne!(legacy("a").version(), legacy("b").version());
}

#[test]
fn nobody_has_no_password() {
    assert_eq!(check_nobody(&"é".repeat(PASSWORD_LEN_MAX).into(), &policy()), PasswordVerdict::default());
}

#[test]
fn no_password_is_printed() {
    let new = NewPassword::make(&Canonical::of_sent(&"hunter2".into()), [1; 16], &policy());
    let verdict = login(&new.stored(), "hunter2");
    let printed = format!("{new:?} {verdict:?} {:?}", new.stored());
    for secret in ["hunter2", "$argon2id", &md5_hex("hunter2"), &md5_hex(&md5_hex("hunter2"))] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

proptest! {
    #[test]
    fn only_the_password_passes(password in r"\PC{1,40}", other in r"\PC{0,40}") {
        prop_assume!(password != other && md5_hex(&password) != other && password != md5_hex(&other));
        let stored = NewPassword::make(&Canonical::of_sent(&password.clone().into()), [1; 16], &policy()).stored();
        prop_assert!(login(&stored, &password).ok);
        prop_assert!(!login(&stored, &other).ok);
        prop_assert!(!login(&legacy(stored.password), &other).ok);
    }
}
