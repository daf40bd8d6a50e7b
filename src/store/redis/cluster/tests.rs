//! Commands and canaries on nodes that reply what the test says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Client, RedisError, Script, Value, cmd, pipe};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::store::fleet_keys::FleetKeys;
use crate::store::options::StoreOptions;
use crate::store::redis::RedisStore;
use crate::store::redis::cluster::notifications::ClusterNotifications;
use crate::store::redis::cluster::route::ClusterLink;
use crate::store::redis::cluster::topology::{ClusterNodes, ClusterTopology};
use crate::store::redis::connector::Connector;
use crate::store::redis::node_link::NodeSource;
use crate::store::redis::notifications::NotificationSource;
use crate::store::redis::single::MasterWatcher;
use crate::store::slot::{KeyScope, slot_of};
use crate::store::url::{StoreUrl, Topology};
use crate::store::{EventStore, NotificationHandler, StoreError};
use crate::telemetry::metrics::Metrics;

/// Longer than any reply of a fake node takes, and shorter than a test may.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a fake node does with a command.
enum Reaction {
    Reply(String),
    /// It executes the command, and the connection is lost before the reply.
    Close,
    /// It does not reply.
    Silence,
}

/// The commands that the nodes got and what the handler heard, in their order.
type Log = Arc<Mutex<Vec<String>>>;

struct FakeNode {
    name: &'static str,
    port: u16,
}

/// Starts a node. `react` gets a command as one text.
async fn node(name: &'static str, log: &Log, react: impl Fn(&str) -> Reaction + Send + Sync + 'static) -> FakeNode {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (react, log) = (Arc::new(react), Arc::clone(log));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (react, log) = (Arc::clone(&react), Arc::clone(&log));
            tokio::spawn(async move { serve(name, socket, &log, &*react).await });
        }
    });
    FakeNode { name, port }
}

async fn serve(
    name: &str,
    socket: TcpStream,
    log: &Log,
    react: &(dyn Fn(&str) -> Reaction + Send + Sync),
) -> Option<()> {
    let (read, mut write) = socket.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    loop {
        let mut words = Vec::new();
        line.clear();
        read.read_line(&mut line).await.ok().filter(|bytes| *bytes > 0)?;
        for _ in 0..line.trim().strip_prefix('*')?.parse::<usize>().ok()? {
            line.clear();
            read.read_line(&mut line).await.ok()?;
            let mut bytes = vec![0; line.trim().strip_prefix('$')?.parse::<usize>().ok()? + 2];
            read.read_exact(&mut bytes).await.ok()?;
            words.push(String::from_utf8_lossy(&bytes).trim_end().to_owned());
        }
        let command = words.join(" ");
        let reaction = match &*words[0] {
            "HELLO" => Reaction::Reply("%1\r\n+proto\r\n:3\r\n".into()),
            "CLIENT" => Reaction::Reply("+OK\r\n".into()),
            "PING" => Reaction::Reply("+PONG\r\n".into()),
            _ => {
                if words[0] != "CLUSTER" {
                    log.lock().push(format!("{name}: {command}"));
                }
                react(&command)
            }
        };
        match reaction {
            Reaction::Reply(reply) => write.write_all(reply.as_bytes()).await.ok()?,
            Reaction::Close => return None,
            Reaction::Silence => {}
        }
    }
}

fn ok() -> Reaction {
    Reaction::Reply("+OK\r\n".into())
}

/// The reply to `SCRIPT LOAD` of `return 1`.
fn script_loaded() -> Reaction {
    Reaction::Reply(format!("+{}\r\n", Script::new("return 1").get_hash()))
}

fn error(line: &str) -> Reaction {
    Reaction::Reply(format!("-{line}\r\n"))
}

/// The ports of the nodes that are masters: each has the same number of slots.
type Masters = Arc<Mutex<Vec<u16>>>;

/// Replies to `CLUSTER INFO` and `CLUSTER SLOTS`; other commands are for the test.
fn in_cluster<F: Fn(&str) -> Reaction + Send + Sync>(
    masters: &Masters,
    other: F,
) -> impl Fn(&str) -> Reaction + Send + Sync + use<F> {
    let masters = Arc::clone(masters);
    move |command| match command {
        "CLUSTER INFO" => {
            let info = "cluster_state:ok\r\ncluster_current_epoch:1\r\n";
            Reaction::Reply(format!("${}\r\n{info}\r\n", info.len()))
        }
        "CLUSTER SLOTS" => {
            let masters = masters.lock();
            let share = 16_384 / masters.len();
            let ranges = masters.iter().enumerate().map(|(number, port)| {
                let last = if number + 1 == masters.len() { 16_383 } else { (number + 1) * share - 1 };
                let id = port.to_string();
                format!(
                    "*3\r\n:{}\r\n:{last}\r\n*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n${}\r\n{id}\r\n",
                    number * share,
                    id.len()
                )
            });
            let ranges: Vec<String> = ranges.collect();
            Reaction::Reply(format!("*{}\r\n{}", ranges.len(), ranges.concat()))
        }
        _ => other(command),
    }
}

