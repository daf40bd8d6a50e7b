//! `/redis`, in brief: `tests/e2e` has the rest.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Reply, send_request};
use crate::harness::{Gateway, with_timeout};

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

#[tokio::test]
async fn values_emitted_over_rest_keep_their_type() {
    let gateway = Gateway::start(TOML).await;
    let mut live = gateway.open("channel=c").await;
    live.connected("c").await;
    let values =
        json!(["42", 42, "1.10", 1.5, "true", true, "", "words", null, {"a": "42"}, [], "106242075399214372653"]);
    let values = values.as_array().expect("values");
    for (n, value) in values.iter().enumerate() {
        // The npm emitter sends objects and arrays as text.
        let data = if value.is_object() || value.is_array() { json!(value.to_string()) } else { value.clone() };
        let add = json!(["XADD", "c", "MAXLEN", "=", 100, "*", "data", data, "event", "e", "channel", "c"]);
        let (path, command) = if n % 2 == 0 { ("/redis", add) } else { ("/redis/pipeline", json!([add])) };
        assert_eq!(post(&gateway, path, &[TOKEN], &command).await.status, 200, "{value}");
    }
    // Any message is a reason to read. No notification has the values.
    gateway.store.publish("c", "ring").await;
    let mut replayed = gateway.open("channel=c&last_ack_c=0").await;
    replayed.connected("c").await;
    for value in values {
        assert_eq!(&live.event().await["data"], value);
        assert_eq!(&replayed.event().await["data"], value);
    }
}

#[tokio::test]
async fn subscriptions_count_as_streams() {
    let gateway = Gateway::start(&format!("{TOML}stream.max-streams = 2")).await;
    let subscribe = async || {
        let mut socket = TcpStream::connect(gateway.data).await.expect("connected");
        let head =
            "POST /redis/subscribe/c HTTP/1.1\r\nhost: h\r\nauthorization: Bearer two\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(head.as_bytes()).await.expect("sent");
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.expect("an answer");
        (String::from_utf8_lossy(&status[9..]).into_owned(), socket)
    };
    let (first, second, third) = (subscribe().await, subscribe().await, subscribe().await);
    assert_eq!([&*first.0, &*second.0, &*third.0], ["200", "200", "503"]);
    assert_eq!(gateway.app.streams.count(), 2);
    drop(first);
    while gateway.app.streams.count() == 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(subscribe().await.0, "200");
}

#[tokio::test]
async fn answers_are_limited() {
    let gateway = Gateway::start(&format!("{TOML}stream.max-event-size = '1KiB'")).await;
    let data = json!("x".repeat(1000));
    for _ in 0..300 {
        gateway.store.add("c", "e", &data).await;
    }
    // 64 KiB are free of charge, and 128 KiB the limit.
    for (count, status) in [(10, 200), (50, 200), (80, 200), (150, 400), (300, 400)] {
        let range = json!(["XRANGE", "c", "-", "+", "COUNT", count]);
        let reply = post(&gateway, "/redis", &[TOKEN], &range).await;
        assert_eq!(reply.status, status, "{count}: {:.300}", reply.body);
        match reply.json()["result"].as_array() {
            Some(rows) => assert_eq!(rows.len(), count),
            None => {
                assert!(reply.json()["error"].as_str().is_some_and(|error| error.contains("COUNT")), "{}", reply.body)
            }
        }
        // The commands of a pipeline share the limit, and the others are executed.
        let reply = post(&gateway, "/redis/pipeline", &[TOKEN], &json!([range, ["PUBLISH", "c", "{}"], range])).await;
        let results = reply.json();
        assert_eq!(results[0]["result"].is_array(), status == 200, "{count}");
        assert_eq!((results[1]["result"].is_number(), results[2]["result"].is_array()), (true, count <= 50), "{count}");
    }
}

#[tokio::test]
async fn answers_need_no_connection_memory_in_addition_to_body_memory() {
    let toml = format!("{TOML}stream.max-event-size = '4MiB'\nserver.connection-memory = '2MiB'");
    let gateway = Gateway::start(&toml).await;
    let data = json!("x".repeat(3 << 20));
    gateway.store.add("c", "e", &data).await;
    let reply = post(&gateway, "/redis", &[TOKEN], &json!(["XRANGE", "c", "-", "+"])).await;
    assert_eq!((reply.status, reply.body.len() > 3 << 20), (200, true), "{:.300}", reply.body);
}

#[tokio::test]
async fn subscriber_that_does_not_read_is_closed_with_the_reason() {
    let gateway = Gateway::start(TOML).await;
    let mut subscriber = TcpStream::connect(gateway.data).await.expect("a connection");
    let (name, value) = TOKEN;
    let head = format!("POST /redis/subscribe/c HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\nConnection: close\r\n\r\n");
    subscriber.write_all(head.as_bytes()).await.expect("the gateway reads");
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).contains("data: subscribe,c,1") {
        assert_ne!(subscriber.read_buf(&mut received).await.expect("a response"), 0);
    }
    // More than the sockets and the queue hold.
    let message = "x".repeat(1 << 20);
    for _ in 0..40 {
        gateway.store.publish("c", &message).await;
        tokio::task::yield_now().await;
    }
    with_timeout("the response ends", subscriber.read_to_end(&mut received)).await.expect("no error");
    let text = String::from_utf8_lossy(&received);
    let messages = text.matches("data: message,c,x").count();
    assert!(messages < 40 - 8, "{messages} messages");
    assert!(text.contains(": closed: messages were dropped"), "{}", &text[text.len() - 200..]);
}
