use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::*;
use crate::policy::cache_directive::MAX_VARY_HEADERS;
use crate::policy::{Grant, Rejection};

const MINUTE: Duration = Duration::from_secs(60);
const NOW: u64 = 1_000_000;

fn request(path_with_query: &str, headers: &[(&'static str, &'static str)]) -> Request {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Request {
        method: "GET".into(),
        scheme: "https".into(),
        authority: "gate.example".into(),
        path_with_query: path_with_query.into(),
        headers: map,
        client_address: address("192.0.2.1"),
        id: "1".into(),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an address"))
}

fn vary(names: &[&str], any_address: bool) -> Vary {
    Vary::new(&names.iter().map(ToString::to_string).collect::<Vec<_>>(), any_address).expect("valid names")
}

fn granted(subject: &str) -> Outcome {
    Outcome::Allowed(Grant { subject: Some(subject.into()), ..Grant::default() })
}

fn rejected(body: impl Into<Bytes>) -> Outcome {
    Outcome::Rejected(Rejection { status: StatusCode::FORBIDDEN, headers: HeaderMap::new(), body: body.into() })
}

fn channels(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn cache() -> DecisionCache {
    DecisionCache::new(1 << 20, 10 * MINUTE)
}

impl DecisionCache {
    fn put(&self, request: &Request, names: &[&str], vary: Vary, outcome: &Outcome) {
        let directive = CacheDirective { max_age: MINUTE, vary };
        self.insert(&directive, request, &channels(names), outcome, Some("because"), Instant::now(), self.epoch());
    }

    /// The subject of the cached grant; `-` for a rejection, empty if nothing is cached.
    fn cached_subject(&self, request: &Request, names: &[&str]) -> String {
        match self.get(request, &channels(names), NOW).map(|cached| cached.answer()) {
            None => String::new(),
            Some((Outcome::Allowed(grant), Some(reason))) if reason == "because" => grant.subject.unwrap_or_default(),
            Some((Outcome::Rejected(_), _)) => "-".into(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn decision_is_reused_only_for_an_equal_request() {
    const COOKIE: (&str, &str) = ("cookie", "session=alice");
    let cache = cache();
    cache.put(&request("/s?channel=a&x=1", &[COOKIE]), &["a"], vary(&["Cookie", "x-Team"], false), &granted("alice"));
    let check = |request: &Request, expect| assert_eq!(cache.cached_subject(request, &["a"]), expect, "{request:?}");
    let path = |path| request(path, &[COOKIE]);
    let with = |headers| request("/s?channel=a&x=1", headers);

    check(&path("/s?channel=a&x=1"), "alice");
    for same in [
        "/s?channel=a&x=1&last_ack_a=5",
        "/s?last_ack_a=5&channel=a&last_ack_b=6-1&x=1",
        "/s?channel=a&last%5Fack_a=5&x=1",
        "/s?channel=a&%6c%61st_ack_a=5&last_ack_&x=1",
        "/s?channel=a&x=1&lastEventId=ca978112%3A5-0",
        "/s?lastEventId=&channel=a&last-event-id=5-0&x=1&Last-Event-ID=7&lastEventID",
    ] {
        check(&path(same), "alice");
    }
    for other in [
        "/s?channel=a&x=2",
        "/s?channel=a",
        "/s?x=1&channel=a",
        "/s?channel=a&x=1&x=1",
        "/s?channel=a&x=1&",
        "/s?channel=a&x=%31",
        "/s?channel=a&x=1&last_ac=5",
        "/s?channel=a&x=1&Last_ack_a=5",
        "/s?channel=a&x=1&last+ack_a=5",
        "/s?channel=a&x=1&y=last_ack_a",
        "/s?channel=a&x=1&lastEvent=5",
        "/s?channel=a&x=1&channel=lastEventId",
        "/s?channel=a&x=lastEventId",
        "/s?channel=a&x=1&last_event_id=5",
        "/s?channel=a%26x=1",
        "/S?channel=a&x=1",
        "/s/?channel=a&x=1",
        "/s",
    ] {
        check(&path(other), "");
    }

    check(&with(&[COOKIE, ("accept", "x")]), "alice");
    check(&with(&[]), "");
    check(&with(&[("cookie", "")]), "");
    check(&with(&[("cookie", "session=bob")]), "");
    check(&with(&[COOKIE, COOKIE]), "");
    check(&with(&[COOKIE, ("x-team", "")]), "");
    check(&with(&[("x-team", "session=alice")]), "");

    let same = path("/s?channel=a&x=1");
    check(&Request { id: "2".into(), ..same.clone() }, "alice");
    check(&Request { method: "POST".into(), ..same.clone() }, "");
    check(&Request { scheme: "http".into(), ..same.clone() }, "");
    check(&Request { authority: "gate.example:80".into(), ..same.clone() }, "");
    check(&Request { client_address: address("192.0.2.2"), ..same.clone() }, "");
    check(&Request { client_address: None, ..same.clone() }, "");
    assert_eq!(cache.cached_subject(&same, &["a", "b"]), "");
    assert_eq!(cache.cached_subject(&same, &["b"]), "");
}

#[test]
fn absent_empty_and_repeated_headers_differ() {
    let cache = cache();
    let lookup = |headers| cache.cached_subject(&request("/", headers), &["a"]);
    for (subject, headers) in [
        ("none", &[][..]),
        ("empty", &[("x-a", "")]),
        ("one", &[("x-a", "1, 2")]),
        ("two", &[("x-a", "1"), ("x-a", "2")]),
        ("reversed", &[("x-a", "2"), ("x-a", "1")]),
    ] {
        assert_eq!(lookup(headers), "");
        cache.put(&request("/", headers), &["a"], vary(&["x-a"], false), &granted(subject));
        assert_eq!(lookup(headers), subject);
    }
    assert_eq!(lookup(&[]), "none");
    assert_eq!(lookup(&[("x-a", "")]), "empty");
    assert_eq!(lookup(&[("x-a", "2"), ("x-a", "1")]), "reversed");
}

#[test]
fn decisions_on_one_kind_of_request_can_have_several_vary_values() {
    let cache = cache();
    let with = |headers| request("/", headers);
    cache.put(&with(&[("cookie", "alice")]), &["a"], vary(&["cookie"], false), &granted("alice"));
    cache.put(&with(&[("authorization", "bob")]), &["a"], vary(&["authorization", "cookie"], true), &granted("bob"));
    assert_eq!(cache.cached_subject(&with(&[("cookie", "alice")]), &["a"]), "alice");
    assert_eq!(cache.cached_subject(&with(&[("cookie", "alice"), ("authorization", "bob")]), &["a"]), "alice");
    assert_eq!(cache.cached_subject(&with(&[("authorization", "bob")]), &["a"]), "bob");
    let elsewhere = Request { client_address: address("198.51.100.7"), ..with(&[("authorization", "bob")]) };
    assert_eq!(cache.cached_subject(&elsewhere, &["a"]), "bob", "it is valid for any address");
    let elsewhere = Request { client_address: address("198.51.100.7"), ..with(&[("cookie", "alice")]) };
    assert_eq!(cache.cached_subject(&elsewhere, &["a"]), "");

    // The value that was inserted longest ago goes when there are too many.
    for name in ["x-1", "x-2", "x-3"] {
        cache.put(&with(&[("cookie", "carol")]), &["a"], vary(&[name, "cookie"], false), &rejected("no"));
    }
    assert_eq!(cache.cached_subject(&with(&[("cookie", "alice")]), &["a"]), "");
    assert_eq!(cache.cached_subject(&with(&[("authorization", "bob")]), &["a"]), "bob");
    assert_eq!(cache.cached_subject(&with(&[("cookie", "carol")]), &["a"]), "-");
}

#[test]
fn unknown_addresses_are_not_one_client() {
    let cache = cache();
    let unknown = Request { client_address: None, ..request("/", &[]) };
    cache.put(&unknown, &["a"], vary(&[], false), &granted("alice"));
    assert_eq!(cache.cached_subject(&unknown, &["a"]), "", "the decision may depend on the address");
    cache.put(&request("/", &[]), &["a"], vary(&[], true), &granted("all"));
    assert_eq!(cache.cached_subject(&unknown, &["a"]), "all", "it is valid for any address");
    cache.put(&unknown, &["b"], vary(&[], true), &granted("all"));
    assert_eq!(cache.cached_subject(&request("/", &[]), &["b"]), "all");
}

#[test]
fn vary_normalizes_and_validates_header_names() {
    let list = |names: &[&str]| Vary::new(&names.iter().map(ToString::to_string).collect::<Vec<_>>(), false);
    assert_eq!(list(&["Cookie", "x-a", "cookie"]), list(&["X-A", "COOKIE"]));
    for (names, expected) in [
        (&[""][..], "invalid header name"),
        (&["a b"], "invalid header name"),
        (&["*"], "invalid header name"),
        (&["cookie", "x\r\n"], "invalid header name"),
        (&["ü"], "invalid header name"),
        (&["x"; MAX_VARY_HEADERS + 1], "17 header names"),
    ] {
        let error = list(names).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
    assert!(list(&["x"; MAX_VARY_HEADERS]).is_ok());
}

#[tokio::test(start_paused = true)]
async fn decision_expires_after_its_time() {
    let cache = cache();
    let (request, names) = (request("/", &[]), channels(&["a"]));
    let insert = |seconds, outcome: &Outcome, start| {
        let directive = CacheDirective { max_age: Duration::from_secs(seconds), vary: vary(&[], false) };
        cache.insert(&directive, &request, &names, outcome, None, start, cache.epoch());
    };
    let is_cached = |now| cache.get(&request, &names, now).is_some();
    let start = Instant::now();
    insert(10, &rejected("no"), start);
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert!(is_cached(NOW));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!is_cached(NOW));

    // The time counts from the start of the evaluation, however long that took.
    insert(10, &rejected("no"), start);
    assert!(!is_cached(NOW));
    insert(11, &rejected("no"), start);
    assert!(is_cached(NOW));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!is_cached(NOW));

    // The operator's maximum is ten minutes.
    insert(u64::from(u32::MAX), &rejected("no"), Instant::now());
    tokio::time::advance(10 * MINUTE - Duration::from_millis(1)).await;
    assert!(is_cached(NOW));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!is_cached(NOW));

    // A grant's own expiry counts as well, by the policy's clock.
    insert(60, &Outcome::Allowed(Grant { expires_at: Some(NOW + 5), ..Grant::default() }), Instant::now());
    assert!(is_cached(NOW + 4) && !is_cached(NOW + 5));
    insert(0, &rejected("no"), Instant::now());
    assert!(!is_cached(NOW + 5));
}

#[test]
fn cookies_failures_and_large_decisions_are_not_cached() {
    let request = request("/", &[]);
    let cookie = HeaderMap::from_iter([(http::header::SET_COOKIE, HeaderValue::from_static("a=b"))]);
    let grant = Outcome::Allowed(Grant { headers: cookie.clone(), ..Grant::default() });
    let rejection = Rejection { status: StatusCode::FORBIDDEN, headers: cookie, body: Bytes::new() };
    for outcome in [
        grant,
        Outcome::Rejected(rejection),
        Outcome::Failed(crate::policy::Failure::Cpu),
        // More than a sixteenth of the cache.
        rejected(vec![0; 64 << 10]),
    ] {
        let cache = cache();
        cache.put(&request, &["a"], vary(&[], true), &outcome);
        assert_eq!(cache.cached_subject(&request, &["a"]), "", "{outcome:?}");
    }
    let off = DecisionCache::new(0, MINUTE);
    off.put(&request, &["a"], vary(&[], true), &granted("alice"));
    assert_eq!(off.cached_subject(&request, &["a"]), "");
    off.invalidate(CacheSelector::All);
}

#[test]
fn invalidated_decisions_are_not_returned_or_cached_again() {
    let cache = DecisionCache::new(8 << 20, MINUTE);
    let path = |n: usize| request(&format!("/{n}"), &[]);
    let put = |n: usize, names: &[&str], outcome: &Outcome| cache.put(&path(n), names, vary(&[], true), outcome);
    for n in 0..300 {
        put(n, &["a"], &granted("alice"));
        put(n, &["b", "c"], &granted("bob"));
        put(n, &["c"], &rejected("no"));
    }
    let count = |names: &[&str]| (0..300).filter(|n| !cache.cached_subject(&path(*n), names).is_empty()).count();
    assert_eq!((count(&["a"]), count(&["b", "c"]), count(&["c"])), (300, 300, 300));
    cache.invalidate(CacheSelector::Subject("alice"));
    assert_eq!((count(&["a"]), count(&["b", "c"]), count(&["c"])), (0, 300, 300));
    cache.invalidate(CacheSelector::Channel("b"));
    assert_eq!((count(&["b", "c"]), count(&["c"])), (0, 300));
    cache.invalidate(CacheSelector::All);
    assert_eq!(count(&["c"]), 0);

    // An evaluation that was in progress does not bring them back.
    let (epoch, directive) = (cache.epoch(), CacheDirective { max_age: MINUTE, vary: vary(&[], true) });
    cache.invalidate(CacheSelector::Subject("alice"));
    cache.insert(&directive, &path(1), &channels(&["a"]), &granted("alice"), None, Instant::now(), epoch);
    assert_eq!(count(&["a"]), 0);
    put(1, &["a"], &granted("alice"));
    assert_eq!(count(&["a"]), 1);
}

#[test]
fn cache_fills_and_never_exceeds_its_capacity() {
    let capacity = 1 << 20;
    let cache = DecisionCache::new(capacity, MINUTE);
    let body = vec![b'x'; 4000];
    for n in 0..5_000 {
        cache.put(&request(&format!("/{n}"), &[]), &["a"], vary(&["cookie"], true), &rejected(body.clone()));
        let bytes = cache.entries.as_ref().expect("it is on").weighted_size();
        assert!(bytes <= capacity as u64, "{bytes} after {n}");
    }
    let bytes = cache.entries.as_ref().expect("it is on").weighted_size();
    assert!(bytes > capacity as u64 / 2, "{bytes}: the cache is used");
}
