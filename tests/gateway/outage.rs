//! The store goes away and comes back: streams stay, and everything missed comes, once and in order.

use std::time::Duration;

use serde_json::json;
use tidegate::event::StreamId;

use crate::client::{Sse, ask};
use crate::harness::{Gateway, until};

/// The next blocks have to be pings only.
async fn only_pings(sse: &mut Sse, count: usize) {
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
async fn connected_waits_for_a_store_that_is_away_and_pings_go_on() {
    let gateway = Gateway::start("stream.ping-interval = '1s'").await;
    let missed = gateway.store.add("c", "e", &json!("missed")).await;
    gateway.store.cut();
    let mut sse = gateway.open("channel=c&channel=d&last_ack_c=0").await;
    only_pings(&mut sse, 2).await;
    gateway.store.heal();
    let mut frames = Vec::new();
    for _ in 0..3 {
        frames.push(sse.frame().await);
    }
    let of_c: Vec<_> = frames.iter().filter(|frame| frame["channel"] == "c").collect();
    assert_eq!((&of_c[0]["type"], &of_c[1]["id"]), (&json!("connected"), &json!(missed.to_string())));
    let live = gateway.store.stock("d", "e", &json!("live")).await;
    assert_eq!(sse.ids("d", 1).await, [live]);
}

#[tokio::test]
async fn one_who_breaks_off_before_its_channels_are_open_comes_back_where_it_was() {
    let gateway = Gateway::start("stream.ping-interval = '1s'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let first = gateway.store.own("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    gateway.store.cut();
    let missed = gateway.store.own("c", "e", &json!(2)).await;
    for _ in 0..2 {
        sse = sse.reconnect().await;
        only_pings(&mut sse, 1).await;
    }
    gateway.store.heal();
    assert_eq!(sse.connected("c").await, first);
    assert_eq!(sse.ids("c", 1).await, [missed]);
}

#[tokio::test]
async fn streams_outlive_an_outage_and_get_everything_missed() {
    let gateway = Gateway::start("stream.ping-interval = '1s'\nstream.reconcile-interval = '100ms'").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut sse = gateway.open("channel=a&channel=b").await;
        let _connected = (sse.frame().await, sse.frame().await);
        streams.push(sse);
    }
    for round in 0..4 {
        gateway.store.cut();
        let mut written = [Vec::new(), Vec::new()];
        for n in 0..50 {
            let data = json!({"round": round, "n": n});
            written[0].push(gateway.store.stock("a", "e", &data).await);
            written[1].push(gateway.store.own("b", "e", &json!("7")).await);
        }
        if round == 0 {
            only_pings(&mut streams[0], 1).await;
        }
        gateway.store.heal();
        // These come while the streams are catching up.
        for n in 0..10 {
            written[0].push(gateway.store.own("a", "e", &json!(n)).await);
            written[1].push(gateway.store.stock("b", "e", &json!(n)).await);
            tokio::task::yield_now().await;
        }
        for sse in &mut streams {
            let mut got = [Vec::new(), Vec::new()];
            for _ in 0..120 {
                let event = sse.event().await;
                got[usize::from(event["channel"] == "b")].push(crate::client::id_of(&event));
            }
            assert_eq!(got, written, "round {round}");
        }
    }
}

#[tokio::test]
async fn a_link_that_flaps_loses_and_repeats_nothing() {
    let gateway = Gateway::start("stream.reconcile-interval = '100ms'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let mut written = Vec::new();
    for n in 0..100 {
        match n % 5 {
            1 => gateway.store.cut(),
            3 => gateway.store.heal(),
            _ => {}
        }
        written.push(match n % 3 {
            0 => gateway.store.own("c", "e", &json!(n)).await,
            _ => gateway.store.stock("c", "e", &json!(n)).await,
        });
        for _ in 0..n % 11 {
            tokio::task::yield_now().await;
        }
    }
    gateway.store.heal();
    assert_eq!(sse.ids("c", written.len()).await, written);
}

#[tokio::test]
async fn a_replay_that_the_outage_interrupts_goes_on_after_it() {
    let gateway = Gateway::start("stream.replay-memory = '1MiB'\nstream.buffer-memory = 0").await;
    let mut written = Vec::new();
    for _ in 0..2_000 {
        written.push(gateway.store.add("c", "e", &json!("x".repeat(1_000))).await);
    }
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    let mut got = sse.ids("c", 10).await;
    gateway.store.cut();
    written.push(gateway.store.stock("c", "e", &json!("missed")).await);
    gateway.store.heal();
    got.extend(sse.ids("c", written.len() - 10).await);
    assert_eq!(got, written);
}

#[tokio::test]
async fn a_store_that_lost_its_end_is_a_gap_for_those_who_had_seen_it() {
    let gateway = Gateway::start("").await;
    let mut written = Vec::new();
    for n in 0..3 {
        written.push(gateway.store.add("c", "e", &json!(n)).await);
    }
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    assert_eq!(sse.ids("c", 3).await, written);
    let lost = gateway.store.stock("c", "e", &json!("lost")).await;
    assert_eq!(sse.ids("c", 1).await, [lost]);
    gateway.store.cut();
    gateway.store.lose_all_but("c", 2).await;
    gateway.store.heal();
    assert_eq!(sse.gap("c").await, ("store-reset".into(), true, lost, written[1]));
    let next = gateway.store.stock("c", "e", &json!("next")).await;
    assert_eq!(sse.ids("c", 1).await, [next]);
    // Who comes back is told neither again nor twice.
    let mut sse = sse.reconnect().await;
    assert_eq!(sse.connected("c").await, next);
    let last = gateway.store.stock("c", "e", &json!("last")).await;
    assert_eq!(sse.ids("c", 1).await, [last]);
    // Who comes back with what was lost is clamped, and told.
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={}", StreamId::new(last.ms + 1, 0))).await;
    assert_eq!(sse.connected("c").await, last);
    assert_eq!(sse.gap("c").await.0, "store-reset");
}

#[tokio::test]
async fn a_store_that_comes_back_empty_after_an_outage_is_a_gap() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let seen = gateway.store.stock("c", "e", &json!("seen")).await;
    assert_eq!(sse.ids("c", 1).await, [seen]);
    gateway.store.cut();
    gateway.store.stock("c", "e", &json!("acknowledged, and lost with the store")).await;
    gateway.store.lose_all_but("c", 0).await;
    gateway.store.heal();
    let (_, certain, after, _) = sse.gap("c").await;
    assert_eq!((certain, after), (false, seen), "something may be gone");
    let next = gateway.store.stock("c", "e", &json!("next")).await;
    assert_eq!(sse.ids("c", 1).await, [next]);
}

#[tokio::test]
async fn a_store_that_is_away_keeps_nobody_from_leaving() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.store.cut();
    let waiting = gateway.open("channel=c&channel=d").await;
    drop((sse, waiting));
    until("both streams are gone", || gateway.app.streams.count() == 0).await;
}

