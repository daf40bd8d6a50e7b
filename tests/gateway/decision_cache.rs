//! Decision caching, and delayed rejections.

use std::sync::Arc;

use tidegate::authz::authorizer::ObservedDecision;
use tidegate::authz::cache::CacheSelector;
use tidegate::policy::Outcome;
use tokio::net::TcpStream;
use tokio::sync::broadcast::Receiver;

use crate::client::{Sse, send_request};
use crate::guests::component;
use crate::harness::{Gateway, load, wait_until, with_timeout};

/// The next decision: whether it was cached, its kind, its reason.
async fn next_decision(decisions: &mut Receiver<Arc<ObservedDecision>>) -> (bool, &'static str, String) {
    let observed = with_timeout("a decision", decisions.recv()).await.expect("there is one");
    let decision = &observed.decision;
    let kind = match &decision.outcome {
        Outcome::Allowed(grant) => {
            if grant.subject.as_deref() == Some("alice") {
                assert_eq!(grant.replay_since, Some(946_684_800_000), "the whole grant is cached");
            }
            "allowed"
        }
        Outcome::Rejected(_) => "rejected",
        Outcome::Failed(failure) => failure.kind(),
    };
    (decision.cached, kind, decision.reason.clone().unwrap_or_default())
}

/// Requests a stream and closes it.
async fn request_status(gateway: &Gateway, query: &str, cookie: &str) -> u16 {
    let target = format!("/api/realtime?{query}");
    let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    let head = format!("GET {target} HTTP/1.1\r\nhost: gate.example\r\ncookie: {cookie}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.expect("it is sent");
    let mut status = [0; 12];
    with_timeout("a status", tokio::io::AsyncReadExt::read_exact(&mut socket, &mut status)).await.expect("a status");
    std::str::from_utf8(&status[9..]).ok().and_then(|text| text.parse().ok()).expect("a number")
}

#[tokio::test]
async fn decision_is_cached_as_the_policy_asks() {
    let gateway = Gateway::with_policy(&component("kept"), "").await;
    let mut decisions = gateway.app.authorizer.watch();
    for (query, cookie, expect) in [
        ("channel=g", "a", (false, "allowed", "because")),
        ("channel=g", "a", (true, "allowed", "because")),
        ("channel=g&last_ack_g=1", "a", (true, "allowed", "because")),
        ("channel=g&lastEventId=1-0&last-event-id=2-0", "a", (true, "allowed", "because")),
        ("channel=g", "b", (false, "allowed", "because")),
        ("channel=g&channel=h", "a", (false, "allowed", "because")),
        ("channel=n", "a", (false, "rejected", "because")),
        ("channel=n", "a", (true, "rejected", "because")),
        ("channel=n", "", (false, "rejected", "because")),
        ("channel=c", "a", (false, "allowed", "because")),
        ("channel=c", "a", (false, "allowed", "because")),
        ("channel=t", "a", (false, "trap", "because")),
        ("channel=t", "a", (false, "trap", "because")),
        ("channel=x", "a", (false, "invalid-answer", "because")),
        ("channel=o", "a", (false, "allowed", "because")),
        ("channel=o", "a", (false, "allowed", "because")),
    ] {
        let status = request_status(&gateway, query, cookie).await;
        let (cached, kind, reason) = next_decision(&mut decisions).await;
        assert_eq!((cached, kind, &*reason), expect, "{query} {cookie}");
        let expected = match kind {
            "allowed" => 200,
            "rejected" => 403,
            _ => 500,
        };
        assert_eq!(status, expected, "{query} {cookie}");
    }

    // A new activation starts with an empty cache, even of the same component.
    gateway.app.authorizer.activate(load(&component("kept")));
    for cached in [false, true] {
        request_status(&gateway, "channel=g", "a").await;
        assert_eq!(next_decision(&mut decisions).await.0, cached);
    }
    for selector in [CacheSelector::All, CacheSelector::Subject("alice"), CacheSelector::Channel("g")] {
        gateway.app.authorizer.invalidate(selector);
        for cached in [false, true] {
            request_status(&gateway, "channel=g", "a").await;
            assert_eq!(next_decision(&mut decisions).await.0, cached, "{selector:?}");
        }
    }
    gateway.app.authorizer.invalidate(CacheSelector::Subject("bob"));
    request_status(&gateway, "channel=g", "a").await;
    assert!(next_decision(&mut decisions).await.0);
}

#[tokio::test]
async fn configuration_can_disable_the_cache() {
    for toml in ["policy.cache-size = 0", "policy.cache-max-age = '0s'"] {
        let gateway = Gateway::with_policy(&component("kept"), toml).await;
        let mut decisions = gateway.app.authorizer.watch();
        for _ in 0..2 {
            assert_eq!(request_status(&gateway, "channel=g", "a").await, 200);
            assert!(!next_decision(&mut decisions).await.0, "{toml}");
        }
    }
}

#[tokio::test]
async fn cached_decision_needs_no_instance() {
    let toml = "policy.concurrency = 1\npolicy.queue-timeout = '50ms'\npolicy.timeout = '60s'";
    let gateway = Gateway::with_policy(&component("kept"), toml).await;
    assert_eq!(request_status(&gateway, "channel=g", "a").await, 200);
    wait_until("the stream has ended", || gateway.app.streams.count() == 0).await;
    let waiting = tokio::spawn(send_request(gateway.data, "GET", "/api/realtime?channel=w", &[], ""));
    wait_until("the only permit is taken", || gateway.app.streams.count() == 1).await;
    assert_eq!(request_status(&gateway, "channel=n", "a").await, 503);
    assert_eq!(request_status(&gateway, "channel=g", "a").await, 200);
    waiting.abort();
}

const DELAYED_REJECTION: &str = "reject.delay = '60s'\nstream.max-streams = 10";

#[tokio::test]
async fn delayed_rejection_ends_when_a_new_policy_allows_the_client() {
    let gateway = Gateway::with_policy(&component("deny"), DELAYED_REJECTION).await;
    let mut decisions = gateway.app.authorizer.watch();
    assert_eq!(gateway.request("channel=c").await.status, 418);
    assert_eq!(next_decision(&mut decisions).await.1, "rejected");
    let to = gateway.data;
    let waiting = tokio::spawn(async move { Sse::open(to, "/api/realtime?channel=c", &[]).await });
    wait_until("the rejection is delayed", || gateway.app.delayed_requests() == 1).await;
    assert!(decisions.try_recv().is_err() && gateway.is_idle(), "the request is delayed without a decision");
    let other = send_request(gateway.data, "GET", "/api/realtime?channel=c", &[("cookie", "another")], "").await;
    assert_eq!(other.status, 418, "a client with other credentials is not delayed");
    // One delayed rejection is allowed for ten streams.
    assert_eq!(gateway.request("channel=c").await.status, 418);

    gateway.app.authorizer.activate(load(&component("allow")));
    waiting.await.expect("the stream is opened").connected("c").await;
    assert_eq!(gateway.app.delayed_requests(), 0);
}

#[tokio::test]
async fn delayed_rejection_ends_with_its_client_and_with_a_drain() {
    let gateway = Gateway::with_policy(&component("deny"), DELAYED_REJECTION).await;
    assert_eq!(gateway.request("channel=c").await.status, 418);
    let to = gateway.data;
    let wait = || tokio::spawn(send_request(to, "GET", "/api/realtime?channel=c", &[], ""));
    let first = wait();
    wait_until("the rejection is delayed", || gateway.app.delayed_requests() == 1).await;
    first.abort();
    wait_until("the stream has ended", || gateway.app.delayed_requests() == 0).await;

    let second = wait();
    wait_until("the rejection is delayed", || gateway.app.delayed_requests() == 1).await;
    with_timeout("the drain ends", gateway.stop()).await.expect("the server ends without a panic");
    assert_eq!(second.await.expect("an answer").status, 418, "the drain ends the delay");
}
