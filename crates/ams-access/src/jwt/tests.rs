//! Known tokens, every refusal, and hostile text.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use proptest::prelude::*;

use super::*;

/// The payload all examples of RFC 7515 share.
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const EXP: u64 = 1_300_819_380;
/// RFC 7515 appendix A.2.
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
/// RFC 7515 appendix A.3.
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const EC_SIGNATURE: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

fn before_the_end() -> Check {
    Check::at(UnixMs::from_secs(EXP - 1)).leeway(Duration::ZERO)
}

fn key() -> Hs256Key {
    Hs256Key::new(&"0123456789abcdef0123456789abcdef".into()).unwrap()
}

fn rfc_set() -> Jwks {
    let set = format!(
        r#"{{"keys":[{{"kty":"RSA","kid":"r","n":"{RSA_N}","e":"AQAB"}},
            {{"kty":"EC","kid":"e","crv":"P-256","x":"{EC_X}","y":"{EC_Y}","use":"sig"}}]}}"#
    );
    Jwks::parse(set.as_bytes()).unwrap()
}

/// A token with this header and payload, signed with [`key`].
fn signed(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
    let signature = BASE64.encode(key().0.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[test]
fn the_examples_of_rfc_7515_pass() {
    let secret = BASE64
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let hs256 = Hs256Key(MacKey::new(&secret));
    let token =
        format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    let claims = hs256.verify(&token, &before_the_end()).unwrap();
    assert_eq!((claims.exp, claims.text("iss")), (Some(EXP), Some("joe")));

    for token in [
        format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.{RSA_SIGNATURE}"),
        format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.{EC_SIGNATURE}"),
    ] {
        assert_eq!(rfc_set().verify(&token, &before_the_end()).unwrap().text("iss"), Some("joe"), "{token}");
        let changed = token.replacen(PAYLOAD, &PAYLOAD.replacen("eyJpc3Mi", "eyJpc3Ni", 1), 1);
        assert_eq!(rfc_set().verify(&changed, &before_the_end()), Err(JwtError::Signature));
    }
}

#[test]
fn what_is_signed_is_verified() {
    let claims = Claims::until(100).and("streamId", "stream1").and("type", "play");
    let token = key().sign(&claims);
    assert_eq!(key().verify(&token, &Check::at(UnixMs::from_secs(10))).unwrap(), claims);
    let other = Hs256Key::new(&"x".repeat(32).into()).unwrap();
    assert_eq!(other.verify(&token, &Check::at(UnixMs::from_secs(10))), Err(JwtError::Signature));
}

#[test]
fn the_algorithm_is_the_keys() {
    let claims = r#"{"streamId":"stream1"}"#;
    let check = Check::at(UnixMs(0));
    for alg in ["none", "None", "hs256", "HS384", "HS512", "RS256", "ES256", ""] {
        let token = signed(&format!(r#"{{"alg":"{alg}"}}"#), claims);
        assert_eq!(key().verify(&token, &check), Err(JwtError::Algorithm { expected: "HS256" }), "{alg}");
    }
    let unsigned = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims));
    assert!(key().verify(&unsigned, &check).is_err());
    // The classic confusion: the public key's text as an HMAC key.
    let confused = signed(r#"{"alg":"HS256","kid":"r"}"#, claims);
    assert_eq!(rfc_set().verify(&confused, &check), Err(JwtError::Algorithm { expected: "RS256 or ES256" }));
    let swapped = format!("{}.{PAYLOAD}.{EC_SIGNATURE}", BASE64.encode(r#"{"alg":"RS256","kid":"e"}"#));
    assert_eq!(rfc_set().verify(&swapped, &before_the_end()), Err(JwtError::UnknownKey), "an EC key is not for RS256");
}

#[test]
fn dates_count_with_their_leeway() {
    let ten = Duration::from_secs(10);
    for (name, payload, now, want) in [
        ("before exp", r#"{"exp":100}"#, 99, None),
        ("at exp, within leeway", r#"{"exp":100}"#, 109, None),
        ("past both", r#"{"exp":100}"#, 110, Some(JwtError::Expired { ago_secs: 10 })),
        ("before nbf", r#"{"nbf":100}"#, 89, Some(JwtError::NotYetValid { in_secs: 11 })),
        ("before nbf, within leeway", r#"{"nbf":100}"#, 90, None),
        ("a fraction", r#"{"exp":100.5}"#, 99, None),
        ("negative", r#"{"exp":-1}"#, 99, Some(JwtError::Expired { ago_secs: 99 })),
        ("huge", r#"{"exp":1e300,"nbf":0}"#, 99, None),
        ("a huge nbf", r#"{"nbf":18446744073709551615}"#, 0, Some(JwtError::NotYetValid { in_secs: u64::MAX })),
        ("null is none", r#"{"exp":null}"#, 99, None),
        ("text is no date", r#"{"exp":"100"}"#, 99, Some(JwtError::Malformed { part: "payload" })),
        ("a list is no date", r#"{"exp":[]}"#, 99, Some(JwtError::Malformed { part: "payload" })),
        ("twice", r#"{"exp":1,"exp":1000}"#, 99, Some(JwtError::Malformed { part: "payload" })),
        ("no object", "[]", 99, Some(JwtError::Malformed { part: "payload" })),
    ] {
        let token = signed(r#"{"alg":"HS256"}"#, payload);
        let check = Check::at(UnixMs::from_secs(now)).leeway(ten);
        assert_eq!(key().verify(&token, &check).err(), want, "{name}");
    }
    let endless = key().sign(&Claims::default());
    assert!(key().verify(&endless, &Check::at(UnixMs(0))).is_ok());
    assert_eq!(key().verify(&endless, &Check::at(UnixMs(0)).with_expiry()), Err(JwtError::NoExpiry));
}

#[test]
fn malformed_tokens_are_refused_by_part() {
    let good = key().sign(&Claims::until(100));
    let check = Check::at(UnixMs(0));
    let malformed = |part| JwtError::Malformed { part };
    for (name, token, want) in [
        ("empty", String::new(), JwtError::Missing),
        ("one part", "abc".into(), malformed("form")),
        ("two parts", "abc.def".into(), malformed("form")),
        ("four parts", format!("{good}.x"), malformed("form")),
        ("five parts", "a.b.c.d.e".into(), malformed("form")),
        ("header no base64", format!("!{good}"), malformed("header")),
        ("header no JSON", "YWJj.YWJj.YWJj".into(), malformed("header")),
        ("signature no base64", format!("{good}!"), malformed("signature")),
        ("extension", signed(r#"{"alg":"HS256","crit":["exp"]}"#, "{}"), JwtError::Critical),
        ("payload no JSON", signed(r#"{"alg":"HS256"}"#, "{"), malformed("payload")),
        ("too long", "a".repeat(TOKEN_LEN_MAX + 1), JwtError::TooLong { len: TOKEN_LEN_MAX + 1 }),
        ("cut signature", good[..good.len() - 4].into(), JwtError::Signature),
    ] {
        assert_eq!(key().verify(&token, &check), Err(want), "{name}");
    }
}

#[test]
fn weak_keys_are_refused_and_no_key_is_printed() {
    assert_eq!(Hs256Key::new(&"x".repeat(31).into()).unwrap_err(), JwtError::KeyTooShort { len: 31 });
    assert!(Hs256Key::new(&" ".repeat(40).into()).is_err(), "blank is unset");
    assert!(Hs256Key::new(&Secret::default()).is_err());
    assert_eq!(format!("{:?}", key()), "********");
}

#[test]
fn a_header_may_say_bearer() {
    for (header, want) in [
        ("abc", "abc"),
        ("Bearer abc", "abc"),
        ("bearer  abc", "abc"),
        ("  BEARER abc ", "abc"),
        ("Bearer", ""),
        ("", ""),
        ("é", "é"),
        ("béarer x", "béarer x"),
    ] {
        assert_eq!(bearer(header), want, "{header}");
    }
}

#[test]
fn keys_are_chosen_by_kid() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    let token = |header: &str| {
        let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(r#"{"sub":"a"}"#));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    };
    let set = |first: &str, second: &str| {
        let key =
            |kid: &str, x: &str, y: &str| format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"{y}"}}"#);
        Jwks::parse(format!(r#"{{"keys":[{},{}]}}"#, key(first, EC_X, EC_Y), key(second, &x, &y)).as_bytes()).unwrap()
    };
    let check = Check::at(UnixMs(0));
    let (named, nameless) = (token(r#"{"alg":"ES256","kid":"b"}"#), token(r#"{"alg":"ES256"}"#));
    for (name, set, token, want) in [
        ("the second", set("a", "b"), &named, None),
        ("the names swapped", set("b", "a"), &named, Some(JwtError::Signature)),
        ("unknown", set("a", "c"), &named, Some(JwtError::UnknownKey)),
        ("two of that name", set("b", "b"), &named, Some(JwtError::UnknownKey)),
        ("no name, two keys", set("a", "b"), &nameless, Some(JwtError::UnknownKey)),
    ] {
        assert_eq!(set.verify(token, &check).err(), want, "{name}");
    }
    let alone = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}]}}"#);
    assert!(Jwks::parse(alone.as_bytes()).unwrap().verify(&nameless, &check).is_ok(), "no name, one key");
}

#[test]
fn key_sets_keep_what_is_usable() {
    let rsa = format!(r#""kty":"RSA","n":"{RSA_N}","e":"AQAB""#);
    let ec = format!(r#""kty":"EC","crv":"P-256","x":"{EC_X}","y":"{EC_Y}""#);
    for (name, key, usable) in [
        ("RSA", rsa.clone(), true),
        ("RSA for RS256", format!(r#"{rsa},"alg":"RS256""#), true),
        ("RSA for another algorithm", format!(r#"{rsa},"alg":"RS512""#), false),
        ("RSA for encryption", format!(r#"{rsa},"use":"enc""#), false),
        ("RSA to sign with", format!(r#"{rsa},"key_ops":["sign"]"#), false),
        ("RSA too short", r#""kty":"RSA","n":"ofgW","e":"AQAB""#.into(), false),
        ("RSA without e", format!(r#""kty":"RSA","n":"{RSA_N}""#), false),
        ("EC", ec.clone(), true),
        ("EC for RS256", format!(r#"{ec},"alg":"RS256""#), false),
        ("EC of another curve", ec.replace("P-256", "P-384"), false),
        ("EC short", ec.replace(EC_X, "AAAA"), false),
        ("shared secret", r#""kty":"oct","k":"AAAA""#.into(), false),
        ("no kind", r#""kid":"a""#.into(), false),
    ] {
        let set = Jwks::parse(format!(r#"{{"keys":[{{{key}}}]}}"#).as_bytes());
        assert_eq!(set.map(|set| set.len()), if usable { Ok(1) } else { Err(JwksError::NoUsableKey) }, "{name}");
    }
    assert!(matches!(Jwks::parse(b"[]"), Err(JwksError::Malformed)));
    assert!(matches!(Jwks::parse(&vec![b' '; JWKS_LEN_MAX + 1]), Err(JwksError::TooLong { .. })));
    let many = format!(r#"{{"keys":[{}0]}}"#, "0,".repeat(JWKS_KEYS_MAX));
    assert!(matches!(Jwks::parse(many.as_bytes()), Err(JwksError::TooMany { .. })));
}

proptest! {
    #[test]
    fn no_text_panics_and_none_passes(token in r"[\PC.]{0,80}", header in "[a-z]{0,8}.{0,8}") {
        prop_assert!(key().verify(&token, &Check::at(UnixMs(0))).is_err());
        prop_assert!(rfc_set().verify(&token, &Check::at(UnixMs(0))).is_err());
        let _ = Jwks::parse(token.as_bytes());
        bearer(&header);
    }

    #[test]
    fn a_changed_byte_never_passes(at in 0usize..90, to in any::<char>()) {
        let token = key().sign(&Claims::until(100).and("streamId", "s"));
        let mut chars: Vec<char> = token.chars().collect();
        let at = at % chars.len();
        prop_assume!(chars[at] != to);
        chars[at] = to;
        let changed: String = chars.into_iter().collect();
        prop_assert!(key().verify(&changed, &Check::at(UnixMs(0))).is_err());
    }
}
