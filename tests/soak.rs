//! Many real clients, real emitters in processes of their own, and a real Redis that is killed.
//!
//! Quick by default; `TIDEGATE_SOAK=full` runs the sizes that the README speaks of. `TIDEGATE_BIN` names another binary than
//! the one that cargo built.

mod soak {
    pub mod client;
    pub mod processes;
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use soak::client::{Client, Stalled};
use soak::processes::{Emitter, Gateway, Redis};

const CHANNELS: [&str; 3] = ["soak-a", "soak-b", "soak-c"];

fn is_full() -> bool {
    std::env::var("TIDEGATE_SOAK").is_ok_and(|size| size == "full")
}

/// Not a test: what an emitter's process runs.
#[test]
fn emitter_process() {
    if let Ok(plan) = std::env::var("SOAK_EMITTER") {
        soak::processes::emit_until(&plan);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_emitters_cut_clients_and_a_killed_redis_cost_nobody_an_event() {
    let (streams, time) = if is_full() { (500, Duration::from_secs(60)) } else { (60, Duration::from_secs(8)) };
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let config = format!("store = '{}'\nallow-all = true\nlog.filter = 'warn'", redis.url());
    let gateway = Gateway::start(&config).await;

    let query: Vec<String> = CHANNELS.iter().map(|c| format!("channel={c}&last_ack_{c}=0")).collect();
    let path = format!("/api/realtime?{}", query.join("&"));
    let clients: Vec<Arc<Client>> = (0..streams).map(|_| Client::start(gateway.port, &path)).collect();
    for client in &clients {
        client.until_opened(CHANNELS.len()).await;
    }
    let emitters: Vec<Emitter> = (0..3).map(|n| Emitter::start(&redis, &CHANNELS, 20, time, n)).collect();

    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let begin = Instant::now();
    let mut killed = false;
    while begin.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..streams / 10 {
            clients[rng.random_range(0..streams)].cut();
        }
        if !killed && begin.elapsed() > time / 2 {
            killed = true;
            redis.kill();
            tokio::time::sleep(Duration::from_millis(500)).await;
            redis.restart().await;
        }
    }
    let emitted: u64 = emitters.into_iter().map(Emitter::finish).sum();
    let mut total = 0;
    for channel in CHANNELS {
        let truth = redis.ids(channel).await;
        total += truth.len();
        for (n, client) in clients.iter().enumerate() {
            client.until_seen(channel, truth.last().copied()).await;
            let got = client.seen(channel);
            assert!(got == truth, "stream {n} of {channel}: {}", first_difference(&got, &truth));
        }
    }
    let cuts: usize = clients.iter().map(|client| client.cuts()).sum();
    assert!(killed && cuts > 0 && emitted > 0 && total as u64 >= emitted);
    println!(
        "{streams} streams of 3 channels, {total} entries, {cuts} cuts, Redis killed once: each stream has each entry once, in order; \
         gateway {} KiB, {:.1} s CPU",
        gateway.resident(),
        gateway.cpu_seconds()
    );
}

fn first_difference(got: &[(u64, u64)], truth: &[(u64, u64)]) -> String {
    let at = got.iter().zip(truth).take_while(|(a, b)| a == b).count();
    let around =
        |list: &[(u64, u64)]| format!("{:?}", &list[at.saturating_sub(2).min(list.len())..list.len().min(at + 3)]);
    format!(
        "{} of {} entries, different from {at} on: {} and not {}",
        got.len(),
        truth.len(),
        around(got),
        around(truth)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_reading_cost_no_more_memory_than_configured_and_lose_nothing() {
    let (streams, events) = if is_full() { (100, 100_000) } else { (20, 15_000) };
    let (log, replay, head) = (16 * 1024, 8 * 1024, 64);
    let redis = Redis::start(&[]).await;
    let config = format!(
        "store = '{}'\nallow-all = true\nlog.filter = 'warn'\nstream.log-memory = '{log}KiB'\nstream.replay-memory = '{replay}KiB'\n\
         server.max-head = '{head}KiB'",
        redis.url()
    );
    let gateway = Gateway::start(&config).await;
    let mut clients = Vec::new();
    for _ in 0..streams {
        clients.push(Stalled::open(gateway.port, "/api/realtime?channel=flood").await);
    }
    let idle = gateway.resident();
    // As docs/configuration.md has it.
    let bound = idle + log + replay + streams * (2 * head + 64) + 24 * 1024;
    let mut most = idle;
    for batch in 0..events / 500 {
        redis.emit_batch("flood", batch * 500, 500, 1024).await;
        most = most.max(gateway.resident());
    }
    // Let the gateway take in the last of them.
    gateway.until_quiet().await;
    most = most.max(gateway.resident());
    let truth = redis.ids("flood").await;
    assert_eq!(truth.len(), events);
    let readers: Vec<_> = clients.into_iter().map(|client| tokio::spawn(client.read_all(events))).collect();
    for reader in readers {
        while !reader.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            most = most.max(gateway.resident());
        }
        let got = reader.await.expect("a reader ends");
        assert!(got == truth, "{}", first_difference(&got, &truth));
    }
    println!(
        "{streams} stalled streams, {events} events of 1 KiB: idle {idle} KiB, at the most {most} KiB, bound {bound} KiB, {:.1} s CPU",
        gateway.cpu_seconds()
    );
    assert!(most <= bound, "{most} KiB is more than the bound of {bound} KiB (idle: {idle} KiB)");
}