fn topology(seeds: &[u16]) -> (ClusterTopology, Arc<Metrics>) {
    let seeds: Vec<String> = seeds.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let url: StoreUrl = format!("redis-cluster://{}", seeds.join(",")).parse().expect("a URL");
    let options = StoreOptions::new(url.clone(), TIMEOUT);
    let metrics = Arc::<Metrics>::default();
    let StoreUrl::Redis(url) = url else { panic!("a Redis") };
    let Topology::Cluster(seeds) = &url.topology else { panic!("a cluster") };
    let connector = Connector::open(&url, &options, &metrics).expect("no certificates");
    let nodes = ClusterNodes { seeds: seeds.clone(), connector };
    (ClusterTopology::start(nodes, TIMEOUT, Arc::<MasterWatcher>::default(), Arc::clone(&metrics)), metrics)
}

fn link(seeds: &[u16], timeout: Duration) -> (ClusterLink, ClusterTopology) {
    let (topology, _) = topology(seeds);
    (ClusterLink::new(&topology, timeout, TIMEOUT, true), topology)
}

/// The part of the log that is about commands with this word.
fn logged(log: &Log, word: &str) -> Vec<String> {
    log.lock().iter().filter(|line| line.contains(word)).cloned().collect()
}

/// A port that refuses connections while the socket exists.
fn dead_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let port = socket.local_addr().expect("its address").port();
    (socket, port)
}

#[tokio::test]
async fn command_without_a_reply_is_not_sent_again() {
    let (log, masters) = (Log::default(), Masters::default());
    let a =
        node("a", &log, in_cluster(&masters, |command| if command == "GET k" { ok() } else { Reaction::Close })).await;
    masters.lock().push(a.port);
    let (link, _topology) = link(&[a.port], TIMEOUT);
    let lost: Result<Value, RedisError> = cmd("XADD").arg("k").query_async(&mut link.to("k")).await;
    let error = StoreError::from(lost.expect_err("no reply"));
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let mut commands = pipe();
    commands.cmd("INCR").arg("k").cmd("INCR").arg("k");
    let lost: Result<Value, RedisError> = commands.query_async(&mut link.to("k")).await;
    lost.expect_err("no reply");
    // The connection is made again for the next command.
    let _: Value = cmd("GET").arg("k").query_async(&mut link.to("k")).await.expect("a reply");
    assert_eq!(*log.lock(), ["a: XADD k", "a: INCR k", "a: GET k"]);
}

/// Writes to the log what it hears.
struct LoggingHandler(Log);

impl NotificationHandler for LoggingHandler {
    fn subscribed(&self, _: &str) {}
    fn refused(&self, _: &str) {}
    fn notified(&self, _: &str, _: &[u8]) {}
    fn lost(&self, _: &str) {}
    fn master_changed(&self, keys: &KeyScope) {
        self.0.lock().push(format!("changed: {}", keys.contains("k")));
    }
}

#[tokio::test]
async fn handler_hears_of_another_master_before_its_first_command() {
    let (log, masters) = (Log::default(), Masters::default());
    let b = node("b", &log, in_cluster(&masters, |_| ok())).await;
    let moved = format!("MOVED {} 127.0.0.1:{}", slot_of(b"k"), b.port);
    let a = node("a", &log, in_cluster(&masters, move |_| error(&moved))).await;
    masters.lock().push(a.port);
    let (link, topology) = link(&[a.port], TIMEOUT);
    let handler: Arc<dyn NotificationHandler> = Arc::new(LoggingHandler(Arc::clone(&log)));
    topology.shared.watcher.set(Arc::downgrade(&handler));
    topology.first_map(TIMEOUT).await.expect("a map");
    *masters.lock() = vec![b.port];
    for _ in 0..2 {
        let _: Value = cmd("GET").arg("k").query_async(&mut link.to("k")).await.expect("a reply");
    }
    let log = log.lock().clone();
    assert_eq!(log[..2], ["changed: true", "a: GET k"], "the first connection");
    let first = log.iter().position(|line| line == "b: GET k").expect("the command arrives");
    assert!(log[2..first].contains(&"changed: true".to_owned()), "{log:?}");
    assert_eq!(logged(&Arc::new(Mutex::new(log)), "GET"), ["a: GET k", "b: GET k", "b: GET k"], "the slot is learned");
}

