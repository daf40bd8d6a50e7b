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
fn client_with_a_session_gets_every_channel() {
    let decision = decide(&gateway(), "s1", &["default", "bob", "admin-log"]);
    assert_eq!((&*decision.to_string(), decision.reason()), ("allowed alice", Some("alice: 3 channels")));
    assert!(decision.channels().is_none() && decision.headers().is_empty());
    assert_eq!(decide(&gateway(), "twice", &["x"]).subject(), Some("alice"));
}

#[test]
fn client_without_a_session_is_rejected() {
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
fn failed_lookup_answers_503() {
    for (gateway, reason) in [
        (gateway().denied("session:"), "look-up denied"),
        (gateway().store_unavailable(), "look-up unavailable"),
        (gateway().set("session:s1", []), "look-up unavailable"),
    ] {
        let decision = decide(&gateway, "s1", &["default"]);
        assert_eq!((&*decision.to_string(), decision.reason()), ("503 Try again", Some(reason)));
    }
}
