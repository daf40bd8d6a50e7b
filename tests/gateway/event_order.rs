//! Each channel delivers its entries once and in stream order, for every emitter and any order of notifications.

use serde_json::{Value, json};
use tidegate::event::StreamId;

use crate::client::id_of;
use crate::harness::{Gateway, wait_until};

const ORDERS_OF_THREE: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[tokio::test]
async fn events_are_in_stream_order_for_any_order_of_notifications() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for (keep, data) in [(None, json!("text")), (None, json!("7")), (Some(1), json!("7")), (Some(2), json!({"a": 1}))] {
        for order in ORDERS_OF_THREE {
            for interleaved in [false, true] {
                gateway.store.hold_notifications();
                let mut written = Vec::new();
                for _ in 0..3 {
                    let id = gateway.store.add_and_trim("c", "e", &data, keep).await;
                    gateway.store.notify("c", id, "e", &data).await;
                    written.push(id);
                }
                gateway.store.release_notifications(&order, interleaved).await;
                for id in written {
                    let expect = json!({"id": id.to_string(), "data": data, "event": "e", "channel": "c"});
                    assert_eq!(
                        sse.event().await,
                        expect,
                        "{order:?}, interleaved: {interleaved}, maximum length: {keep:?}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn concurrent_emitters_that_trim_to_one_entry_lose_no_events() {
    let gateway = Gateway::start("").await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut sse = gateway.open("channel=c").await;
        sse.connected("c").await;
        readers.push(sse);
    }
    let mut written = Vec::new();
    for round in 0..20 {
        // Three emitters per round: each adds its entry before any of them publishes a notification.
        gateway.store.hold_notifications();
        for emitter in 0..3 {
            let data = json!({"round": round, "emitter": emitter});
            let id = gateway.store.add_and_trim("c", "e", &data, Some(1)).await;
            gateway.store.notify("c", id, "e", &data).await;
            written.push(id);
        }
        gateway.store.release_notifications(&ORDERS_OF_THREE[round % 6], round % 2 == 0).await;
    }
    for sse in &mut readers {
        assert_eq!(sse.ids("c", written.len()).await, written);
    }
}

#[tokio::test]
async fn late_notification_of_a_trimmed_entry_is_a_gap() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    let start = sse.connected("c").await;
    gateway.store.hold_notifications();
    let lost = gateway.store.add_and_trim("c", "e", &json!("lost"), Some(1)).await;
    gateway.store.notify("c", lost, "e", &json!("lost")).await;
    let kept = gateway.store.add_and_trim("c", "e", &json!("kept"), Some(1)).await;
    gateway.store.notify("c", kept, "e", &json!("kept")).await;
    gateway.store.release_notifications(&[1], false).await;
    assert_eq!(sse.gap("c").await, ("trimmed".into(), true, Some(start), kept));
    assert_eq!(sse.ids("c", 1).await, [kept]);
    gateway.store.notify("c", lost, "e", &json!("lost")).await;
    let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
    assert_eq!(sse.ids("c", 1).await, [next]);
}

#[tokio::test]
async fn entry_without_a_notification_is_delivered() {
    let gateway = Gateway::start("stream.reconcile-interval = '100ms'").await;
    let mut sse = gateway.open("channel=a&channel=b").await;
    let _connected = (sse.frame().await, sse.frame().await);
    gateway.store.drop_notifications();
    for data in [json!("text"), json!({"json": true}), json!(7)] {
        for channel in ["a", "b"] {
            let id = gateway.store.emit_stock(channel, "e", &data).await;
            let event = sse.event().await;
            assert_eq!((id_of(&event), &event["data"], &event["channel"]), (id, &data, &json!(channel)));
        }
    }
}

#[tokio::test]
async fn quiet_channels_are_compared_and_only_one_that_changed_is_read() {
    let gateway = Gateway::start("stream.reconcile-interval = '50ms'").await;
    let mut sse = gateway.open("channel=a&channel=b&channel=none").await;
    let _connected = [sse.frame().await, sse.frame().await, sse.frame().await];
    // One has an entry that was read, and the others have none.
    let first = gateway.store.emit_stock("a", "e", &json!(1)).await;
    assert_eq!(sse.ids("a", 1).await, [first]);
    let compared = async |count: usize| {
        let reads = gateway.store.reads();
        crate::harness::wait_until("all channels are reconciled", || gateway.store.reads() > reads + count).await;
    };
    let check_that_nothing_is_read = async || {
        compared(9).await;
        let pages = gateway.store.pages();
        compared(30).await;
        assert_eq!(gateway.store.pages(), pages, "nothing has changed");
    };
    check_that_nothing_is_read().await;
    gateway.store.drop_notifications();
    let lost = gateway.store.emit_stock("a", "e", &json!(2)).await;
    assert_eq!(sse.ids("a", 1).await, [lost]);
    check_that_nothing_is_read().await;
    let new = gateway.store.emit_stock("none", "e", &json!(3)).await;
    assert_eq!(sse.ids("none", 1).await, [new]);
}

#[tokio::test]
async fn entry_of_a_dead_emitter_is_delivered_with_the_next_notification() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for data in [json!("text"), json!(7)] {
        let dead = gateway.store.add("c", "e", &data).await;
        let next = gateway.store.emit_stock("c", "e", &data).await;
        assert_eq!(sse.ids("c", 2).await, [dead, next]);
    }
}

#[tokio::test]
async fn live_string_stays_a_string_and_replay_matches_the_stock_client() {
    let gateway = Gateway::start("").await;
    for (written, replayed) in [
        (json!("123"), json!(123)),
        (json!("true"), json!(true)),
        (json!("null"), json!(null)),
        (json!("{\"a\":[1]}"), json!({"a": [1]})),
        (json!("plain"), json!("plain")),
        (json!("grüße\n🎉"), json!("grüße\n🎉")),
        (json!(123), json!(123)),
        (json!(null), json!(null)),
        (json!({"deep": [1, {"a": "1"}]}), json!({"deep": [1, {"a": "1"}]})),
    ] {
        for (emitter, expect) in [("stock", &replayed), ("own", &written)] {
            let channel = format!("{emitter}-{written}").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let emit = async |channel: &str| match emitter {
                "stock" => gateway.store.emit_stock(channel, "e", &written).await,
                _ => gateway.store.emit_own(channel, "e", &written).await,
            };
            // No client is subscribed yet, so the notification reaches no hub.
            emit(&channel).await;
            let mut sse = gateway.open(&format!("channel={channel}&last_ack_{channel}=0")).await;
            sse.connected(&channel).await;
            assert_eq!(sse.event().await["data"], *expect, "{emitter}, replayed");
            emit(&channel).await;
            assert_eq!(sse.event().await["data"], written, "{emitter}, live");
        }
    }
}

#[tokio::test]
async fn published_messages_that_are_not_events_are_dropped() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c&channel=d").await;
    let _connected = (sse.frame().await, sse.frame().await);
    let past = gateway.store.emit_stock("c", "e", &json!("past")).await;
    assert_eq!(sse.ids("c", 1).await, [past]);
    let junk: Vec<String> = [
        json!({"type": "ping", "timestamp": 1}),
        json!({"type": "reconnect", "timestamp": 1}),
        json!({"type": "connected", "channel": "c"}),
        json!({"type": "connected", "channel": "c", "cursor": "9-9"}),
        json!({"type": "disconnected", "channels": ["c"]}),
        json!({"type": "error", "error": "from an emitter"}),
        json!({"type": "gap", "channel": "c", "after": "0-0", "resumed": "9-9", "certain": true}),
        // Events that are not in the stream, with ids before and after its last one.
        json!({"data": 1, "event": "e", "channel": "c", "id": "1-1"}),
        json!({"data": 1, "event": "e", "channel": "c", "id": past.to_string()}),
        json!({"data": 1, "event": "e", "channel": "c", "id": "9999999999999-0"}),
        json!({"data": 1, "event": "e", "channel": "d", "id": "9999999999999-1"}),
        json!({"data": 1, "event": "e", "channel": "c", "id": "nonsense"}),
        json!({"data": 1, "event": "e", "channel": "c"}),
        json!({"data": 1, "channel": "c", "id": "9999999999999-2"}),
        json!({"data": 1, "event": 7, "channel": "c", "id": "9999999999999-3"}),
        json!({"data": 1, "event": "e", "id": "9999999999999-4"}),
        json!([]),
        json!(7),
        Value::Null,
    ]
    .iter()
    .map(Value::to_string)
    .chain(["", "{", "data: x\n\n", "\u{0}"].map(Into::into))
    .collect();
    for message in &junk {
        gateway.store.publish("c", message).await;
        let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
        assert_eq!(sse.ids("c", 1).await, [next], "after {message}");
    }
    // All messages in a row, without entries between them.
    for message in &junk {
        gateway.store.publish("c", message).await;
    }
    let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
    assert_eq!(sse.ids("c", 1).await, [next]);
}

