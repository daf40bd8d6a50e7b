//! Positions that clients offer: what can be used resumes the stream, and what cannot is a gap.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate::event::StreamId;

use crate::client::{Sse, blocks, send_request};
use crate::harness::Gateway;

/// How a client returns the last event id.
#[derive(Clone, Copy, Debug)]
enum Offer {
    Header,
    Query(&'static str),
}

impl Offer {
    const ALL: [Self; 4] =
        [Self::Header, Self::Query("lastEventId"), Self::Query("last-event-id"), Self::Query("Last-Event-ID")];

    async fn open(self, gateway: &Gateway, query: &str, id: &str) -> Sse {
        let target = format!("/api/realtime?{query}");
        match self {
            Self::Header => Sse::open(gateway.data, &target, &[("last-event-id", id)]).await,
            Self::Query(name) => {
                let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
                Sse::open(gateway.data, &format!("{target}&{name}={id}"), &[]).await
            }
        }
    }
}

/// Three entries in each of these channels.
async fn seed(gateway: &Gateway, channels: &[&str]) -> Vec<StreamId> {
    let mut written = Vec::new();
    for n in 0..3 {
        for channel in channels {
            written.push(gateway.store.add(channel, "e", &json!(n)).await);
        }
    }
    written
}

/// The id of the last frame of a stream that has read everything.
async fn last_id(gateway: &Gateway, channels: &[&str]) -> String {
    let query: Vec<String> = channels.iter().map(|channel| format!("channel={channel}")).collect();
    let mut sse = gateway.open(&query.join("&")).await;
    for _ in channels {
        sse.frame().await;
    }
    sse.last_event_id.expect("each frame has an id")
}

fn unknown_position(channel: &str, resumed: StreamId) -> Value {
    json!({"type": "gap", "channel": channel, "after": null, "resumed": resumed.to_string(), "certain": false, "reason": "unknown-position"})
}

#[tokio::test]
async fn unusable_last_event_id_is_a_gap_and_the_tail() {
    let gateway = Gateway::start("").await;
    let written = seed(&gateway, &["a"]).await;
    let foreign = last_id(&gateway, &["x", "y"]).await;
    let of_a = last_id(&gateway, &["a"]).await;
    let truncated = &of_a[..5];
    let long = "x".repeat(20_000);
    let both = [&*foreign, truncated, &*long, "0", "42", "abc", "\u{e9}", "?", "{\"a\":1}", "1-2-3", "1732464000000"];
    // With several channels it is not known of which one an entry is.
    let entry = written[2].to_string();
    let checks = both.map(|id| (&["a"][..], id)).into_iter().chain(both.map(|id| (&["a", "b"][..], id)));
    let mut tail = written[2];
    for (n, (channels, id)) in checks.chain([(&["a", "b"][..], &*entry)]).enumerate() {
        let offer = Offer::ALL[n % Offer::ALL.len()];
        let query: Vec<String> = channels.iter().map(|channel| format!("channel={channel}")).collect();
        let mut sse = offer.open(&gateway, &query.join("&"), id).await;
        let case = format!("{offer:?} {}", &id[..id.len().min(80)]);
        for _ in channels {
            let connected = sse.frame().await;
            let channel = connected["channel"].as_str().expect("a name").to_owned();
            let tail = if channel == "a" { tail } else { StreamId::ZERO };
            assert_eq!(
                (&connected["type"], &connected["cursor"]),
                (&json!("connected"), &json!(tail.to_string())),
                "{case}"
            );
            assert_eq!(sse.frame().await, unknown_position(&channel, tail), "{case}");
        }
        // The client has received the gaps: they are not repeated.
        let mut sse = sse.reconnect().await;
        for _ in channels {
            assert_eq!(sse.frame().await["type"], "connected", "{case}");
        }
        let live = gateway.store.emit_stock("a", "e", &json!(n)).await;
        assert_eq!(sse.ids("a", 1).await, [live], "{case}");
        tail = live;
    }
    let metrics = send_request(gateway.control, "GET", "/metrics", &[], "").await.body;
    let count = format!("tidegate_gaps_total{{reason=\"unknown-position\"}} {}", both.len() * 3 + 2);
    assert!(metrics.contains(&count), "{metrics}");
}

#[tokio::test]
async fn last_event_id_of_another_list_resumes_the_channels_of_both() {
    let gateway = Gateway::start("").await;
    let written = seed(&gateway, &["a", "b"]).await;
    let id = last_id(&gateway, &["a", "b"]).await;
    let missed = seed(&gateway, &["a", "b", "c"]).await;
    for offer in Offer::ALL {
        let mut sse = offer.open(&gateway, "channel=c&channel=b", &id).await;
        let mut frames = Vec::new();
        for _ in 0..5 {
            frames.push(sse.frame().await);
        }
        let of = |channel: &str| -> Vec<String> {
            let frames = frames.iter().filter(|frame| frame["channel"] == channel);
            frames.map(|frame| frame["id"].as_str().or(frame["cursor"].as_str()).expect("an id").to_owned()).collect()
        };
        assert_eq!(of("b"), [written[5], missed[1], missed[4], missed[7]].map(|id| id.to_string()), "{offer:?}");
        // The client had no position in `c`, so nothing is missing there.
        assert_eq!(of("c"), [missed[8].to_string()], "{offer:?}");
    }
}

#[tokio::test]
async fn last_event_id_counts_in_the_query_too() {
    let gateway = Gateway::start("").await;
    let written = seed(&gateway, &["a"]).await;
    let (first, second) = (written[0].to_string(), written[1].to_string());
    let old = Sse::open(gateway.data, &format!("/api/realtime?channel=a&last_ack_a={first}"), &[]).await;
    let full = {
        let mut old = old;
        old.connected("a").await;
        old.last_event_id.expect("an id")
    };
    for offer in Offer::ALL {
        // It precedes the ack, which is older; here it is the other way round.
        let query = format!("channel=a&last_ack_a={second}");
        for id in [&*full, &*first] {
            let mut sse = offer.open(&gateway, &query, id).await;
            assert_eq!(sse.connected("a").await, written[0], "{offer:?} {id}");
            assert_eq!(sse.ids("a", 2).await, written[1..], "{offer:?} {id}");
        }
        // An empty one is none.
        let mut sse = offer.open(&gateway, &query, "").await;
        assert_eq!(sse.connected("a").await, written[1], "{offer:?}");
        // In the tail there is no gap either.
        let mut sse = offer.open(&gateway, "channel=a", "").await;
        assert_eq!(sse.connected("a").await, written[2], "{offer:?}");
        let live = gateway.store.emit_own("a", "e", &json!("live")).await;
        assert_eq!(sse.ids("a", 1).await, [live], "{offer:?}");
        gateway.store.keep_first_entries("a", 3).await;
    }
    // The header wins, unless it is empty.
    let target = format!("/api/realtime?channel=a&lastEventId={second}");
    for (header, expect) in [(&*first, written[0]), ("", written[1])] {
        let mut sse = Sse::open(gateway.data, &target, &[("last-event-id", header)]).await;
        assert_eq!(sse.connected("a").await, expect, "{header:?}");
    }
    // A channel of this name is a channel.
    let mut sse = gateway.open("channel=lastEventId&last_ack_lastEventId=0").await;
    assert_eq!(sse.connected("lastEventId").await, StreamId::ZERO);
}

#[tokio::test]
async fn ack_applies_where_the_last_event_id_cannot_be_used() {
    let gateway = Gateway::start("").await;
    let written = seed(&gateway, &["a", "b"]).await;
    for (n, ack) in [written[0].to_string(), written[0].ms.to_string()].into_iter().enumerate() {
        let query = format!("channel=a&channel=b&last_ack_a={ack}");
        let mut sse = Offer::ALL[n].open(&gateway, &query, "garbage").await;
        let mut frames = Vec::new();
        for _ in 0..5 {
            frames.push(sse.frame().await);
        }
        // Nothing is missing after an ack; `b` has none.
        let (gaps, rest): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| frame["type"] == "gap");
        assert_eq!(gaps, [unknown_position("b", written[5])], "{ack}");
        let of_a = rest.iter().filter(|frame| frame["channel"] == "a");
        let ids: Vec<_> = of_a.map(|frame| frame["id"].as_str().or(frame["cursor"].as_str())).collect();
        assert_eq!(ids, [0, 2, 4].map(|n| written[n].to_string()).each_ref().map(|id| Some(&**id)), "{ack}");
    }
    // An ack that cannot be used is an error, with and without another position.
    for headers in [&[][..], &[("last-event-id", "garbage")], &[("last-event-id", &*written[0].to_string())]] {
        let reply = send_request(gateway.data, "GET", "/api/realtime?channel=a&last_ack_a=x", headers, "").await;
        assert_eq!((reply.status, &*reply.code()), (400, "invalid_ack"), "{headers:?}");
    }
}

