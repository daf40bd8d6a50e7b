//! Outbound requests and look-ups of policies, and their limits.

use futures_util::future::join_all;
use tidegate::config::Config;
use tidegate::policy::Outcome;
use tokio::net::TcpListener;

use crate::client::{Reply, send_request};
use crate::guests::component;
use crate::harness::{Gateway, wait_until};
use crate::origin::{Answer, Origin};

/// The numbers of `error-code` plus 400, as `fetch.wat` answers them.
const REFUSED: u16 = 406;
const DENIED: u16 = 415;
const TOO_LARGE: u16 = 428;
const TIMED_OUT: u16 = 433;
/// Where clouds serve credentials.
const METADATA: &str = "{ url = 'http://169.254.169.254', allow-private = true }";
/// The body ended early.
const BROKEN: u16 = 598;

async fn gateway(hosts: &str, options: &str) -> Gateway {
    Gateway::with_policy(
        &component("fetch"),
        &format!("policy.timeout = '10s'\npolicy.egress.hosts = [{hosts}]\n{options}"),
    )
    .await
}

async fn with_origin(origin: &Origin, options: &str) -> Gateway {
    gateway(&format!("{{ url = 'http://{}', allow-private = true }}", origin.address), options).await
}

async fn fetch(gateway: &Gateway, to: &str, times: usize) -> Reply {
    let headers = [("x-to", to), ("x-times", &"i".repeat(times))];
    send_request(gateway.data, "GET", "/api/realtime?channel=c", &headers, "").await
}

#[tokio::test]
async fn only_allowed_hosts_are_contacted() {
    let origin = Origin::start(Answer::new("200 OK", "", "hello")).await;
    let other = Origin::start(Answer::new("200 OK", "", "hello")).await;
    let to = origin.address.to_string();
    let allowed = with_origin(&origin, "").await;
    let reply = fetch(&allowed, &to, 1).await;
    assert_eq!((reply.status, &*reply.body), (200, "hello"));
    for elsewhere in [
        other.address.to_string(),
        format!("localhost:{}", origin.address.port()),
        format!("127.1:{}", origin.address.port()),
        format!("[::1]:{}", origin.address.port()),
        format!("{to}@{}", other.address),
        "127.0.0.1".into(),
        "169.254.169.254".into(),
    ] {
        assert_eq!(fetch(&allowed, &elsewhere, 1).await.status, DENIED, "{elsewhere}");
    }
    let without_hosts = gateway("", "").await;
    assert_eq!(fetch(&without_hosts, &to, 1).await.status, DENIED);
    assert_eq!((origin.requests(), other.requests()), (1, 0));
}

#[tokio::test]
async fn private_addresses_require_permission_and_link_local_ones_are_prohibited() {
    let origin = Origin::start(Answer::new("200 OK", "", "hello")).await;
    let port = origin.address.port();
    // Where no request could arrive, the configuration is not valid. What a name resolves to is checked in `src/egress/tests.rs`.
    for host in [format!("'http://{}'", origin.address), format!("'http://localhost:{port}'"), METADATA.into()] {
        let toml = format!("allow-all = true\npolicy.egress.hosts = [{host}]");
        let error = Config::validate(toml::from_str(&toml).expect("TOML")).expect_err(&host).to_string();
        assert!(error.contains("policy.egress.hosts[0]"), "{error}");
    }
    let name = gateway(&format!("{{ url = 'http://localhost:{port}', allow-private = true }}"), "").await;
    assert_eq!(fetch(&name, &format!("localhost:{port}"), 1).await.status, 200);
}

