use tidegate_policy::Request;
use tidegate_policy::testing::{Decision, TestGateway};

use super::authorize;

fn gateway() -> TestGateway {
    TestGateway::new()
        .string("session:s1", r#"{"id":"alice","role":"member"}"#)
        .string("session:twice", r#"{"id":"bob","id":"alice"}"#)
        .string("session:broken", r#"{"id":"alice""#)
        .string("session:no-id", r#"{"role":"admin"}"#)
        .string("session:empty-id", r#"{"id":""}"#)
        .string("session:number", r#"{"id":7}"#)
        .string("session:list", r#"["alice"]"#)
}

fn decide(gateway: &TestGateway, session: &str, channels: &[&str]) -> Decision {
    gateway.decide(authorize, &Request::get("/api/realtime").with_cookie("session", session), channels)
}

#[test]
fn every_channel_requires_a_session() {
    for (session, reason) in [
        ("", "no session"),
        ("mallory", "unknown session"),
        ("broken", "unknown session"),
        ("no-id", "unknown session"),
        ("empty-id", "unknown session"),
        ("number", "unknown session"),
        ("list", "unknown session"),
    ] {
        let decision = decide(&gateway(), session, &["default"]);
        assert_eq!((&*decision.to_string(), decision.reason()), ("401 Unauthorized", Some(reason)), "{session}");
    }
}

#[test]
fn users_get_only_their_own_channels() {
    for channels in [&["default"][..], &["alice"], &["alice-", "alice-inbox", "default"]] {
        for session in ["s1", "twice"] {
            assert_eq!(decide(&gateway(), session, channels).to_string(), "allowed alice", "{channels:?}");
        }
    }
    for channel in ["alice2", "alic", "Alice", "bob", "bob-inbox", "default-2", "s1"] {
        let decision = decide(&gateway(), "s1", &["alice", channel, "bob"]);
        assert_eq!(decision.to_string(), "403 You can only access your own channels", "{channel}");
        assert_eq!(decision.reason(), Some(&*format!("{channel} is not a channel of alice")));
    }
    assert_eq!(decide(&gateway(), "s1", &["default", "alice"]).reason(), Some("alice: 2 channels"));
}

#[test]
fn failed_lookup_answers_503() {
    for (gateway, reason) in [
        (gateway().denied("session:"), "look-up denied"),
        (gateway().store_unavailable(), "look-up unavailable"),
        (gateway().set("session:s1", []), "look-up unavailable"),
    ] {
        let decision = decide(&gateway, "s1", &["bob"]);
        assert_eq!((&*decision.to_string(), decision.reason()), ("503 Try again", Some(reason)));
    }
}
