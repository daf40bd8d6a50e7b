use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::*;
use crate::policy::decision_view::DecisionView;
use crate::policy::{Decision, Failure, Grant, Outcome, Rejection};
use crate::tokens::Verdict;

fn parse(text: &str) -> Result<TestSuite, CasesError> {
    file::parse(Path::new("x/cases.toml"), text)
}

#[track_caller]
fn one(text: &str) -> TestCase {
    parse(text).expect("valid").cases.remove(0)
}

#[track_caller]
fn wrong(text: &str, parts: &[&str]) {
    let error = parse(text).expect_err(text).to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

const CASE: &str = "[[case]]\nname = \"a\"\nexpect.allow = true\n";

#[test]
fn unset_fields_have_defaults() {
    let case = one(CASE);
    assert_eq!((case.line, &*case.request.method, &*case.request.scheme), (1, "GET", "https"));
    assert_eq!((&*case.request.path_with_query, &*case.request.client_address_text()), ("/api/realtime", "192.0.2.1"));
    assert_eq!(case.channels, ["default"]);
    assert_eq!(case.request.headers["host"], case.request.authority);
    assert_eq!((case.env.now, case.env.store_unavailable, case.env.prefixes.len()), (None, false, 0));
    assert_eq!(case.expect.fields, [("allow", json!(true))]);
}

#[test]
fn channels_are_encoded_in_the_path_like_the_client_does() {
    let path = |more: &str| one(&format!("{CASE}{more}"));
    let case = path(r#"channels = ["a b", "ü&c=+", "", "a b"]"#);
    assert_eq!(
        case.request.path_with_query,
        "/api/realtime?channel=a%20b&channel=%C3%BC%26c%3D%2B&channel=&channel=a%20b"
    );
    assert_eq!(case.channels, ["a b", "ü&c=+", ""]);
    assert_eq!(
        path("channels = [\"a\"]\nrequest.path = \"/x?ticket=1\"").request.path_with_query,
        "/x?ticket=1&channel=a"
    );
    let case = path("request.path = \"/x?channel=a+b&channel=%63\"");
    assert_eq!(
        (&*case.request.path_with_query, &*case.channels),
        ("/x?channel=a+b&channel=%63", &["a b".into(), "c".into()][..])
    );
}

#[test]
fn case_overrides_the_values_of_the_file() {
    let text = r#"
        now = 2026-01-01T00:00:00Z
        lookup.prefixes = ["session:", "x:"]
        request.authority = "a.example"
        request.headers.cookie = "session=alice"
        request.headers.x-a = "1"
        [store]
        "session:alice" = "1"
        "session:bob" = "1"
        [settings]
        audience = "app"
        other = "1"
        [[case]]
        name = "first"
        now = "2026-01-01T00:00:01Z"
        lookup.prefixes = []
        store."session:bob" = ["2"]
        settings.other = "2"
        request.headers.cookie = ["session=bob", "a=b"]
        expect.allow = true
        [[case]]
        name = "second"
        now = 5
        store-unavailable = true
        request.authority = "b.example"
        expect.allow = true
        [[case]]
        name = "third"
        expect.allow = true
    "#;
    let [first, second, third] = &parse(text).expect("valid").cases[..] else { panic!("three") };
    assert_eq!(
        [first, second, third].map(|case| case.env.now),
        [Some(1_767_225_601_000), Some(5), Some(1_767_225_600_000)]
    );
    assert_eq!((first.env.prefixes.len(), third.env.prefixes.len()), (0, 2));
    assert_eq!(first.env.store["session:bob"], Seed::Set(["2".to_owned()].into()));
    assert_eq!(third.env.store["session:bob"], Seed::Text("1".into()));
    assert_eq!((&*first.env.settings["audience"], &*first.env.settings["other"]), ("app", "2"));
    assert_eq!(
        (&first.request.headers["cookie"], &first.request.headers["x-a"]),
        (&"session=bob; a=b".parse().expect("value"), &"1".parse().expect("value"))
    );
    assert_eq!(third.request.headers["cookie"], "session=alice");
    assert_eq!((&*second.request.authority, &*third.request.authority), ("b.example", "a.example"));
    assert_eq!((second.env.store_unavailable, third.env.store_unavailable), (true, false));
}

#[test]
fn prefixes_default_to_the_prefixes_of_the_store() {
    let store = "[store]\n\"session:a\" = \"1\"\n\"session:b\" = \"1\"\n\"team:a:members\" = []\nflag = \"1\"";
    let case = one(&format!("{store}\n{CASE}"));
    assert_eq!(case.env.prefixes, ["flag", "session:", "team:"]);
}

#[test]
fn errors_name_the_line_and_a_valid_value() {
    let text = |more: &str| format!("{CASE}\n[[case]]\nname = \"b\"\n{more}");
    wrong("", &["x/cases.toml", "no case", "[[case]]"]);
    wrong("now = 1", &["no case"]);
    wrong(&format!("nowt = 1\n{CASE}"), &["x/cases.toml:1:", "nowt", "now"]);
    wrong("[[case]]\nname = ", &["x/cases.toml:2:"]);
    wrong(&text("chanels = [\"a\"]\nexpect.allow = true"), &["x/cases.toml:7:", "\"b\"", "chanels", "channels"]);
    wrong(&text("expect.stauts = 403"), &["x/cases.toml:7:", "\"b\"", "stauts", "status"]);
    wrong(&text("expect.status = \"403\""), &["x/cases.toml:7:", "\"b\"", "u16"]);
    wrong(
        &text("lookup.prefixes = [\"session:*\"]\nexpect.allow = true"),
        &["\"b\"", "lookup.prefixes[0]", "not a pattern"],
    );
    wrong("[requires]\nlookup = [\"session:*\"]", &["requires.lookup", "session:*", "not a pattern"]);
    wrong("[requires]\negress = [\"https://*.example\"]", &["requires.egress", "no *"]);
    wrong(&text(""), &["x/cases.toml:5:", "\"b\"", "expect"]);
    wrong(&text("expect = {}"), &["x/cases.toml:5:", "\"b\"", "no expectation", "allow = true"]);
    wrong(&text("expect.allow = false"), &["expect.allow", "status"]);
    wrong(&text("expect = { allow = true, status = 403 }"), &["only one of"]);
    wrong(&text("expect.status = 99"), &["expect.status", "200 to 599"]);
    wrong(&text("expect.error = \"traps\""), &["expect.error", "\"traps\"", "trap", "invalid-answer"]);
    wrong(&text("expect = { status = 403, subject = \"a\" }"), &["expect.subject"]);
    wrong(&text("expect = { error = \"trap\", body = \"\" }"), &["expect.body"]);
    wrong(&text("expect = { error = \"trap\", headers = {} }"), &["expect.headers"]);
    wrong(&text("expect = { allow = true, headers = { a = false } }"), &["x/cases.toml:7:", "true for any value"]);
    wrong(&text("request.headers.cookie = 1\nexpect.allow = true"), &["x/cases.toml:7:", "\"b\"", "a header's value"]);
    wrong(&text("request.headers.\"a b\" = \"\"\nexpect.allow = true"), &["x/cases.toml:5:", "\"a b\""]);
    wrong(&text("request.headers.a = \"\\n\"\nexpect.allow = true"), &["request.headers.a"]);
    wrong(&text("request.path = \"api\"\nexpect.allow = true"), &["request.path", "begin with /"]);
    wrong(&text("request.path = \"/?channel=a\"\nchannels = []\nexpect.allow = true"), &["channels", "one place"]);
    wrong(&text("request.scheme = \"ftp\"\nexpect.allow = true"), &["request.scheme"]);
    wrong(&text("request.client-address = \"me\"\nexpect.allow = true"), &["request.client-address"]);
    wrong(&text("now = \"yesterday\"\nexpect.allow = true"), &["x/cases.toml:7:", "2026-01-01T00:00:00Z"]);
    wrong(&format!("{CASE}{CASE}"), &["x/cases.toml:4:", "the same name"]);
    wrong(&text("store.x = 1\nexpect.allow = true"), &["x/cases.toml:7:", "\"b\""]);
}

fn decision(outcome: Outcome, reason: &str) -> Decision {
    Decision {
        outcome,
        reason: Some(reason.into()),
        cached: false,
        revoked: false,
        duration: Duration::ZERO,
        policy: None,
    }
}

fn header(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), http::HeaderValue::from_static(value))])
}

