//! Gaps and errors for events that a channel cannot deliver.

use serde_json::json;
use tidegate::event::StreamId;

use crate::harness::Gateway;

#[tokio::test]
async fn ack_beyond_the_last_entry_is_clamped_and_reported_as_a_gap() {
    let gateway = Gateway::start("").await;
    let last = gateway.store.add("c", "e", &json!(1)).await;
    let beyond = StreamId::new(last.ms + 60_000, 3);
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={beyond}")).await;
    assert_eq!(sse.connected("c").await, last);
    assert_eq!(sse.gap("c").await, ("store-reset".into(), true, None, last));
    // The client may not have it.
    assert_eq!(sse.ids("c", 1).await, [last]);
    let live = gateway.store.emit_stock("c", "e", &json!(2)).await;
    assert_eq!(sse.ids("c", 1).await, [live]);
    // The gap is reported once.
    let mut sse = sse.reconnect().await;
    sse.connected("c").await;
    let live = gateway.store.emit_stock("c", "e", &json!(3)).await;
    assert_eq!(sse.ids("c", 1).await, [live]);
}

#[tokio::test]
async fn trimmed_gap_is_certain_only_if_loss_is_proven() {
    let gateway = Gateway::start("").await;
    let mut written = Vec::new();
    for n in 0..10 {
        written.push(gateway.store.add_and_trim("c", "e", &json!(n), Some(4)).await);
    }
    let open = async |ack: &str| {
        let mut sse = gateway.open(&format!("channel=c&last_ack_c={ack}")).await;
        sse.connected("c").await;
        sse
    };
    for (ack, certain) in [("0".to_owned(), true), ("0-0".into(), true), (written[2].to_string(), false)] {
        let mut sse = open(&ack).await;
        let after = if certain { StreamId::ZERO } else { written[2] };
        assert_eq!(sse.gap("c").await, ("trimmed".into(), certain, Some(after), written[6]), "{ack}");
        assert_eq!(sse.ids("c", 4).await, written[6..], "{ack}");
        // A client that resumes after the gap does not receive it again.
        let mut sse = sse.reconnect().await;
        assert_eq!(sse.connected("c").await, written[9]);
        let live = gateway.store.emit_own("x", "e", &json!(1)).await;
        assert!(live > written[9]);
    }
    let mut sse = open(&written[6].to_string()).await;
    assert_eq!(sse.ids("c", 3).await, written[7..], "no gap for an ack at the first entry");
}

#[tokio::test]
async fn client_that_disconnects_at_a_gap_resumes_after_it() {
    let gateway = Gateway::start("stream.buffer-memory = 0").await;
    let mut written = Vec::new();
    for n in 0..6 {
        written.push(gateway.store.add_and_trim("c", "e", &json!(n), Some(2)).await);
    }
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={}", written[0])).await;
    sse.connected("c").await;
    assert_eq!(sse.gap("c").await, ("trimmed".into(), false, Some(written[0]), written[4]));
    // The client disconnects after the block of the gap.
    let mut sse = sse.reconnect().await;
    sse.connected("c").await;
    assert_eq!(sse.ids("c", 2).await, written[4..], "no second gap, and no lost event");
}

#[tokio::test]
async fn client_that_disconnects_at_a_gap_of_a_deleted_entry_loses_no_other() {
    let gateway = Gateway::start("").await;
    let mut written = Vec::new();
    for n in 0..6 {
        written.push(gateway.store.add("c", "e", &json!(n)).await);
    }
    gateway.store.set_max_deleted(StreamId::new(written[3].ms, written[3].seq + 1));
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={}", written[0])).await;
    sse.connected("c").await;
    let (reason, certain, after, _) = sse.gap("c").await;
    assert_eq!((&*reason, certain, after), ("trimmed", true, Some(written[0])));
    let mut sse = sse.reconnect().await;
    let mut received = Vec::new();
    sse.connected("c").await;
    let last = gateway.store.emit_stock("c", "e", &json!("last")).await;
    while received.last() != Some(&last) {
        let frame = sse.frame().await;
        if frame["event"].is_string() {
            received.push(crate::client::id_of(&frame));
        }
    }
    written.push(last);
    assert_eq!(received, written[1..]);
}

