use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::policy::{Failure, Grant, Rejection};

const DELAY: Duration = Duration::from_secs(30);

struct Fixture {
    delay: Duration,
    rejections: Arc<RejectionDelay>,
    generation: watch::Sender<u64>,
}

impl Fixture {
    fn new(delay: Duration, permits: usize) -> Self {
        let (generation, receiver) = watch::channel(1);
        Self { delay, rejections: Arc::new(RejectionDelay::new(permits, receiver)), generation }
    }

    fn client_key(&self, request: &Request) -> Option<ClientKey> {
        self.rejections.client_key(self.delay, request)
    }

    fn reject(&self, request: &Request) {
        self.decide(request, &rejected(401));
    }

    fn decide(&self, request: &Request, outcome: &Outcome) {
        self.rejections.record(self.client_key(request), outcome);
    }

    /// How long the request is delayed.
    async fn delay(&self, request: &Request) -> Duration {
        let start = Instant::now();
        self.rejections.wait(self.delay, self.client_key(request)).await;
        start.elapsed()
    }

    /// Waits until that many requests are delayed.
    async fn until_delayed(&self, count: usize) {
        while self.rejections.delayed() < count {
            tokio::task::yield_now().await;
        }
    }
}

fn rejected(status: u16) -> Outcome {
    let status = StatusCode::from_u16(status).expect("a status");
    Outcome::Rejected(Rejection { status, headers: HeaderMap::new(), body: Bytes::new() })
}

fn request(path_with_query: &str, cookie: Option<&'static str>) -> Request {
    let cookie = cookie.map(|cookie| (COOKIE, HeaderValue::from_static(cookie)));
    Request {
        method: "GET".into(),
        scheme: "https".into(),
        authority: "gate.example".into(),
        path_with_query: path_with_query.into(),
        headers: cookie.into_iter().collect(),
        client_address: Some(IpAddr::from([192, 0, 2, 1])),
        id: "1".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn retry_of_a_rejected_client_is_delayed_and_no_other_request() {
    let fixture = Fixture::new(DELAY, 10);
    let tab = request("/s?channel=a&x=1", Some("session=old"));
    assert_eq!(fixture.delay(&tab).await, Duration::ZERO, "no client was rejected yet");
    fixture.reject(&tab);
    for (other, difference) in [
        (request("/s?channel=a&x=1", Some("session=new")), "signed in"),
        (request("/s?channel=a&x=1", None), "signed out"),
        (request("/s?channel=a&x=1", Some("")), "an empty cookie"),
        (request("/s?channel=b&x=1", Some("session=old")), "other channels"),
        (request("/t?channel=a&x=1", Some("session=old")), "another path"),
        (Request { client_address: Some(IpAddr::from([192, 0, 2, 2])), ..tab.clone() }, "another address"),
        (Request { client_address: None, ..tab.clone() }, "an unknown address"),
        (Request { authority: "other.example".into(), ..tab.clone() }, "another host"),
    ] {
        assert_eq!(fixture.delay(&other).await, Duration::ZERO, "{difference}");
    }
    assert_eq!(fixture.delay(&request("/s?channel=a&last_ack_a=7&x=1", Some("session=old"))).await, DELAY);
    assert_eq!(fixture.delay(&tab).await, Duration::ZERO, "it was not rejected again");
    fixture.reject(&tab);
    tokio::time::advance(RETRY_WINDOW - Duration::from_millis(1)).await;
    assert_eq!(fixture.delay(&tab).await, DELAY);
    fixture.reject(&tab);
    tokio::time::advance(RETRY_WINDOW).await;
    assert_eq!(fixture.delay(&tab).await, Duration::ZERO, "the retry window is over");
}

#[tokio::test(start_paused = true)]
async fn client_of_an_unknown_address_is_known_by_its_credentials_only() {
    let fixture = Fixture::new(DELAY, 10);
    let tab = |cookie| Request { client_address: None, ..request("/s?channel=a", cookie) };
    fixture.reject(&tab(Some("session=old")));
    fixture.reject(&tab(None));
    assert_eq!(fixture.delay(&tab(Some("session=old"))).await, DELAY);
    assert_eq!(fixture.delay(&tab(None)).await, Duration::ZERO, "it may be another client");
}

#[tokio::test(start_paused = true)]
async fn only_client_errors_are_delayed() {
    let fixture = Fixture::new(DELAY, 10);
    let outcomes = [
        (rejected(400), DELAY),
        (rejected(403), DELAY),
        (rejected(200), Duration::ZERO),
        (rejected(302), Duration::ZERO),
        (rejected(503), Duration::ZERO),
        (Outcome::Allowed(Grant::default()), Duration::ZERO),
        (Outcome::Failed(Failure::Cpu), Duration::ZERO),
    ];
    for (n, (outcome, expect)) in outcomes.into_iter().enumerate() {
        let request = request(&format!("/{n}"), None);
        fixture.decide(&request, &outcome);
        assert_eq!(fixture.delay(&request).await, expect, "{outcome:?}");
    }
    let off = Fixture::new(Duration::ZERO, 10);
    off.reject(&request("/", None));
    assert_eq!(off.delay(&request("/", None)).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn activation_and_shutdown_end_the_delay() {
    let fixture = Fixture::new(DELAY, 10);
    let tab = request("/", None);
    fixture.reject(&tab);
    let activate = async {
        fixture.until_delayed(1).await;
        fixture.generation.send_modify(|generation| *generation += 1);
    };
    assert_eq!(tokio::join!(fixture.delay(&tab), activate).0, Duration::ZERO);
    assert_eq!(fixture.delay(&tab).await, Duration::ZERO, "a rejection by the previous policy does not count");
    let client = fixture.client_key(&tab);
    fixture.generation.send_modify(|generation| *generation += 1);
    fixture.rejections.record(client, &rejected(401));
    assert_eq!(fixture.delay(&tab).await, Duration::ZERO, "nor one from the time of the activation");

    fixture.reject(&tab);
    let close = async {
        fixture.until_delayed(1).await;
        fixture.rejections.close();
    };
    assert_eq!(tokio::join!(fixture.delay(&tab), close).0, Duration::ZERO);
    assert_eq!(fixture.delay(&tab).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn number_of_delayed_requests_and_remembered_clients_is_bounded() {
    let fixture = Fixture::new(DELAY, 2);
    let tab = request("/", None);
    fixture.reject(&tab);
    let third = async {
        fixture.until_delayed(2).await;
        fixture.delay(&tab).await
    };
    let (first, second, third) = tokio::join!(fixture.delay(&tab), fixture.delay(&tab), third);
    assert_eq!((first, second, third), (DELAY, DELAY, Duration::ZERO));

    // A client that disconnects returns its permit.
    fixture.reject(&tab);
    let disconnected = [
        fixture.rejections.wait(DELAY, fixture.client_key(&tab)),
        fixture.rejections.wait(DELAY, fixture.client_key(&tab)),
    ];
    assert!(tokio::time::timeout(DELAY / 2, futures_util::future::join_all(disconnected)).await.is_err());
    assert_eq!(fixture.rejections.delayed(), 0);

    // The number of remembered clients is bounded.
    let many = |n| request(&format!("/{n}"), None);
    (0..1_000).for_each(|n| fixture.reject(&many(n)));
    let rejected_clients = fixture.rejections.rejected.lock();
    assert!(
        rejected_clients.young.len() + rejected_clients.old.len() <= 2 * 2 * REMEMBERED_PER_PERMIT,
        "{}",
        rejected_clients.young.len()
    );
}
