use std::time::Duration;

use serde::Deserialize;

use super::World;
use crate::{Error, Grant, Rejection, Request, Result, answer, log, lookup, settings, tokens};

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

fn by_token(request: &Request, channels: &[String]) -> Result<Grant> {
    let token = request.bearer().ok_or(Rejection::unauthorized("Unauthorized").because("no token"))?;
    let claims: Claims = tokens::verify(token)?;
    answer::cache_for(Duration::from_secs(60), &["authorization"]);
    answer::cache_any_address();
    let first: u8 = settings::parse_or("channels", 1)?;
    let channels = channels.iter().take(first.into()).cloned();
    Ok(Grant::to(claims.sub).channels(channels).expires_in(Duration::from_secs(3600)).header("x-a", "b"))
}

fn world() -> World {
    World::new()
        .token("good", r#"{"sub":"alice"}"#)
        .token("odd", r#"{"sub":7}"#)
        .bad_token("old", tokens::Error::Expired)
        .bad_token("other", tokens::Error::Claims("audience".into()))
        .bad_token("unknown", tokens::Error::Unavailable("no key".into()))
}

#[test]
fn a_grant_says_all_that_it_was_told() {
    let answer = world().ask(by_token, &Request::get("/").with_bearer("good"), &["a", "b"]);
    assert_eq!(answer.to_string(), "allowed alice");
    assert_eq!(answer.channels(), Some(&["a".to_owned()][..]));
    assert_eq!(answer.expires_at(), Some(1_767_225_600_000 + 3_600_000));
    assert_eq!(answer.headers(), [("x-a".to_owned(), "b".to_owned())]);
    assert_eq!(answer.cache(), Some((60, &["authorization".to_owned()][..])));
    assert!(answer.is_for_any_address() && answer.log().is_empty());
}

#[test]
fn errors_become_answers() {
    for (token, expect, reason) in [
        ("", "401 Unauthorized", "no token"),
        ("bad", "401 Unauthorized", "token untrusted"),
        ("old", "401 Unauthorized", "token expired"),
        ("other", "401 Unauthorized", "token's claims do not hold: audience"),
        ("unknown", "503 Try again", "token cannot be checked"),
    ] {
        let answer = world().ask(by_token, &Request::get("/").with_bearer(token), &["a"]);
        assert_eq!((&*answer.to_string(), answer.reason()), (expect, Some(reason)), "{token}");
        assert_eq!(answer.headers(), [("content-type".to_owned(), "text/plain".to_owned())]);
        assert!(answer.log().is_empty());
    }
    let answer = world().ask(by_token, &Request::get("/").with_bearer("odd"), &["a"]);
    assert_eq!(answer.to_string(), "500 Internal error");
    assert_eq!(answer.log(), ["error: token's claims cannot be read: it is JSON of another shape"]);
    let misconfigured = world().setting("channels", "many");
    let answer = misconfigured.ask(by_token, &Request::get("/").with_bearer("good"), &["a"]);
    assert_eq!(answer.to_string(), "500 Internal error");
    assert_eq!(answer.log(), ["error: the setting channels is no u8"]);
}

#[test]
fn look_ups_of_each_kind() {
    fn read(_: &Request, _: &[String]) -> Result {
        let hash = lookup::hash_json::<u32>("user:1", "age")?;
        let nothing = lookup::hash_text("user:1", "nothing")?;
        let member = lookup::set_contains("team", "alice")?;
        log::info(&format!("{hash:?} {nothing:?} {member} {:?}", lookup::text("name")?));
        Ok(Grant::to_anybody())
    }
    let world = World::new().hash("user:1", [("age", "7")]).set("team", ["alice"]).string("name", "x");
    let answer = world.ask(read, &Request::get("/"), &["a"]);
    assert_eq!(answer.to_string(), "allowed anybody");
    assert_eq!(answer.log(), ["info: Some(7) None true Some(\"x\")"]);
    assert_eq!(answer.lookups(), ["user:1", "user:1", "team", "name"]);
    for (world, expect, reason) in [
        (world.clone().denied("te"), "503 Try again", "look-up denied"),
        (world.clone().unavailable("name"), "503 Try again", "look-up unavailable"),
        (world.clone().string("team", "text"), "503 Try again", "look-up unavailable"),
        (
            world.clone().hash("user:1", [("age", "old")]),
            "500 Internal error",
            "what was looked up cannot be read: it is not JSON",
        ),
    ] {
        let answer = world.ask(read, &Request::get("/"), &["a"]);
        assert_eq!((&*answer.to_string(), answer.reason()), (expect, Some(reason)));
    }
}

/// A policy with another idea of what its clients are told.
#[test]
fn a_policy_may_map_errors_itself() {
    struct Mine(Error);
    impl<E: Into<Error>> From<E> for Mine {
        fn from(error: E) -> Self {
            Self(error.into())
        }
    }
    impl From<Mine> for Rejection {
        fn from(Mine(error): Mine) -> Self {
            match error {
                Error::Lookup(_) => Self::json(502, &["store"]),
                other => other.into(),
            }
        }
    }
    fn read(_: &Request, _: &[String]) -> Result<Grant, Mine> {
        let text = lookup::text("a")?.ok_or(Rejection::not_found("No such thing"))?;
        Ok(Grant::to(text.parse::<u8>()?.to_string()))
    }
    let ask = |world: World| world.ask(read, &Request::get("/"), &["a"]).to_string();
    assert_eq!(ask(World::new().store_away()), r#"502 ["store"]"#);
    assert_eq!(ask(World::new()), "404 No such thing");
    assert_eq!(ask(World::new().string("a", "7")), "allowed 7");
    assert_eq!(ask(World::new().string("a", "x")), "500 Internal error");
}

#[test]
#[should_panic(expected = "World::ask")]
fn without_a_world_a_test_is_told() {
    let _ = lookup::get("a");
}