#[tokio::test]
async fn ask_is_followed_for_one_command_and_loads_the_script_there() {
    let (log, masters) = (Log::default(), Masters::default());
    let loaded = Mutex::new(false);
    let b = node("b", &log, move |command| match command.split(' ').next() {
        Some("SCRIPT") => {
            *loaded.lock() = true;
            script_loaded()
        }
        Some("EVALSHA") if !*loaded.lock() => error("NOSCRIPT No matching script."),
        _ => ok(),
    })
    .await;
    let ask = format!("ASK {} 127.0.0.1:{}", slot_of(b"k"), b.port);
    let a = node("a", &log, in_cluster(&masters, move |_| error(&ask))).await;
    masters.lock().push(a.port);
    let (link, _topology) = link(&[a.port], TIMEOUT);
    let script = Script::new("return 1");
    let _: Value = script.key("k").invoke_async(&mut link.to("k")).await.expect("a reply");
    let log = log.lock().iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    let asked = ["a: EVALSHA", "b: ASKING", "b: EVALSHA"];
    assert_eq!(log, [&asked[..], &["b: SCRIPT"], &asked].concat());
}

#[tokio::test]
async fn script_is_loaded_again_where_its_slot_moved_meanwhile() {
    let (log, masters) = (Log::default(), Masters::default());
    let loaded = Mutex::new(false);
    let b = node(
        "b",
        &log,
        in_cluster(&masters, move |command| match command.split(' ').next() {
            Some("SCRIPT") => {
                *loaded.lock() = true;
                ok()
            }
            _ if !*loaded.lock() => error("NOSCRIPT No matching script."),
            _ => ok(),
        }),
    )
    .await;
    let (moved, has_loaded) = (format!("MOVED {} 127.0.0.1:{}", slot_of(b"k"), b.port), Mutex::new(false));
    let a = node(
        "a",
        &log,
        in_cluster(&masters, move |command| {
            if command.starts_with("SCRIPT") {
                *has_loaded.lock() = true;
                return script_loaded();
            }
            if *has_loaded.lock() { error(&moved) } else { error("NOSCRIPT No matching script.") }
        }),
    )
    .await;
    masters.lock().push(a.port);
    let (link, _topology) = link(&[a.port], TIMEOUT);
    let _: Value = Script::new("return 1").key("k").invoke_async(&mut link.to("k")).await.expect("a reply");
    let log = log.lock().iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(log, ["a: EVALSHA", "a: SCRIPT", "a: EVALSHA", "b: EVALSHA", "b: SCRIPT", "b: EVALSHA"]);
}

#[tokio::test]
async fn only_the_redirected_commands_of_a_pipeline_are_sent_again() {
    let (log, masters) = (Log::default(), Masters::default());
    let b = node("b", &log, |command| Reaction::Reply(format!("+b {command}\r\n"))).await;
    let ask = format!("ASK {} 127.0.0.1:{}", slot_of(b"k"), b.port);
    let a = node(
        "a",
        &log,
        in_cluster(&masters, move |command| match command {
            "INCR {k}2" => error(&ask),
            "INCR {k}4" => error("WRONGTYPE no number"),
            _ => Reaction::Reply(format!("+a {command}\r\n")),
        }),
    )
    .await;
    masters.lock().push(a.port);
    let (link, _topology) = link(&[a.port], TIMEOUT);
    let mut commands = pipe();
    commands.ignore_errors();
    for number in 1..=4 {
        commands.cmd("INCR").arg(format!("{{k}}{number}"));
    }
    commands.cmd("WAIT").arg(1).arg(0);
    let replies: Vec<Result<String, RedisError>> = commands.query_async(&mut link.to("k")).await.expect("replies");
    let replies: Vec<String> =
        replies.into_iter().map(|reply| reply.unwrap_or_else(|error| error.to_string())).collect();
    assert_eq!(replies[..3], ["a INCR {k}1", "b INCR {k}2", "a INCR {k}3"]);
    assert!(replies[3].contains("no number"), "{replies:?}");
    // The node that executed the last write is not the one that said how many replicas have it.
    assert_eq!(replies[4], "b WAIT 1 0");
    assert_eq!(logged(&log, "INCR {k}2"), ["a: INCR {k}2", "b: INCR {k}2"]);
    assert_eq!(logged(&log, "INCR").len(), 5, "{log:?}");
}

