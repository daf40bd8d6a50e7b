//! A node delivers only what follows a check of the commands, and nothing while it has no proof that it reads from the current master.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::client::send_request;
use crate::faulty_store::FaultyStore;
use crate::harness::{Gateway, InitialPolicy, wait_until};
use crate::store_outage::expect_pings;

const COMMANDS: &str = "tidegate:{default}:commands";
const PINGS: &str = "stream.ping-interval = '1s'\n";

async fn start(store: &Arc<FaultyStore>, toml: &str) -> Gateway {
    let toml = format!("{PINGS}{toml}");
    let gateway = Gateway::start_with(Some(Arc::clone(store)), &InitialPolicy::AllowAll, &toml).await;
    wait_until("the commands are synced", || gateway.app.commands.are_synced()).await;
    gateway
}

/// The status of `/readyz`, and what it says about the store.
async fn readiness(gateway: &Gateway) -> (u16, String) {
    let reply = send_request(gateway.control, "GET", "/readyz", &[], "").await;
    (reply.status, reply.json()["store"].as_str().expect("a state").to_owned())
}

#[tokio::test]
async fn node_without_a_proof_of_the_master_delivers_nothing_until_it_has_one() {
    let store = FaultyStore::with_failover(Default::default());
    let gateway = start(&store, "fleet.fence = '1s'").await;
    let (mut sse, mut revoked) = (gateway.open("channel=c").await, gateway.open("channel=d").await);
    sse.connected("c").await;
    revoked.connected("d").await;
    let first = store.emit_stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    store.set_master(false);
    wait_until("the last proof is too old", || !gateway.app.commands.is_master_proven()).await;
    assert_eq!(readiness(&gateway).await, (503, "unproven".into()));
    let event = store.emit_stock("c", "e", &json!(2)).await;
    // What the event buffer has is not delivered either.
    let mut late = gateway.open("channel=c&last_ack_c=0").await;
    expect_pings(&mut late, 1).await;
    expect_pings(&mut sse, 2).await;
    // What the current master has: a command that this node has not read.
    store.drop_notifications();
    store.emit_own(COMMANDS, "command", &json!({"kind": "revoke", "channel": "d"})).await;
    store.emit_own("d", "e", &json!("after the revocation")).await;
    store.set_master(true);
    assert_eq!(sse.ids("c", 1).await, [event]);
    late.connected("c").await;
    assert_eq!(late.ids("c", 2).await, [first, event]);
    assert_eq!(revoked.frame().await["type"], "reconnect");
    wait_until("the commands are synced", || gateway.app.commands.are_synced()).await;
    assert_eq!(readiness(&gateway).await, (200, "ok".into()));
}

#[tokio::test]
async fn short_loss_of_the_proof_stops_nothing() {
    let store = FaultyStore::with_failover(Default::default());
    let gateway = start(&store, "fleet.fence = '60s'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    store.set_master(false);
    for n in 0..3 {
        let event = store.emit_stock("c", "e", &json!(n)).await;
        assert_eq!(sse.ids("c", 1).await, [event]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(readiness(&gateway).await, (200, "ok".into()));
}

#[tokio::test]
async fn event_waits_for_a_check_of_the_commands_that_was_sent_after_it_was_read() {
    let store = FaultyStore::new(Default::default());
    store.separate_commands();
    let gateway = start(&store, "").await;
    for round in 0..5 {
        let [revoked, other] = ["revoked", "other"].map(|name| format!("{name}-{round}"));
        let mut revoked_stream = gateway.open(&format!("channel={revoked}")).await;
        let mut other_stream = gateway.open(&format!("channel={other}")).await;
        revoked_stream.connected(&revoked).await;
        other_stream.connected(&other).await;
        let (pages, held) = (store.pages(), store.hold_checks().await);
        store.emit_stock(&revoked, "e", &json!("before the revocation, and not delivered before it")).await;
        let event = store.emit_stock(&other, "e", &json!(round)).await;
        wait_until("the events are read", || store.pages() >= pages + 2).await;
        // Its notification is lost.
        store.drop_notifications();
        store.emit_own(COMMANDS, "command", &json!({"kind": "revoke", "channel": revoked})).await;
        drop(held);
        assert_eq!(revoked_stream.frame().await["type"], "reconnect");
        assert_eq!(other_stream.ids(&other, 1).await, [event]);
        store.hold_notifications();
        store.release_notifications(&[], false).await;
    }
}

#[tokio::test]
async fn one_check_serves_all_pages_that_arrived_before_it_was_sent() {
    const CHANNELS: usize = 12;
    let store = FaultyStore::new(Default::default());
    store.separate_commands();
    let gateway = start(&store, "stream.reconcile-interval = '1h'").await;
    let mut streams = Vec::new();
    for n in 0..CHANNELS {
        let mut sse = gateway.open(&format!("channel=c{n}")).await;
        sse.connected(&format!("c{n}")).await;
        streams.push(sse);
    }
    let (pages, checks, held) = (store.pages(), store.checks(), store.hold_checks().await);
    for n in 0..CHANNELS {
        store.emit_stock(&format!("c{n}"), "e", &json!(n)).await;
        wait_until("a check is in flight", || store.checks() > checks).await;
    }
    wait_until("the events are read", || store.pages() >= pages + CHANNELS).await;
    assert_eq!(store.checks(), checks + 1, "at most one check is in flight");
    drop(held);
    for (n, sse) in streams.iter_mut().enumerate() {
        sse.ids(&format!("c{n}"), 1).await;
    }
    assert_eq!(store.checks(), checks + 2);
}

#[tokio::test]
async fn nothing_is_delivered_while_the_commands_cannot_be_checked() {
    let store = FaultyStore::new(Default::default());
    store.separate_commands();
    let gateway = start(&store, "").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    store.fail_checks(true);
    let event = store.emit_stock("c", "e", &json!(1)).await;
    expect_pings(&mut sse, 2).await;
    assert_eq!(readiness(&gateway).await, (503, "unsynced".into()));
    store.fail_checks(false);
    assert_eq!(sse.ids("c", 1).await, [event]);
}

/// A master that was stopped and continued may answer although another one has taken over meanwhile.
#[tokio::test]
async fn late_answer_to_a_check_does_not_count() {
    let store = FaultyStore::with_failover(Default::default());
    store.separate_commands();
    let gateway = start(&store, "fleet.fence = '1s'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let (checks, held) = (store.checks(), store.hold_checks().await);
    let event = store.emit_stock("c", "e", &json!(1)).await;
    wait_until("a check is sent", || store.checks() > checks).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    drop(held);
    assert_eq!(sse.ids("c", 1).await, [event]);
    assert!(store.checks() >= checks + 2, "it is asked again");
}
