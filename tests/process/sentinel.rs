//! A gateway on a master that sentinels watch: nothing is lost or repeated when another node becomes the master.

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};

use crate::client::Sse;
use crate::control_port::{JSON, metric, send_request};
use crate::processes::{Gateway, run_tidegate, wait_until};
use crate::redis_sentinel::{NAME, PASSWORD, SentinelGroup};
use crate::redis_server::Redis;

const TOKEN: &str = "token-of-the-tests";

/// A gateway whose commands wait long enough for a failover.
async fn gateway(group: &SentinelGroup) -> Gateway {
    let toml = format!(
        "store = \"{}\"\nstore-timeout = \"15s\"\nallow-all = true\nredis-rest.tokens = [\"{TOKEN}\"]\nlog.filter = \"info\"",
        group.url()
    );
    Gateway::start(&toml).await
}

/// Emits by the commands of the stock package, through `/redis`.
async fn emit(gateway: &Gateway, channel: &str, data: u64) {
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    let add = json!(["XADD", channel, "*", "data", data.to_string(), "event", "e", "channel", channel]);
    let (status, answer) = send_request(gateway.data, "POST", "/redis", &bearer, add.to_string().as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    let message =
        json!({"data": data.to_string(), "event": "e", "channel": channel, "id": answer["result"]}).to_string();
    let publish = json!(["PUBLISH", channel, message]);
    let (status, answer) = send_request(gateway.data, "POST", "/redis", &bearer, publish.to_string().as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
}

/// Waits until both replicas have all writes of the master.
async fn wait_for_replicas(master: &Redis) {
    let mut connection = master.connect().await;
    wait_until("the replicas have all writes", async || {
        // An offset is confirmed after the next write only if a client waits for it.
        let replicas: u64 = cmd("WAIT").arg(1).arg(1000).query_async(&mut connection).await.expect("a number");
        let info: String = cmd("INFO").arg("replication").query_async(&mut connection).await.expect("the state");
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let offset = field("master_repl_offset:").expect("an offset");
        let slaves: Vec<&str> = info.lines().filter(|line| line.starts_with("slave")).collect();
        replicas > 0 && !slaves.is_empty() && slaves.iter().all(|slave| slave.contains(&format!("offset={offset},")))
    })
    .await;
}

/// The data of the next frame, which is the number of an event.
async fn number(stream: &mut Sse) -> u64 {
    let data = stream.data().await;
    let number = data.as_u64().or_else(|| data.as_str()?.parse().ok());
    number.unwrap_or_else(|| panic!("not a number: {data}"))
}

async fn assert_next(streams: &mut [(String, Sse)], expect: &[u64]) {
    for (channel, stream) in streams {
        for data in expect {
            assert_eq!(number(stream).await, *data, "{channel}");
        }
    }
}

#[tokio::test]
async fn streams_survive_a_master_that_is_killed_twice() {
    let mut group = SentinelGroup::start().await;
    let gateway = gateway(&group).await;
    let mut streams = Vec::new();
    for channel in ["a", "b", "c"] {
        for _ in 0..2 {
            let mut stream = Sse::open(gateway.data, &format!("channel={channel}")).await;
            stream.connected(channel).await;
            streams.push((channel.to_owned(), stream));
        }
    }
    let mut next = 0..;
    for _ in 0..2 {
        let mut expect = Vec::new();
        for data in next.by_ref().take(10) {
            for channel in ["a", "b", "c"] {
                emit(&gateway, channel, data).await;
            }
            expect.push(data);
        }
        let master = group.master().await;
        wait_for_replicas(&group.nodes[master]).await;
        let failures = metric(gateway.control, "tidegate_store_pubsub_failures_total").await;
        group.nodes[master].kill().await;
        // A command that is sent before the gateway knows may have been executed.
        wait_until("the gateway knows that the master is gone", async || {
            metric(gateway.control, "tidegate_store_pubsub_failures_total").await > failures
        })
        .await;
        // These wait for the new master, and are executed once.
        for data in next.by_ref().take(3) {
            for channel in ["a", "b", "c"] {
                emit(&gateway, channel, data).await;
            }
            expect.push(data);
        }
        assert_next(&mut streams, &expect).await;
        let now = group.wait_for_failover(master).await;
        assert_ne!(now, master);
        // It returns as a replica, so that the group has two of them again.
        group.nodes[master].restart().await;
        let mut follow = cmd("REPLICAOF");
        follow.arg("127.0.0.1").arg(group.nodes[now].port);
        follow.exec_async(&mut group.nodes[master].connect().await).await.expect("a replica");
        group.wait_until_complete().await;
    }
    emit(&gateway, "a", 100).await;
    for (channel, stream) in &mut streams {
        if channel == "a" {
            assert_eq!(number(stream).await, 100);
        }
    }
    let master = group.master().await;
    for channel in ["a", "b", "c"] {
        let mut data: Vec<u64> = Vec::new();
        for (_, text) in group.nodes[master].entries(channel).await {
            data.push(text.parse().expect("a number"));
        }
        let repeated = data.windows(2).filter(|pair| pair[0] >= pair[1]).count();
        assert_eq!((repeated, data.len()), (0, if channel == "a" { 27 } else { 26 }), "{channel}: {data:?}");
    }
    assert!(metric(gateway.control, "tidegate_store_master_changes_total").await >= 2.0);
    assert_eq!(gateway.process.stderr.text_so_far().matches("panicked").count(), 0);
}

async fn add_and_publish(node: &mut MultiplexedConnection, channel: &str, data: &str) {
    let mut add = cmd("XADD");
    add.arg(channel).arg("*").arg(&["data", data, "event", "e", "channel", channel]);
    let id: String = add.query_async(node).await.expect("added");
    let message =
        json!({"data": serde_json::from_str::<Value>(data).expect("JSON"), "event": "e", "channel": channel, "id": id});
    cmd("PUBLISH").arg(channel).arg(message.to_string()).exec_async(node).await.expect("published");
}

/// The master answers the gateway and still calls itself the master, but the sentinels cannot reach it.
#[tokio::test]
async fn old_master_that_still_answers_is_left() {
    let group = SentinelGroup::start().await;
    let gateway = gateway(&group).await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    let old = group.master().await;
    let mut isolated = group.nodes[old].connect().await;
    emit(&gateway, "news", 1).await;
    assert_eq!(number(&mut stream).await, 1);
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("sentinel").arg("off").exec_async(&mut isolated).await.expect("the user is off");
    cmd("CLIENT").arg("KILL").arg("USER").arg("sentinel").exec_async(&mut isolated).await.expect("cut off");
    let new = group.wait_for_failover(old).await;
    wait_until("the gateway follows", async || {
        metric(gateway.control, "tidegate_store_master_changes_total").await >= 1.0
            && clients_of_gateway(&mut isolated).await == 0
    })
    .await;
    let role: (String, redis::Value, redis::Value) = cmd("ROLE").query_async(&mut isolated).await.expect("a role");
    assert_eq!(role.0, "master", "the old master does not know");
    for n in 0..5 {
        add_and_publish(&mut isolated, "news", &format!("\"old {n}\"")).await;
    }
    let mut promoted = group.nodes[new].connect().await;
    for n in 2..5 {
        add_and_publish(&mut promoted, "news", &n.to_string()).await;
        assert_eq!(number(&mut stream).await, n);
    }
    emit(&gateway, "news", 5).await;
    assert_eq!(number(&mut stream).await, 5);
    assert_eq!(group.nodes[new].entries("news").await.len(), 5);
}

/// The number of connections other than this one, replicas and sentinels.
async fn clients_of_gateway(node: &mut MultiplexedConnection) -> usize {
    let list: String = cmd("CLIENT").arg("LIST").query_async(node).await.expect("the clients");
    let own: u64 = cmd("CLIENT").arg("ID").query_async(node).await.expect("an id");
    let is_other = |line: &&str| !line.starts_with(&format!("id={own} ")) && !line.contains(" flags=S ");
    list.lines().filter(|line| line.contains("lib-name=redis-rs") || line.contains("resp=3")).filter(is_other).count()
}

#[tokio::test]
async fn stopped_master_is_left_and_not_read_when_it_returns() {
    let group = SentinelGroup::start().await;
    let gateway = gateway(&group).await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    emit(&gateway, "news", 1).await;
    assert_eq!(number(&mut stream).await, 1);
    let old = group.master().await;
    wait_for_replicas(&group.nodes[old]).await;
    group.nodes[old].signal("STOP").await;
    let new = group.wait_for_failover(old).await;
    emit(&gateway, "news", 2).await;
    assert_eq!(number(&mut stream).await, 2);
    group.nodes[old].signal("CONT").await;
    // It takes the sentinels seconds to make it a replica.
    let mut returned = group.nodes[old].connect().await;
    add_and_publish(&mut returned, "news", "\"old\"").await;
    let role: (String, redis::Value, redis::Value) = cmd("ROLE").query_async(&mut returned).await.expect("a role");
    assert_eq!(role.0, "master", "the old master does not know");
    emit(&gateway, "news", 3).await;
    assert_eq!(number(&mut stream).await, 3);
    assert_eq!(group.nodes[new].entries("news").await.len(), 3);
    let (status, ready) = send_request(gateway.control, "GET", "/readyz", JSON, b"").await;
    assert_eq!(status, 200, "{ready}");
}

#[tokio::test]
async fn failover_on_request_is_followed_without_one_sentinel() {
    let mut group = SentinelGroup::start().await;
    let gateway = gateway(&group).await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    // The first sentinel of the URL. The gateway has learned of the third one.
    group.sentinels[0].kill().await;
    emit(&gateway, "news", 0).await;
    let old = group.master().await;
    wait_for_replicas(&group.nodes[old]).await;
    let mut sentinel = group.sentinels[2].connect().await.expect("a sentinel answers");
    cmd("SENTINEL").arg("FAILOVER").arg(NAME).exec_async(&mut sentinel).await.expect("a failover");
    wait_until("the gateway follows", async || {
        metric(gateway.control, "tidegate_store_master_changes_total").await >= 1.0
    })
    .await;
    let new = group.wait_for_failover(old).await;
    for data in 1..25 {
        emit(&gateway, "news", data).await;
    }
    for data in 0..25 {
        assert_eq!(number(&mut stream).await, data);
    }
    assert_eq!(group.nodes[new].entries("news").await.len(), 25);
    // One sentinel of three is not enough to prove who the master is.
    group.sentinels[1].kill().await;
    gateway.process.stderr.wait_for_text("most sentinels do not agree on the master, or do not answer").await;
    group.sentinels[1].restart().await;
    gateway.process.stderr.wait_for_text("most sentinels agree on the master").await;
    // A node can start without the sentinel that does not run.
    let second = gateway_without_wait(&group).await;
    emit(&second, "news", 25).await;
    assert_eq!(number(&mut stream).await, 25);
}

async fn gateway_without_wait(group: &SentinelGroup) -> Gateway {
    let toml = format!(
        "store = \"{}\"\nallow-all = true\nredis-rest.tokens = [\"{TOKEN}\"]\nfleet.node-name = \"second\"",
        group.url()
    );
    Gateway::start(&toml).await
}

/// Mistakes in the URL of sentinels, at a start and in `check`.
#[tokio::test]
async fn mistakes_are_reported_with_the_remedy() {
    let group = SentinelGroup::start().await;
    let single = Redis::start(&[]).await;
    let unstarted = Redis::unstarted(&[]);
    let sentinel = group.sentinels[0].port;
    let fails = async |store: &str, says: &[&str]| {
        for command in ["serve", "check"] {
            let ended = run_tidegate(&[&[command, "--allow-all", "--store", store], ports(command)].concat()).await;
            assert_eq!(ended.code(), Some(1), "{command}: {ended:?}");
            let error = ended.stderr.lines().last().unwrap_or_default();
            assert!(says.iter().all(|part| error.contains(part)), "{command}: {error}");
            assert!(error.contains("store redis-sentinel://127.0.0.1:") && !ended.all().contains(PASSWORD), "{error}");
        }
    };
    let url =
        |credentials: &str, port: u16, name: &str| format!("redis-sentinel://{credentials}127.0.0.1:{port}/{name}");
    let login = format!(":{PASSWORD}@");
    let named = format!("the sentinel 127.0.0.1:{sentinel} knows no master of this name");
    fails(&url(&login, sentinel, "other"), &["other: ", &named, "`sentinel monitor`"]).await;
    fails(&url(&login, single.port, NAME), &["is not a sentinel", "26379"]).await;
    fails(&url("", sentinel, NAME), &["NOAUTH", "give the URL a password"]).await;
    fails(&url(":wrong@", sentinel, NAME), &["WRONGPASS", "correct user and password in the URL"]).await;

    let store = url(&login, unstarted.port, NAME);
    let ended = run_tidegate(&[&["serve", "--allow-all", "--store", &store], ports("serve")].concat()).await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ["cannot be reached", "refused", "--wait-for-store"].iter().all(|part| ended.stderr.contains(part)),
        "{ended:?}"
    );
    let ended = run_tidegate(&["check", "--allow-all", "--store", &store]).await;
    assert!(ended.code() == Some(0) && ended.stdout.contains("does not answer"), "{ended:?}");
    let emitted = run_tidegate(&["emit", "news", "e", "1", "--store", &group.url()]).await;
    assert_eq!(emitted.code(), Some(0), "{emitted:?}");
    assert_eq!(group.nodes[group.master().await].entries("news").await.len(), 1);
}

fn ports(command: &str) -> &'static [&'static str] {
    if command == "serve" { &["--listen=127.0.0.1:0", "--control=127.0.0.1:0"] } else { &[] }
}
