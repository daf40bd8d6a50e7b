//! Parameters of a stream request, and the first frames of its stream.

use serde_json::json;
use tidegate::event::StreamId;

use crate::client::{Sse, id_of};
use crate::faulty_store::START;
use crate::harness::{Gateway, InitialPolicy};

#[tokio::test]
async fn connected_precedes_the_replay_and_the_live_events() {
    let gateway = Gateway::start("").await;
    let mut written = Vec::new();
    for n in 0..4 {
        written.push(gateway.store.add("news", "post", &json!({ "n": n })).await);
    }
    let mut sse = gateway.open(&format!("channel=news&last_ack_news={}", written[0])).await;
    assert_eq!(sse.header("cache-control"), "no-cache, no-transform");
    assert_eq!(sse.header("x-accel-buffering"), "no");
    assert_eq!(sse.header("access-control-allow-origin"), "*");
    assert_eq!(sse.connected("news").await, written[0]);
    for (n, id) in written.iter().enumerate().skip(1) {
        let expect = json!({"id": id.to_string(), "data": {"n": n}, "event": "post", "channel": "news"});
        assert_eq!(sse.event().await, expect);
    }
    let live = gateway.store.emit_stock("news", "post", &json!("live")).await;
    let expect = json!({"id": live.to_string(), "data": "live", "event": "post", "channel": "news"});
    assert_eq!(sse.event().await, expect);
}

#[tokio::test]
async fn each_channel_is_connected_before_its_events() {
    let gateway = Gateway::start("").await;
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let mut query = String::new();
    for name in &names {
        for data in ["missed first", "missed second"] {
            gateway.store.add(name, "e", &json!(data)).await;
        }
        query += &format!("channel={name}&last_ack_{name}={}&", START - 1);
    }
    let mut sse = gateway.open(&query).await;
    let mut received: Vec<Vec<String>> = vec![Vec::new(); names.len()];
    while received.iter().map(Vec::len).sum::<usize>() < 3 * names.len() {
        let frame = sse.frame().await;
        let number = names.iter().position(|name| frame["channel"] == **name).expect("a requested channel");
        let text = frame["type"].as_str().or(frame["data"].as_str()).expect("connected or an event");
        received[number].push(text.into());
        if received[number].len() == 3 {
            gateway.store.emit_stock(&names[number], "e", &json!("live")).await;
        }
    }
    for (name, received) in names.iter().zip(&received) {
        assert_eq!(received[..], ["connected", "missed first", "missed second"], "{name}");
    }
    for _ in &names {
        let event = sse.event().await;
        assert_eq!(event["data"], "live");
    }
}

#[tokio::test]
async fn channels_are_parsed_from_a_browser_url() {
    let gateway = Gateway::start("").await;
    for (query, channels) in [
        ("", &["default"][..]),
        ("other=x", &["default"]),
        ("channel=", &[""]),
        ("channel=b&channel=a&channel=b", &["b", "a"]),
        ("channel=a%20b%2Bc+d", &["a b+c d"]),
        ("channel=gr%C3%BC%C3%9Fe%F0%9F%8E%89", &["grüße🎉"]),
        ("channel=42&channel=true", &["42", "true"]),
    ] {
        let mut sse = gateway.open(query).await;
        let mut connected = Vec::new();
        for _ in channels {
            let frame = sse.frame().await;
            assert_eq!((&frame["type"], &frame["cursor"]), (&json!("connected"), &json!("0-0")), "{query}");
            connected.push(frame["channel"].as_str().expect("a name").to_owned());
        }
        connected.sort();
        let mut expect = channels.to_vec();
        expect.sort_unstable();
        assert_eq!(connected, expect, "{query}");
    }
    // Names that the stock server parses as numbers or booleans carry events, too.
    let mut sse = gateway.open("channel=42&last_ack_42=0").await;
    sse.connected("42").await;
    gateway.store.emit_stock("42", "true", &json!(null)).await;
    assert_eq!(sse.event().await["event"], "true");
}

#[tokio::test]
async fn ack_is_a_time_or_an_id_and_is_exclusive() {
    let id = |ms: u64, seq| StreamId::new(START + ms, seq);
    let written = [id(1, 0), id(1, 1), id(2, 0), id(2, 1)];
    for (ack, cursor, expect) in [
        ("0".to_owned(), StreamId::ZERO, &written[..]),
        ("0-0".into(), StreamId::ZERO, &written),
        (START.to_string(), id(0, 0), &written),
        (id(0, 7).to_string(), id(0, 7), &written),
        ((START + 1).to_string(), id(1, 0), &written[1..]),
        (id(1, 1).to_string(), id(1, 1), &written[2..]),
        (id(2, 0).to_string(), id(2, 0), &written[3..]),
        (id(2, 1).to_string(), id(2, 1), &[]),
        ((START + 3).to_string(), id(2, 1), &[]),
    ] {
        let gateway = Gateway::start("").await;
        for expect in written {
            gateway.store.advance_clock(u64::from(expect.seq == 0));
            assert_eq!(gateway.store.add_fields("c", &[("event", "e"), ("data", "1")], None).await, expect);
        }
        // The first value of a repeated ack counts.
        let mut sse = gateway.open(&format!("channel=c&last_ack_c={ack}&last_ack_c=99")).await;
        assert_eq!(sse.connected("c").await, cursor, "{ack}");
        if ack == id(0, 7).to_string() {
            // The acknowledged entry is missing from a stream that never lost one: it may be a different stream.
            assert_eq!(sse.gap("c").await, ("trimmed".into(), false, None, written[0]));
        }
        assert_eq!(sse.ids("c", expect.len()).await, expect, "{ack}");
        let live = gateway.store.emit_stock("c", "e", &json!("live")).await;
        assert_eq!(sse.ids("c", 1).await, [live], "{ack}: then live events");
    }
}

