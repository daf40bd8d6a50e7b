//! The control port serves operators and emitters on this machine, and no web page.

use serde_json::json;

use crate::client::{Reply, send_request};
use crate::harness::{Gateway, InitialPolicy};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn emit(gateway: &Gateway, headers: &[(&str, &str)], body: &str) -> Reply {
    send_request(gateway.control, "POST", "/v1/emit", headers, body).await
}

#[tokio::test]
async fn readyz_requires_a_store_and_a_policy() {
    let gateway = Gateway::start_with(None, &InitialPolicy::Missing, "").await;
    let ready = async || send_request(gateway.control, "GET", "/readyz", &[], "").await;
    let reply = ready().await;
    let expect = json!({"ready": false, "store": "ok", "policy": "none", "draining": false});
    assert_eq!((reply.status, reply.json()), (503, expect));
    gateway.app.authorizer.activate(crate::harness::load(&crate::guests::component("allow")));
    let expect = json!({"ready": true, "store": "ok", "policy": "ok", "draining": false});
    let reply = ready().await;
    assert_eq!((reply.status, reply.json()), (200, expect));
    assert_eq!(send_request(gateway.control, "GET", "/healthz", &[], "").await.json(), json!({"status": "ok"}));
    assert_eq!(send_request(gateway.control, "POST", "/readyz", &[], "").await.status, 405);
    for (path, cache_control) in [
        ("/readyz", "no-store"),
        ("/metrics", "no-store"),
        ("/v1/status", "no-store"),
        ("/unknown", "no-store"),
        ("/", "no-cache"),
        ("/openapi.json", "no-cache"),
    ] {
        let reply = send_request(gateway.control, "GET", path, &[], "").await;
        assert_eq!(reply.header("cache-control"), cache_control, "{path}");
    }
    assert_eq!(send_request(gateway.control, "GET", "/v1/emit", &[], "").await.status, 405);
    assert_eq!(send_request(gateway.control, "GET", "/api/realtime", &[], "").await.status, 404);
}

