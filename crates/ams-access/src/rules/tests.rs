//! Every way in and every reason to stay outside.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const NOW: UnixMs = UnixMs(1_000_000_000);
const NOW_SECS: i64 = 1_000_000;

fn rules(json: &str) -> StreamRules {
    StreamRules::new(serde_json::from_str(json).unwrap(), AccessPolicy::default())
}

fn request(purpose: Purpose) -> Request<'static> {
    Request {
        purpose,
        stream_id: "stream1",
        room: None,
        token: None,
        subscriber_id: None,
        subscriber_code: None,
        client: Some("10.0.0.1".parse().unwrap()),
        owner: "me",
        now: NOW,
    }
}

fn denied(verdict: Verdict) -> Denial {
    match verdict {
        Verdict::Denied(denial) => denial,
        other => panic!("{other:?}"),
    }
}

fn allowed(verdict: Verdict) -> Grant {
    match verdict {
        Verdict::Allowed(grant) => grant,
        other => panic!("{other:?}"),
    }
}

fn stored() -> StoredToken {
    StoredToken {
        stream_id: "stream1".into(),
        purpose: "play".into(),
        room_id: None,
        expire_secs: NOW_SECS + 60,
        consumed: None,
    }
}

#[test]
fn by_default_everybody_may() {
    let open = rules("{}");
    for purpose in [Purpose::Publish, Purpose::Play] {
        let request = request(purpose);
        assert_eq!(open.needs(&request), Needs { token: None, subscriber: None, broadcast: true, ingesting: false });
        assert_eq!(open.decide(&request, &Facts::default()), Verdict::Allowed(Grant::default()));
    }
    assert_eq!(open.problems(), []);
}