#[tokio::test]
async fn malformed_ack_is_400_and_names_the_parameter() {
    let gateway = Gateway::start("").await;
    for bad in
        ["abc", "", "1-2-3", "99999999999999999999", "-1", "1.5", "5-", "%2B5", "1%202", "18446744073709551616-0"]
    {
        let reply = gateway.request(&format!("channel=a&channel=b&last_ack_a=5&last_ack_b={bad}")).await;
        assert_eq!((reply.status, &*reply.code()), (400, "invalid_ack"), "{bad}");
        let message = reply.json()["error"]["message"].to_string();
        assert!(message.contains("last_ack_b") && !message.contains("last_ack_a"), "{message}");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
    }
    assert!(gateway.is_idle());
    // An ack of a channel that was not requested is ignored.
    gateway.open("channel=a&last_ack_c=abc").await.connected("a").await;
}

#[tokio::test]
async fn too_many_channels_are_400() {
    let gateway = Gateway::start("").await;
    let query = |n: usize| (0..n).map(|n| format!("channel=c{n}&")).collect::<String>();
    let reply = gateway.request(&query(101)).await;
    assert_eq!((reply.status, &*reply.code()), (400, "too_many_channels"));
    assert!(
        reply.body.contains("101")
            && reply.body.contains("100")
            && reply.body.contains("stream.max-channels-per-stream")
    );
    assert!(gateway.is_idle());
    // Repeated channels count once.
    let mut sse = gateway.open(&format!("{0}{0}", query(100))).await;
    for _ in 0..100 {
        assert_eq!(sse.frame().await["type"], "connected");
    }
}

#[tokio::test]
async fn disallowed_channel_is_403_without_a_decision() {
    let toml = "
        channels.allow = ['news*', 'tide*', 's*']
        channels.deny = ['news-secret*']
        policy.lookup.prefixes = ['session:', 'news:team:']
    ";
    // A decision without a policy would be a 503.
    let gateway = Gateway::start_with(None, &InitialPolicy::Missing, toml).await;
    let mut decisions = gateway.app.authorizer.watch();
    for name in ["other", "", "tidegate:x", "session:alice", "news:team:red", "news-secret-plans"] {
        for query in [format!("channel={name}"), format!("channel=news&channel={name}")] {
            let reply = gateway.request(&query).await;
            assert_eq!((reply.status, &*reply.code()), (403, "channel_not_allowed"), "{query}");
        }
    }
    assert!(decisions.try_recv().is_err(), "the policy was not evaluated");
    assert_eq!(gateway.request("channel=news-open").await.status, 503);
    assert_eq!(decisions.try_recv().expect("a decision is observed").channels, ["news-open"]);
    assert!(gateway.is_idle());
}

#[tokio::test]
async fn browser_with_a_clock_five_minutes_off_receives_each_event_once() {
    let gateway = Gateway::start("").await;
    let store = &gateway.store;
    store.advance_clock(10 * 60_000);
    let before = store.add("c", "e", &json!("before")).await;
    let minutes = |n: i64| store.now().saturating_add_signed(n * 60_000);

    let mut fast = gateway.open(&format!("channel=c&last_ack_c={}", minutes(5))).await;
    assert_eq!(fast.connected("c").await, before, "clamped to the last entry");
    let mut slow = gateway.open(&format!("channel=c&last_ack_c={}", minutes(-5))).await;
    assert_eq!(slow.connected("c").await, StreamId::new(minutes(-5), 0));
    assert_eq!(slow.ids("c", 1).await, [before]);
    let mut live = Vec::new();
    for n in 0..5 {
        live.push(store.emit_stock("c", "e", &json!(n)).await);
    }
    assert_eq!(fast.ids("c", 5).await, live);
    assert_eq!(slow.ids("c", 5).await, live);

    // The URL keeps its time in the future, and the reconnect still loses no event.
    let missed = store.emit_stock("c", "e", &json!("missed")).await;
    let mut fast = fast.reconnect().await;
    fast.connected("c").await;
    assert_eq!(fast.ids("c", 1).await, [missed]);
}

#[tokio::test]
async fn stream_path_with_a_wildcard_matches_paths_below_it() {
    let gateway = Gateway::start("stream.path = '/live/*'").await;
    for path in ["/live", "/live/", "/live/a/b"] {
        let mut sse = Sse::open(gateway.data, &format!("{path}?channel=c"), &[]).await;
        sse.connected("c").await;
        let id = gateway.store.emit_stock("c", "e", &json!(1)).await;
        assert_eq!(id_of(&sse.event().await), id);
    }
    for path in ["/lively", "/api/realtime"] {
        assert_eq!(crate::client::send_request(gateway.data, "GET", path, &[], "").await.status, 404, "{path}");
    }
}
