//! The data port without the content of streams: headers, origins, limits, drain, pings.

use std::time::Duration;

use serde_json::json;

use crate::client::{Sse, send_request};
use crate::harness::{Gateway, InitialPolicy, wait_until, with_timeout};

const STREAM: &str = "/api/realtime?channel=c";

#[tokio::test]
async fn unknown_methods_are_405_and_unknown_paths_404_as_json() {
    let gateway = Gateway::start("").await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let reply = send_request(gateway.data, method, STREAM, &[], "").await;
        assert_eq!(
            (reply.status, &*reply.code(), &*reply.header("allow")),
            (405, "method_not_allowed", "GET, OPTIONS")
        );
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{method}");
    }
    let reply = send_request(gateway.data, "HEAD", STREAM, &[], "").await;
    assert_eq!((reply.status, &*reply.header("allow")), (405, "GET, OPTIONS"));
    for path in
        ["/", "/api", "/api/realtime/", "/api/realtime/x", "/redis", "/redis/pipeline", "/playground/emit", "/v1/emit"]
    {
        for method in ["GET", "POST"] {
            let reply = send_request(gateway.data, method, path, &[], "").await;
            assert_eq!((reply.status, &*reply.code()), (404, "not_found"), "{method} {path}");
            assert_eq!(reply.header("content-type"), "application/json");
            assert_eq!(reply.header("cache-control"), "no-store", "{method} {path}");
        }
    }
    let reply = send_request(gateway.data, "GET", "/healthz", &[], "").await;
    assert_eq!((reply.status, reply.json()), (200, json!({"status": "ok"})));
    assert!(gateway.is_idle());
}

#[tokio::test]
async fn any_origin_is_allowed_without_a_configured_one() {
    let gateway = Gateway::start("").await;
    let origin = [("origin", "https://app.example")];
    let sse = Sse::open(gateway.data, STREAM, &origin).await;
    assert_eq!(sse.header("access-control-allow-origin"), "*");
    assert_eq!((sse.header("access-control-allow-credentials"), sse.header("vary")), (String::new(), String::new()));
    let reply = send_request(gateway.data, "OPTIONS", STREAM, &origin, "").await;
    assert_eq!((reply.status, &*reply.header("access-control-allow-origin")), (204, "*"));
    assert!(reply.header("access-control-allow-methods").contains("GET"));
}

#[tokio::test]
async fn configured_origins_are_echoed_with_credentials_on_every_answer() {
    let toml = "cors.origins = ['https://app.example', 'http://localhost:*']\ncors.credentials = true";
    let deny = crate::guests::component("deny");
    let trap = crate::guests::component("trap");
    let open = Gateway::start(toml).await;
    let denying = Gateway::with_policy(&deny, toml).await;
    let trapping = Gateway::with_policy(&trap, toml).await;
    let undecided = Gateway::start_with(None, &InitialPolicy::Missing, toml).await;
    for (origin, allowed) in [
        ("https://app.example", true),
        ("http://localhost:3000", true),
        ("http://localhost", true),
        ("https://app.example.evil.example", false),
        ("http://app.example", false),
        ("http://localhost:3000.evil.example", false),
        ("null", false),
    ] {
        let headers = [("origin", origin)];
        let sse = Sse::open(open.data, STREAM, &headers).await;
        let mut answers = vec![(sse.response, "the stream")];
        for (gateway, method, target, status, case) in [
            (&open, "OPTIONS", STREAM, 204, "the preflight"),
            (&open, "POST", STREAM, 405, "another method"),
            (&open, "GET", "/api/realtime?channel=c&last_ack_c=x", 400, "a bad ack"),
            (&open, "GET", "/api/realtime?channel=tidegate:x", 403, "a reserved channel"),
            (&denying, "GET", STREAM, 418, "the policy's rejection"),
            (&trapping, "GET", STREAM, 500, "a trap"),
            (&undecided, "GET", STREAM, 503, "no policy"),
        ] {
            let reply = send_request(gateway.data, method, target, &headers, "").await;
            assert_eq!(reply.status, status, "{case}");
            answers.push((reply.headers, case));
        }
        for (headers, case) in answers {
            let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_lowercase());
            assert_eq!(header("vary").as_deref(), Some("origin"), "{case} for {origin}");
            let expect = allowed.then(|| origin.to_owned());
            assert_eq!(header("access-control-allow-origin"), expect, "{case} for {origin}");
            assert_eq!(
                header("access-control-allow-credentials"),
                allowed.then(|| "true".into()),
                "{case} for {origin}"
            );
        }
    }
}

