//! Memory stays within the configured limits for any behaviour of clients and emitters, without loss of events.

use std::time::Duration;

use serde_json::json;

use crate::client::Sse;
use crate::harness::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_history_is_replayed_completely_and_in_order() {
    let gateway = Gateway::start("stream.replay-memory = '1MiB'\nstream.buffer-memory = '64KiB'").await;
    let mut written = Vec::new();
    for n in 0..20_000 {
        written.push(gateway.store.add("c", "e", &json!({"n": n, "more": "x".repeat(100)})).await);
    }
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut sse = gateway.open("channel=c&last_ack_c=0").await;
        sse.connected("c").await;
        readers.push(sse);
    }
    for n in 0..500 {
        written.push(gateway.store.emit_own("c", "e", &json!({"live": n})).await);
    }
    let readers = readers.into_iter().map(|mut sse| {
        let count = written.len();
        tokio::spawn(async move { sse.ids("c", count).await })
    });
    for reader in readers.collect::<Vec<_>>() {
        let received = reader.await.expect("the client receives every event");
        assert!(received == written, "{} events of {}, or in another order", received.len(), written.len());
    }
    assert!(gateway.app.hub.buffer_bytes() <= 64 << 10);
}

#[tokio::test]
async fn stalled_clients_hold_no_memory_and_resume_in_order() {
    const BUFFER_BYTES: usize = 256 << 10;
    let gateway = Gateway::start("stream.replay-memory = '1MiB'\nstream.buffer-memory = '256KiB'").await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let mut sse = Sse::open_with(gateway.data, "/api/realtime?channel=c", &[], Some(4096)).await;
        sse.connected("c").await;
        stalled.push(sse);
    }
    let mut reading = gateway.open("channel=c").await;
    reading.connected("c").await;
    let mut written = Vec::new();
    let kib = "x".repeat(1024);
    for n in 0..10_000 {
        let data = json!({"n": n, "kib": kib});
        written.push(match n % 10 {
            0 => gateway.store.emit_stock("c", "e", &data).await,
            _ => gateway.store.emit_own("c", "e", &data).await,
        });
        if n % 100 == 99 {
            assert_eq!(reading.ids("c", 100).await, written[n - 99..], "stalled clients do not delay others");
            assert!(gateway.app.hub.buffer_bytes() <= BUFFER_BYTES, "{} bytes", gateway.app.hub.buffer_bytes());
        }
    }
    for sse in &mut stalled {
        let received = sse.ids("c", written.len()).await;
        assert!(received == written, "each event once and in order, on the same connection");
        assert!(gateway.app.hub.buffer_bytes() <= BUFFER_BYTES);
    }
}

#[tokio::test]
async fn stalled_client_receives_one_gap_for_trimmed_entries_and_then_the_rest() {
    let gateway = Gateway::start("stream.replay-memory = '1MiB'\nstream.buffer-memory = '64KiB'").await;
    let mut sse = Sse::open_with(gateway.data, "/api/realtime?channel=c", &[], Some(4096)).await;
    sse.connected("c").await;
    let data = json!("x".repeat(4096));
    let mut written = Vec::new();
    for _ in 0..6_000 {
        let id = gateway.store.add_and_trim("c", "e", &data, Some(1_000)).await;
        gateway.store.notify("c", id, "e", &data).await;
        written.push(id);
        tokio::task::yield_now().await;
    }
    let (mut received, mut gaps) = (Vec::new(), Vec::new());
    while received.last() != written.last() {
        let frame = sse.frame().await;
        match frame["type"].as_str() {
            Some(kind) => {
                assert_eq!((kind, &frame["reason"]), ("gap", &json!("trimmed")));
                gaps.push((frame["after"].clone(), frame["resumed"].clone(), received.len()));
            }
            None => received.push(crate::client::id_of(&frame)),
        }
    }
    let [(after, resumed, at)] = &gaps[..] else { panic!("one gap: {gaps:?}") };
    assert_eq!((after, resumed), (&json!(received[at - 1].to_string()), &json!(received[*at].to_string())));
    assert_eq!(received[..*at], written[..*at]);
    let left = received.len() - at;
    assert!(left >= 1_000, "the store holds 1,000 entries, and the client received {left} of them");
    assert_eq!(received[*at..], written[written.len() - left..]);
}

#[tokio::test]
async fn all_events_are_delivered_without_an_event_buffer() {
    let gateway = Gateway::start("stream.buffer-memory = 0").await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut sse = gateway.open("channel=a&channel=b").await;
        let _connected = (sse.frame().await, sse.frame().await);
        readers.push(sse);
    }
    let mut written = [Vec::new(), Vec::new()];
    for n in 0..300 {
        written[0].push(gateway.store.emit_own("a", "e", &json!(n)).await);
        written[1].push(gateway.store.emit_stock("b", "e", &json!({ "n": n })).await);
        if n % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for sse in &mut readers {
        let mut received = [Vec::new(), Vec::new()];
        for _ in 0..600 {
            let event = sse.event().await;
            received[usize::from(event["channel"] == "b")].push(crate::client::id_of(&event));
        }
        assert_eq!(received, written);
    }
    assert_eq!(gateway.app.hub.buffer_bytes(), 0);
}

#[tokio::test]
async fn channels_share_the_event_buffer_memory() {
    const BUFFER_BYTES: usize = 128 << 10;
    let gateway = Gateway::start("stream.buffer-memory = '128KiB'").await;
    let names: Vec<String> = (0..50).map(|n| format!("c{n}")).collect();
    let query: String = names.iter().map(|name| format!("channel={name}&")).collect();
    let mut sse = gateway.open(&query).await;
    for _ in &names {
        assert_eq!(sse.frame().await["type"], "connected");
    }
    let data = json!("x".repeat(2_000));
    for _ in 0..10 {
        for name in &names {
            gateway.store.emit_own(name, "e", &data).await;
            assert!(gateway.app.hub.buffer_bytes() <= BUFFER_BYTES);
        }
        for _ in &names {
            sse.event().await;
        }
    }
    drop(sse);
    tokio::time::timeout(Duration::from_secs(10), async {
        while gateway.app.streams.count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the stream has ended");
}