#[test]
fn publishers_come_from_where_they_may() {
    let near = rules(r#"{"allowedPublisherCIDR":"10.0.0.0/8"}"#);
    let mut far = Request { client: Some("11.0.0.1".parse().unwrap()), ..request(Purpose::Publish) };
    assert_eq!(denied(near.decide(&far, &Facts::default())), Denial::Address);
    allowed(near.decide(&request(Purpose::Publish), &Facts::default()));
    allowed(near.decide(&Request { purpose: Purpose::Play, ..far }, &Facts::default()));
    far.client = None;
    assert_eq!(denied(near.decide(&far, &Facts::default())), Denial::Address, "an unknown address is none of them");

    let broken = rules(r#"{"allowedPublisherCIDR":"10.0.0.0/8,oops"}"#);
    let want = Denial::Misconfigured { setting: "allowedPublisherCIDR" };
    assert_eq!(denied(broken.decide(&request(Purpose::Publish), &Facts::default())), want);
    assert!(broken.problems()[0].1.contains("oops"));
}

#[test]
fn only_registered_streams_are_published() {
    let strict = rules(r#"{"acceptOnlyStreamsInDataStore":true}"#);
    for (broadcast, want) in [
        (Fact::Missing, Some(Denial::Unregistered)),
        (Fact::Unknown, Some(Denial::DataStore)),
        (Fact::Found(BroadcastFacts { viewer_limit: -1, ..BroadcastFacts::default() }), None),
    ] {
        let facts = Facts { broadcast, ..Facts::default() };
        match strict.decide(&request(Purpose::Publish), &facts) {
            Verdict::Denied(denial) => assert_eq!(Some(denial), want),
            other => assert_eq!((other, want), (Verdict::Allowed(Grant::default()), None)),
        }
        allowed(strict.decide(&request(Purpose::Play), &facts));
    }
}

#[test]
fn planned_times_hold() {
    for (name, start, end, created_ms, expires_after_ms, open) in [
        ("none", 0, 0, 0, 0, true),
        ("within", NOW_SECS - 1, NOW_SECS + 1, 0, 0, true),
        ("at the start", NOW_SECS, 0, 0, 0, true),
        ("before the start", NOW_SECS + 1, 0, 0, 0, false),
        ("after the end", 0, NOW_SECS - 1, 0, 0, false),
        ("at the end", 0, NOW_SECS, 0, 0, true),
        ("negative is none", -5, -5, 0, -5, true),
        ("its duration is not over", 0, 0, NOW_SECS * 1000, 1, true),
        ("its duration is over", 0, 0, NOW_SECS * 1000 - 5, 5, false),
        ("hostile numbers", i64::MIN, i64::MAX, i64::MAX, i64::MAX, true),
    ] {
        let broadcast = BroadcastFacts {
            planned_start_secs: start,
            planned_end_secs: end,
            created_ms,
            expires_after_ms,
            viewer_limit: -1,
        };
        let facts = Facts { broadcast: Fact::Found(broadcast), ..Facts::default() };
        for purpose in [Purpose::Publish, Purpose::Play] {
            let verdict = rules("{}").decide(&request(purpose), &facts);
            let want = if open { Verdict::Allowed(Grant::default()) } else { Verdict::Denied(Denial::Window) };
            assert_eq!(verdict, want, "{name}");
        }
    }
}

#[test]
fn a_one_time_token_is_used_up_by_its_session() {
    let strict = rules(r#"{"playTokenControlEnabled":true}"#);
    let token = Secret::from("t1");
    let me = Request { token: Some(&token), ..request(Purpose::Play) };
    assert_eq!(strict.needs(&me).token, Some("t1"));
    assert_eq!(strict.needs(&Request { purpose: Purpose::Publish, ..me }).token, None);
    let used =
        |by: &str, secs_ago: u64| Some(Consumption { by: by.into(), at: NOW.minus(Duration::from_secs(secs_ago)) });
    let consumes = |before| Ok(Some(Consume { before, consumption: Consumption { by: "me".into(), at: NOW } }));
    for (name, stored, room, want) in [
        ("fresh", stored(), None, consumes(None)),
        ("another stream", StoredToken { stream_id: "other".into(), ..stored() }, None, Err(Denial::TokenStream)),
        ("another purpose", StoredToken { purpose: "publish".into(), ..stored() }, None, Err(Denial::TokenPurpose)),
        ("expired", StoredToken { expire_secs: NOW_SECS, ..stored() }, None, Err(Denial::TokenExpired)),
        ("never valid", StoredToken { expire_secs: -1, ..stored() }, None, Err(Denial::TokenExpired)),
        ("mine again", StoredToken { consumed: used("me", 60), ..stored() }, None, consumes(used("me", 60))),
        (
            "mine, after it expired",
            StoredToken { expire_secs: 1, consumed: used("me", 5), ..stored() },
            None,
            consumes(used("me", 5)),
        ),
        ("mine, too late", StoredToken { consumed: used("me", 61), ..stored() }, None, Err(Denial::TokenUsed)),
        ("somebody else's", StoredToken { consumed: used("you", 1), ..stored() }, None, Err(Denial::TokenUsed)),
        ("a room's", StoredToken { room_id: Some("room1".into()), ..stored() }, Some("room1"), Ok(None)),
        ("a room's, the room itself", StoredToken { room_id: Some("stream1".into()), ..stored() }, None, Ok(None)),
        (
            "another room's",
            StoredToken { room_id: Some("room1".into()), ..stored() },
            Some("room2"),
            Err(Denial::TokenStream),
        ),
        (
            "a room's, without a room",
            StoredToken { room_id: Some("room1".into()), ..stored() },
            None,
            Err(Denial::TokenStream),
        ),
        (
            "no room's, in a room of no name",
            StoredToken { room_id: Some(String::new()), ..stored() },
            Some(""),
            consumes(None),
        ),
    ] {
        let facts = Facts { token: Fact::Found(stored), ..Facts::default() };
        let verdict = strict.decide(&Request { room, ..me }, &facts);
        let want = match want {
            Ok(consume) => Verdict::Allowed(Grant { consume, ..Grant::default() }),
            Err(denial) => Verdict::Denied(denial),
        };
        assert_eq!(verdict, want, "{name}");
    }
}

#[test]
fn a_one_time_token_must_be_there() {
    let strict = rules(r#"{"playTokenControlEnabled":true}"#);
    let long = Secret::new("t".repeat(LOOKUP_LEN_MAX + 1));
    let (blank, good) = (Secret::from(" "), Secret::from("t1"));
    for (name, token, fact, want) in [
        ("none", None, Fact::Unknown, Denial::TokenMissing),
        ("blank", Some(&blank), Fact::Found(stored()), Denial::TokenMissing),
        ("unknown", Some(&good), Fact::Missing, Denial::TokenUnknown),
        ("registry away", Some(&good), Fact::Unknown, Denial::DataStore),
        ("long", Some(&long), Fact::Unknown, Denial::TokenUnknown),
    ] {
        let facts = Facts { token: fact, ..Facts::default() };
        assert_eq!(denied(strict.decide(&Request { token, ..request(Purpose::Play) }, &facts)), want, "{name}");
    }
    assert_eq!(strict.needs(&Request { token: Some(&long), ..request(Purpose::Play) }).token, None);
}

#[test]
fn a_jwt_is_for_its_stream_and_purpose() {
    let strict = rules(&format!(r#"{{"playJwtControlEnabled":true,"jwtStreamSecretKey":"{KEY}"}}"#));
    let key = Hs256Key::new(&KEY.into()).unwrap();
    let claims = Claims::until(NOW.secs() + 10);
    let say = |name: &str, value: &str| claims.clone().and("type", "play").and(name, value);
    for (name, claims, want) in [
        ("good", say("streamId", "stream1"), None),
        ("another stream", say("streamId", "stream2"), Some(Denial::TokenStream)),
        ("no stream", claims.clone().and("type", "play"), Some(Denial::TokenStream)),
        (
            "another purpose",
            claims.clone().and("streamId", "stream1").and("type", "publish"),
            Some(Denial::TokenPurpose),
        ),
        ("no purpose", claims.clone().and("streamId", "stream1"), Some(Denial::TokenPurpose)),
        ("the room", say("roomId", "room1"), None),
        ("another room", say("roomId", "room2"), Some(Denial::TokenStream)),
        ("a room of no name", say("roomId", ""), Some(Denial::TokenStream)),
        ("a stream is no room", say("streamId", "room1"), Some(Denial::TokenStream)),
        (
            "expired",
            Claims { exp: Some(1), ..say("streamId", "stream1") },
            Some(Denial::Jwt(JwtError::Expired { ago_secs: NOW.secs() - 1 })),
        ),
    ] {
        let token = Secret::from(key.sign(&claims));
        let me = Request { token: Some(&token), room: Some("room1"), ..request(Purpose::Play) };
        let want = want.map_or(Verdict::Allowed(Grant::default()), Verdict::Denied);
        assert_eq!(strict.decide(&me, &Facts::default()), want, "{name}");
    }
    assert_eq!(denied(strict.decide(&request(Purpose::Play), &Facts::default())), Denial::TokenMissing);
    allowed(strict.decide(&request(Purpose::Publish), &Facts::default()));
    let nameless = Secret::from(key.sign(&say("roomId", "")));
    let me = Request { token: Some(&nameless), room: Some(""), ..request(Purpose::Play) };
    assert_eq!(denied(strict.decide(&me, &Facts::default())), Denial::TokenStream, "no room is nobody's");

    let token = Secret::from(key.sign(&Claims::default().and("streamId", "stream1").and("type", "play")));
    let me = Request { token: Some(&token), ..request(Purpose::Play) };
    allowed(strict.decide(&me, &Facts::default()));
    let policy = AccessPolicy { jwt_expiry_required: true, ..AccessPolicy::default() };
    let stricter = StreamRules::new(strict.settings, policy);
    assert_eq!(denied(stricter.decide(&me, &Facts::default())), Denial::Jwt(JwtError::NoExpiry));
}

#[test]
fn a_check_that_cannot_work_refuses() {
    let token = Secret::from("x");
    for (json, setting) in [
        (r#"{"playJwtControlEnabled":true}"#, "jwtStreamSecretKey"),
        (r#"{"playJwtControlEnabled":true,"jwtStreamSecretKey":"short"}"#, "jwtStreamSecretKey"),
        (r#"{"hashControlPlayEnabled":true,"tokenHashSecret":null}"#, "tokenHashSecret"),
    ] {
        let broken = rules(json);
        let me = Request { token: Some(&token), ..request(Purpose::Play) };
        assert_eq!(denied(broken.decide(&me, &Facts::default())), Denial::Misconfigured { setting }, "{json}");
        assert_eq!(broken.problems()[0].0, setting);
    }
    let code = Secret::from("123456");
    let me = Request { subscriber_id: Some("sub1"), subscriber_code: Some(&code), ..request(Purpose::Play) };
    let facts = Facts { subscriber: Fact::Missing, ..Facts::default() };
    let want = Denial::Misconfigured { setting: "timeTokenSecretForPlay" };
    assert_eq!(denied(rules(r#"{"enableTimeTokenForPlay":true}"#).decide(&me, &facts)), want);
}

#[test]
fn a_hash_fits_stream_and_purpose() {
    let strict = rules(r#"{"hashControlPublishEnabled":true,"tokenHashSecret":"s"}"#);
    let good = Secret::from(hash::token("stream1", Purpose::Publish, &"s".into()));
    let bad = Secret::from(hash::token("stream1", Purpose::Play, &"s".into()));
    let me = request(Purpose::Publish);
    allowed(strict.decide(&Request { token: Some(&good), ..me }, &Facts::default()));
    assert_eq!(denied(strict.decide(&Request { token: Some(&bad), ..me }, &Facts::default())), Denial::Hash);
    assert_eq!(denied(strict.decide(&me, &Facts::default())), Denial::TokenMissing);
}

#[test]
fn codes_are_made_from_whose_secret_there_is() {
    let strict = rules(
        r#"{"enableTimeTokenForPlay":true,"enableTimeTokenForPublish":true,"timeTokenPeriod":30,
            "timeTokenSecretForPlay":"play secret","timeTokenSecretForPublish":"publish secret"}"#,
    );
    let own = Secret::from("GEZDGNBVGY3TQOJQ");
    let with_own = |period| SubscriberFacts { b32_secret: own.clone(), totp_period_secs: period, ..Default::default() };
    let own_code = |secs| TotpSecret::from_base32(&own).unwrap().code(Period::from_secs(secs), NOW);
    let derived = |secret: &str, purpose| {
        TotpSecret::derived(&secret.into(), "sub1", "stream1", purpose).unwrap().code(Period::from_secs(30), NOW)
    };
    let play = derived("play secret", Purpose::Play);
    for (name, purpose, fact, code, want) in [
        ("own", Purpose::Play, Fact::Found(with_own(None)), own_code(30), None),
        ("own, own period", Purpose::Play, Fact::Found(with_own(Some(90))), own_code(90), None),
        ("own, not the application's", Purpose::Play, Fact::Found(with_own(None)), play.clone(), Some(Denial::Code)),
        ("not recorded", Purpose::Play, Fact::Missing, play.clone(), None),
        ("recorded without a secret", Purpose::Play, Fact::Found(SubscriberFacts::default()), play.clone(), None),
        ("publisher", Purpose::Publish, Fact::Missing, derived("publish secret", Purpose::Publish), None),
        ("the viewer's as a publisher", Purpose::Publish, Fact::Missing, play.clone(), Some(Denial::Code)),
        ("registry away", Purpose::Play, Fact::Unknown, play.clone(), None),
        ("registry away, own", Purpose::Play, Fact::Unknown, own_code(30), Some(Denial::DataStore)),
        ("no code", Purpose::Play, Fact::Missing, String::new(), Some(Denial::CodeMissing)),
        (
            "secret of rubbish",
            Purpose::Play,
            Fact::Found(SubscriberFacts { b32_secret: "not base32!".into(), ..Default::default() }),
            play.clone(),
            Some(Denial::SubscriberSecret),
        ),
    ] {
        let code = Secret::from(code);
        let me = Request { subscriber_id: Some("sub1"), subscriber_code: Some(&code), ..request(purpose) };
        assert_eq!(strict.needs(&me).subscriber, Some("sub1"));
        let verdict = strict.decide(&me, &Facts { subscriber: fact, ..Facts::default() });
        let proven = Verdict::Allowed(Grant { subscriber_proven: true, ..Grant::default() });
        assert_eq!(verdict, want.map_or(proven, Verdict::Denied), "{name}");
    }
    let code = Secret::from(play);
    let long = "s".repeat(LOOKUP_LEN_MAX + 1);
    for id in [None, Some(""), Some(" "), Some(long.as_str())] {
        let me = Request { subscriber_id: id, subscriber_code: Some(&code), ..request(Purpose::Play) };
        let facts = Facts { subscriber: Fact::Missing, ..Facts::default() };
        assert_eq!(denied(strict.decide(&me, &facts)), Denial::SubscriberMissing);
    }
}

#[test]
fn subscribers_do_what_they_are_registered_for() {
    let strict = rules(r#"{"enableTimeTokenForPlay":true,"enableTimeTokenForPublish":true}"#);
    let own = Secret::from("GEZDGNBVGY3TQOJQ");
    let code = Secret::from(TotpSecret::from_base32(&own).unwrap().code(Period::DEFAULT, NOW));
    for (name, purpose, word, sessions, sessions_max, want) in [
        ("a viewer plays", Purpose::Play, "play", 0, 1, None),
        ("a viewer publishes", Purpose::Publish, "play", 0, 1, Some(Denial::SubscriberPurpose)),
        ("a publisher plays", Purpose::Play, "publish", 0, 1, None),
        ("a word we do not know", Purpose::Play, "watch", 0, 1, Some(Denial::SubscriberPurpose)),
        ("nothing said", Purpose::Publish, "", 0, 1, None),
        ("a second session", Purpose::Play, "play", 1, 1, Some(Denial::SubscriberSessions)),
        ("no limit", Purpose::Play, "play", 9, 0, None),
        ("no limit either", Purpose::Play, "play", 9, -1, None),
    ] {
        let subscriber = SubscriberFacts {
            b32_secret: own.clone(),
            purpose: Some(word.into()),
            sessions,
            sessions_max,
            ..Default::default()
        };
        let me = Request { subscriber_id: Some("sub1"), subscriber_code: Some(&code), ..request(purpose) };
        let verdict = strict.decide(&me, &Facts { subscriber: Fact::Found(subscriber), ..Facts::default() });
        let proven = Verdict::Allowed(Grant { subscriber_proven: true, ..Grant::default() });
        assert_eq!(verdict, want.map_or(proven, Verdict::Denied), "{name}");
    }
}

#[test]
fn blocked_subscribers_stay_outside_whatever_is_enabled() {
    let until = NOW.plus(Duration::from_secs(1));
    for (name, word, until, purpose, blocked) in [
        ("from playing", "play", until, Purpose::Play, true),
        ("from playing only", "play", until, Purpose::Publish, false),
        ("from both", "publish_play", until, Purpose::Publish, true),
        ("to this moment", "play", NOW, Purpose::Play, true),
        ("no longer", "play", UnixMs(NOW.0 - 1), Purpose::Play, false),
        ("never", "play", UnixMs(0), Purpose::Play, false),
    ] {
        let subscriber =
            SubscriberFacts { blocked_purpose: Some(word.into()), blocked_until: until, ..Default::default() };
        let me = Request { subscriber_id: Some("sub1"), ..request(purpose) };
        let verdict = rules("{}").decide(&me, &Facts { subscriber: Fact::Found(subscriber), ..Facts::default() });
        let denial = Verdict::Denied(Denial::Blocked { until });
        assert_eq!(verdict, if blocked { denial } else { Verdict::Allowed(Grant::default()) }, "{name}");
    }
}

#[test]
fn limits_hold() {
    let limited = rules(r#"{"webRTCViewerLimit":10,"ingestingStreamLimit":2}"#);
    for (name, own, viewers, full) in [
        ("room", -1, 9, false),
        ("full", -1, 10, true),
        ("own limit is higher", 20, 10, false),
        ("own limit is lower", 5, 5, true),
        ("nobody may", 0, 0, true),
    ] {
        let broadcast = Fact::Found(BroadcastFacts { viewer_limit: own, ..BroadcastFacts::default() });
        let verdict = limited.decide(&request(Purpose::Play), &Facts { broadcast, viewers, ..Facts::default() });
        let want = if full { Verdict::Denied(Denial::ViewerLimit) } else { Verdict::Allowed(Grant::default()) };
        assert_eq!(verdict, want, "{name}");
    }
    let me = request(Purpose::Publish);
    assert!(limited.needs(&me).ingesting);
    allowed(limited.decide(&me, &Facts { ingesting: Some(1), ..Facts::default() }));
    let full = Facts { ingesting: Some(2), ..Facts::default() };
    assert_eq!(denied(limited.decide(&me, &full)), Denial::IngestLimit);
}

#[test]
fn the_webhook_has_the_last_word_and_is_asked_last() {
    let hooked =
        rules(r#"{"webhookAuthenticateURL":"http://a/","webhookPlayAuthUrl":" ","publishTokenControlEnabled":true}"#);
    let token = Secret::from("t1");
    let me = Request { token: Some(&token), ..request(Purpose::Publish) };
    let stored = StoredToken { purpose: "publish".into(), ..stored() };
    let mut facts = Facts { token: Fact::Missing, ..Facts::default() };
    assert_eq!(denied(hooked.decide(&me, &facts)), Denial::TokenUnknown, "nobody is asked about strangers");
    facts.token = Fact::Found(stored);
    assert_eq!(hooked.decide(&me, &facts), Verdict::Ask { url: "http://a/".into() });
    facts.webhook = Some(false);
    assert_eq!(denied(hooked.decide(&me, &facts)), Denial::Webhook);
    facts.webhook = Some(true);
    assert!(allowed(hooked.decide(&me, &facts)).consume.is_some());
    allowed(hooked.decide(&request(Purpose::Play), &Facts::default()));
}

#[test]
fn what_the_rules_make_they_accept() {
    let strict = rules(&format!(
        r#"{{"playJwtControlEnabled":true,"jwtStreamSecretKey":"{KEY}","enableTimeTokenForPlay":true,
            "timeTokenSecretForPlay":"secret"}}"#
    ));
    let code = Secret::from(strict.code(None, "sub1", "stream1", Purpose::Play, NOW).unwrap());
    for (room, stream_id) in [(None, "stream1"), (Some("stream1"), "stream2")] {
        let token = strict.sign_jwt(stream_id, Purpose::Play, room, NOW.secs() + 1).unwrap();
        let me = Request {
            token: Some(&token),
            subscriber_id: Some("sub1"),
            subscriber_code: Some(&code),
            ..request(Purpose::Play)
        };
        let facts = Facts { subscriber: Fact::Missing, ..Facts::default() };
        assert!(allowed(strict.decide(&me, &facts)).subscriber_proven);
    }
    let unset = rules("{}");
    let jwt = unset.sign_jwt("stream1", Purpose::Play, None, 1).unwrap_err();
    assert_eq!(jwt, Denial::Misconfigured { setting: "jwtStreamSecretKey" });
    let code = unset.code(None, "sub1", "stream1", Purpose::Publish, NOW).unwrap_err();
    assert_eq!(code, Denial::Misconfigured { setting: "timeTokenSecretForPublish" });
}

#[test]
fn denials_speak_amss_words() {
    for (denial, word) in [
        (Denial::Address, "unauthorized_access"),
        (Denial::Unregistered, "not_allowed_unregistered_streams"),
        (Denial::Window, "stream_not_active_or_expired"),
        (Denial::TokenMissing, "unauthorized_access"),
        (Denial::Jwt(JwtError::Signature), "unauthorized_access"),
        (Denial::Blocked { until: UnixMs(1) }, "user_blocked"),
        (Denial::ViewerLimit, "viewerLimitReached"),
        (Denial::IngestLimit, "highResourceUsage"),
        (Denial::DataStore, "data_store_not_available"),
        (Denial::Webhook, "unauthorized_access"),
    ] {
        assert_eq!(denial.wire_name(), word);
        assert!(!denial.to_string().is_empty());
    }
}

#[test]
fn no_secret_of_the_settings_is_printed() {
    let json = r#"{"jwtStreamSecretKey":"hunter2","tokenHashSecret":"hunter2","timeTokenSecretForPlay":"hunter2",
        "timeTokenSecretForPublish":"hunter2","hashControlPlayEnabled":true}"#;
    let (token, rules) = (Secret::from("hunter2"), rules(json));
    let me = Request { token: Some(&token), subscriber_code: Some(&token), ..request(Purpose::Play) };
    let verdict = rules.decide(&me, &Facts::default());
    assert!(!format!("{rules:?} {me:?} {verdict:?} {}", denied(verdict.clone())).contains("hunter2"));
}

proptest! {
    #[test]
    fn no_token_passes_by_accident(text in r"\PC{0,100}", id in r"\PC{0,20}", room in r"\PC{0,20}", now: u64) {
        let strict = rules(&format!(
            r#"{{"playJwtControlEnabled":true,"jwtStreamSecretKey":"{KEY}","enableTimeTokenForPublish":true,
                "timeTokenSecretForPublish":"{KEY}"}}"#
        ));
        let text = Secret::from(text);
        for purpose in [Purpose::Play, Purpose::Publish] {
            let me = Request {
                token: Some(&text),
                room: Some(&room),
                subscriber_id: Some(&id),
                subscriber_code: Some(&text),
                now: UnixMs(now),
                ..request(purpose)
            };
            let facts = Facts { subscriber: Fact::Missing, ..Facts::default() };
            prop_assert!(matches!(strict.decide(&me, &facts), Verdict::Denied(_)));
        }
    }
}

#[test]
fn an_application_is_open_that_asks_for_nothing() {
    for (json, publish, play) in [
        ("{}", true, true),
        (r#"{"webRTCViewerLimit":5}"#, true, false),
        (r#"{"ingestingStreamLimit":5}"#, false, true),
        (r#"{"acceptOnlyStreamsInDataStore":true}"#, false, true),
        (r#"{"allowedPublisherCIDR":"10.0.0.0/8"}"#, false, true),
        (r#"{"allowedPublisherCIDR":"nonsense"}"#, false, true),
        (r#"{"webhookPlayAuthUrl":"http://a/"}"#, true, false),
        (r#"{"publishTokenControlEnabled":true}"#, false, true),
        (r#"{"timeTokenSubscriberOnly":true}"#, true, false),
    ] {
        let rules = rules(json);
        assert_eq!((rules.is_open(Purpose::Publish), rules.is_open(Purpose::Play)), (publish, play), "{json}");
    }
}
