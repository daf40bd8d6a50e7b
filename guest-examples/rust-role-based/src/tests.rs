use tidegate_policy::Request;
use tidegate_policy::testing::{Decision, TestGateway};

use super::authorize;

/// alice in team red, bob in team blue, root with the role admin, and a few invalid sessions.
fn gateway() -> TestGateway {
    TestGateway::new()
        .string("session:alice", r#"{"id":"alice","role":"member"}"#)
        .string("session:bob", r#"{"id":"bob"}"#)
        .string("session:root", r#"{"role":"admin","id":"root","since":3}"#)
        .string("session:odd-role", r#"{"id":"bob","role":["admin"]}"#)
        .string("session:twice", r#"{"id":"bob","id":"alice"}"#)
        .string("session:broken", r#"{"id":"alice""#)
        .string("session:trailing", r#"{"id":"alice"} x"#)
        .string("session:no-id", r#"{"role":"admin"}"#)
        .string("session:empty-id", r#"{"id":"","role":"admin"}"#)
        .string("session:number", r#"{"id":7}"#)
        .string("session:list", r#"["alice","admin"]"#)
        .string("session:nothing", "")
        .set("team:red:members", ["alice"])
        .set("team:blue:members", ["bob"])
}

fn decide(gateway: &TestGateway, session: &str, channels: &[&str]) -> Decision {
    gateway.decide(authorize, &Request::get("/api/realtime").with_cookie("session", session), channels)
}

#[track_caller]
fn check(session: &str, channels: &[&str], expect: &str) {
    assert_eq!(decide(&gateway(), session, channels).to_string(), expect);
}

const UNAUTHORIZED: &str = "401 Unauthorized";
const ADMIN: &str = "403 Admin access required";
const TEAM: &str = "403 Not a team member";
const OWN: &str = "403 You can only access your own channels";

#[test]
fn every_channel_requires_a_session() {
    let without = gateway().decide(authorize, &Request::get("/api/realtime"), &["default"]);
    assert_eq!((&*without.to_string(), without.reason()), (UNAUTHORIZED, Some("no session")));
    for session in ["", "mallory", "broken", "trailing", "no-id", "empty-id", "number", "list", "nothing"] {
        check(session, &["default"], UNAUTHORIZED);
        check(session, &["admin-x"], UNAUTHORIZED);
    }
    assert_eq!(decide(&gateway(), "mallory", &["default"]).reason(), Some("unknown session"));
}

#[test]
fn channels_are_allowed_by_user_role_and_team() {
    check("alice", &["default"], "allowed alice");
    check("alice", &["alice"], "allowed alice");
    check("twice", &["alice"], "allowed alice");
    check("alice", &["alice-", "alice-inbox", "default", "team-red"], "allowed alice");
    check("alice", &["alice2"], OWN);
    check("alice", &["alic"], OWN);
    check("alice", &["Alice"], OWN);
    check("alice", &["bob-inbox"], OWN);
    check("alice", &["default-2"], OWN);
    check("alice", &["team"], OWN);
    check("alice", &["admin"], OWN);
    check("alice", &["admin-log"], ADMIN);
    check("alice", &["admin-"], ADMIN);
    check("odd-role", &["admin-log"], ADMIN);
    check("root", &["admin-log", "root", "default"], "allowed root");
    check("bob", &["team-blue"], "allowed bob");
    check("bob", &["team-red"], TEAM);
    check("root", &["team-red"], TEAM);
    check("alice", &["team-"], TEAM);
    check("root", &["alice-inbox"], OWN);
}

#[test]
fn first_failing_channel_determines_the_rejection() {
    check("alice", &["default", "admin-log", "team-blue", "bob"], ADMIN);
    check("alice", &["team-red", "team-blue", "admin-log"], TEAM);
    check("alice", &["bob", "admin-log"], OWN);
}

#[test]
fn failed_lookup_answers_503() {
    for (gateway, reason) in [
        (gateway().denied("team:"), "look-up denied"),
        (gateway().unavailable("team:"), "look-up unavailable"),
        (gateway().set("session:alice", []), "look-up unavailable"),
        (gateway().store_unavailable(), "look-up unavailable"),
    ] {
        let decision = decide(&gateway, "alice", &["default", "team-red"]);
        assert_eq!((&*decision.to_string(), decision.reason()), ("503 Try again", Some(reason)));
    }
    assert_eq!(decide(&gateway().denied("team:"), "alice", &["admin-log", "team-red"]).to_string(), ADMIN);
}

#[test]
fn only_needed_keys_are_looked_up() {
    assert!(decide(&gateway(), "", &["team-red"]).lookups().is_empty());
    let decision = decide(&gateway(), "alice", &["default", "team-red", "bob", "team-blue"]);
    assert_eq!(decision.lookups(), ["session:alice", "team:red:members"]);
}

#[test]
fn reason_names_the_user() {
    for (session, channels, reason) in [
        ("alice", &["default", "alice"][..], "alice: 2 channels"),
        ("bob", &["admin-x"], "bob is not an admin"),
        ("bob", &["team-red"], "bob is not in team red"),
        ("bob", &["alice"], "alice is not a channel of bob"),
    ] {
        assert_eq!(decide(&gateway(), session, channels).reason(), Some(reason));
    }
}
