//! Store outages: streams stay open, and missed events arrive once and in order.

use std::time::Duration;

use serde_json::json;
use tidegate::event::StreamId;

use crate::client::{Sse, send_request};
use crate::harness::{Gateway, wait_until};

/// Reads this many pings; any other frame is an error.
pub async fn expect_pings(sse: &mut Sse, count: usize) {
    let mut pings = 0;
    while pings < count {
        let block = sse.block().await.expect("the stream stays");
        if block.json.is_some() {
            assert_eq!(block.kind(), "ping", "{block:?}");
            assert!(block.json.is_some_and(|json| json["timestamp"].is_u64()));
            pings += 1;
        }
    }
}

#[tokio::test]
async fn stream_is_pinged_until_the_store_is_reachable_and_then_connected() {
    let gateway = Gateway::start("stream.ping-interval = '1s'").await;
    let missed = gateway.store.add("c", "e", &json!("missed")).await;
    gateway.store.disconnect();
    let mut sse = gateway.open("channel=c&channel=d&last_ack_c=0").await;
    expect_pings(&mut sse, 2).await;
    gateway.store.reconnect();
    let mut frames = Vec::new();
    for _ in 0..3 {
        frames.push(sse.frame().await);
    }
    let frames_of_c: Vec<_> = frames.iter().filter(|frame| frame["channel"] == "c").collect();
    assert_eq!((&frames_of_c[0]["type"], &frames_of_c[1]["id"]), (&json!("connected"), &json!(missed.to_string())));
    let live = gateway.store.emit_stock("d", "e", &json!("live")).await;
    assert_eq!(sse.ids("d", 1).await, [live]);
}

#[tokio::test]
async fn client_that_disconnects_before_its_channels_open_keeps_its_position() {
    let gateway = Gateway::start("stream.ping-interval = '1s'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let first = gateway.store.emit_own("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    gateway.store.disconnect();
    let missed = gateway.store.emit_own("c", "e", &json!(2)).await;
    for _ in 0..2 {
        sse = sse.reconnect().await;
        expect_pings(&mut sse, 1).await;
    }
    gateway.store.reconnect();
    assert_eq!(sse.connected("c").await, first);
    assert_eq!(sse.ids("c", 1).await, [missed]);
}

#[tokio::test]
async fn streams_survive_an_outage_and_receive_missed_events() {
    let gateway = Gateway::start("stream.ping-interval = '1s'\nstream.reconcile-interval = '100ms'").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut sse = gateway.open("channel=a&channel=b").await;
        let _connected = (sse.frame().await, sse.frame().await);
        streams.push(sse);
    }
    for round in 0..4 {
        gateway.store.disconnect();
        let mut written = [Vec::new(), Vec::new()];
        for n in 0..50 {
            let data = json!({"round": round, "n": n});
            written[0].push(gateway.store.emit_stock("a", "e", &data).await);
            written[1].push(gateway.store.emit_own("b", "e", &json!("7")).await);
        }
        if round == 0 {
            expect_pings(&mut streams[0], 1).await;
        }
        gateway.store.reconnect();
        // These events arrive while the streams catch up.
        for n in 0..10 {
            written[0].push(gateway.store.emit_own("a", "e", &json!(n)).await);
            written[1].push(gateway.store.emit_stock("b", "e", &json!(n)).await);
            tokio::task::yield_now().await;
        }
        for sse in &mut streams {
            let mut received = [Vec::new(), Vec::new()];
            for _ in 0..120 {
                let event = sse.event().await;
                received[usize::from(event["channel"] == "b")].push(crate::client::id_of(&event));
            }
            assert_eq!(received, written, "round {round}");
        }
    }
}