#[tokio::test]
async fn command_waits_while_its_slot_has_no_master() {
    let (log, masters) = (Log::default(), Masters::default());
    let attempts = Mutex::new(0);
    let errors = ["CLUSTERDOWN Hash slot not served", "TRYAGAIN Multiple keys", "LOADING Redis", "READONLY a replica"];
    let a = node(
        "a",
        &log,
        in_cluster(&masters, move |_| {
            let mut attempts = attempts.lock();
            *attempts += 1;
            errors.get(*attempts - 1).map_or_else(ok, |line| error(line))
        }),
    )
    .await;
    masters.lock().push(a.port);
    let (whole, _topology) = link(&[a.port], TIMEOUT);
    let _: Value = cmd("GET").arg("k").query_async(&mut whole.to("k")).await.expect("a reply");
    assert_eq!(log.lock().len(), errors.len() + 1);

    let b = node("b", &log, in_cluster(&masters, |_| error("CLUSTERDOWN The cluster is down"))).await;
    *masters.lock() = vec![b.port];
    let (down, _topology) = link(&[b.port], Duration::from_millis(300));
    let failed: Result<Value, RedisError> = cmd("GET").arg("k").query_async(&mut down.to("k")).await;
    let error = StoreError::from(failed.expect_err("the cluster is down"));
    assert!(matches!(error, StoreError::NotReady(_)), "{error}");
}

#[tokio::test]
async fn dead_master_delays_only_its_own_slots() {
    let (log, masters) = (Log::default(), Masters::default());
    let (_socket, dead) = dead_port();
    let b = node("b", &log, in_cluster(&masters, |_| ok())).await;
    // The keys of the lower slots are on the dead node.
    masters.lock().extend([dead, b.port]);
    let keys: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let (lower, upper): (Vec<_>, Vec<_>) = keys.iter().partition(|key| slot_of(key.as_bytes()) < 8_192);
    let (link, topology) = link(&[dead, b.port], TIMEOUT);
    topology.first_map(TIMEOUT).await.expect("a map");
    let waiting = {
        let (link, key) = (link.clone(), lower[0].clone());
        tokio::spawn(async move { cmd("GET").arg(&key).query_async::<Value>(&mut link.to(&key)).await })
    };
    let begin = Instant::now();
    for key in upper {
        let _: Value = cmd("GET").arg(key).query_async(&mut link.to(key)).await.expect("a reply");
    }
    assert!(begin.elapsed() < TIMEOUT, "healthy slots do not wait for the dead node");
    assert!(!waiting.is_finished() && !log.lock().contains(&format!("b: GET {}", lower[0])));
    *masters.lock() = vec![b.port];
    waiting.await.expect("no panic").expect("the new master replies");
}

#[tokio::test]
async fn silent_master_is_given_up_when_another_one_replaces_it() {
    let (log, masters) = (Log::default(), Masters::default());
    let a = node("a", &log, |_| Reaction::Silence).await;
    let b = node("b", &log, in_cluster(&masters, |_| ok())).await;
    masters.lock().push(a.port);
    let timeout = Duration::from_secs(60);
    let (topology, _) = topology(&[b.port]);
    let link = ClusterLink::new(&topology, timeout, timeout, true);
    topology.first_map(TIMEOUT).await.expect("a map");
    let waiting = {
        let link = link.clone();
        tokio::spawn(async move { cmd("INCR").arg("k").query_async::<Value>(&mut link.to("k")).await })
    };
    while logged(&log, "INCR").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    *masters.lock() = vec![b.port];
    topology.refresh();
    let lost = tokio::time::timeout(timeout / 2, waiting).await.expect("it does not wait for the timeout of a reply");
    assert!(lost.expect("no panic").expect_err("no reply").is_timeout());
    assert_eq!(logged(&log, "INCR"), ["a: INCR k"], "it is not sent again");
}

#[tokio::test]
async fn refused_credentials_fail_at_once() {
    let (log, masters) = (Log::default(), Masters::default());
    let a = node("a", &log, in_cluster(&masters, |_| error("NOAUTH Authentication required."))).await;
    masters.lock().push(a.port);
    let (link, _topology) = link(&[a.port], TIMEOUT);
    let refused: Result<Value, RedisError> = cmd("GET").arg("k").query_async(&mut link.to("k")).await;
    assert!(matches!(StoreError::from(refused.expect_err("refused")), StoreError::Refused(_)));
    assert_eq!(log.lock().len(), 1);
}

