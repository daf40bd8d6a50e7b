//! Two fleets with different names on one Redis share no policy, no revocation and no node, and no key.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::client::Sse;
use crate::fleet::{Fleet, digest, status};
use crate::guests::component;
use crate::processes::{Gateway, ProcessOutput, run, tidegate, wait_until, with_timeout};
use crate::redis_server::Redis;

/// A gateway of the fleet with this name. Nodes of all fleets have the same name, so that a key without the fleet's name is shared.
async fn node(fleet: &Fleet, name: &str) -> Gateway {
    let cache = fleet.path("cache").join(name);
    let options = fleet.toml("a").lines().filter(|line| !line.starts_with("cache-dir")).collect::<Vec<_>>().join("\n");
    Gateway::start(&format!("cache-dir = {cache:?}\nfleet.name = {name:?}\n{options}\n")).await
}

/// The names of all keys that are changed from now on, even of keys that are deleted again.
async fn changed_keys(redis: &Redis) -> watch::Receiver<String> {
    let set =
        redis::cmd("CONFIG").arg(&["SET", "notify-keyspace-events", "KA"]).exec_async(&mut redis.connect().await).await;
    set.expect("Redis notifies of changed keys");
    let mut socket = TcpStream::connect(("127.0.0.1", redis.port)).await.expect("Redis listens");
    socket.write_all(b"PSUBSCRIBE __keyspace@0__:*\r\n").await.expect("it is sent");
    let (sender, text) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = socket.read(&mut bytes).await {
            sender.send_modify(|text| text.push_str(&String::from_utf8_lossy(&bytes[..read])));
        }
    });
    text.clone().wait_for(|text| text.contains("psubscribe")).await.expect("the subscription is confirmed");
    text
}

fn keys(changes: &str) -> BTreeSet<&str> {
    // The last line may be incomplete.
    let (lines, _) = changes.rsplit_once("\r\n").unwrap_or_default();
    let keys = lines.split("\r\n").filter_map(|line| line.strip_prefix("__keyspace@0__:"));
    keys.filter(|key| *key != "*").collect()
}

