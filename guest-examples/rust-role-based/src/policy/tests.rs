use std::cell::RefCell;

use super::*;

/// alice of team red, bob of team blue, root the admin, and a few sessions that are none; `failure` cuts the line.
#[derive(Default)]
struct Fake {
    failure: Option<(&'static str, Failure)>,
    asked: RefCell<Vec<String>>,
}

impl Fake {
    fn ask(&self, key: &str) -> Result<(), Failure> {
        self.asked.borrow_mut().push(key.to_owned());
        match self.failure {
            Some((prefix, failure)) if key.starts_with(prefix) => Err(failure),
            _ => Ok(()),
        }
    }
}

impl Store for Fake {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.ask(key)?;
        Ok(match key {
            "session:alice" => Some(r#"{"id":"alice","role":"member"}"#),
            "session:bob" => Some(r#"{"id":"bob"}"#),
            "session:root" => Some(r#"{"role":"admin","id":"root","since":3}"#),
            "session:odd-role" => Some(r#"{"id":"bob","role":["admin"]}"#),
            "session:broken" => Some(r#"{"id":"alice""#),
            "session:trailing" => Some(r#"{"id":"alice"} x"#),
            "session:no-id" => Some(r#"{"role":"admin"}"#),
            "session:empty-id" => Some(r#"{"id":"","role":"admin"}"#),
            "session:number" => Some(r#"{"id":7}"#),
            "session:list" => Some(r#"["alice","admin"]"#),
            "session:nothing" => Some(""),
            _ => None,
        }
        .map(|text| text.as_bytes().to_vec()))
    }

    fn set_contains(&self, key: &str, member: &str) -> Result<bool, Failure> {
        self.ask(key)?;
        Ok(matches!((key, member), ("team:red:members", "alice") | ("team:blue:members", "bob")))
    }
}

fn answer(store: &Fake, cookies: &[&[u8]], channels: &[&str]) -> String {
    let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
    match decide(store, cookies.iter().copied(), &channels) {
        Ok(user) => format!("in: {user}"),
        Err(refusal) => format!("{} {}", refusal.status(), refusal.body()),
    }
}

/// Asserts what the holder of one session cookie gets.
#[track_caller]
fn check(session: &str, channels: &[&str], expect: &str) {
    let cookie = format!("session={session}");
    assert_eq!(answer(&Fake::default(), &[cookie.as_bytes()], channels), expect);
}

#[track_caller]
fn check_cookies(cookies: &[&[u8]], expect: &str) {
    assert_eq!(answer(&Fake::default(), cookies, &["default"]), expect);
}

const UNAUTHORIZED: &str = "401 Unauthorized";
const ADMIN: &str = "403 Admin access required";
const TEAM: &str = "403 Not a team member";
const OWN: &str = "403 You can only access your own channels";
const TRY_AGAIN: &str = "503 Try again";

#[test]
fn a_session_is_needed_for_every_channel() {
    check_cookies(&[], UNAUTHORIZED);
    check_cookies(&[b""], UNAUTHORIZED);
    check("mallory", &["default"], UNAUTHORIZED);
    check("mallory", &["admin-x"], UNAUTHORIZED);
    for record in ["broken", "trailing", "no-id", "empty-id", "number", "list", "nothing"] {
        check(record, &["default"], UNAUTHORIZED);
    }
}

#[test]
fn the_first_cookie_of_the_name_wins() {
    check_cookies(&[b"session=alice"], "in: alice");
    check_cookies(&[b"a=b; session=alice; session=bob"], "in: alice");
    check_cookies(&[b"a=b", b"theme=dark;session=alice", b"session=bob"], "in: alice");
    check_cookies(&[b"flag; =x; ; session = alice "], "in: alice");
    check_cookies(&[b"session=mallory; session=alice"], UNAUTHORIZED);
    check_cookies(&[b"session=; session=alice"], UNAUTHORIZED);
    check_cookies(&[b"Session=alice; mysession=alice; sessions=alice; session"], UNAUTHORIZED);
    check_cookies(&[b"session=alice=1"], UNAUTHORIZED);
    check_cookies(&[b"session=\xff"], UNAUTHORIZED);
    check_cookies(&[b"other=\xff; session=alice"], "in: alice");
}

#[test]
fn channels() {
    check("alice", &["default"], "in: alice");
    check("alice", &["alice"], "in: alice");
    check("alice", &["alice-", "alice-inbox", "default", "team-red"], "in: alice");
    check("alice", &["alice2"], OWN);
    check("alice", &["alic"], OWN);
    check("alice", &["Alice"], OWN);
    check("alice", &["bob-inbox"], OWN);
    check("alice", &["default-2"], OWN);
    check("alice", &["team"], OWN);
    check("alice", &["admin"], OWN);
    check("alice", &["admin-log"], ADMIN);
    check("alice", &["admin-"], ADMIN);
    check("bob", &["admin-log"], ADMIN);
    check("odd-role", &["admin-log"], ADMIN);
    check("root", &["admin-log", "root", "default"], "in: root");
    check("bob", &["team-blue"], "in: bob");
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
    for failure in [Failure::Denied, Failure::Unavailable] {
        let no_sessions = Fake { failure: Some(("session:", failure)), ..Fake::default() };
        assert_eq!(answer(&no_sessions, &[b"session=alice"], &["default"]), TRY_AGAIN);
        let no_teams = Fake { failure: Some(("team:", failure)), ..Fake::default() };
        assert_eq!(answer(&no_teams, &[b"session=alice"], &["default", "team-red"]), TRY_AGAIN);
        assert_eq!(answer(&no_teams, &[b"session=alice"], &["admin-log", "team-red"]), ADMIN);
        assert_eq!(answer(&no_teams, &[b"session=alice"], &["default"]), "in: alice");
    }
}

#[test]
fn nothing_is_looked_up_in_vain() {
    let store = Fake::default();
    answer(&store, &[b"session="], &["team-red"]);
    assert!(store.asked.borrow().is_empty());
    answer(&store, &[b"session=alice"], &["default", "team-red", "bob", "team-blue"]);
    assert_eq!(*store.asked.borrow(), ["session:alice", "team:red:members"]);
}

#[test]
fn reasons_name_the_user_and_never_the_session() {
    let user = || "bob".to_owned();
    for (refusal, expect) in [
        (Refusal::NoSession, "no session"),
        (Refusal::UnknownSession, "unknown session"),
        (Refusal::LookupFailed(Failure::Denied), "look-up denied"),
        (Refusal::LookupFailed(Failure::Unavailable), "look-up unavailable"),
        (Refusal::NotAdmin { user: user() }, "bob is not an admin"),
        (Refusal::NotInTeam { user: user(), team: "red".into() }, "bob is not in team red"),
        (Refusal::NotOwnChannel { user: user(), channel: "alice".into() }, "alice is not a channel of bob"),
    ] {
        assert_eq!(refusal.to_string(), expect);
    }
}
