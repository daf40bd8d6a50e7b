//! `/metrics`. Each gateway has its own counters, so a test knows their values exactly.

use serde_json::json;

use crate::client::send_request;
use crate::guests::component;
use crate::harness::{Gateway, wait_until};

/// The sum of all series of this name whose labels contain this text.
async fn value(gateway: &Gateway, name: &str, labels: &str) -> f64 {
    let reply = send_request(gateway.control, "GET", "/metrics", &[], "").await;
    assert_eq!((reply.status, &*reply.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let series = reply.body.lines().filter(|line| {
        let at = line.find(['{', ' ']).unwrap_or(line.len());
        &line[..at] == name && line.contains(labels)
    });
    series.map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).expect("a number")).sum()
}

#[tokio::test]
async fn events_of_streams_and_policies_are_counted() {
    let gateway = Gateway::with_policy(&component("allow"), "policy.rotation-window = '0s'").await;
    let expected = [
        ("tidegate_stream_requests_total", r#"outcome="allowed""#, 2.0),
        ("tidegate_stream_requests_total", r#"cause="4xx",outcome="rejected""#, 1.0),
        ("tidegate_stream_requests_total", r#"cause="trap",outcome="error""#, 1.0),
        ("tidegate_stream_requests_total", r#"cause="channel_not_allowed",outcome="refused""#, 1.0),
        ("tidegate_decision_duration_seconds_count", r#"cached="false""#, 4.0),
        ("tidegate_events_received_total", "", 1.0),
        ("tidegate_events_sent_total", "", 2.0),
        ("tidegate_replays_total", "", 1.0),
        ("tidegate_replay_pages_total", "", 1.0),
        ("tidegate_gaps_total", r#"reason="trimmed""#, 1.0),
        ("tidegate_policy_activation_failures_total", r#"stage="compiled""#, 1.0),
        ("tidegate_connections_accepted_total", r#"port="data""#, 5.0),
    ];
    for (name, labels, _) in expected {
        assert_eq!(value(&gateway, name, labels).await, 0.0, "{name}{{{labels}}} starts at 0");
    }
    assert_eq!(value(&gateway, "tidegate_stream_sent_bytes_total", "").await, 0.0);
    let now = gateway.store.now();
    let mut stream = gateway.open("channel=c").await;
    stream.connected("c").await;
    let id = gateway.store.emit_own("c", "e", &json!(1)).await;
    assert_eq!(stream.event().await["id"], id.to_string());
    gateway.store.add_and_trim("old", "e", &json!(1), Some(1)).await;
    gateway.store.add_and_trim("old", "e", &json!(2), Some(1)).await;
    let mut late = gateway.open(&format!("channel=old&last_ack_old={}", now.saturating_sub(1))).await;
    late.connected("old").await;
    late.gap("old").await;
    assert_eq!(gateway.request("channel=tidegate:x").await.status, 403);
    assert!(gateway.activate(b"no component").await.is_err());
    for name in ["deny", "trap"] {
        assert!(gateway.activate(&component(name)).await.is_ok());
        assert!(gateway.request("channel=c").await.status >= 400);
    }
    for (name, labels, expected) in expected {
        assert_eq!(value(&gateway, name, labels).await, expected, "{name}{{{labels}}}");
    }
    assert!(value(&gateway, "tidegate_stream_sent_bytes_total", "").await > 0.0);
    let streams = gateway.app.streams.clone();
    wait_until("rotated streams have ended", || streams.count() == 0).await;
    // The first policy and two more.
    assert_eq!(value(&gateway, "tidegate_policy_activations_total", "").await, 3.0);
    assert_eq!(value(&gateway, "tidegate_policy_generation", "").await, 3.0);
    assert_eq!(value(&gateway, "tidegate_policy_info", r#"{digest="sha256:"#).await, 1.0);
    assert_eq!(value(&gateway, "tidegate_streams_ended_total", r#"reason="rotated""#).await, 2.0);
    assert_eq!(value(&gateway, "tidegate_channels", "").await, 2.0);
    assert_eq!(value(&gateway, "tidegate_streams", "").await, 0.0);
}

#[tokio::test]
async fn unreachable_store_is_reported() {
    let gateway = Gateway::start("stream.max-streams = 7").await;
    for (name, expect) in [("tidegate_store_up", 1.0), ("tidegate_ready", 1.0), ("tidegate_streams_limit", 7.0)] {
        assert_eq!(value(&gateway, name, "").await, expect, "{name}");
    }
    gateway.store.disconnect();
    assert_eq!(value(&gateway, "tidegate_store_up", "").await, 0.0);
    assert_eq!(value(&gateway, "tidegate_ready", "").await, 0.0);
}

#[tokio::test]
async fn metrics_require_the_control_token() {
    let gateway = Gateway::start("control.token = 'right'").await;
    let status =
        async |headers: &[(&str, &str)]| send_request(gateway.control, "GET", "/metrics", headers, "").await.status;
    assert_eq!(status(&[]).await, 401);
    assert_eq!(status(&[("authorization", "Bearer right")]).await, 200);
}
