//! Reconnects of a browser: the same URL, with the last event id.

use serde_json::json;
use tidegate::event::StreamId;

use crate::client::{Block, Sse, blocks, id_of};
use crate::harness::{Gateway, InitialPolicy, with_timeout};

#[tokio::test]
async fn native_reconnect_with_a_stale_url_delivers_each_event_once() {
    let gateway = Gateway::start("").await;
    let mut written = vec![gateway.store.add("c", "e", &json!("the first")).await];
    for (ack, acknowledged) in [("", 1), ("&last_ack_c=0", 0), (&*format!("&last_ack_c={}", written[0]), 1)] {
        let mut expect = if ack.is_empty() { Vec::new() } else { written[acknowledged..].to_vec() };
        let mut sse = gateway.open(&format!("channel=c{ack}")).await;
        sse.connected("c").await;
        let mut received = sse.ids("c", expect.len()).await;
        for round in 0..5 {
            expect.push(gateway.store.emit_stock("c", "e", &json!(round)).await);
            received.extend(sse.ids("c", 1).await);
            // Emitted while no client is connected.
            let position = *received.last().expect("an event was received");
            expect.push(gateway.store.emit_stock("c", "e", &json!("missed")).await);
            sse = sse.reconnect().await;
            assert_eq!(sse.connected("c").await, position);
            received.extend(sse.ids("c", 1).await);
        }
        written.extend(&expect[expect.len() - 10..]);
        assert_eq!(received, expect, "{ack}");
    }
}

/// The events that a browser has received of a stream that breaks after this text, and the id that it sends when it reconnects.
fn received_before_cut(text: &str) -> (Vec<(String, StreamId)>, Option<String>) {
    let blocks = blocks(text);
    let id = blocks.iter().rev().find_map(|block| block.id.clone());
    (blocks.iter().filter_map(event).collect(), id)
}

fn event(block: &Block) -> Option<(String, StreamId)> {
    let json = block.json.as_ref()?;
    json["event"].is_string().then(|| (json["channel"].as_str().expect("a name").to_owned(), id_of(json)))
}

#[tokio::test]
async fn stream_cut_at_any_byte_resumes_with_each_event_once() {
    // Without an event buffer each resumption is a replay from the store; with the buffer none is.
    for toml in ["", "stream.buffer-memory = 0"] {
        let gateway = Gateway::start(toml).await;
        let mut written = Vec::new();
        for n in 0..3 {
            for channel in ["a", "b", "grüße"] {
                written.push((channel.to_owned(), gateway.store.add(channel, "e", &json!(n)).await));
            }
        }
        let target = "/api/realtime?channel=a&channel=b&channel=gr%C3%BC%C3%9Fe&last_ack_b=0&last_ack_a=0&last_ack_gr%C3%BC%C3%9Fe=0";
        let mut sse = Sse::open(gateway.data, target, &[]).await;
        for _ in 0..3 + 6 {
            sse.frame().await;
        }
        // The last event of each channel is a live one.
        for channel in ["a", "b", "grüße"] {
            written.push((channel.to_owned(), gateway.store.emit_own(channel, "e", &json!("live")).await));
            sse.frame().await;
        }
        for _ in 0..3 {
            sse.frame().await;
        }
        let text = sse.text.clone();
        drop(sse);
        written.sort();

        let mut cut = 0;
        while cut <= text.len() {
            // A cut within a character would not be valid UTF-8.
            if text.is_char_boundary(cut) {
                let (mut events, id) = received_before_cut(&text[..cut]);
                let left = written.len() - events.len();
                let mut sse = Sse::resume(gateway.data, target, &[], id.clone()).await;
                let mut rest = 0;
                while rest < left {
                    let block = sse.block().await.expect("the stream goes on");
                    if let Some(event) = event(&block) {
                        events.push(event);
                        rest += 1;
                    }
                    assert!(block.kind() != "gap", "cut at {cut}: {block:?}");
                }
                let in_channel = |name: &str| events.iter().filter(|(c, _)| c == name).cloned().collect::<Vec<_>>();
                let in_order = ["a", "b", "grüße"].map(in_channel).concat();
                assert_eq!(in_order, written, "cut at {cut}, with {id:?}");
            }
            cut += 1;
        }
        // No event is repeated: the next event is the one emitted next.
        let (_, id) = received_before_cut(&text);
        let mut sse = Sse::resume(gateway.data, target, &[], id).await;
        for _ in 0..3 {
            assert_eq!(sse.frame().await["type"], "connected");
        }
        let next = gateway.store.emit_own("b", "e", &json!("next")).await;
        assert_eq!(sse.ids("b", 1).await, [next]);
    }
}

#[tokio::test]
async fn restarted_gateway_resumes_streams_of_its_predecessor() {
    let gateway = Gateway::start("drain.duration = '1ms'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let first = gateway.store.emit_own("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    let store = gateway.store.clone();
    with_timeout("the drain ends", gateway.stop()).await.expect("the server ends without a panic");
    assert_eq!(sse.frame().await["type"], "reconnect");
    assert!(sse.next().await.is_none());
    let missed = store.emit_stock("c", "e", &json!(2)).await;

    let gateway = Gateway::start_with(Some(store), &InitialPolicy::AllowAll, "").await;
    let id = sse.last_event_id.clone();
    let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], id).await;
    assert_eq!(sse.connected("c").await, first);
    assert_eq!(sse.ids("c", 1).await, [missed]);
}

/// The position of a stream that started at a time is not an entry, so nothing is missing where the stream has none there.
#[tokio::test]
async fn stream_that_started_at_a_time_resumes_without_a_gap_before_its_first_event() {
    let gateway = Gateway::start("stream.buffer-memory = 0").await;
    let start = gateway.store.now() - 1000;
    let written = [gateway.store.add("c", "e", &json!(1)).await, gateway.store.add("c", "e", &json!(2)).await];
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={start}")).await;
    assert_eq!(sse.connected("c").await, StreamId::new(start, 0));
    // It is disconnected before the first event, and returns the `id:` that it has; twice.
    let mut once = sse.reconnect().await;
    assert_eq!(once.connected("c").await, StreamId::new(start, 0));
    let mut again = once.reconnect().await;
    assert_eq!(again.connected("c").await, StreamId::new(start, 0));
    assert_eq!(again.frame().await["id"], written[0].to_string(), "no gap is before the first event");
    assert_eq!(again.ids("c", 1).await, written[1..]);
}