#[tokio::test]
async fn flapping_link_neither_loses_nor_repeats_events() {
    let gateway = Gateway::start("stream.reconcile-interval = '100ms'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let mut written = Vec::new();
    for n in 0..100 {
        match n % 5 {
            1 => gateway.store.disconnect(),
            3 => gateway.store.reconnect(),
            _ => {}
        }
        written.push(match n % 3 {
            0 => gateway.store.emit_own("c", "e", &json!(n)).await,
            _ => gateway.store.emit_stock("c", "e", &json!(n)).await,
        });
        for _ in 0..n % 11 {
            tokio::task::yield_now().await;
        }
    }
    gateway.store.reconnect();
    assert_eq!(sse.ids("c", written.len()).await, written);
}

#[tokio::test]
async fn interrupted_replay_continues_after_the_outage() {
    let gateway = Gateway::start("stream.replay-memory = '1MiB'\nstream.buffer-memory = 0").await;
    let mut written = Vec::new();
    for _ in 0..2_000 {
        written.push(gateway.store.add("c", "e", &json!("x".repeat(1_000))).await);
    }
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    let mut received = sse.ids("c", 10).await;
    gateway.store.disconnect();
    written.push(gateway.store.emit_stock("c", "e", &json!("missed")).await);
    gateway.store.reconnect();
    received.extend(sse.ids("c", written.len() - 10).await);
    assert_eq!(received, written);
}

#[tokio::test]
async fn store_rollback_is_a_gap_for_clients_that_saw_the_lost_entries() {
    let gateway = Gateway::start("").await;
    let mut written = Vec::new();
    for n in 0..3 {
        written.push(gateway.store.add("c", "e", &json!(n)).await);
    }
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    assert_eq!(sse.ids("c", 3).await, written);
    let lost = gateway.store.emit_stock("c", "e", &json!("lost")).await;
    assert_eq!(sse.ids("c", 1).await, [lost]);
    gateway.store.disconnect();
    gateway.store.keep_first_entries("c", 2).await;
    gateway.store.reconnect();
    // The channel has not read the entries that are left, so they may be new.
    assert_eq!(sse.gap("c").await, ("store-reset".into(), true, None, written[1]));
    assert_eq!(sse.ids("c", 2).await, written[..2]);
    let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
    assert_eq!(sse.ids("c", 1).await, [next]);
    // A client that reconnects does not receive the gap again.
    let mut sse = sse.reconnect().await;
    assert_eq!(sse.connected("c").await, next);
    let last = gateway.store.emit_stock("c", "e", &json!("last")).await;
    assert_eq!(sse.ids("c", 1).await, [last]);
    // A client that acknowledges a lost entry is clamped, and receives a gap.
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={}", StreamId::new(last.ms + 1, 0))).await;
    assert_eq!(sse.connected("c").await, last);
    assert_eq!(sse.gap("c").await.0, "store-reset");
}

/// The clock of the server that took over is slow, so that the ids of new entries are less than those that were delivered.
#[tokio::test]
async fn entry_that_reveals_a_store_rollback_is_delivered() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let mut written = Vec::new();
    for n in 0..4 {
        gateway.store.advance_clock(1_000);
        written.push(gateway.store.emit_stock("c", "e", &json!(n)).await);
    }
    assert_eq!(sse.ids("c", 4).await, written);
    let mut second = gateway.open("channel=c&last_ack_c=0").await;
    second.connected("c").await;
    assert_eq!(second.ids("c", 4).await, written);
    gateway.store.keep_first_entries("c", 2).await;
    gateway.store.set_clock(written[1].ms + 10);
    let new = gateway.store.emit_stock("c", "e", &json!("new")).await;
    assert!(written[1] < new && new < written[2], "{new}");
    for sse in [&mut sse, &mut second] {
        assert_eq!(sse.gap("c").await, ("store-reset".into(), true, Some(written[1]), new));
        assert_eq!(sse.ids("c", 1).await, [new]);
    }
    // A client that returns gets nothing twice.
    let mut sse = sse.reconnect().await;
    assert_eq!(sse.connected("c").await, new);
    // The key is gone, and a read has noticed it, as by a message that is no event.
    gateway.store.keep_first_entries("c", 0).await;
    gateway.store.set_clock(1_000);
    gateway.store.publish("c", "ring").await;
    let first = gateway.store.emit_stock("c", "e", &json!("first")).await;
    assert_eq!(sse.gap("c").await, ("store-reset".into(), true, None, first));
    assert_eq!(sse.ids("c", 1).await, [first]);
}

#[tokio::test]
async fn store_that_returns_empty_is_a_gap() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let read = gateway.store.emit_stock("c", "e", &json!("read")).await;
    assert_eq!(sse.ids("c", 1).await, [read]);
    gateway.store.disconnect();
    gateway.store.emit_stock("c", "e", &json!("acknowledged, and lost with the store")).await;
    gateway.store.keep_first_entries("c", 0).await;
    gateway.store.reconnect();
    let (_, certain, after, _) = sse.gap("c").await;
    assert_eq!((certain, after), (false, None), "the gap is uncertain");
    let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
    assert_eq!(sse.ids("c", 1).await, [next]);
}

#[tokio::test]
async fn client_can_disconnect_during_an_outage() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.store.disconnect();
    let waiting = gateway.open("channel=c&channel=d").await;
    drop((sse, waiting));
    wait_until("both streams have ended", || gateway.app.streams.count() == 0).await;
}

#[tokio::test]
async fn unused_channel_is_closed_after_a_delay_and_reopened_on_demand() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let first = gateway.store.emit_stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    // The unused channel stays open for half a minute, by which the paused clock advances at once.
    let id = sse.last_event_id.clone();
    drop(sse);
    wait_until("the stream has ended", || gateway.app.streams.count() == 0).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    wait_until("the subscription has ended", || gateway.store.subscribed_channels().is_empty()).await;
    assert_eq!(gateway.app.hub.buffer_bytes(), 0);
    let missed = gateway.store.emit_stock("c", "e", &json!(2)).await;
    let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], id).await;
    assert_eq!(sse.connected("c").await, first);
    assert_eq!(sse.ids("c", 1).await, [missed]);
}

#[tokio::test]
async fn readyz_reports_an_unreachable_store() {
    let gateway = Gateway::start("").await;
    let ready = async || {
        let reply = send_request(gateway.control, "GET", "/readyz", &[], "").await;
        (reply.status, reply.json()["store"].to_string())
    };
    assert_eq!(ready().await, (200, "\"ok\"".into()));
    gateway.store.disconnect();
    assert_eq!(ready().await, (503, "\"unavailable\"".into()));
    assert_eq!(send_request(gateway.control, "GET", "/healthz", &[], "").await.status, 200);
    gateway.store.reconnect();
    assert_eq!(ready().await, (200, "\"ok\"".into()));
}