#[tokio::test]
async fn event_carries_the_name_of_its_channel() {
    let gateway = Gateway::start("").await;
    gateway.store.add_fields("c", &[("data", "1"), ("event", "e"), ("channel", "other")], None).await;
    let mut sse = gateway.open("channel=c&channel=other&last_ack_c=0").await;
    let mut frames = Vec::new();
    for _ in 0..3 {
        frames.push(sse.frame().await);
    }
    let replayed = frames.iter().find(|frame| frame["event"] == "e").expect("the replay");
    assert_eq!(replayed["channel"], "c");
    let id = gateway.store.add("c", "e", &json!("live")).await;
    let payload = json!({"data": "live", "event": "e", "channel": "other", "id": id.to_string(), "type": "ping"});
    gateway.store.publish("c", &payload.to_string()).await;
    let expect = json!({"id": id.to_string(), "data": "live", "event": "e", "channel": "c"});
    assert_eq!(sse.event().await, expect);
}

#[tokio::test]
async fn entries_that_are_not_events_are_skipped() {
    let gateway = Gateway::start("").await;
    let foreign = async || gateway.store.add_fields("c", &[("data", "1"), ("note", "no event")], None).await;
    foreign().await;
    let first = gateway.store.add("c", "e", &json!(1)).await;
    foreign().await;
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    foreign().await;
    let second = gateway.store.emit_stock("c", "e", &json!(2)).await;
    assert_eq!(sse.ids("c", 1).await, [second]);
}