#[tokio::test]
async fn stream_trimmed_to_nothing_is_reported_as_a_gap_once() {
    let gateway = Gateway::start("").await;
    let mut written = Vec::new();
    for n in 0..3 {
        written.push(gateway.store.add_and_trim("c", "e", &json!(n), if n == 2 { Some(0) } else { None }).await);
    }
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={}", written[0])).await;
    sse.connected("c").await;
    assert_eq!(sse.gap("c").await, ("trimmed".into(), false, Some(written[0]), written[2]));
    let mut sse = sse.reconnect().await;
    sse.connected("c").await;
    let live = gateway.store.emit_stock("c", "e", &json!("live")).await;
    assert_eq!(sse.ids("c", 1).await, [live], "the gap was reported already");
}

#[tokio::test]
async fn expired_stream_is_a_gap_for_a_returning_client() {
    let gateway = Gateway::start("").await;
    let read = gateway.store.add("c", "e", &json!("read")).await;
    gateway.store.add("c", "e", &json!("unread")).await;
    gateway.store.expire("c", 5).await;
    gateway.store.advance_clock(6_000);
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={read}")).await;
    assert_eq!(sse.connected("c").await, StreamId::ZERO, "the key does not exist");
    let (_, certain, after, resumed) = sse.gap("c").await;
    assert_eq!((certain, after, resumed), (false, None, StreamId::ZERO));
    let live = gateway.store.emit_stock("c", "e", &json!("live")).await;
    assert_eq!(sse.ids("c", 1).await, [live]);
}

#[tokio::test]
async fn expired_and_recreated_stream_is_a_gap_for_a_returning_client() {
    let gateway = Gateway::start("").await;
    let read = gateway.store.add("c", "e", &json!("read")).await;
    gateway.store.add("c", "e", &json!("unread")).await;
    gateway.store.expire("c", 5).await;
    gateway.store.advance_clock(6_000);
    let recreated = gateway.store.add("c", "e", &json!("recreated")).await;
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={read}")).await;
    sse.connected("c").await;
    let (_, certain, after, resumed) = sse.gap("c").await;
    assert_eq!((certain, after, resumed), (false, None, recreated));
    assert_eq!(sse.ids("c", 1).await, [recreated]);
}

#[tokio::test]
async fn stream_that_expires_while_read_loses_no_events() {
    let gateway = Gateway::start("stream.reconcile-interval = '50ms'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for round in 0..3 {
        let first = gateway.store.emit_own("c", "e", &json!(round)).await;
        let second = gateway.store.emit_stock("c", "e", &json!(round)).await;
        assert_eq!(sse.ids("c", 2).await, [first, second]);
        gateway.store.expire("c", 1).await;
        gateway.store.advance_clock(2_000);
        // The second reconciliation has found that the key does not exist.
        let reads = gateway.store.reads();
        crate::harness::wait_until("two reconciliations", || gateway.store.reads() > reads + 1).await;
    }
}

#[tokio::test]
async fn event_over_the_size_limit_is_a_gap_and_delivery_continues() {
    for buffer_memory in ["'1MiB'", "0"] {
        let gateway =
            Gateway::start(&format!("stream.max-event-size = '1KiB'\nstream.buffer-memory = {buffer_memory}")).await;
        let large = json!("x".repeat(2000));
        let before = gateway.store.add("c", "e", &json!("before")).await;
        let replayed = gateway.store.add("c", "e", &large).await;
        let after = gateway.store.add("c", "e", &json!("after")).await;
        let mut sse = gateway.open("channel=c&last_ack_c=0").await;
        sse.connected("c").await;
        assert_eq!(sse.ids("c", 1).await, [before]);
        assert_eq!(sse.gap("c").await, ("too-large".into(), true, Some(before), replayed));
        assert_eq!(sse.ids("c", 1).await, [after]);
        let live = gateway.store.emit_stock("c", "e", &large).await;
        assert_eq!(sse.gap("c").await, ("too-large".into(), true, Some(after), live), "live");
        let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
        assert_eq!(sse.ids("c", 1).await, [next]);
    }
}

#[tokio::test]
async fn event_of_several_mebibytes_is_delivered_unchanged() {
    let gateway = Gateway::start("stream.replay-memory = '1MiB'\nstream.buffer-memory = '1MiB'").await;
    let large = json!("ü".repeat(3 << 20));
    let replayed = gateway.store.add("c", "e", &large).await;
    let small = gateway.store.add("c", "e", &json!("small")).await;
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    let event = sse.event().await;
    assert_eq!(event["id"], replayed.to_string());
    assert!(event["data"] == large, "the data is unchanged");
    assert_eq!(sse.ids("c", 1).await, [small]);
    gateway.store.emit_stock("c", "e", &large).await;
    assert!(sse.event().await["data"] == large, "a live event is unchanged, too");
}