#[tokio::test]
async fn a_channel_is_left_by_the_last_after_a_while_and_found_again() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let first = gateway.store.stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    // Its clock stands still in between, so that half a minute goes by at once.
    let id = sse.last_event_id.clone();
    drop(sse);
    until("the stream is gone", || gateway.app.streams.count() == 0).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    until("the subscription is ended", || gateway.store.watched().is_empty()).await;
    assert_eq!(gateway.app.hub.buffer_bytes(), 0);
    let missed = gateway.store.stock("c", "e", &json!(2)).await;
    let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], id).await;
    assert_eq!(sse.connected("c").await, first);
    assert_eq!(sse.ids("c", 1).await, [missed]);
}

#[tokio::test]
async fn readiness_says_that_the_store_is_away() {
    let gateway = Gateway::start("").await;
    let ready = async || {
        let reply = ask(gateway.control, "GET", "/readyz", &[], "").await;
        (reply.status, reply.json()["store"].to_string())
    };
    assert_eq!(ready().await, (200, "\"ok\"".into()));
    gateway.store.cut();
    assert_eq!(ready().await, (503, "\"unavailable\"".into()));
    assert_eq!(ask(gateway.control, "GET", "/healthz", &[], "").await.status, 200);
    gateway.store.heal();
    assert_eq!(ready().await, (200, "\"ok\"".into()));
}