#[tokio::test]
async fn stock_and_tidegate_emitters_share_a_channel() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    let mut written = Vec::new();
    for n in 0..200 {
        let data = json!(n);
        written.push(match n % 4 {
            0 => gateway.store.emit_stock("c", "e", &data).await,
            // Its notification is lost.
            1 => gateway.store.add("c", "e", &data).await,
            _ => gateway.store.emit_own("c", "e", &data).await,
        });
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let last = gateway.store.emit_own("c", "e", &json!("last")).await;
    written.push(last);
    assert_eq!(sse.ids("c", written.len()).await, written);
}

#[tokio::test]
async fn clients_of_a_channel_share_its_subscription_and_buffer() {
    let gateway = Gateway::start("").await;
    let mut first = gateway.open("channel=c").await;
    first.connected("c").await;
    let mut written = vec![gateway.store.emit_own("c", "e", &json!("alone")).await];
    assert_eq!(first.ids("c", 1).await, written);
    let (reads, bytes) = (gateway.store.reads(), gateway.app.hub.buffer_bytes());
    assert!(bytes > 0);

    // A client that resumes within the event buffer causes no store read.
    let mut second = gateway.open("channel=c&last_ack_c=0").await;
    assert_eq!(second.connected("c").await, StreamId::ZERO);
    assert_eq!(second.ids("c", 1).await, written);
    assert_eq!((gateway.store.reads(), gateway.store.subscriptions()), (reads, 1));
    assert_eq!(gateway.app.hub.buffer_bytes(), bytes);

    for n in 0..10 {
        written.push(gateway.store.emit_own("c", "e", &json!(n)).await);
    }
    assert_eq!(first.ids("c", 10).await, written[1..]);
    assert_eq!(second.ids("c", 10).await, written[1..]);
    assert!(gateway.store.reads() <= reads + 10, "the channel reads, not each client");
    drop((first, second));
    wait_until("both streams have ended", || gateway.app.streams.count() == 0).await;
}

#[tokio::test]
async fn stream_opened_while_an_entry_is_pending_starts_after_it() {
    let gateway = Gateway::start("").await;
    let mut first = gateway.open("channel=c").await;
    first.connected("c").await;
    let reads = gateway.store.reads();
    let silent = gateway.store.add("c", "e", &json!(1)).await;
    let notified = gateway.store.emit_stock("c", "e", &json!(2)).await;
    crate::harness::wait_until("both entries are read", || gateway.store.reads() > reads).await;
    let mut second = gateway.open("channel=c").await;
    assert_eq!(second.connected("c").await, notified);
    assert_eq!(first.ids("c", 2).await, [silent, notified]);
    let live = gateway.store.emit_stock("c", "e", &json!(3)).await;
    assert_eq!(second.ids("c", 1).await, [live], "no earlier event follows");
}