#[tokio::test]
async fn responses_over_the_size_and_time_limits_fail() {
    let origin = Origin::start(Answer::new("302 Found", "location: http://127.0.0.1:1/\r\n", "there")).await;
    let to = origin.address.to_string();
    let gateway = with_origin(&origin, "policy.egress.max-response-size = '1KiB'").await;
    let reply = fetch(&gateway, &to, 1).await;
    assert_eq!((reply.status, &*reply.body), (302, "there"), "the gateway does not follow redirects");
    origin.answer.send_replace(Answer::new("200 OK", "", "x".repeat(1024)));
    assert_eq!(fetch(&gateway, &to, 1).await.status, 200);
    origin.answer.send_replace(Answer::new("200 OK", "", "x".repeat(1025)));
    assert_eq!(fetch(&gateway, &to, 1).await.status, TOO_LARGE);
    origin.answer.send_replace(Answer::Response("200 OK\r\n".into(), vec![b'x'; 1 << 20]));
    assert_eq!(fetch(&gateway, &to, 1).await.status, BROKEN);
    origin.answer.send_replace(Answer::Response("200 OK\r\ncontent-length: 1000\r\n".into(), b"x".into()));
    assert_eq!(fetch(&gateway, &to, 1).await.status, BROKEN);
    origin.answer.send_replace(Answer::Wait);
    let gateway = with_origin(&origin, "policy.egress.timeout = '100ms'").await;
    assert_eq!(fetch(&gateway, &to, 1).await.status, TIMED_OUT);

    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("an address");
    let gateway = self::gateway(&format!("{{ url = 'http://{closed}', allow-private = true }}"), "").await;
    assert_eq!(fetch(&gateway, &closed.to_string(), 1).await.status, REFUSED);
}

#[tokio::test]
async fn outbound_requests_per_decision_are_limited() {
    let origin = Origin::start(Answer::new("200 OK", "", "hello")).await;
    let gateway = with_origin(&origin, "policy.egress.max-requests = 3").await;
    let to = origin.address.to_string();
    assert_eq!(fetch(&gateway, &to, 3).await.status, 200);
    let mut decisions = gateway.app.authorizer.watch();
    let reply = fetch(&gateway, &to, 4).await;
    assert_eq!(
        (reply.status, &*reply.code()),
        (500, "decision_error"),
        "over the limit the answer of the policy has no effect"
    );
    let Outcome::Failed(failure) = &decisions.recv().await.expect("a decision").decision.outcome else {
        panic!("it failed")
    };
    assert_eq!(failure.kind(), "limit");
    assert_eq!(origin.requests(), 6);
}

#[tokio::test]
async fn lookups_per_decision_are_limited() {
    let bounds = "policy.lookup.prefixes = ['forbidden:']\n";
    let gateway = Gateway::with_policy(&component("lookups"), bounds).await;
    let mut decisions = gateway.app.authorizer.watch();
    let reply = gateway.request("channel=c").await;
    assert_eq!((reply.status, &*reply.code()), (500, "decision_error"));
    let Outcome::Failed(failure) = &decisions.recv().await.expect("a decision").decision.outcome else {
        panic!("it failed")
    };
    assert_eq!(failure.kind(), "limit");
    assert!(gateway.is_idle());
    let gateway =
        Gateway::with_policy(&component("lookups"), &format!("{bounds}policy.lookup.max-lookups = 100")).await;
    gateway.open("channel=c").await.connected("c").await;
}

#[tokio::test]
async fn slow_host_does_not_block_other_decisions() {
    let origin = Origin::start(Answer::Wait).await;
    let gateway = with_origin(&origin, "policy.egress.timeout = '10s'").await;
    let to = origin.address.to_string();
    let waiting = async { join_all((0..50).map(|_| fetch(&gateway, &to, 1))).await };
    let others = async {
        wait_until("all requests wait", || origin.requests() == 50).await;
        for _ in 0..50 {
            assert_eq!(fetch(&gateway, "127.0.0.1:1", 1).await.status, DENIED);
        }
        origin.answer.send_replace(Answer::new("200 OK", "", "done"));
    };
    let (replies, ()) = tokio::join!(waiting, others);
    assert!(replies.iter().all(|reply| (reply.status, &*reply.body) == (200, "done")));
}
