use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::*;
use crate::policy::{Failure, Grant, Rejection};

const TIME: Duration = Duration::from_secs(30);

struct Door {
    time: Duration,
    hold: Arc<Hold>,
    swaps: watch::Sender<u64>,
}

impl Door {
    fn new(time: Duration, places: usize) -> Self {
        let (swaps, swapped) = watch::channel(1);
        Self { time, hold: Arc::new(Hold::new(places, swapped)), swaps }
    }

    fn who(&self, request: &Request) -> Option<Who> {
        self.hold.who(self.time, request)
    }

    fn refuse(&self, request: &Request) {
        self.decide(request, &rejected(401));
    }

    fn decide(&self, request: &Request, outcome: &Outcome) {
        self.hold.decided(self.who(request), outcome);
    }

    /// How long it waits.
    async fn waits(&self, request: &Request) -> Duration {
        let start = Instant::now();
        self.hold.wait(self.time, self.who(request)).await;
        start.elapsed()
    }

    /// Waits until that many are held.
    async fn holds(&self, count: usize) {
        while self.hold.count() < count {
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
        client_address: "192.0.2.1".into(),
        id: "1".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_waits_and_nobody_else() {
    let door = Door::new(TIME, 10);
    let tab = request("/s?channel=a&x=1", Some("session=old"));
    assert_eq!(door.waits(&tab).await, Duration::ZERO, "nobody was refused yet");
    door.refuse(&tab);
    for (other, why) in [
        (request("/s?channel=a&x=1", Some("session=new")), "it has logged in"),
        (request("/s?channel=a&x=1", None), "it has logged out"),
        (request("/s?channel=a&x=1", Some("")), "an empty cookie is not none"),
        (request("/s?channel=b&x=1", Some("session=old")), "other channels"),
        (request("/t?channel=a&x=1", Some("session=old")), "another path"),
        (Request { client_address: "192.0.2.2".into(), ..tab.clone() }, "another address"),
        (Request { authority: "other.example".into(), ..tab.clone() }, "another host"),
    ] {
        assert_eq!(door.waits(&other).await, Duration::ZERO, "{why}");
    }
    assert_eq!(door.waits(&request("/s?channel=a&last_ack_a=7&x=1", Some("session=old"))).await, TIME);
    assert_eq!(door.waits(&tab).await, Duration::ZERO, "it was not refused again");
    door.refuse(&tab);
    tokio::time::advance(AGAIN - Duration::from_millis(1)).await;
    assert_eq!(door.waits(&tab).await, TIME);
    door.refuse(&tab);
    tokio::time::advance(AGAIN).await;
    assert_eq!(door.waits(&tab).await, Duration::ZERO, "it took its time");
}

#[tokio::test(start_paused = true)]
async fn only_a_refusal_is_held() {
    let door = Door::new(TIME, 10);
    let outcomes = [
        (rejected(400), TIME),
        (rejected(403), TIME),
        (rejected(200), Duration::ZERO),
        (rejected(302), Duration::ZERO),
        (rejected(503), Duration::ZERO),
        (Outcome::Allowed(Grant::default()), Duration::ZERO),
        (Outcome::Failed(Failure::Cpu), Duration::ZERO),
    ];
    for (n, (outcome, expect)) in outcomes.into_iter().enumerate() {
        let request = request(&format!("/{n}"), None);
        door.decide(&request, &outcome);
        assert_eq!(door.waits(&request).await, expect, "{outcome:?}");
    }
    let off = Door::new(Duration::ZERO, 10);
    off.refuse(&request("/", None));
    assert_eq!(off.waits(&request("/", None)).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_swap_and_the_end_release_who_waits() {
    let door = Door::new(TIME, 10);
    let tab = request("/", None);
    door.refuse(&tab);
    let swap = async {
        door.holds(1).await;
        door.swaps.send_modify(|swap| *swap += 1);
    };
    assert_eq!(tokio::join!(door.waits(&tab), swap).0, Duration::ZERO);
    assert_eq!(door.waits(&tab).await, Duration::ZERO, "what the old policy refused says nothing");
    let who = door.who(&tab);
    door.swaps.send_modify(|swap| *swap += 1);
    door.hold.decided(who, &rejected(401));
    assert_eq!(door.waits(&tab).await, Duration::ZERO, "nor what it refused while it was replaced");

    door.refuse(&tab);
    let close = async {
        door.holds(1).await;
        door.hold.close();
    };
    assert_eq!(tokio::join!(door.waits(&tab), close).0, Duration::ZERO);
    assert_eq!(door.waits(&tab).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_some() {
    let door = Door::new(TIME, 2);
    let tab = request("/", None);
    door.refuse(&tab);
    let third = async {
        door.holds(2).await;
        door.waits(&tab).await
    };
    let (first, second, third) = tokio::join!(door.waits(&tab), door.waits(&tab), third);
    assert_eq!((first, second, third), (TIME, TIME, Duration::ZERO));

    // Whoever goes away makes room.
    door.refuse(&tab);
    let gone = [door.hold.wait(TIME, door.who(&tab)), door.hold.wait(TIME, door.who(&tab))];
    assert!(tokio::time::timeout(TIME / 2, futures_util::future::join_all(gone)).await.is_err());
    assert_eq!(door.hold.count(), 0);

    // Many that are refused are not all remembered.
    let many = |n| request(&format!("/{n}"), None);
    (0..1_000).for_each(|n| door.refuse(&many(n)));
    let refused = door.hold.refused();
    assert!(refused.young.len() + refused.old.len() <= 2 * 2 * REMEMBERED, "{}", refused.young.len());
}
