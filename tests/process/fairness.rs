//! Floods of one client: other clients and operators are served meanwhile, and memory stays within the bound.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::cmd;
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Sse, Wire};
use crate::control_port::{JSON, metric, send_request};
use crate::guests;
use crate::memory::allocated;
use crate::processes::{Gateway, is_full_soak, path, wait_until};
use crate::redis_server::Redis;

/// Channels of each request of a flood.
const CHANNELS: usize = 100;

/// A policy that allows everything. The subject is the first five bytes of the first channel's name.
const BY_NAME: &str = r#"(module
  (memory (export "memory") 17)
  (global $heap (mut i32) (i32.const 0x10000))
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get $size))))
  (func (export "tidegate:policy/authorizer@0.1.0#authorize")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (param $channels i32) (param $count i32) (result i32)
    ;; ok, and a grant whose only field is the subject
    (i32.store (i32.const 72) (i32.const 1))
    (i32.store (i32.const 76) (i32.load (local.get $channels)))
    (i32.store (i32.const 80) (i32.const 5))
    (i32.const 64)))"#;

/// A gateway with the policy [`BY_NAME`].
async fn gateway(redis: &Redis, options: &str) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let policy = path(dir.path(), "by-name.wasm");
    std::fs::write(&policy, guests::authorizer(BY_NAME)).expect("written");
    let toml = format!("store = \"{}\"\npolicy.file = '{policy}'\nlog.filter = \"error\"\n{options}", redis.url());
    (Gateway::start(&toml).await, dir)
}