#[tokio::test]
async fn preflight_allows_the_standard_headers_and_those_of_the_operator() {
    const STANDARD: &str = "authorization, cache-control, content-type, last-event-id";
    for (toml, requested, expect) in [
        ("", "authorization, x-tenant", STANDARD.to_owned()),
        ("cors.origins = ['http://localhost:*']", "authorization, x-tenant", format!("{STANDARD}, x-tenant")),
        ("cors.origins = ['http://localhost:*']", "content-type", STANDARD.to_owned()),
        (
            "cors.origins = ['http://localhost:*']\ncors.credentials = true\ncors.headers = ['X-Tenant']",
            "x-other",
            format!("{STANDARD}, x-tenant"),
        ),
        ("cors.headers = ['*']", "x-tenant", format!("{STANDARD}, x-tenant")),
    ] {
        let gateway = Gateway::start(toml).await;
        let headers = [
            ("origin", "http://localhost:3000"),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", requested),
        ];
        let reply = send_request(gateway.data, "OPTIONS", STREAM, &headers, "").await;
        assert_eq!(reply.status, 204, "{toml}");
        assert_eq!(reply.header("access-control-allow-headers"), expect, "{toml} {requested}");
        assert!(!reply.header("access-control-allow-origin").is_empty(), "{toml}");
    }
}

#[tokio::test]
async fn header_over_the_limit_is_431_and_names_the_option() {
    let gateway = Gateway::start("server.max-header-size = '32KiB'").await;
    let long = |bytes: usize| format!("{STREAM}&x={}", "y".repeat(bytes));
    let mut sse = Sse::open(gateway.data, &long(31 << 10), &[]).await;
    sse.connected("c").await;
    let cookie = "z".repeat(33 << 10);
    for (target, headers) in [
        (long(33 << 10), &[][..]),
        (STREAM.into(), &[("cookie", &*cookie)]),
        (long(20 << 10), &[("cookie", &cookie[..20 << 10])]),
    ] {
        for port in [gateway.data, gateway.control] {
            let reply = send_request(port, "GET", &target, headers, "").await;
            assert_eq!((reply.status, &*reply.code()), (431, "header_too_large"));
            assert!(reply.body.contains("server.max-header-size") && reply.body.contains("32768"), "{}", reply.body);
        }
    }
}

#[tokio::test]
async fn stream_over_the_limit_is_503_until_another_ends() {
    let gateway = Gateway::start("stream.max-streams = 2").await;
    let mut first = gateway.open("channel=c").await;
    first.connected("c").await;
    let second = gateway.open("channel=c").await;
    let reply = gateway.request("channel=c").await;
    assert_eq!((reply.status, &*reply.code()), (503, "too_many_streams"));
    assert!(reply.body.contains("stream.max-streams"));
    drop(second);
    wait_until("the stream permit is free", || gateway.app.streams.count() == 1).await;
    gateway.open("channel=c").await.connected("c").await;
    let id = gateway.store.emit_stock("c", "e", &json!(1)).await;
    assert_eq!(first.ids("c", 1).await, [id], "the first stream is unaffected");
}

#[tokio::test]
async fn drain_sends_each_stream_a_reconnect() {
    let gateway = Gateway::start("drain.duration = '200ms'").await;
    let (data, app, store) = (gateway.data, gateway.app.clone(), gateway.store.clone());
    store.add("a", "e", &json!(1)).await;
    let mut streams = Vec::new();
    for query in ["channel=a&channel=b", "channel=b", "channel=a&last_ack_a=0", "channel=a&channel=none"] {
        let mut sse = gateway.open(query).await;
        for _ in 0..query.split('&').count() {
            sse.frame().await;
        }
        streams.push(sse);
    }
    let served = gateway.stop();
    wait_until("the drain begins", || app.streams.count() < 4).await;
    for sse in &mut streams {
        assert_eq!(with_timeout("the reconnect frame", sse.frame()).await["type"], "reconnect");
        assert!(sse.next().await.is_none(), "no frame follows");
    }
    with_timeout("the server ends", served).await.expect("it ends without a panic");
    assert_eq!(app.streams.count(), 0);
    assert!(tokio::net::TcpStream::connect(data).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn stalled_client_does_not_block_a_drain() {
    let gateway = Gateway::start("drain.duration = '1ms'").await;
    let sse = Sse::open_with(gateway.data, STREAM, &[], Some(4096)).await;
    let store = gateway.store.clone();
    for _ in 0..3_000 {
        store.emit_own("c", "e", &json!("x".repeat(4096))).await;
        tokio::task::yield_now().await;
    }
    let served = gateway.stop();
    // The client gets two seconds to read to the end, and two more to close.
    tokio::time::timeout(Duration::from_secs(10), served).await.expect("the server ends").expect("without a panic");
    drop(sse);
}

#[tokio::test]
async fn only_an_idle_stream_is_pinged() {
    let gateway = Gateway::start("stream.ping-interval = '3s'").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let before = tidegate::util::clock::now_ms();
    let ping = sse.block().await.expect("the stream stays");
    assert_eq!((ping.kind(), ping.id.as_deref()), ("ping", None), "{ping:?}");
    let json = ping.json.expect("a ping has data, as a comment would not reset the client's timer");
    assert!(json["timestamp"].as_u64().is_some_and(|ms| ms >= before), "{json}");
    // Events for longer than the interval, each well within it.
    for n in 0..5 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        gateway.store.emit_own("c", "e", &json!(n)).await;
        assert_ne!(sse.block().await.expect("the stream stays").kind(), "ping");
    }
}
