//! Activation of a policy during requests and open streams.

use std::pin::pin;

use futures_util::FutureExt;
use serde_json::json;

use crate::guests::component;
use crate::harness::{Gateway, load, wait_until, with_timeout};

/// Streams are rotated immediately after an activation.
const IMMEDIATE_ROTATION: &str = "policy.rotation-window = \"0s\"";

#[tokio::test]
async fn streams_of_a_retired_policy_are_rotated_without_loss() {
    let gateway = Gateway::with_policy(&component("allow"), IMMEDIATE_ROTATION).await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let first = gateway.store.emit_stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    gateway.activate(&component("allow")).await.expect("it loads");
    let last_frame = sse.frame().await;
    assert_eq!(last_frame["type"], "reconnect", "{last_frame}");
    let second = gateway.store.emit_stock("c", "e", &json!(2)).await;
    let mut again = gateway.open(&format!("channel=c&last_ack_c={first}")).await;
    again.connected("c").await;
    assert_eq!(again.ids("c", 1).await, [second]);
}

#[tokio::test]
async fn streams_stay_open_without_rotation() {
    let gateway = Gateway::with_policy(&component("allow"), "policy.rotation-window = \"off\"").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.activate(&component("deny")).await.expect("it loads");
    let id = gateway.store.emit_stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [id]);
}

#[tokio::test]
async fn decision_of_a_retired_policy_is_repeated() {
    let gateway = Gateway::with_lookups("").await;
    let authorizer = &gateway.app.authorizer;
    let held = gateway.store.hold_lookups().await;
    let opening = gateway.request("channel=c");
    let swapping = async {
        wait_until("the decision has begun", || authorizer.evaluating() == 1).await;
        authorizer.activate(load(&component("deny"))).drained().await
    };
    let (reply, info) =
        with_timeout("the stream request and the other task finish", async { tokio::join!(opening, swapping) }).await;
    drop(held);
    assert_eq!((reply.status, info.generation), (418, 2), "the answer is that of the active policy");
    // The cancelled decision may end a moment later.
    wait_until("no retired policy decides", || authorizer.retired().is_empty()).await;
}

#[tokio::test]
async fn activation_is_acknowledged_after_retired_decisions_finish() {
    let gateway = Gateway::with_lookups("").await;
    let (store, authorizer) = (&gateway.store, &gateway.app.authorizer);
    let held = store.hold_lookups().await;
    let opening = gateway.open("channel=c");
    let swapping = async {
        wait_until("the decision has begun", || authorizer.evaluating() == 1).await;
        authorizer.activate(load(&component("lookup"))).drained().await;
        // The repeated decision pins its generation, so the next activation waits for it.
        wait_until("the decision is repeated", || authorizer.in_flight() == 1).await;
        let mut drained = pin!(authorizer.activate(load(&component("deny"))).drained());
        assert!(drained.as_mut().now_or_never().is_none(), "the repeated decision is in progress");
        drop(held);
        drained.await;
    };
    let (mut sse, ()) =
        with_timeout("the stream request and the other task finish", async { tokio::join!(opening, swapping) }).await;
    sse.connected("c").await;
    assert_eq!(gateway.request("channel=c").await.status, 418);
}