fn json_of(ended: &ProcessOutput) -> Value {
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleets_on_one_redis_are_separate() {
    let fleet = Fleet::unsigned().await;
    let changes = changed_keys(&fleet.redis).await;
    let (blue, green) = (node(&fleet, "blue").await, node(&fleet, "green").await);
    for name in ["deny", "allow"] {
        fleet.write(&format!("{name}.wasm"), component(name));
    }
    // Push: the other fleet prepares nothing, activates nothing, and records nothing.
    let pushed = fleet.succeeds(&["push", "deny.wasm", "--fleet", "blue"]).await;
    assert_eq!((status(blue.data).await, status(green.data).await), (418, 503));
    let other = fleet.succeeds(&["status", "--fleet", "green"]).await;
    assert_eq!(other["current"], Value::Null, "{other}");
    let own = fleet.succeeds(&["push", "allow.wasm", "--fleet", "green"]).await;
    assert_eq!((status(blue.data).await, status(green.data).await), (418, 200));
    assert_eq!((&own["sequence"], &pushed["sequence"]), (&json!(1), &json!(1)));
    // Status: each fleet has one node, though both nodes have one name.
    for (name, gateway, current) in [("blue", &blue, digest(&pushed)), ("green", &green, digest(&own))] {
        let status = fleet.succeeds(&["status", "--fleet", name]).await;
        let nodes: Vec<&Value> =
            status["nodes"].as_array().expect("a list").iter().map(|node| &node["address"]).collect();
        assert_eq!((nodes, digest(&status["current"])), (vec![&json!(gateway.data.to_string())], current), "{status}");
        let list = fleet.succeeds(&["list", "--fleet", name]).await;
        assert_eq!(list["history"].as_array().map(Vec::len), Some(1), "{list}");
        assert!(!gateway.process.stderr.text_so_far().contains("another node has this name"));
    }
    // Shadow: one fleet's shadow policy is evaluated for its own requests only.
    fleet.succeeds(&["shadow", "allow.wasm", "--share", "1", "--fleet", "blue"]).await;
    fleet.fails(&["shadow", "--fleet", "green"], "the fleet has no shadow policy").await;
    assert_eq!((status(blue.data).await, status(green.data).await), (418, 200));
    let counts = async || fleet.succeeds(&["shadow", "--fleet", "blue"]).await["counts"].clone();
    wait_until("the shadow policy was evaluated", async || counts().await["reject_to_allow"] == 1).await;
    assert_eq!(counts().await["agree"], 0);
    fleet.succeeds(&["shadow", "--stop", "--fleet", "blue"]).await;
    // Revocation: streams of the other fleet stay, and its list stays empty.
    let mut stream = Sse::open(green.data, "channel=c").await;
    assert_eq!(stream.frame().await["type"], "connected");
    let url = fleet.redis.url();
    let revoke =
        async |args: &[&str]| json_of(&fleet.run(&[&["revoke"], args, &["--json", "--store", &url]].concat()).await);
    let revoked = revoke(&["--channel", "c", "--for", "1h", "--fleet", "blue"]).await;
    assert_eq!((&revoked["nodes"], &revoked["missing"]), (&json!({ "a": 0 }), &json!(0)), "{revoked}");
    assert_eq!(revoke(&["--list", "--fleet", "green"]).await["revocations"], json!([]));
    assert_eq!(status(green.data).await, 200, "no client is revoked there");
    assert!(tokio::time::timeout(Duration::from_millis(300), stream.next()).await.is_err(), "the stream stays open");
    let revoked = revoke(&["--channel", "c", "--fleet", "green"]).await;
    assert_eq!((&revoked["streams"], &revoked["nodes"]), (&json!(1), &json!({ "a": 1 })), "{revoked}");

    // All changed keys and all subscribed channels contain the name of a fleet.
    let is_named = |name: &str| ["tidegate:{blue}:", "tidegate:{green}:"].iter().any(|prefix| name.starts_with(prefix));
    let text = changes.borrow().clone();
    for key in keys(&text) {
        assert!(is_named(key), "{key}");
    }
    assert!(keys(&text).len() >= 20, "both fleets wrote their keys: {:?}", keys(&text));
    let mut redis = fleet.redis.connect().await;
    let channels: Vec<String> = redis::cmd("PUBSUB").arg("CHANNELS").query_async(&mut redis).await.expect("channels");
    for channel in channels.iter().filter(|channel| **channel != "c") {
        assert!(is_named(channel), "{channel}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_selects_the_fleet_by_flag_environment_or_configuration() {
    let fleet = Fleet::unsigned().await;
    let blue = node(&fleet, "blue").await;
    let nodes = |status: &Value| status["nodes"].as_array().map(Vec::len);
    assert_eq!(nodes(&fleet.succeeds(&["status"]).await), Some(0), "the default is another fleet");
    fleet.write("tidegate.toml", "fleet.name = \"blue\"\n");
    assert_eq!(nodes(&fleet.succeeds(&["status"]).await), Some(1));
    let url = fleet.redis.url();
    let mut command = tidegate(&["policy", "status", "--json", "--store", &url]);
    command.current_dir(fleet.path("")).env("TIDEGATE_FLEET_NAME", "green");
    assert_eq!(nodes(&json_of(&run(command, None).await)), Some(0));
    let mut command = tidegate(&["policy", "status", "--json", "--store", &url, "--fleet", "blue"]);
    command.current_dir(fleet.path("")).env("TIDEGATE_FLEET_NAME", "green");
    assert_eq!(nodes(&json_of(&run(command, None).await)), Some(1));
    // With `--control` the gateway determines the fleet; an invalid name is an error.
    let control = blue.control.to_string();
    for args in [&["--control", &*control, "--fleet", "blue"][..], &["--store", &url, "--fleet", "a}b"]] {
        let ended = with_timeout("the command ends", fleet.run(&[&["policy", "status"], args].concat())).await;
        assert_eq!(ended.code(), Some(2), "{ended:?}");
    }
    fleet.write("tidegate.toml", "fleet.name = \"a b\"\n");
    let ended = fleet.policy(&["status"]).await;
    assert!(ended.code() == Some(2) && ended.stderr.contains("fleet.name"), "{ended:?}");
}
