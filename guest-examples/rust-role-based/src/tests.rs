use tidegate_policy::Request;
use tidegate_policy::testing::{Answer, World};

use super::authorize;

/// alice of team red, bob of team blue, root the admin, and a few sessions that are none.
fn world() -> World {
    World::new()
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

fn ask(world: &World, session: &str, channels: &[&str]) -> Answer {
    world.ask(authorize, &Request::get("/api/realtime").with_cookie("session", session), channels)
}

#[track_caller]
fn check(session: &str, channels: &[&str], expect: &str) {
    assert_eq!(ask(&world(), session, channels).to_string(), expect);
}

const UNAUTHORIZED: &str = "401 Unauthorized";
const ADMIN: &str = "403 Admin access required";
const TEAM: &str = "403 Not a team member";
const OWN: &str = "403 You can only access your own channels";

#[test]
fn a_session_is_needed_for_every_channel() {
    let nobody = world().ask(authorize, &Request::get("/api/realtime"), &["default"]);
    assert_eq!((&*nobody.to_string(), nobody.reason()), (UNAUTHORIZED, Some("no session")));
    for session in ["", "mallory", "broken", "trailing", "no-id", "empty-id", "number", "list", "nothing"] {
        check(session, &["default"], UNAUTHORIZED);
        check(session, &["admin-x"], UNAUTHORIZED);
    }
    assert_eq!(ask(&world(), "mallory", &["default"]).reason(), Some("unknown session"));
}

#[test]
fn channels() {
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
fn the_first_failing_channel_decides() {
    check("alice", &["default", "admin-log", "team-blue", "bob"], ADMIN);
    check("alice", &["team-red", "team-blue", "admin-log"], TEAM);
    check("alice", &["bob", "admin-log"], OWN);
}

#[test]
fn a_failed_look_up_is_no_verdict() {
    for (world, reason) in [
        (world().denied("team:"), "look-up denied"),
        (world().unavailable("team:"), "look-up unavailable"),
        (world().set("session:alice", []), "look-up unavailable"),
        (world().store_away(), "look-up unavailable"),
    ] {
        let answer = ask(&world, "alice", &["default", "team-red"]);
        assert_eq!((&*answer.to_string(), answer.reason()), ("503 Try again", Some(reason)));
    }
    assert_eq!(ask(&world().denied("team:"), "alice", &["admin-log", "team-red"]).to_string(), ADMIN);
}

#[test]
fn nothing_is_looked_up_in_vain() {
    assert!(ask(&world(), "", &["team-red"]).lookups().is_empty());
    let answer = ask(&world(), "alice", &["default", "team-red", "bob", "team-blue"]);
    assert_eq!(answer.lookups(), ["session:alice", "team:red:members"]);
}

#[test]
fn reasons_name_the_user() {
    for (session, channels, reason) in [
        ("alice", &["default", "alice"][..], "alice: 2 channels"),
        ("bob", &["admin-x"], "bob is not an admin"),
        ("bob", &["team-red"], "bob is not in team red"),
        ("bob", &["alice"], "alice is not a channel of bob"),
    ] {
        assert_eq!(ask(&world(), session, channels).reason(), Some(reason));
    }
}