/// The names of the fields in which a decision is not as expected.
fn differing(expect: &str, outcome: Outcome) -> Vec<&'static str> {
    let expect = one(&format!("[[case]]\nname = \"a\"\nexpect = {{ {expect} }}")).expect;
    let got = DecisionView::new(&decision(outcome, "why"), &["a".into(), "b".into()]);
    expect.filled(&got).differences(&got).iter().map(|difference| difference.field).collect()
}

#[test]
fn grants_are_compared() {
    let check = |expect: &str, fields: &[&str]| {
        let grant = Grant {
            subject: Some("alice".into()),
            channels: Some(vec!["b".into()]),
            expires_at: Some(5),
            replay_since: None,
            headers: header("set-cookie", "a=b"),
        };
        assert_eq!(differing(expect, Outcome::Allowed(grant)), fields, "{expect}");
    };
    check("allow = true", &[]);
    check("allow = true, subject = \"alice\", channels = [\"b\"], expires-at = 5, reason = \"why\"", &[]);
    check("allow = true, subject = \"\", channels = [\"a\", \"b\"], reason = \"\"", &["subject", "channels", "reason"]);
    check("allow = true, expires-at = \"1970-01-01T00:00:00.005Z\", replay-since = 1", &["replay-since"]);
    check("allow = true, headers = { set-cookie = \"a=b\" }", &[]);
    check("allow = true, headers = { Set-Cookie = true }", &[]);
    check("allow = true, headers = { set-cookie = [\"a=b\", \"c=d\"] }", &["headers"]);
    check("allow = true, headers = { set-cookie = true, x-a = true }", &["headers"]);
    check("allow = true, headers = {}", &["headers"]);
    check("status = 403", &["status", "allow", "subject", "channels", "expires-at", "headers", "reason"]);
    let all = Outcome::Allowed(Grant::default());
    assert!(differing("allow = true, subject = \"\", channels = [\"a\", \"b\"], headers = {}", all).is_empty());
}

