//! The blocks of a stream from its head to its end, and the time that the last one names.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::json;
use tidegate::event::StreamId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Sse, send_request};
use crate::faulty_store::{FaultyStore, START};
use crate::grants::GrantTemplate;
use crate::guests::component;
use crate::harness::{Gateway, InitialPolicy, wait_until, with_timeout};

const JSON: (&str, &str) = ("content-type", "application/json");

/// The names of the fields of each block.
fn fields(text: &str) -> Vec<Vec<&str>> {
    let blocks = text.split_terminator("\n\n");
    blocks.map(|block| block.lines().map(|line| line.split(':').next().unwrap_or_default()).collect()).collect()
}

#[tokio::test]
async fn retry_line_leaves_with_the_head_and_without_the_end_of_its_block() {
    let gateway = Gateway::start("").await;
    gateway.store.disconnect();
    let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    socket.write_all(b"GET /api/realtime?channel=c HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("it is sent");
    let mut text = Vec::new();
    with_timeout("the first line of the body", async {
        while !text.ends_with(b"\n\r\n") || !String::from_utf8_lossy(&text).contains("\nretry: ") {
            assert!(socket.read_buf(&mut text).await.expect("it is read") > 0);
        }
    })
    .await;
    assert!(!text.ends_with(b"\n\n\r\n"), "{}", String::from_utf8_lossy(&text));
}

#[tokio::test]
async fn each_block_of_a_stream_has_data_from_its_head_to_its_end() {
    let gateway = Gateway::start("stream.ping-interval = '1s'\nstream.max-event-size = '1KiB'").await;
    for n in 0..3 {
        gateway.store.add("c", "e", &json!(n)).await;
    }
    gateway.store.set_wrong_type("wrong", true);
    gateway.store.disconnect();
    let target = "/api/realtime?channel=c&channel=wrong&channel=empty&last_ack_c=0";
    let mut sse = Sse::open(gateway.data, target, &[("last-event-id", "garbage")]).await;
    let mut kinds = BTreeSet::new();
    let mut read_until = async |text: &str| {
        while !sse.text.contains(text) {
            let block = sse.block().await.unwrap_or_else(|| panic!("{text} comes before the end"));
            kinds.insert(if block.kind().is_empty() { "event".to_owned() } else { block.kind().to_owned() });
        }
        sse.text.clone()
    };
    read_until("ping").await;
    gateway.store.reconnect();
    for text in [r#""data":2,"#, "unknown-position", "cannot be read"] {
        read_until(text).await;
    }
    gateway.store.emit_own("c", "e", &json!("x".repeat(2_000))).await;
    read_until("too-large").await;
    gateway.store.emit_stock("empty", "e", &json!("live")).await;
    read_until("live").await;
    gateway.store.keep_first_entries("c", 1).await;
    gateway.store.disconnect();
    gateway.store.reconnect();
    read_until("store-reset").await;
    let reply = send_request(gateway.control, "POST", "/v1/revoke", &[JSON], r#"{"channel":"empty"}"#).await;
    assert_eq!(reply.status, 200);
    let text = read_until("reconnect").await;
    assert_eq!(Vec::from_iter(&kinds), ["connected", "error", "event", "gap", "ping", "reconnect"], "{text}");
    let fields = fields(&text);
    assert_eq!(fields[0], ["retry", "id", "data"], "{text}");
    assert!(fields[1..].iter().all(|fields| matches!(fields[..], ["data"] | ["id", "data"])), "{text}");
}

#[tokio::test]
async fn first_block_has_the_positions_whatever_its_frame_is() {
    let gateway = Gateway::start("drain.duration = '1ms'\nstream.ping-interval = '1s'").await;
    let written = gateway.store.add("a", "e", &json!(1)).await;
    gateway.store.set_wrong_type("wrong", true);
    let mut streams = Vec::new();
    // Channels that are known to this node open at once.
    let mut known = gateway.open("channel=a&channel=b").await;
    for _ in ["a", "b"] {
        assert_eq!(known.frame().await["type"], "connected");
    }
    for (query, kind) in [("channel=a&channel=b", "connected"), ("channel=wrong", "error")] {
        let mut sse = gateway.open(query).await;
        assert_eq!(sse.block().await.expect("a block").kind(), kind);
        streams.push((sse, kind));
    }
    gateway.store.disconnect();
    let mut sse = gateway.open(&format!("channel=a&last_ack_a={written}")).await;
    assert_eq!(sse.block().await.expect("a block").kind(), "ping");
    streams.push((sse, "ping"));
    let mut sse = gateway.open(&format!("channel=a&last_ack_a={written}")).await;
    let app = gateway.app.clone();
    wait_until("all streams are registered", || app.streams.count() == 5).await;
    let served = gateway.stop();
    assert_eq!(sse.block().await.expect("a block").kind(), "reconnect");
    streams.push((sse, "reconnect"));
    for (sse, kind) in &streams {
        assert_eq!(fields(&sse.text)[0], ["retry", "id", "data"], "{kind}: {}", sse.text);
    }
    // All positions that are known, not only that of the frame's channel.
    let id = streams[0].0.last_event_id.as_deref().unwrap_or_default();
    assert!(id.ends_with(":0-0") && !id.contains(":-"), "{id}");
    assert_eq!(streams[2].0.last_event_id, streams[3].0.last_event_id);
    assert!(streams[2].0.last_event_id.as_ref().is_some_and(|id| id.ends_with(&format!(":{:x}-0", written.ms))));
    drop((known, streams));
    with_timeout("the server ends", served).await.expect("no panic");
}

/// Asserts that the stream ends with a `reconnect` that names a time in this range.
async fn assert_reconnects(sse: &mut Sse, expect: Range<u64>) -> u64 {
    let frame = sse.frame().await;
    assert_eq!(frame["type"], "reconnect", "{frame}");
    assert!(sse.next().await.is_none(), "no frame follows");
    let time = frame["timestamp"].as_u64().expect("a time");
    assert!(expect.contains(&time), "{time} is not in {expect:?}");
    time
}

/// What the stock client would get on a channel that it joins after this `reconnect`: nothing from before the stream.
#[tokio::test]
async fn channel_that_is_joined_after_a_reconnect_replays_nothing_older_than_the_stream() {
    const PAGE: u64 = START + 3_600_000;
    for reason in ["revoked", "expired", "rotated", "drained"] {
        let store = FaultyStore::new(Default::default());
        store.add("old", "e", &json!(1)).await;
        store.add("busy", "e", &json!(1)).await;
        store.set_clock(PAGE);
        let expires_in = (reason == "expired").then_some(1_000);
        let policy = GrantTemplate { expires_in, ..GrantTemplate::default() }.component();
        let toml = "policy.rotation-window = '0s'\ndrain.duration = '1ms'";
        let gateway = Gateway::start_with(Some(store.clone()), &InitialPolicy::Component(&policy), toml).await;
        // A channel without entries, one with an old one, and one that starts at a time.
        let mut sse = gateway.open(&format!("channel=empty&channel=old&channel=new&last_ack_new={PAGE}")).await;
        for _ in ["empty", "old", "new"] {
            assert_eq!(sse.frame().await["type"], "connected", "{reason}");
        }
        let gateway = match reason {
            "revoked" => {
                let reply =
                    send_request(gateway.control, "POST", "/v1/revoke", &[JSON], r#"{"channel":"empty"}"#).await;
                assert_eq!(reply.status, 200);
                gateway
            }
            "rotated" => {
                gateway.activate(&component("allow")).await.expect("it loads");
                gateway
            }
            "drained" => {
                with_timeout("the server ends", gateway.stop()).await.expect("no panic");
                Gateway::start_with(Some(store.clone()), &InitialPolicy::AllowAll, "").await
            }
            _ => gateway,
        };
        let time = assert_reconnects(&mut sse, PAGE..PAGE + 60_000).await;
        store.set_clock(PAGE + 60_000);
        let mut later =
            gateway.open(&format!("channel=empty&channel=busy&last_ack_empty=0-0&last_ack_busy={time}")).await;
        for _ in ["empty", "busy"] {
            assert_eq!(later.frame().await["type"], "connected", "{reason}");
        }
        let live = store.emit_stock("busy", "e", &json!(2)).await;
        assert_eq!(later.ids("busy", 1).await, [live], "{reason}");
    }
}

#[tokio::test]
async fn reconnect_names_the_time_that_a_channel_asked_for_that_is_not_open_yet() {
    const T: u64 = 1_700_000_000_000;
    let old = StreamId::new(T - 1_000, 0);
    let store_time = START..START + 60_000;
    for (query, expect) in [
        // The stock client sends times in channels of which it has received nothing.
        (format!("channel=c&last_ack_c={}&channel=d&last_ack_d={T}", T + 5), T..T + 1),
        (format!("channel=c&last_ack_c={T}&channel=d&last_ack_d={old}"), T..T + 1),
        // In others it has its own position.
        (format!("channel=c&last_ack_c=0-0&channel=d&last_ack_d={old}"), store_time.clone()),
        ("channel=c".to_owned(), store_time),
        ("channel=c&last_ack_c=0".to_owned(), 1..2),
    ] {
        let gateway = Gateway::start("drain.duration = '1ms'").await;
        // The node has read the store's clock.
        let mut known = gateway.open("channel=x").await;
        known.connected("x").await;
        gateway.store.disconnect();
        let mut sse = gateway.open(&query).await;
        wait_until("the stream is registered", || gateway.app.streams.count() == 2).await;
        let served = gateway.stop();
        assert_reconnects(&mut sse, expect).await;
        drop(known);
        with_timeout("the server ends", served).await.expect("no panic");
    }
}
