//! Each channel in stream order, each entry once, whoever emits and whatever its doorbells do.

use serde_json::{Value, json};
use tidegate::event::StreamId;

use crate::client::id_of;
use crate::harness::{Gateway, until};

const ORDERS_OF_THREE: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[tokio::test]
async fn doorbells_in_any_order_ring_the_events_in_theirs() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for (keep, data) in [(None, json!("text")), (None, json!("7")), (Some(1), json!("7")), (Some(2), json!({"a": 1}))] {
        for order in ORDERS_OF_THREE {
            for paced in [false, true] {
                gateway.store.hold_doorbells();
                let mut written = Vec::new();
                for _ in 0..3 {
                    let id = gateway.store.add_and_trim("c", "e", &data, keep).await;
                    gateway.store.ring("c", id, "e", &data).await;
                    written.push(id);
                }
                gateway.store.release_doorbells(&order, paced).await;
                for id in written {
                    let expect = json!({"id": id.to_string(), "data": data, "event": "e", "channel": "c"});
                    assert_eq!(sse.event().await, expect, "{order:?}, paced: {paced}, kept: {keep:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn racing_emitters_who_keep_one_entry_lose_none_though_their_doorbells_are_late() {
    let gateway = Gateway::start("").await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut sse = gateway.open("channel=c").await;
        sse.connected("c").await;
        readers.push(sse);
    }
    let mut written = Vec::new();
    for round in 0..20 {
        // Three emitters a round: each adds before any of them rings.
        gateway.store.hold_doorbells();
        for emitter in 0..3 {
            let data = json!({"round": round, "emitter": emitter});
            let id = gateway.store.add_and_trim("c", "e", &data, Some(1)).await;
            gateway.store.ring("c", id, "e", &data).await;
            written.push(id);
        }
        gateway.store.release_doorbells(&ORDERS_OF_THREE[round % 6], round % 2 == 0).await;
    }
    for sse in &mut readers {
        assert_eq!(sse.ids("c", written.len()).await, written);
    }
}

#[tokio::test]
async fn a_doorbell_that_comes_too_late_is_a_gap_and_never_a_disorder() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    let start = sse.connected("c").await;
    gateway.store.hold_doorbells();
    let lost = gateway.store.add_and_trim("c", "e", &json!("lost"), Some(1)).await;
    gateway.store.ring("c", lost, "e", &json!("lost")).await;
    let kept = gateway.store.add_and_trim("c", "e", &json!("kept"), Some(1)).await;
    gateway.store.ring("c", kept, "e", &json!("kept")).await;
    gateway.store.release_doorbells(&[1], false).await;
    assert_eq!(sse.gap("c").await, ("trimmed".into(), true, start, kept));
    assert_eq!(sse.ids("c", 1).await, [kept]);
    gateway.store.ring("c", lost, "e", &json!("lost")).await;
    let next = gateway.store.stock("c", "e", &json!("next")).await;
    assert_eq!(sse.ids("c", 1).await, [next]);
}

#[tokio::test]
async fn an_entry_whose_doorbell_never_rings_is_found() {
    let gateway = Gateway::start("stream.reconcile-interval = '100ms'").await;
    let mut sse = gateway.open("channel=a&channel=b").await;
    let _connected = (sse.frame().await, sse.frame().await);
    gateway.store.swallow_doorbells();
    for data in [json!("text"), json!({"json": true}), json!(7)] {
        for channel in ["a", "b"] {
            let id = gateway.store.stock(channel, "e", &data).await;
            let event = sse.event().await;
            assert_eq!((id_of(&event), &event["data"], &event["channel"]), (id, &data, &json!(channel)));
        }
    }
}

#[tokio::test]
async fn an_emitter_that_dies_before_it_rings_is_caught_up_with_by_the_next_doorbell() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for data in [json!("text"), json!(7)] {
        let dead = gateway.store.add("c", "e", &data).await;
        let next = gateway.store.stock("c", "e", &data).await;
        assert_eq!(sse.ids("c", 2).await, [dead, next]);
    }
}

#[tokio::test]
async fn a_live_string_stays_one_and_its_replay_is_what_the_stock_client_makes_of_it() {
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
                "stock" => gateway.store.stock(channel, "e", &written).await,
                _ => gateway.store.own(channel, "e", &written).await,
            };
            // Nobody watches yet, so nobody has heard its doorbell.
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
async fn what_is_published_and_is_no_event_never_passes() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c&channel=d").await;
    let _connected = (sse.frame().await, sse.frame().await);
    let past = gateway.store.stock("c", "e", &json!("past")).await;
    assert_eq!(sse.ids("c", 1).await, [past]);
    let junk: Vec<String> = [
        json!({"type": "ping", "timestamp": 1}),
        json!({"type": "reconnect", "timestamp": 1}),
        json!({"type": "connected", "channel": "c"}),
        json!({"type": "connected", "channel": "c", "cursor": "9-9"}),
        json!({"type": "disconnected", "channels": ["c"]}),
        json!({"type": "error", "error": "from somebody"}),
        json!({"type": "gap", "channel": "c", "after": "0-0", "resumed": "9-9", "certain": true}),
        // Events that are in no stream, with and without a future.
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
        let next = gateway.store.stock("c", "e", &json!("next")).await;
        assert_eq!(sse.ids("c", 1).await, [next], "after {message}");
    }
    // One after the other, none between.
    for message in &junk {
        gateway.store.publish("c", message).await;
    }
    let next = gateway.store.stock("c", "e", &json!("next")).await;
    assert_eq!(sse.ids("c", 1).await, [next]);
}