#[tokio::test]
async fn emitted_event_reaches_the_stream() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for (body, event, data) in [
        (json!({"channel": "c", "event": "e", "data": {"a": [1, null]}}), "e", json!({"a": [1, null]})),
        (json!({"channel": "c", "event": "e", "data": "123"}), "e", json!("123")),
        (json!({"channel": "c", "event": "grüße", "data": 1.5}), "grüße", json!(1.5)),
        (json!({"channel": "c", "event": "nothing"}), "nothing", json!(null)),
        (json!({"channel": "c", "event": "e", "data": 1, "max_length": 1.0, "expire_seconds": 60}), "e", json!(1)),
    ] {
        let reply = emit(&gateway, &[JSON], &body.to_string()).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.body);
        let expect = json!({"id": reply.json()["id"], "data": data, "event": event, "channel": "c"});
        assert_eq!(sse.event().await, expect, "{body}");
    }
    // The last request trimmed the channel to one entry.
    let mut late = gateway.open("channel=c&last_ack_c=0-1").await;
    late.connected("c").await;
    gateway.store.advance_clock(61_000);
    let reply =
        emit(&gateway, &[("content-type", "Application/JSON; charset=utf-8")], r#"{"channel":"d","event":"e"}"#).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn invalid_emit_bodies_are_rejected_with_the_expected_form() {
    let gateway = Gateway::start("stream.max-event-size = '1KiB'\nchannels.deny = ['secret*']").await;
    let large = format!(r#"{{"channel":"c","event":"e","data":"{}"}}"#, "x".repeat(2_000));
    let huge = format!(r#"{{"channel":"c","event":"e","data":"{}"}}"#, "x".repeat(100_000));
    for (body, status, code, word) in [
        ("", 400, "invalid_json", "JSON"),
        ("{", 400, "invalid_json", "JSON"),
        ("[]", 400, "invalid_event", "right would be"),
        ("{}", 400, "invalid_event", "channel"),
        (r#"{"channel":"c"}"#, 400, "invalid_event", "event"),
        (r#"{"channel":"c","event":7}"#, 400, "invalid_event", "right would be"),
        (r#"{"channel":"c","event":"e","maxLength":1}"#, 400, "invalid_event", "maxLength"),
        (r#"{"channel":"c","event":"e","max_length":-1}"#, 400, "invalid_event", "-1"),
        (r#"{"channel":"c","event":"e","max_length":1.5}"#, 400, "invalid_event", "1.5"),
        (r#"{"channel":"c","event":"e","expire_seconds":4294967296}"#, 400, "invalid_event", "4294967296"),
        (r#"{"channel":"c","event":"e","expire_seconds":"60"}"#, 400, "invalid_event", "number"),
        (r#"{"channel":"secret-1","event":"e"}"#, 403, "channel_not_allowed", "secret-1"),
        (r#"{"channel":"tidegate:x","event":"e"}"#, 403, "channel_not_allowed", "tidegate:x"),
        (&large, 413, "event_too_large", "stream.max-event-size"),
        (&huge, 413, "body_too_large", "bytes"),
    ] {
        let reply = emit(&gateway, &[JSON], body).await;
        let short: String = body.chars().take(60).collect();
        assert_eq!((reply.status, &*reply.code()), (status, code), "{short}");
        assert!(reply.body.contains(word), "{short}: {}", reply.body);
    }
    let valid = r#"{"channel":"c","event":"e"}"#;
    gateway.store.disconnect();
    let reply = emit(&gateway, &[JSON], valid).await;
    assert_eq!((reply.status, &*reply.code()), (503, "store_unavailable"));
}

#[tokio::test]
async fn requests_from_web_pages_are_rejected() {
    let gateway = Gateway::start("").await;
    let valid = r#"{"channel":"c","event":"e"}"#;
    let own_origin = format!("http://{}", gateway.control);
    let port = gateway.control.port();
    let (localhost, ipv6) = (format!("localhost:{port}"), format!("[::1]:{port}"));
    for (headers, status, code) in [
        (&[JSON, ("origin", "https://evil.example")][..], 403, "origin_not_allowed"),
        (&[JSON, ("origin", "null")], 403, "origin_not_allowed"),
        (&[JSON, ("origin", "http://127.0.0.1:1")], 403, "origin_not_allowed"),
        (&[JSON, ("host", "evil.example")], 403, "host_not_allowed"),
        (&[JSON, ("host", "127.0.0.1.evil.example")], 403, "host_not_allowed"),
        (&[JSON, ("host", "")], 400, "invalid_host"),
        (&[], 415, "unsupported_media_type"),
        (&[("content-type", "text/plain")], 415, "unsupported_media_type"),
        (&[("content-type", "application/x-www-form-urlencoded")], 415, "unsupported_media_type"),
        (&[("content-type", "multipart/form-data; boundary=x")], 415, "unsupported_media_type"),
        (&[JSON, ("host", &localhost)], 200, ""),
        (&[JSON, ("host", &ipv6)], 200, ""),
        (&[JSON, ("origin", &own_origin)], 200, ""),
        (&[JSON], 200, ""),
    ] {
        let reply = emit(&gateway, headers, valid).await;
        assert_eq!(reply.status, status, "{headers:?}: {}", reply.body);
        if status != 200 {
            assert_eq!(reply.code(), code, "{headers:?}");
        }
        assert_eq!(reply.header("access-control-allow-origin"), "", "{headers:?}");
    }
    let reply = send_request(gateway.control, "GET", "/readyz", &[("origin", "https://evil.example")], "").await;
    assert_eq!(reply.status, 403);
    assert_eq!(
        send_request(gateway.control, "OPTIONS", "/v1/emit", &[("origin", "https://evil.example")], "").await.status,
        403
    );
}

#[tokio::test]
async fn configured_control_token_is_required() {
    let gateway = Gateway::start("control.token = 'right'").await;
    let valid = r#"{"channel":"c","event":"e"}"#;
    for (headers, status) in [
        (&[JSON][..], 401),
        (&[JSON, ("authorization", "Bearer wrong")], 401),
        (&[JSON, ("authorization", "Bearer righ")], 401),
        (&[JSON, ("authorization", "Bearer ")], 401),
        (&[JSON, ("authorization", "Basic right")], 401),
        (&[JSON, ("authorization", "right")], 401),
        (&[JSON, ("authorization", "Bearer right"), ("origin", "https://evil.example")], 403),
        (&[JSON, ("authorization", "Bearer right")], 200),
        (&[JSON, ("authorization", "bearer right"), ("host", "gateway.internal")], 200),
    ] {
        assert_eq!(emit(&gateway, headers, valid).await.status, status, "{headers:?}");
    }
    assert_eq!(send_request(gateway.control, "GET", "/readyz", &[], "").await.status, 401);
    assert_eq!(send_request(gateway.control, "GET", "/healthz", &[], "").await.status, 200);
}

#[tokio::test]
async fn emit_without_a_reply_is_tried_again_and_delivered_once() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for lost in 0..4 {
        gateway.store.lose_replies(lost);
        let body = json!({"channel": "c", "event": "e", "data": lost}).to_string();
        let reply =
            send_request(gateway.control, "POST", "/v1/emit", &[("content-type", "application/json")], &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json(), json!({"id": sse.ids("c", 1).await[0].to_string()}));
    }
    // A reply that gets lost again and again is an error after a while.
    gateway.store.lose_replies(usize::MAX);
    let body = json!({"channel": "c", "event": "e", "data": "x"}).to_string();
    let reply = send_request(gateway.control, "POST", "/v1/emit", &[("content-type", "application/json")], &body).await;
    assert_eq!((reply.status, &*reply.code()), (503, "store_unavailable"), "{reply:?}");
    sse.ids("c", 1).await;
    gateway.store.lose_replies(0);
    let last = gateway.store.emit_own("c", "e", &json!("last")).await;
    assert_eq!(sse.ids("c", 1).await, [last], "each event is delivered once");
}
