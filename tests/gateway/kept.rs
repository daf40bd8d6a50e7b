//! Answers that are given again, and refused clients that wait.

use std::sync::Arc;

use tidegate::authz::authorizer::ObservedDecision;
use tidegate::authz::cache::CacheSelector;
use tidegate::policy::Outcome;
use tokio::net::TcpStream;
use tokio::sync::broadcast::Receiver;

use crate::client::{Sse, ask};
use crate::guests::component;
use crate::harness::{Gateway, load, until, within};

/// What came of the next decision: whether it was kept, its kind, its reason.
async fn next(decisions: &mut Receiver<Arc<ObservedDecision>>) -> (bool, &'static str, String) {
    let watched = within("a decision", decisions.recv()).await.expect("there is one");
    let decision = &watched.decision;
    let kind = match &decision.outcome {
        Outcome::Allowed(grant) => {
            if grant.subject.as_deref() == Some("alice") {
                assert_eq!(grant.replay_since, Some(946_684_800_000), "all of the answer comes again");
            }
            "allowed"
        }
        Outcome::Rejected(_) => "rejected",
        Outcome::Failed(failure) => failure.kind(),
    };
    (decision.cached, kind, decision.reason.clone().unwrap_or_default())
}

/// Asks for a stream and lets it go.
async fn visit(gateway: &Gateway, query: &str, cookie: &str) -> u16 {
    let target = format!("/api/realtime?{query}");
    let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    let head = format!("GET {target} HTTP/1.1\r\nhost: gate.example\r\ncookie: {cookie}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.expect("it is sent");
    let mut status = [0; 12];
    within("a status", tokio::io::AsyncReadExt::read_exact(&mut socket, &mut status)).await.expect("a status");
    std::str::from_utf8(&status[9..]).ok().and_then(|text| text.parse().ok()).expect("a number")
}

#[tokio::test]
async fn an_answer_is_given_again_as_the_policy_says() {
    let gateway = Gateway::behind(&component("kept"), "").await;
    let mut decisions = gateway.app.authorizer.watch();
    for (query, cookie, expect) in [
        ("channel=g", "a", (false, "allowed", "because")),
        ("channel=g", "a", (true, "allowed", "because")),
        ("channel=g&last_ack_g=1", "a", (true, "allowed", "because")),
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
        let status = visit(&gateway, query, cookie).await;
        let (cached, kind, reason) = next(&mut decisions).await;
        assert_eq!((cached, kind, &*reason), expect, "{query} {cookie}");
        let expected = match kind {
            "allowed" => 200,
            "rejected" => 403,
            _ => 500,
        };
        assert_eq!(status, expected, "{query} {cookie}");
    }

    // The policy that takes its place begins with nothing, though it is the same.
    gateway.app.authorizer.activate(load(&component("kept")));
    for cached in [false, true] {
        visit(&gateway, "channel=g", "a").await;
        assert_eq!(next(&mut decisions).await.0, cached);
    }
    for what in [CacheSelector::All, CacheSelector::Subject("alice"), CacheSelector::Channel("g")] {
        gateway.app.authorizer.invalidate(what);
        for cached in [false, true] {
            visit(&gateway, "channel=g", "a").await;
            assert_eq!(next(&mut decisions).await.0, cached, "{what:?}");
        }
    }
    gateway.app.authorizer.invalidate(CacheSelector::Subject("bob"));
    visit(&gateway, "channel=g", "a").await;
    assert!(next(&mut decisions).await.0);
}

#[tokio::test]
async fn the_operator_may_keep_less() {
    for toml in ["policy.cache-size = 0", "policy.cache-max-age = '0s'"] {
        let gateway = Gateway::behind(&component("kept"), toml).await;
        let mut decisions = gateway.app.authorizer.watch();
        for _ in 0..2 {
            assert_eq!(visit(&gateway, "channel=g", "a").await, 200);
            assert!(!next(&mut decisions).await.0, "{toml}");
        }
    }
}

#[tokio::test]
async fn what_is_kept_needs_no_instance() {
    let toml = "policy.concurrency = 1\npolicy.queue-timeout = '50ms'\npolicy.timeout = '60s'";
    let gateway = Gateway::behind(&component("kept"), toml).await;
    assert_eq!(visit(&gateway, "channel=g", "a").await, 200);
    until("it is gone", || gateway.app.streams.count() == 0).await;
    let waiting = tokio::spawn(ask(gateway.data, "GET", "/api/realtime?channel=w", &[], ""));
    until("the only instance is taken", || gateway.app.streams.count() == 1).await;
    assert_eq!(visit(&gateway, "channel=n", "a").await, 503);
    assert_eq!(visit(&gateway, "channel=g", "a").await, 200);
    waiting.abort();
}

const HOLD: &str = "reject.delay = '60s'\nstream.max-streams = 10";

#[tokio::test]
async fn a_refused_client_waits_and_a_new_policy_lets_it_in() {
    let gateway = Gateway::behind(&component("deny"), HOLD).await;
    let mut decisions = gateway.app.authorizer.watch();
    assert_eq!(gateway.refused("channel=c").await.status, 418);
    assert_eq!(next(&mut decisions).await.1, "rejected");
    let to = gateway.data;
    let waiting = tokio::spawn(async move { Sse::open(to, "/api/realtime?channel=c", &[]).await });
    until("it waits", || gateway.app.delayed_requests() == 1).await;
    assert!(decisions.try_recv().is_err() && gateway.is_untouched(), "it is not asked about");
    let other = ask(gateway.data, "GET", "/api/realtime?channel=c", &[("cookie", "another")], "").await;
    assert_eq!(other.status, 418, "who shows other credentials is somebody else");
    // There is room for one of ten.
    assert_eq!(gateway.refused("channel=c").await.status, 418);

    gateway.app.authorizer.activate(load(&component("allow")));
    waiting.await.expect("it is let in").connected("c").await;
    assert_eq!(gateway.app.delayed_requests(), 0);
}

#[tokio::test]
async fn who_goes_away_makes_room_and_a_drain_ends_the_wait() {
    let gateway = Gateway::behind(&component("deny"), HOLD).await;
    assert_eq!(gateway.refused("channel=c").await.status, 418);
    let to = gateway.data;
    let wait = || tokio::spawn(ask(to, "GET", "/api/realtime?channel=c", &[], ""));
    let first = wait();
    until("it waits", || gateway.app.delayed_requests() == 1).await;
    first.abort();
    until("it is gone", || gateway.app.delayed_requests() == 0).await;

    let second = wait();
    until("it waits", || gateway.app.delayed_requests() == 1).await;
    within("the drain", gateway.stop()).await.expect("the server ends without a panic");
    assert_eq!(second.await.expect("an answer").status, 418, "it is decided at once");
}
