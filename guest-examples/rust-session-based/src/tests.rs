use tidegate_policy::Request;
use tidegate_policy::testing::{Answer, World};

use super::authorize;

fn world() -> World {
    World::new()
        .string("session:s1", r#"{"id":"alice","role":"member"}"#)
        .string("session:twice", r#"{"id":"bob","id":"alice"}"#)
        .string("session:broken", r#"{"id":"alice""#)
        .string("session:no-id", r#"{"role":"admin"}"#)
        .string("session:empty-id", r#"{"id":""}"#)
        .string("session:number", r#"{"id":7}"#)
        .string("session:list", r#"["alice"]"#)
}

fn ask(world: &World, session: &str, channels: &[&str]) -> Answer {
    world.ask(authorize, &Request::get("/api/realtime").with_cookie("session", session), channels)
}

#[test]
fn who_has_a_session_gets_every_channel() {
    let answer = ask(&world(), "s1", &["default", "bob", "admin-log"]);
    assert_eq!((&*answer.to_string(), answer.reason()), ("allowed alice", Some("alice: 3 channels")));
    assert!(answer.channels().is_none() && answer.headers().is_empty());
    assert_eq!(ask(&world(), "twice", &["x"]).subject(), Some("alice"));
}

#[test]
fn who_has_none_gets_nothing() {
    for (session, reason) in [
        ("", "no session"),
        ("mallory", "unknown session"),
        ("broken", "unknown session"),
        ("no-id", "unknown session"),
        ("empty-id", "unknown session"),
        ("number", "unknown session"),
        ("list", "unknown session"),
    ] {
        let answer = ask(&world(), session, &["default"]);
        assert_eq!((&*answer.to_string(), answer.reason()), ("401 Unauthorized", Some(reason)), "{session}");
    }
}

#[test]
fn a_failed_look_up_is_no_verdict() {
    for (world, reason) in [
        (world().denied("session:"), "look-up denied"),
        (world().store_away(), "look-up unavailable"),
        (world().set("session:s1", []), "look-up unavailable"),
    ] {
        let answer = ask(&world, "s1", &["default"]);
        assert_eq!((&*answer.to_string(), answer.reason()), ("503 Try again", Some(reason)));
    }
}
