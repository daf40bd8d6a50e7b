use std::time::Duration;

use serde::Deserialize;

use super::TestGateway;
use crate::{Error, Grant, Rejection, Request, Result, answer, log, lookup, settings, tokens};

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

fn by_token(request: &Request, channels: &[String]) -> Result<Grant> {
    let token = request.bearer().ok_or(Rejection::unauthorized("Unauthorized").with_reason("no token"))?;
    let claims: Claims = tokens::verify(token)?;
    answer::cache_for(Duration::from_secs(60), &["authorization"]);
    answer::cache_any_address();
    let first: u8 = settings::parse_or("channels", 1)?;
    let channels = channels.iter().take(first.into()).cloned();
    Ok(Grant::to(claims.sub).channels(channels).expires_in(Duration::from_secs(3600)).header("x-a", "b"))
}

fn gateway() -> TestGateway {
    TestGateway::new()
        .token("good", r#"{"sub":"alice"}"#)
        .token("odd", r#"{"sub":7}"#)
        .invalid_token("old", tokens::Error::Expired)
        .invalid_token("other", tokens::Error::Claims("audience".into()))
        .invalid_token("unknown", tokens::Error::Unavailable("no key".into()))
}

#[test]
fn grant_carries_all_its_options() {
    let answer = gateway().decide(by_token, &Request::get("/").with_bearer("good"), &["a", "b"]);
    assert_eq!(answer.to_string(), "allowed alice");
    assert_eq!(answer.channels(), Some(&["a".to_owned()][..]));
    assert_eq!(answer.expires_at(), Some(1_767_225_600_000 + 3_600_000));
    assert_eq!(answer.headers(), [("x-a".to_owned(), "b".to_owned())]);
    assert_eq!(answer.cache(), Some((60, &["authorization".to_owned()][..])));
    assert!(answer.is_for_any_address() && answer.log().is_empty());
}

#[test]
fn errors_map_to_responses() {
    for (token, expect, reason) in [
        ("", "401 Unauthorized", "no token"),
        ("bad", "401 Unauthorized", "token untrusted"),
        ("old", "401 Unauthorized", "token expired"),
        ("other", "401 Unauthorized", "token claims invalid: audience"),
        ("unknown", "503 Try again", "token cannot be verified"),
    ] {
        let answer = gateway().decide(by_token, &Request::get("/").with_bearer(token), &["a"]);
        assert_eq!((&*answer.to_string(), answer.reason()), (expect, Some(reason)), "{token}");
        assert_eq!(answer.headers(), [("content-type".to_owned(), "text/plain".to_owned())]);
        assert!(answer.log().is_empty());
    }
    let answer = gateway().decide(by_token, &Request::get("/").with_bearer("odd"), &["a"]);
    assert_eq!(answer.to_string(), "500 Internal error");
    assert_eq!(answer.log(), ["error: token claims cannot be decoded: JSON of another type"]);
    let misconfigured = gateway().setting("channels", "many");
    let answer = misconfigured.decide(by_token, &Request::get("/").with_bearer("good"), &["a"]);
    assert_eq!(answer.to_string(), "500 Internal error");
    assert_eq!(answer.log(), ["error: the setting channels is not a valid u8"]);
}

#[test]
fn lookups_of_each_type_succeed_or_fail() {
    fn read(_: &Request, _: &[String]) -> Result {
        let hash = lookup::hash_json::<u32>("user:1", "age")?;
        let nothing = lookup::hash_text("user:1", "nothing")?;
        let member = lookup::set_contains("team", "alice")?;
        log::info(&format!("{hash:?} {nothing:?} {member} {:?}", lookup::text("name")?));
        Ok(Grant::anonymous())
    }
    let gateway = TestGateway::new().hash("user:1", [("age", "7")]).set("team", ["alice"]).string("name", "x");
    let answer = gateway.decide(read, &Request::get("/"), &["a"]);
    assert_eq!(answer.to_string(), "allowed anonymous");
    assert_eq!(answer.log(), ["info: Some(7) None true Some(\"x\")"]);
    assert_eq!(answer.lookups(), ["user:1", "user:1", "team", "name"]);
    for (gateway, expect, reason) in [
        (gateway.clone().denied("te"), "503 Try again", "look-up denied"),
        (gateway.clone().unavailable("name"), "503 Try again", "look-up unavailable"),
        (gateway.clone().string("team", "text"), "503 Try again", "look-up unavailable"),
        (
            gateway.clone().hash("user:1", [("age", "old")]),
            "500 Internal error",
            "the value in the store cannot be decoded: not JSON",
        ),
    ] {
        let answer = gateway.decide(read, &Request::get("/"), &["a"]);
        assert_eq!((&*answer.to_string(), answer.reason()), (expect, Some(reason)));
    }
}

#[test]
fn policy_may_map_errors_itself() {
    struct PolicyError(Error);
    impl<E: Into<Error>> From<E> for PolicyError {
        fn from(error: E) -> Self {
            Self(error.into())
        }
    }
    impl From<PolicyError> for Rejection {
        fn from(PolicyError(error): PolicyError) -> Self {
            match error {
                Error::Lookup(_) => Self::json(502, &["store"]),
                other => other.into(),
            }
        }
    }
    fn read(_: &Request, _: &[String]) -> Result<Grant, PolicyError> {
        let text = lookup::text("a")?.ok_or(Rejection::not_found("No such thing"))?;
        Ok(Grant::to(text.parse::<u8>()?.to_string()))
    }
    let decide = |gateway: TestGateway| gateway.decide(read, &Request::get("/"), &["a"]).to_string();
    assert_eq!(decide(TestGateway::new().store_unavailable()), r#"502 ["store"]"#);
    assert_eq!(decide(TestGateway::new()), "404 No such thing");
    assert_eq!(decide(TestGateway::new().string("a", "7")), "allowed 7");
    assert_eq!(decide(TestGateway::new().string("a", "x")), "500 Internal error");
}

#[test]
#[should_panic(expected = "TestGateway::decide")]
fn host_call_without_a_test_gateway_panics() {
    let _ = lookup::get("a");
}