/// Notifications of entries that are not in the stream, as another database of the same Redis or a forger publishes them.
#[tokio::test]
async fn notifications_of_entries_that_are_not_in_the_stream_change_nothing() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let forge = async |id: StreamId, prev: StreamId| {
        let (id, prev) = (id.to_string(), prev.to_string());
        let payload = json!({"data": "forged", "event": "e", "channel": "c", "id": id, "prev": prev});
        gateway.store.publish("c", &payload.to_string()).await;
    };
    // The key does not exist, as that of a channel of another database.
    for ms in [1, gateway.store.now() - 1, gateway.store.now(), 99_999_999_999_999] {
        forge(StreamId::new(ms, 7), StreamId::ZERO).await;
    }
    let mut last = StreamId::ZERO;
    for round in 0..3 {
        // With the last id as `prev`, which delivered them once; then in a row with an entry.
        for ahead in [StreamId::new(99_999_999_999_999, 0), StreamId::new(last.ms, last.seq + 1)] {
            forge(ahead, last).await;
        }
        let own = gateway.store.emit_own("c", "e", &json!({"own": round})).await;
        let expect = json!({"id": own.to_string(), "data": {"own": round}, "event": "e", "channel": "c"});
        assert_eq!(sse.event().await, expect);
        // An id between the last two entries, and the id of the last one.
        forge(own.before(), last).await;
        forge(own, last).await;
        last = gateway.store.emit_stock("c", "e", &json!(round)).await;
        let event = sse.event().await;
        assert_eq!((id_of(&event), &event["data"]), (last, &json!(round)));
    }
}

/// The forged notification has the id of the entry.
#[tokio::test]
async fn content_of_a_notification_does_not_replace_that_of_the_entry() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for data in [json!("text"), json!(7), json!("7"), json!({"a": 1})] {
        gateway.store.hold_notifications();
        let id = gateway.store.add("c", "e", &data).await;
        gateway.store.notify("c", id, "forged", &json!("forged")).await;
        gateway.store.release_notifications(&[0], false).await;
        let event = sse.event().await;
        // Without its own notification, the type of the entry is that of a replay.
        let expect = if data == json!("7") { &json!(7) } else { &data };
        assert_eq!((id_of(&event), &event["event"], &event["data"]), (id, &json!("e"), expect));
    }
}

#[tokio::test]
async fn forged_notification_does_not_replace_a_trimmed_entry() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    let start = sse.connected("c").await;
    gateway.store.hold_notifications();
    let mut trimmed = Vec::new();
    for n in 0..2 {
        let id = gateway.store.add_and_trim("c", "e", &json!(n), Some(1)).await;
        gateway.store.notify("c", id, "e", &json!(n)).await;
        trimmed.push(id);
    }
    gateway.store.notify("c", StreamId::new(trimmed[0].ms - 1, 0), "e", &json!("forged")).await;
    // The forged one causes the read that finds the hole, and the other ones arrive after it.
    gateway.store.release_notifications(&[2, 0, 1], true).await;
    assert_eq!(sse.gap("c").await, ("trimmed".into(), true, Some(start), trimmed[1]));
    assert_eq!(sse.ids("c", 1).await, trimmed[1..]);
}

#[tokio::test]
async fn trimmed_entry_is_a_gap_if_holes_are_not_filled() {
    let gateway = Gateway::start("stream.fill-holes = false").await;
    let mut sse = gateway.open("channel=c").await;
    let start = sse.connected("c").await;
    gateway.store.hold_notifications();
    let mut written = Vec::new();
    for n in 0..2 {
        let id = gateway.store.add_and_trim("c", "e", &json!(n), Some(1)).await;
        gateway.store.notify("c", id, "e", &json!(n)).await;
        written.push(id);
    }
    gateway.store.release_notifications(&[0, 1], false).await;
    assert_eq!(sse.gap("c").await, ("trimmed".into(), true, Some(start), written[1]));
    assert_eq!(sse.ids("c", 1).await, written[1..]);
}