#[tokio::test]
async fn error_without_any_node_names_all_seeds() {
    let dead = [dead_port(), dead_port()];
    let ports = [dead[0].1, dead[1].1];
    let (link, topology) = link(&ports, Duration::from_millis(500));
    topology.first_map(TIMEOUT).await.expect_err("no node answers");
    let failed: Result<Value, RedisError> = cmd("GET").arg("k").query_async(&mut link.to("k")).await;
    let error = StoreError::from(failed.expect_err("no node answers"));
    let text = error.to_string();
    assert!(error.is_transient() && ports.iter().all(|port| text.contains(&port.to_string())), "{text}");
}

/// Three masters; `is_forwarded` says for each whether its messages reach the node with the subscription.
async fn canary_outcome(is_forwarded: [bool; 3]) -> (Result<(), RedisError>, u64, Vec<String>) {
    let (log, masters, sender) = (Log::default(), Masters::default(), watch::Sender::new(0));
    let mut ports = Vec::new();
    for (name, is_forwarded) in ["a", "b", "c"].into_iter().zip(is_forwarded) {
        let (sender, ids) = (sender.clone(), Arc::clone(&masters));
        let react = move |command: &str| match command.split(' ').collect::<Vec<_>>()[..] {
            ["PUBLISH", "canary", number] => {
                if is_forwarded {
                    sender.send_replace(number.parse().expect("a number"));
                }
                Reaction::Reply(":0\r\n".into())
            }
            ["CLUSTER", "NODES"] => {
                let lines: Vec<String> =
                    ids.lock().iter().map(|id| format!("{id} 127.0.0.1:{id}@1 master - 0 1 1 connected\n")).collect();
                Reaction::Reply(format!("${}\r\n{}\r\n", lines.concat().len(), lines.concat()))
            }
            _ => error("ERR not expected"),
        };
        ports.push(node(name, &log, in_cluster(&masters, react)).await);
    }
    *masters.lock() = ports.iter().map(|node| node.port).collect();
    let (topology, metrics) = topology(&[ports[0].port]);
    let source = ClusterNotifications::new(&topology, Duration::from_millis(500), "canary".into());
    let client: Client = source.client().await.expect("a node");
    let outcome = source.prove(&sender.subscribe()).await;
    let port = match client.get_connection_info().addr() {
        redis::ConnectionAddr::Tcp(_, port) => *port,
        other => panic!("{other:?}"),
    };
    let own = ports.iter().find(|node| node.port == port).expect("one of the nodes").name;
    let used = logged(&log, "PUBLISH");
    assert!(used.iter().all(|line| !line.starts_with(&format!("{own}: "))), "not through the node itself: {used:?}");
    (outcome, metrics.canary_failures.get(), used)
}

#[tokio::test]
async fn node_without_messages_of_two_others_is_left() {
    let (outcome, failures, used) = canary_outcome([true; 3]).await;
    assert!(outcome.is_ok() && failures == 0 && used.len() == 1, "{outcome:?} {failures} {used:?}");
    let (outcome, failures, used) = canary_outcome([false; 3]).await;
    assert!(outcome.is_err() && failures == 2 && used.len() == 2, "{outcome:?} {failures} {used:?}");
}

#[tokio::test]
async fn master_is_proved_by_the_node_that_has_the_slot() {
    let (log, masters) = (Log::default(), Masters::default());
    let keys = FleetKeys::default();
    let state = Arc::new(Mutex::new("ok"));
    let b = {
        let state = Arc::clone(&state);
        node("b", &log, move |command| match command {
            "CLUSTER INFO" => Reaction::Reply(format!("+cluster_state:{}\r\n", state.lock())),
            "CLUSTER SLOTS" => error("ERR not asked"),
            _ => Reaction::Reply("+none\r\n".into()),
        })
        .await
    };
    // The old master says that the cluster is up, and not that it became a replica.
    let moved = format!("MOVED {} 127.0.0.1:{}", slot_of(keys.commands().as_bytes()), b.port);
    let a = node("a", &log, in_cluster(&masters, move |_| error(&moved))).await;
    masters.lock().push(a.port);
    let url = format!("redis-cluster://127.0.0.1:{}", a.port).parse().expect("a URL");
    let store =
        RedisStore::open(&StoreOptions::new(url, TIMEOUT), &keys, Arc::default()).expect("a cluster").expect("a Redis");
    for (text, expect) in [("ok", true), ("fail", false), ("ok", true)] {
        *state.lock() = text;
        assert_eq!(store.prove_master().await.expect("a reply"), expect, "{text}");
    }
}