/// Opens streams with channels that no client has asked for before, and closes each when it has its head, until it is stopped.
struct Flood {
    tasks: JoinSet<()>,
    stopped: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Flood {
    fn start(to: SocketAddr, connections: usize) -> Self {
        let mut flood =
            Self { tasks: JoinSet::new(), stopped: Arc::default(), opened: Arc::default(), refused: Arc::default() };
        for connection in 0..connections {
            let (stopped, opened, refused) =
                (Arc::clone(&flood.stopped), Arc::clone(&flood.opened), Arc::clone(&flood.refused));
            flood.tasks.spawn(async move {
                for request in 0.. {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let query: Vec<_> =
                        (0..CHANNELS).map(|n| format!("channel=alice-{connection}-{request}-{n}")).collect();
                    let target = format!("/api/realtime?{}", query.join("&"));
                    match Wire::get(to, &target, None, None).await {
                        Ok(wire) if wire.status == 200 => opened.fetch_add(1, Ordering::Relaxed),
                        _ => refused.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
        flood
    }

    /// Stops, and returns how many requests were answered with a stream, and how many were not.
    async fn stop(mut self) -> [usize; 2] {
        self.stopped.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        [self.opened, self.refused].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A stock emitter's event, whose notification needs a read.
async fn emit(redis: &mut redis::aio::MultiplexedConnection, channel: &str, data: usize) {
    let mut add = cmd("XADD");
    add.arg(channel).arg("*").arg(&["data", &data.to_string(), "event", "e", "channel", channel]);
    let id: String = add.query_async(redis).await.expect("added");
    let payload = json!({ "data": data, "event": "e", "channel": channel, "id": id }).to_string();
    let () = cmd("PUBLISH").arg(channel).arg(payload).query_async(redis).await.expect("published");
}

fn longest(times: &[Duration]) -> f64 {
    times.iter().max().map_or(0.0, Duration::as_secs_f64)
}

/// On an idle machine with two cores, an event takes less than 1 s and an open less than 2 s; here, other tests may run.
const EVENT_LIMIT: Duration = Duration::from_secs(8);
const OPEN_LIMIT: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_fresh_channels_delays_no_other_client_and_stays_within_the_bound() {
    let (time, memory_mib) = if is_full_soak() { (25, 256) } else { (5, 16) };
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let (gateway, _dir) = gateway(&redis, &format!("stream.channel-memory = \"{memory_mib}MiB\"")).await;
    let mut live = Sse::open(gateway.data, "channel=bob__-live").await;
    live.connected("bob__-live").await;
    let idle = gateway.process.resident();

    let flood = Flood::start(gateway.data, 8);
    let (begin, mut peak, mut channels) = (Instant::now(), 0, 0);
    let (mut events, mut opens, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0.. {
        if begin.elapsed() > Duration::from_secs(time) {
            break;
        }
        let start = Instant::now();
        emit(&mut admin, "bob__-live", n).await;
        assert_eq!(live.data().await, n);
        events.push(start.elapsed());

        let (start, name) = (Instant::now(), format!("bob__-{n}"));
        Sse::open(gateway.data, &format!("channel={name}")).await.connected(&name).await;
        opens.push(start.elapsed());

        let start = Instant::now();
        assert_eq!(send_request(gateway.data, "GET", "/healthz", "", b"").await.0, 200);
        let revoke = send_request(gateway.control, "POST", "/v1/revoke", JSON, br#"{"subject":"carol"}"#).await;
        assert_eq!(revoke.0, 200, "{}", revoke.1);
        probes.push(start.elapsed());
        let subscribed: Vec<String> = cmd("PUBSUB").arg("CHANNELS").query_async(&mut admin).await.expect("channels");
        channels = channels.max(subscribed.len());
        peak = peak.max(gateway.process.resident());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let start = Instant::now();
    let revoked = send_request(gateway.control, "POST", "/v1/revoke", JSON, br#"{"subject":"bob__"}"#).await;
    assert!(revoked.1["streams"].as_u64() >= Some(1), "{}", revoked.1);
    assert_eq!(live.next().await.expect("the last frame")["type"], "reconnect");
    let revocation = start.elapsed();
    let [opened, refused] = flood.stop().await;
    println!(
        "fairness: the flood had {opened} streams of {CHANNELS} fresh channels, {refused} refused; another client: event {:.3} s at most of {}, \
         open {:.3} s, health and revocation {:.3} s, end of a revoked stream {:.3} s; {channels} channels subscribed; {idle} KiB idle, {peak} \
         KiB with the flood",
        longest(&events),
        events.len(),
        longest(&opens),
        longest(&probes),
        revocation.as_secs_f64(),
    );
    assert_eq!(refused, 0, "there is enough for one");
    assert!(events.iter().all(|time| *time < EVENT_LIMIT), "{events:?}");
    assert!(opens.iter().all(|time| *time < OPEN_LIMIT), "{opens:?}");
    // Also those that wait to be unsubscribed.
    let limit = memory_mib * 1024 / 2;
    assert!(channels <= 2 * limit + 1024, "{channels} channels; the limit is {limit}");
    // Decisions, connections and data in transit are other terms of the bound.
    let bound = idle + memory_mib * 1024 + 40 * 1024;
    assert!(peak <= bound, "{peak} KiB; the bound is {bound}");
}

/// A cold start with the most that one address may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_one_address_that_reconnect_at_once_are_all_accepted() {
    let clients = if is_full_soak() { 10_000 } else { 2_000 };
    let redis = Redis::start(&[]).await;
    // On a busy machine, this program takes longer than the default to send all its requests and to have them decided.
    let (gateway, _dir) = gateway(&redis, "server.head-timeout = \"2m\"\npolicy.queue-timeout = \"2m\"").await;
    let begin = Instant::now();
    let mut opening = JoinSet::new();
    let to = gateway.data;
    for n in 0..clients {
        opening.spawn(async move {
            let target = format!("/api/realtime?channel={n:05}&channel=all");
            let mut wire = Wire::get(to, &target, None, None).await.expect("an answer");
            let mut connected = 0;
            while wire.status == 200 && connected < 2 {
                wire.read_more(64 << 10).await.expect("the stream stays open");
                wire.blocks(|block| connected += usize::from(block.data.contains("connected")));
            }
            wire
        });
    }
    let mut streams = Vec::new();
    tokio::time::timeout(Duration::from_secs(120), async {
        while let Some(wire) = opening.join_next().await {
            streams.push(wire.expect("no panic"));
        }
    })
    .await
    .expect("all are answered");
    println!("fairness: {clients} clients of one address connected within {:.1} s", begin.elapsed().as_secs_f64());
    let refused: Vec<_> = streams.iter().filter(|wire| wire.status != 200).map(Wire::body).collect();
    assert!(refused.is_empty(), "{} of {clients} were refused: {}", refused.len(), refused[0]);
}

/// The cost that is counted for a channel is the most that one takes, also while it lingers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_take_no_more_memory_than_is_counted() {
    const STREAMS: usize = 8;
    const OF_EACH: usize = 1000;
    let redis = Redis::start(&[]).await;
    let (gateway, _dir) = gateway(&redis, "stream.max-channels-per-stream = 1000").await;
    let open = async |first: usize| {
        for stream in first..first + STREAMS {
            let query: Vec<_> = (0..OF_EACH).map(|n| format!("channel=bob__-{stream:03}-{n:03}")).collect();
            let mut sse = Sse::open(gateway.data, &query.join("&")).await;
            for _ in 0..OF_EACH {
                assert_eq!(sse.frame().await["type"], "connected");
            }
        }
        allocated(&gateway).await
    };
    let memory = [open(0).await, open(STREAMS).await, open(2 * STREAMS).await];
    let each = (memory[2] - memory[0]) / (2 * STREAMS * OF_EACH);
    println!(
        "fairness: bytes allocated after {STREAMS}, twice and three times as many thousand channels: {memory:?}; {each} bytes each"
    );
    // These channels have no entries, so the part for the last ids that were read is not used.
    assert!(each <= 4096 - 1536 + "bob__-000-000".len(), "{each} bytes");
}

#[tokio::test]
async fn channel_that_redis_refuses_is_an_error_until_it_is_allowed() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let rule = async |admin: &mut redis::aio::MultiplexedConnection, rule: &[&str]| {
        let mut user = cmd("ACL");
        user.arg("SETUSER").arg("limited").arg(rule);
        let () = user.query_async(admin).await.expect("the rule is valid");
    };
    rule(&mut admin, &["on", ">secret", "~*", "resetchannels", "&tidegate:*", "&open-*", "+@all"]).await;
    let store = format!("redis://limited:secret@127.0.0.1:{}", redis.port);
    let gateway = Gateway::start(&format!("store = \"{store}\"\nallow-all = true")).await;
    // Other channels of the same command are not affected.
    let query: Vec<_> = (0..20).map(|n| format!("channel=open-{n}")).collect();
    let mut sse = Sse::open(gateway.data, &format!("{}&channel=closed", query.join("&"))).await;
    let mut kinds = Vec::new();
    for _ in 0..21 {
        let frame = sse.frame().await;
        kinds.push(frame["type"].as_str().expect("a type").to_owned());
        if kinds.last().is_some_and(|kind| kind == "error") {
            assert_eq!(frame["error"], "channel \"closed\" cannot be read");
        }
    }
    kinds.sort();
    assert_eq!((&*kinds[19], &*kinds[20]), ("connected", "error"));
    gateway.process.stderr.wait_for_text("refuses to subscribe").await;
    rule(&mut admin, &["&closed"]).await;
    sse.connected("closed").await;
    emit(&mut admin, "closed", 1).await;
    assert_eq!(sse.data().await, 1);
    wait_until("the refusals are counted", async || {
        metric(gateway.control, "tidegate_store_subscriptions_refused_total").await >= 1.0
    })
    .await;
}