#[test]
fn rejections_and_failures_are_compared() {
    let no = || {
        Outcome::Rejected(Rejection {
            status: StatusCode::FORBIDDEN,
            headers: header("content-type", "text/plain"),
            body: Bytes::from_static(b"no\n"),
        })
    };
    assert!(differing("status = 403", no()).is_empty());
    assert!(differing("status = 403, body = \"no\\n\", headers = { content-type = \"text/plain\" }", no()).is_empty());
    assert_eq!(differing("status = 401, body = \"no\"", no()), ["status", "body"]);
    let trap = || Outcome::Failed(Failure::Trap("unreachable".into()));
    assert!(differing("error = \"trap\"", trap()).is_empty());
    assert_eq!(differing("error = \"cpu\", reason = \"why\"", trap()), ["error"]);
    assert_eq!(differing("allow = true", trap()), ["allow", "error", "message", "reason"]);
}

#[test]
fn invisible_characters_are_quoted() {
    let answer = |body: &str| DecisionView { fields: vec![("body", json!(body))] };
    assert_eq!(answer("two\nlines").lines(None), ["body         two", "body         lines"]);
    assert_eq!(answer("end \t").lines(None), ["body         \"end \\t\""]);
    assert_eq!(answer("").lines(None), ["body         \"\""]);
}

#[test]
fn case_overrides_token_profiles_of_the_file() {
    let profile = "[tokens.app]\nsecret = \"of the app\"\n[tokens.other]\nissuer = \"b\"\nsecret = \"of the other\"\n";
    let case = one(&format!("{profile}{CASE}\ntokens.app.secret = \"of this case\""));
    assert_eq!(format!("{:?}", case.env.tokens), r#"{"app", "other"}"#);
    let sign = |secret: &str| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &serde_json::json!({"exp": 100}), &key).expect("a token")
    };
    let holds = |secret, now| matches!(case.env.tokens.verify(&sign(secret), now), Verdict::Valid(_));
    assert!(holds("of this case", 99_000));
    assert!(!holds("of this case", 999_000), "expiry is checked against the case's clock");
    assert!(!holds("of the app", 99_000));
    wrong(&format!("[tokens.app]\nsecret = \"a\"\npem = \"b\"\n{CASE}"), &["tokens.app", "exactly one"]);
    wrong(&format!("[tokens.app]\njwks-url = \"https://a.example\"\n{CASE}"), &["tokens.app.jwks-url", "as jwks"]);
    wrong(&format!("[tokens.app]\npem = \"no-such.pem\"\n{CASE}"), &["tokens.app.pem", "x/no-such.pem"]);
}
