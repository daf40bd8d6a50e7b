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
fn a_session_is_needed_for_every_channel() {
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
fn users_have_their_own_channels() {
    for channels in [&["default"][..], &["alice"], &["alice-", "alice-inbox", "default"]] {
        for session in ["s1", "twice"] {
            assert_eq!(ask(&world(), session, channels).to_string(), "allowed alice", "{channels:?}");
        }
    }
    for channel in ["alice2", "alic", "Alice", "bob", "bob-inbox", "default-2", "s1"] {
        let answer = ask(&world(), "s1", &["alice", channel, "bob"]);
        assert_eq!(answer.to_string(), "403 You can only access your own channels", "{channel}");
        assert_eq!(answer.reason(), Some(&*format!("{channel} is not a channel of alice")));
    }
    assert_eq!(ask(&world(), "s1", &["default", "alice"]).reason(), Some("alice: 2 channels"));
}

#[test]
fn a_failed_look_up_is_no_verdict() {
    for (world, reason) in [
        (world().denied("session:"), "look-up denied"),
        (world().store_away(), "look-up unavailable"),
        (world().set("session:s1", []), "look-up unavailable"),
    ] {
        let answer = ask(&world, "s1", &["bob"]);
        assert_eq!((&*answer.to_string(), answer.reason()), ("503 Try again", Some(reason)));
    }
}
