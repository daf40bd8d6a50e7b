//! Memory is bounded by configuration whatever clients and publishers do, and nobody loses anything by that.

use std::time::Duration;

use serde_json::json;

use crate::client::Sse;
use crate::harness::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_any_length_arrives_whole_and_in_order() {
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
        written.push(gateway.store.own("c", "e", &json!({"live": n})).await);
    }
    let readers = readers.into_iter().map(|mut sse| {
        let count = written.len();
        tokio::spawn(async move { sse.ids("c", count).await })
    });
    for reader in readers.collect::<Vec<_>>() {
        let got = reader.await.expect("the reader gets what it waits for");
        assert!(got == written, "{} of {}, in another order", got.len(), written.len());
    }
    assert!(gateway.app.hub.buffer_bytes() <= 64 << 10);
}

#[tokio::test]
async fn readers_who_stop_hold_no_memory_and_get_on_in_order_when_they_read_again() {
    const LOG: usize = 256 << 10;
    let gateway = Gateway::start("stream.replay-memory = '1MiB'\nstream.buffer-memory = '256KiB'").await;
    let mut stopped = Vec::new();
    for _ in 0..10 {
        let mut sse = Sse::open_with(gateway.data, "/api/realtime?channel=c", &[], Some(4096)).await;
        sse.connected("c").await;
        stopped.push(sse);
    }
    let mut awake = gateway.open("channel=c").await;
    awake.connected("c").await;
    let mut written = Vec::new();
    let kib = "x".repeat(1024);
    for n in 0..10_000 {
        let data = json!({"n": n, "kib": kib});
        written.push(match n % 10 {
            0 => gateway.store.stock("c", "e", &data).await,
            _ => gateway.store.own("c", "e", &data).await,
        });
        if n % 100 == 99 {
            assert_eq!(awake.ids("c", 100).await, written[n - 99..], "the others hold nobody up");
            assert!(gateway.app.hub.buffer_bytes() <= LOG, "{} bytes", gateway.app.hub.buffer_bytes());
        }
    }
    for sse in &mut stopped {
        let got = sse.ids("c", written.len()).await;
        assert!(got == written, "each once and in order, on the same connection");
        assert!(gateway.app.hub.buffer_bytes() <= LOG);
    }
}

#[tokio::test]
async fn a_reader_who_stops_until_the_stream_is_trimmed_is_told_so_and_gets_what_is_left() {
    let gateway = Gateway::start("stream.replay-memory = '1MiB'\nstream.buffer-memory = '64KiB'").await;
    let mut sse = Sse::open_with(gateway.data, "/api/realtime?channel=c", &[], Some(4096)).await;
    sse.connected("c").await;
    let data = json!("x".repeat(4096));
    let mut written = Vec::new();
    for _ in 0..6_000 {
        let id = gateway.store.add_and_trim("c", "e", &data, Some(1_000)).await;
        gateway.store.ring("c", id, "e", &data).await;
        written.push(id);
        tokio::task::yield_now().await;
    }
    let (mut got, mut gaps) = (Vec::new(), Vec::new());
    while got.last() != written.last() {
        let frame = sse.frame().await;
        match frame["type"].as_str() {
            Some(kind) => {
                assert_eq!((kind, &frame["reason"]), ("gap", &json!("trimmed")));
                gaps.push((frame["after"].clone(), frame["resumed"].clone(), got.len()));
            }
            None => got.push(crate::client::id_of(&frame)),
        }
    }
    let [(after, resumed, at)] = &gaps[..] else { panic!("one gap: {gaps:?}") };
    assert_eq!((after, resumed), (&json!(got[at - 1].to_string()), &json!(got[*at].to_string())));
    assert_eq!(got[..*at], written[..*at]);
    let left = got.len() - at;
    assert!(left >= 1_000, "all that the stream still holds: {left}");
    assert_eq!(got[*at..], written[written.len() - left..]);
}

#[tokio::test]
async fn without_memory_for_logs_everything_is_delivered_all_the_same() {
    let gateway = Gateway::start("stream.buffer-memory = 0").await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut sse = gateway.open("channel=a&channel=b").await;
        let _connected = (sse.frame().await, sse.frame().await);
        readers.push(sse);
    }
    let mut written = [Vec::new(), Vec::new()];
    for n in 0..300 {
        written[0].push(gateway.store.own("a", "e", &json!(n)).await);
        written[1].push(gateway.store.stock("b", "e", &json!({ "n": n })).await);
        if n % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for sse in &mut readers {
        let mut got = [Vec::new(), Vec::new()];
        for _ in 0..600 {
            let event = sse.event().await;
            got[usize::from(event["channel"] == "b")].push(crate::client::id_of(&event));
        }
        assert_eq!(got, written);
    }
    assert_eq!(gateway.app.hub.buffer_bytes(), 0);
}

#[tokio::test]
async fn many_channels_share_the_memory_for_logs() {
    const LOG: usize = 128 << 10;
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
            gateway.store.own(name, "e", &data).await;
            assert!(gateway.app.hub.buffer_bytes() <= LOG);
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
    .expect("the stream is left");
}
