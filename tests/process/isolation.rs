//! Isolation of decisions: a hostile request affects only itself, and others are about as fast as without it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::client::{Sse, Wire};
use crate::guests;
use crate::processes::{Gateway, is_full_soak, path};

/// Channels for which `mixed.wat` is hostile.
const HOSTILE: [&str; 6] = ["spin", "wait", "memory", "recurse", "log", "big"];
/// Concurrent stream requests.
const CONCURRENT_OPENS: usize = 8;

/// Opens this many streams, keeps all of them until the last one is open, and returns how long each took.
async fn open(to: SocketAddr, count: usize) -> Vec<Duration> {
    let permits = Arc::new(Semaphore::new(CONCURRENT_OPENS));
    let opening: Vec<_> = (0..count)
        .map(|number| {
            let permits = Arc::clone(&permits);
            tokio::spawn(async move {
                let _permit = permits.acquire().await.expect("it is never closed");
                let start = Instant::now();
                let mut stream = Sse::open(to, &format!("channel=calm-{}", number % 50)).await;
                stream.connected(&format!("calm-{}", number % 50)).await;
                (start.elapsed(), stream)
            })
        })
        .collect();
    let mut streams = Vec::with_capacity(count);
    for task in opening {
        streams.push(task.await.expect("the stream is opened"));
    }
    streams.iter().map(|(time, _)| *time).collect()
}

/// Sends hostile requests until it is stopped; returns their number.
async fn attack(to: SocketAddr, name: &'static str, stop: Arc<AtomicBool>) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let wire = Wire::get(to, &format!("/api/realtime?channel={name}"), None, None).await.expect("an answer");
        assert_eq!(wire.status, 500, "{name}: {}", wire.body());
        answers += 1;
    }
    answers
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_do_not_slow_down_others() {
    let (count, rounds, attackers) = if is_full_soak() { (1_000, 5, 2) } else { (100, 4, 1) };
    let dir = tempfile::tempdir().expect("a directory");
    let file = path(dir.path(), "policy.wasm");
    std::fs::write(&file, guests::component("mixed")).expect("the policy is written");
    let toml =
        format!("store = \"memory:\"\n[policy]\nfile = {file:?}\nmax-memory = \"128MiB\"\ntimeout = \"300ms\"\n");
    let gateway = Gateway::start(&toml).await;

    open(gateway.data, count / 2).await;
    // The load of the machine varies from second to second, so both measurements alternate.
    let (mut baseline, mut under_attack) = (Vec::new(), Vec::new());
    let mut attacked = [0; HOSTILE.len()];
    let mut peak = 0;
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let alone = open(gateway.data, count).await;
        let stop = Arc::new(AtomicBool::new(false));
        let attack = |(number, name)| (number, tokio::spawn(attack(gateway.data, name, Arc::clone(&stop))));
        let attacks: Vec<_> =
            HOSTILE.into_iter().enumerate().cycle().take(HOSTILE.len() * attackers).map(attack).collect();
        // After this time the spinning and the waiting guests run.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let together = open(gateway.data, count).await;
        peak = peak.max(gateway.process.resident());
        stop.store(true, Ordering::Relaxed);
        for (number, attack) in attacks {
            attacked[number] += attack.await.expect("each hostile request fails");
        }
        best = best.min(percentile(&together, 50).as_secs_f64() / percentile(&alone, 50).as_secs_f64());
        baseline.extend(alone);
        under_attack.extend(together);
    }
    let ratio =
        |percent| percentile(&under_attack, percent).as_secs_f64() / percentile(&baseline, percent).as_secs_f64();
    let attacked: Vec<_> = HOSTILE.into_iter().zip(attacked).collect();
    let log = gateway.process.stderr.text_so_far().len();
    println!(
        "isolation: {rounds} times {count} streams, {CONCURRENT_OPENS} concurrent opens: alone {:?} (median), {:?} (p99); with {attacked:?} \
         hostile requests {:?} ({:.2} times as long), {:?} ({:.2}); the gateway: {peak} KiB at most, {} KiB of log",
        percentile(&baseline, 50),
        percentile(&baseline, 99),
        percentile(&under_attack, 50),
        ratio(50),
        percentile(&under_attack, 99),
        ratio(99),
        log >> 10,
    );
    // A slowdown by the gateway shows in each round; the p99 of one round depends on the load of this machine.
    assert!(best <= 2.0, "requests take {best:.2} times as long as without hostile requests");
    assert!(attacked.iter().all(|(_, count)| *count > 0), "{attacked:?}");
}