#[tokio::test]
async fn events_come_under_the_name_of_the_channel_that_they_came_on() {
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
async fn entries_that_are_no_events_are_passed_over() {
    let gateway = Gateway::start("").await;
    let foreign = async || gateway.store.add_fields("c", &[("data", "1"), ("note", "no event")], None).await;
    foreign().await;
    let first = gateway.store.add("c", "e", &json!(1)).await;
    foreign().await;
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    assert_eq!(sse.ids("c", 1).await, [first]);
    foreign().await;
    let second = gateway.store.stock("c", "e", &json!(2)).await;
    assert_eq!(sse.ids("c", 1).await, [second]);
}

#[tokio::test]
async fn stock_and_own_emitters_share_a_channel() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    sse.connected("c").await;
    let mut written = Vec::new();
    for n in 0..200 {
        let data = json!(n);
        written.push(match n % 4 {
            0 => gateway.store.stock("c", "e", &data).await,
            // Its doorbell is lost: the next own one does not follow what was read.
            1 => gateway.store.add("c", "e", &data).await,
            _ => gateway.store.own("c", "e", &data).await,
        });
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let last = gateway.store.own("c", "e", &json!("last")).await;
    written.push(last);
    assert_eq!(sse.ids("c", written.len()).await, written);
}

#[tokio::test]
async fn two_readers_share_a_channel() {
    let gateway = Gateway::start("").await;
    let mut first = gateway.open("channel=c").await;
    first.connected("c").await;
    let mut written = vec![gateway.store.own("c", "e", &json!("alone")).await];
    assert_eq!(first.ids("c", 1).await, written);
    let (reads, bytes) = (gateway.store.reads(), gateway.app.hub.buffer_bytes());
    assert!(bytes > 0);

    // One who comes back within the log costs the store nothing.
    let mut second = gateway.open("channel=c&last_ack_c=0").await;
    assert_eq!(second.connected("c").await, StreamId::ZERO);
    assert_eq!(second.ids("c", 1).await, written);
    assert_eq!((gateway.store.reads(), gateway.store.subscriptions()), (reads, 1));
    assert_eq!(gateway.app.hub.buffer_bytes(), bytes);

    for n in 0..10 {
        written.push(gateway.store.own("c", "e", &json!(n)).await);
    }
    assert_eq!(first.ids("c", 10).await, written[1..]);
    assert_eq!(second.ids("c", 10).await, written[1..]);
    assert_eq!(gateway.store.reads(), reads, "own doorbells are delivered without a read");
    drop((first, second));
    until("both streams are gone", || gateway.app.streams.count() == 0).await;
}

#[tokio::test]
async fn who_comes_while_an_entry_waits_for_its_doorbell_begins_behind_it() {
    let gateway = Gateway::start("").await;
    let mut first = gateway.open("channel=c").await;
    first.connected("c").await;
    let reads = gateway.store.reads();
    let silent = gateway.store.add("c", "e", &json!(1)).await;
    let rung = gateway.store.stock("c", "e", &json!(2)).await;
    crate::harness::until("both are read", || gateway.store.reads() > reads).await;
    let mut second = gateway.open("channel=c").await;
    assert_eq!(second.connected("c").await, rung);
    assert_eq!(first.ids("c", 2).await, [silent, rung]);
    let live = gateway.store.stock("c", "e", &json!(3)).await;
    assert_eq!(second.ids("c", 1).await, [live], "and nothing of before");
}
