//! `/redis`, in brief: `tests/e2e` has the rest.

use serde_json::{Value, json};

use crate::client::{Reply, send_request};
use crate::harness::Gateway;

const TOML: &str =
    "redis-rest.tokens = ['one', 'two']\nchannels.deny = ['secret*']\npolicy.lookup.prefixes = ['session:']\n";
const TOKEN: (&str, &str) = ("authorization", "Bearer two");

async fn post(gateway: &Gateway, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    send_request(gateway.data, "POST", path, headers, &body.to_string()).await
}

#[tokio::test]
async fn commands_require_a_token() {
    let gateway = Gateway::start(TOML).await;
    let command = json!(["XRANGE", "c", "-", "+"]);
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer three")], 401),
        (&[("authorization", "two")], 401),
        (&[("authorization", "Bearer one")], 200),
        (&[TOKEN], 200),
    ] {
        for path in ["/redis", "/redis/"] {
            let reply = post(&gateway, path, headers, &command).await;
            assert_eq!(reply.status, status, "{headers:?}: {}", reply.body);
            assert!(status == 200 || reply.json()["error"].is_string(), "errors are strings: {}", reply.body);
        }
        let reply = post(&gateway, "/redis/pipeline", headers, &json!([command])).await;
        assert_eq!(reply.status, status, "{headers:?}");
    }
    assert_eq!(send_request(gateway.data, "GET", "/redis", &[TOKEN], "").await.status, 405);
    let without = Gateway::start("").await;
    assert_eq!(post(&without, "/redis", &[TOKEN], &command).await.status, 404);
}

#[tokio::test]
async fn only_allowed_commands_on_allowed_channels_are_executed() {
    let gateway =
        Gateway::start(&format!("{TOML}stream.max-event-size = '1KiB'\n[memory-store.seed]\nplain = 'text'")).await;
    for (command, status, word) in [
        (json!(["GET", "plain"]), 400, "NOPERM"),
        (json!(["SET", "c", "x"]), 400, "NOPERM"),
        (json!(["EVAL", "return 1", 0]), 400, "NOPERM"),
        (json!(["XADD", "secret-1", "*", "data", "1"]), 403, "secret-1"),
        (json!(["XRANGE", "session:alice", "-", "+"]), 403, "session:alice"),
        (json!(["PUBLISH", "tidegate:x", "1"]), 403, "tidegate:x"),
        (json!(["EXPIRE", "session:alice", 1]), 403, "session:alice"),
        (json!(["EXPIRE", "plain", 1]), 400, "WRONGTYPE"),
        (json!(["XADD", "plain", "*", "data", "1"]), 400, "WRONGTYPE"),
        (json!(["XADD", "c", "*", "data", "x".repeat(2_000)]), 400, "stream.max-event-size"),
        (json!(["XADD", "c"]), 400, "XADD"),
        (json!({"a": 1}), 400, "array"),
        (json!("XADD"), 400, "array"),
    ] {
        let reply = post(&gateway, "/redis", &[TOKEN], &command).await;
        assert_eq!(reply.status, status, "{command}: {}", reply.body);
        assert!(reply.json()["error"].as_str().is_some_and(|error| error.contains(word)), "{command}: {}", reply.body);
        let reply = post(&gateway, "/redis/pipeline", &[TOKEN], &json!([command, ["XRANGE", "c", "-", "+"]])).await;
        assert_eq!(reply.status, 200);
        assert!(reply.json()[0]["error"].is_string() && reply.json()[1]["result"] == json!([]), "{}", reply.body);
    }
    assert_eq!(send_request(gateway.data, "POST", "/redis", &[TOKEN], "{").await.status, 400);
    for path in [
        "/redis/multi-exec",
        "/redis/redis",
        "/redis/redis/pipeline",
        "/redis//pipeline",
        "/redis//",
        "/redis//redis/subscribe/c",
        "/redis/redis/subscribe/c",
        "/redis//subscribe/c",
        "/redis/pipeline/",
    ] {
        assert_eq!(post(&gateway, path, &[TOKEN], &json!([])).await.status, 404, "{path}");
    }
    assert_eq!(post(&gateway, "/redis/subscribe/secret-1", &[TOKEN], &json!([])).await.status, 403);
}

#[tokio::test]
async fn event_emitted_over_rest_is_delivered_and_can_be_read() {
    let gateway = Gateway::start(TOML).await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let add = json!(["XADD", "c", "*", "data", "\"grüße\"", "event", "e", "channel", "c"]);
    let reply = post(&gateway, "/redis/pipeline", &[TOKEN], &json!([add, ["EXPIRE", "c", 60]])).await;
    let id = reply.json()[0]["result"].as_str().expect("an id").to_owned();
    assert_eq!(reply.json(), json!([{"result": id}, {"result": 1}]));
    let message = json!({"data": "grüße", "event": "e", "channel": "c", "id": id});
    let reply = post(&gateway, "/redis", &[TOKEN], &json!(["PUBLISH", "c", message.to_string()])).await;
    assert_eq!(reply.json(), json!({"result": 1}));
    assert_eq!(sse.event().await, message);

    let range = json!(["XRANGE", "c", "-", "+", "COUNT", 10]);
    let reply = post(&gateway, "/redis", &[TOKEN], &range).await;
    let expect = json!({"result": [[id, ["data", "\"grüße\"", "event", "e", "channel", "c"]]]});
    assert_eq!(reply.json(), expect);
    let reply = post(&gateway, "/redis", &[TOKEN, ("upstash-encoding", "base64")], &range).await;
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let fields: Vec<String> = ["data", "\"grüße\"", "event", "e", "channel", "c"].map(encode).into();
    assert_eq!(reply.json(), json!({"result": [[encode(&id), fields]]}));
    gateway.store.disconnect();
    let reply = post(&gateway, "/redis", &[TOKEN], &range).await;
    assert_eq!(reply.status, 503, "{}", reply.body);
}
