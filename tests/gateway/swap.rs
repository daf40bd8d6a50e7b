//! A policy is replaced while clients come and streams run.

use std::time::Duration;

use serde_json::json;

use crate::guests::component;
use crate::harness::{Gateway, load, until, within};

/// Streams leave at once behind a swap.
const AT_ONCE: &str = "policy.rotation-window = \"0s\"";

#[tokio::test]
async fn streams_of_an_older_version_are_asked_to_come_back_and_lose_nothing() {
    let gateway = Gateway::behind(&component("allow"), AT_ONCE).await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let first = gateway.store.stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    gateway.replace(&component("allow")).await.expect("it loads");
    let farewell = sse.frame().await;
    assert_eq!(farewell["type"], "reconnect", "{farewell}");
    let second = gateway.store.stock("c", "e", &json!(2)).await;
    let mut again = gateway.open(&format!("channel=c&last_ack_c={first}")).await;
    again.connected("c").await;
    assert_eq!(again.ids("c", 1).await, [second]);
}

#[tokio::test]
async fn without_rotation_they_stay() {
    let gateway = Gateway::behind(&component("allow"), "policy.rotation-window = \"off\"").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.replace(&component("deny")).await.expect("it loads");
    let id = gateway.store.stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_was_overtaken_is_made_once_more() {
    let gateway = Gateway::behind(&component("slow"), "").await;
    let authorizer = &gateway.app.authorizer;
    let opening = gateway.refused("channel=c");
    let swapping = async {
        until("the decision has begun", || gateway.app.streams.count() == 1).await;
        gateway.app.authorizer.activate(load(&component("deny"))).drained().await
    };
    let (reply, info) = within("both", async { tokio::join!(opening, swapping) }).await;
    assert_eq!((reply.status, info.generation), (418, 2), "the word is that of what is in force");
    assert!(authorizer.retired().is_empty(), "{:?}", authorizer.retired());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_is_acknowledged_when_no_older_answer_is_on_its_way() {
    let gateway = Gateway::behind(&component("slow"), "").await;
    let swap = |name: &'static str| gateway.app.authorizer.activate(load(&component(name)));
    let opening = gateway.open("channel=c");
    let swapping = async {
        until("the decision has begun", || gateway.app.streams.count() == 1).await;
        swap("slow").drained().await;
        // The second decision is pinned: whoever swaps now waits for it.
        until("it is decided once more", || gateway.app.authorizer.in_flight() == 1).await;
        let started = std::time::Instant::now();
        swap("deny").drained().await;
        started.elapsed()
    };
    let (mut sse, waited) = within("both", async { tokio::join!(opening, swapping) }).await;
    sse.connected("c").await;
    assert!(waited > Duration::from_millis(20), "{waited:?}");
    assert_eq!(gateway.refused("channel=c").await.status, 418);
}