#[tokio::test]
async fn key_of_another_type_is_an_error_that_does_not_reveal_the_type() {
    let gateway =
        Gateway::start("stream.reconcile-interval = '50ms'\n[memory-store.seed]\nsecret = 'a text'\nset = ['a']").await;
    let mut sse = gateway.open("channel=secret&channel=c&last_ack_secret=0").await;
    let mut frames = [sse.frame().await, sse.frame().await];
    frames.sort_by_key(|frame| frame["type"].to_string());
    assert_eq!((&frames[0]["type"], &frames[0]["channel"]), (&json!("connected"), &json!("c")));
    assert_eq!(frames[1]["type"], "error");
    let text = frames[1]["error"].as_str().expect("a message");
    assert!(text.contains("secret"), "it names the channel: {text}");
    for word in ["string", "text", "set", "hash", "WRONGTYPE", "type"] {
        assert!(!text.contains(word), "{text}");
    }
    let set = gateway.open("channel=set").await.frame().await["error"].to_string();
    assert_eq!(set.replace("set", "secret"), json!(text).to_string(), "the same text for every type");
    // The other channel stays live, and the first one causes no more frames, whatever is published there.
    gateway.store.publish("secret", &json!({"data":1,"event":"e","channel":"secret","id":"9-9"}).to_string()).await;
    for n in 0..3 {
        let id = gateway.store.emit_stock("c", "e", &json!(n)).await;
        assert_eq!(sse.ids("c", 1).await, [id]);
    }
}

#[tokio::test]
async fn key_that_becomes_a_stream_is_delivered() {
    let gateway = Gateway::start("stream.reconcile-interval = '50ms'").await;
    gateway.store.set_wrong_type("c", true);
    let mut sse = gateway.open("channel=c").await;
    assert_eq!(sse.frame().await["type"], "error");
    gateway.store.set_wrong_type("c", false);
    sse.connected("c").await;
    let id = gateway.store.emit_stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [id]);
}

#[tokio::test]
async fn key_of_another_type_for_a_while_loses_no_events() {
    let gateway = Gateway::start("stream.reconcile-interval = '50ms'").await;
    let mut sse = gateway.open("channel=c&channel=d").await;
    let _connected = (sse.frame().await, sse.frame().await);
    let mut written = vec![gateway.store.emit_stock("c", "e", &json!(1)).await];
    assert_eq!(sse.ids("c", 1).await, written);
    gateway.store.set_wrong_type("c", true);
    written.push(gateway.store.emit_stock("c", "e", &json!(2)).await);
    let reads = gateway.store.reads();
    crate::harness::wait_until("two more reconciliations", || gateway.store.reads() > reads + 3).await;
    let other = gateway.store.emit_stock("d", "e", &json!(1)).await;
    assert_eq!(sse.ids("d", 1).await, [other]);
    gateway.store.set_wrong_type("c", false);
    assert_eq!(sse.ids("c", 1).await, written[1..]);
    written.push(gateway.store.emit_stock("c", "e", &json!(3)).await);
    assert_eq!(sse.ids("c", 1).await, written[2..]);
}

#[tokio::test]
async fn replaying_client_of_a_key_of_another_type_is_not_flooded() {
    let gateway = Gateway::start("stream.buffer-memory = 0").await;
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    let first = gateway.store.emit_stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    // The hub reads the next entry while the key is a stream, and the client's replay when the key has another type.
    let held = gateway.store.hold_reads().await;
    let second = gateway.store.emit_stock("c", "e", &json!(2)).await;
    gateway.store.set_wrong_type("c", true);
    drop(held);
    let reads = gateway.store.reads();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let more_reads = gateway.store.reads() - reads;
    assert!(more_reads < 20, "{more_reads} reads of a key that cannot be read");
    gateway.store.set_wrong_type("c", false);
    let third = gateway.store.emit_stock("c", "e", &json!(3)).await;
    let mut ids = Vec::new();
    let mut others = 0;
    while ids.len() < 2 {
        let frame = sse.frame().await;
        if frame["event"].is_string() {
            ids.push(crate::client::id_of(&frame));
        } else {
            others += 1;
        }
    }
    assert_eq!(ids, [second, third]);
    assert!(others <= 2, "{others} frames that are not events");
}