/// The gap before the start of a channel, of a stream that breaks at any byte, is received once: over this connection or the next one.
#[tokio::test]
async fn gap_at_the_start_is_repeated_until_the_client_has_received_it() {
    let gateway = Gateway::start("").await;
    let written = seed(&gateway, &["a", "b"]).await;
    let beyond = StreamId::new(written[5].ms + 60_000, 0);
    for (acks, id) in [(String::new(), Some("garbage")), (format!("&last_ack_a={beyond}&last_ack_b={beyond}"), None)] {
        let target = format!("/api/realtime?channel=a&channel=b{acks}");
        let mut sse = Sse::resume(gateway.data, &target, &[], id.map(str::to_owned)).await;
        for _ in 0..2 {
            while sse.frame().await["type"] != "gap" {}
        }
        let text = sse.text.clone();
        assert_eq!(text.matches(r#""type":"gap""#).count(), 2, "{text}");
        for cut in 0..=text.len() {
            let before = blocks(&text[..cut]);
            let last = before.iter().rev().find_map(|block| block.id.clone()).or(id.map(str::to_owned));
            let mut gaps = BTreeMap::new();
            let count = |gaps: &mut BTreeMap<String, u32>, json: &Value| {
                if json["type"] == "gap" {
                    *gaps.entry(json["channel"].as_str().expect("a name").to_owned()).or_insert(0) += 1;
                }
            };
            before.iter().filter_map(|block| block.json.as_ref()).for_each(|json| count(&mut gaps, json));
            let received = before.iter().filter(|block| block.kind() == "gap").count();
            let mut sse = Sse::resume(gateway.data, &target, &[], last).await;
            // A gap that a read finds follows later than `connected`.
            let mut connected = 0;
            while connected < 2 || (received < 2 && gaps.len() < 2) {
                let frame = sse.frame().await;
                connected += usize::from(frame["type"] == "connected");
                count(&mut gaps, &frame);
            }
            if received == 2 {
                for channel in ["a", "b"] {
                    let next = gateway.store.emit_stock(channel, "e", &json!("next")).await.to_string();
                    loop {
                        let frame = sse.frame().await;
                        count(&mut gaps, &frame);
                        if frame["channel"] == channel && frame["id"] == *next {
                            break;
                        }
                    }
                }
            }
            assert_eq!(gaps, BTreeMap::from([("a".into(), 1), ("b".into(), 1)]), "cut at {cut}: {text}");
        }
    }
}
