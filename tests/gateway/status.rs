//! Streams and status on the control port.

use serde_json::{Value, json};

use crate::client::{Reply, Sse, send_request};
use crate::guests::component;
use crate::harness::{Gateway, wait_until};

async fn get(gateway: &Gateway, target: &str) -> Reply {
    send_request(gateway.control, "GET", target, &[], "").await
}

async fn streams(gateway: &Gateway, query: &str) -> Value {
    let reply = get(gateway, &format!("/v1/streams?{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.body);
    reply.json()
}

fn numbers(page: &Value) -> Vec<u64> {
    page["streams"].as_array().expect("streams").iter().map(|stream| stream["id"].as_u64().expect("a number")).collect()
}

#[tokio::test]
async fn streams_are_listed_in_pages() {
    let gateway = Gateway::start("").await;
    let mut open = Vec::new();
    for n in 0..5 {
        open.push(gateway.open(&format!("channel=c{n}&channel=all&channel=%3Cb%3E%20%26")).await);
    }
    let all = streams(&gateway, "").await;
    assert_eq!((numbers(&all), &all["count"], &all["next"]), (vec![1, 2, 3, 4, 5], &json!(5), &json!(null)));
    let first = &all["streams"][0];
    let expect = json!({
        "id": 1, "request_id": first["request_id"], "subject": null, "channels": ["c0", "all", "<b> &"], "address": "127.0.0.1",
        "since": first["since"], "expires_at": null, "generation": 0,
    });
    assert_eq!(*first, expect);
    let mut pages = Vec::new();
    let mut after = json!(0);
    while !after.is_null() {
        let page = streams(&gateway, &format!("limit=2&after={after}")).await;
        pages.push(numbers(&page));
        after = page["next"].clone();
    }
    assert_eq!(pages, [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!(numbers(&streams(&gateway, "channel=c3").await), [4]);
    assert_eq!(numbers(&streams(&gateway, "channel=%3Cb%3E+%26&limit=5").await).len(), 5);
    for query in ["channel=c", "subject=alice", "address=192.0.2.1", "generation=1", "after=5"] {
        assert_eq!(numbers(&streams(&gateway, query).await), [] as [u64; 0], "{query}");
    }
    assert_eq!(numbers(&streams(&gateway, "generation=0&address=127.0.0.1&channel=all").await).len(), 5);
    for query in ["limit=0", "limit=1001", "limit=x", "after=-1", "generation=1.5", "chanel=c", "channel=a&channel=b"] {
        let reply = get(&gateway, &format!("/v1/streams?{query}")).await;
        assert_eq!((reply.status, &*reply.code()), (400, "invalid_parameter"), "{query}");
    }
    drop(open);
    wait_until("the streams have ended", || gateway.app.streams.count() == 0).await;
    assert_eq!(streams(&gateway, "").await, json!({"count": 0, "streams": [], "next": null}));
}

#[tokio::test]
async fn page_with_long_names_has_fewer_streams() {
    let gateway = Gateway::start("").await;
    let name = "n".repeat(60_000);
    let mut open = Vec::new();
    for _ in 0..30 {
        open.push(gateway.open(&format!("channel={name}")).await);
    }
    let page = streams(&gateway, "limit=1000").await;
    let (count, next) = (numbers(&page).len(), page["next"].as_u64());
    assert!(count < 25 && next == Some(count as u64), "{count} {next:?}");
    assert_eq!(numbers(&streams(&gateway, &format!("after={count}")).await).len(), 30 - count);
}

#[tokio::test]
async fn status_reports_policy_streams_and_rejections() {
    let gateway = Gateway::with_policy(&component("deny"), "policy.rotation-window = 'off'").await;
    let hostile = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E";
    assert!(gateway.request(&format!("channel={hostile}")).await.status >= 400);
    assert!(gateway.activate(b"no component").await.is_err());
    assert!(gateway.activate(&component("allow")).await.is_ok());
    let _open: Vec<Sse> = vec![gateway.open("channel=a&channel=b").await, gateway.open("channel=b").await];
    let status = get(&gateway, "/v1/status").await.json();
    let info = gateway.app.authorizer.active().expect("a policy is active");
    assert_eq!((&status["ready"], &status["store"], &status["draining"]), (&json!(true), &json!("ok"), &json!(false)));
    let policy = &status["policy"];
    assert_eq!((&policy["active"]["digest"], &policy["active"]["generation"]), (&json!(&*info.digest), &json!(2)));
    assert_eq!((&policy["activations"], &policy["allow_all"]), (&json!(2), &json!(false)));
    assert_eq!((&policy["history"][0]["generation"], &policy["failures"][0]["stage"]), (&json!(2), &json!("compiled")));
    let top = &status["streams"]["top"];
    assert_eq!(top["by_channel"], json!([{"name": "b", "streams": 2}, {"name": "a", "streams": 1}]));
    assert_eq!(top["by_generation"], json!({"2": 2}));
    let rejection = &status["recent_rejections"][0];
    assert_eq!(
        (&rejection["channels"], &rejection["outcome"]),
        (&json!(["<img src=x onerror=alert(1)>"]), &json!("rejected"))
    );
    assert_eq!((&rejection["generation"], &status["streams"]["count"]), (&json!(1), &json!(2)));
    gateway.store.disconnect();
    let status = get(&gateway, "/v1/status").await.json();
    assert_eq!((&status["ready"], &status["store"]), (&json!(false), &json!("unavailable")));
}

#[tokio::test]
async fn status_page_needs_no_token_and_loads_nothing_external() {
    let gateway = Gateway::start("control.token = 'right'").await;
    let page = get(&gateway, "/").await;
    assert_eq!((page.status, &*page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    for external in ["http://", "https://", "src=", "href=", "innerHTML", "url("] {
        let text = page.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains(external), "the page has {external}");
    }
    assert_eq!(get(&gateway, "/openapi.json").await.json()["openapi"], "3.1.0");
    assert_eq!(get(&gateway, "/v1/status").await.status, 401);
    assert_eq!(get(&gateway, "/nothing").await.status, 401);
    for target in ["/", "/openapi.json"] {
        let foreign = send_request(gateway.control, "GET", target, &[("origin", "https://evil.example")], "").await;
        assert_eq!(foreign.status, 403);
        assert_eq!(send_request(gateway.control, "POST", target, &[], "").await.header("allow"), "GET");
    }
    let gateway = Gateway::start("").await;
    assert_eq!(
        send_request(gateway.control, "GET", "/", &[("host", "evil.example")], "").await.code(),
        "host_not_allowed"
    );
}

/// After each fleet command the command barrier is closed for a moment. Meanwhile every endpoint reports the node as ready.
#[tokio::test]
async fn endpoints_agree_on_readiness_while_commands_are_read() {
    let gateway = Gateway::start("").await;
    let key = gateway.app.commands.keys().commands();
    for path in ["/readyz", "/metrics", "/v1/status"] {
        gateway.store.set_wrong_type(&key, true);
        wait_until("the commands are not synced", || !gateway.app.commands.are_synced()).await;
        let (reply, ()) = tokio::join!(get(&gateway, path), async { gateway.store.set_wrong_type(&key, false) });
        let ready = if path == "/metrics" {
            reply.body.lines().any(|line| line == "tidegate_ready 1")
        } else {
            reply.json()["ready"] == true
        };
        assert!(reply.status == 200 && ready, "{path}: {}", reply.body);
        wait_until("the commands are synced", || gateway.app.commands.are_synced()).await;
    }
}
