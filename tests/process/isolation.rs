//! Isolation of decisions: a hostile request affects only itself. `cargo bench --bench streams -- hostile` measures by how much it delays
//! others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use crate::client::{Sse, Wire};
use crate::control_port::metric;
use crate::guests;
use crate::processes::{Gateway, is_full_soak, path, wait_until};

/// Channels for which `mixed.wat` is hostile.
const HOSTILE: [&str; 6] = ["spin", "wait", "memory", "recurse", "log", "big"];
/// Concurrent stream requests.
const CONCURRENT_OPENS: usize = 8;

/// A gateway with `mixed.wat` and these lines in the section of its policy.
async fn gateway(lines: &str) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = path(dir.path(), "policy.wasm");
    std::fs::write(&file, guests::component("mixed")).expect("the policy is written");
    let gateway = Gateway::start(&format!("store = \"memory:\"\n[policy]\nfile = {file:?}\n{lines}\n")).await;
    (gateway, dir)
}

/// Opens this many streams, and keeps all of them until the last one is open.
async fn open(to: SocketAddr, count: usize) {
    let permits = Arc::new(Semaphore::new(CONCURRENT_OPENS));
    let opening: Vec<_> = (0..count)
        .map(|number| {
            let permits = Arc::clone(&permits);
            tokio::spawn(async move {
                let _permit = permits.acquire().await.expect("it is never closed");
                let mut stream = Sse::open(to, &format!("channel=calm-{}", number % 50)).await;
                stream.connected(&format!("calm-{}", number % 50)).await;
                stream
            })
        })
        .collect();
    let mut streams = Vec::with_capacity(count);
    for task in opening {
        streams.push(task.await.expect("the stream is opened"));
    }
}

/// Sends hostile requests, at least one, until it is stopped.
async fn attack(to: SocketAddr, name: &'static str, stop: Arc<AtomicBool>) {
    loop {
        let wire = Wire::get(to, &format!("/api/realtime?channel={name}"), None, None).await.expect("an answer");
        assert_eq!(wire.status, 500, "{name}: {}", wire.body());
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_fail_and_others_succeed() {
    let (count, attackers) = if is_full_soak() { (5_000, 2) } else { (200, 1) };
    let (gateway, _dir) = gateway("max-memory = \"128MiB\"\ntimeout = \"5s\"").await;
    let stop = Arc::new(AtomicBool::new(false));
    let attacks: Vec<_> = HOSTILE
        .into_iter()
        .cycle()
        .take(HOSTILE.len() * attackers)
        .map(|name| tokio::spawn(attack(gateway.data, name, Arc::clone(&stop))))
        .collect();
    open(gateway.data, count).await;
    stop.store(true, Ordering::Relaxed);
    for attack in attacks {
        attack.await.expect("each hostile request fails");
    }
}

/// More decisions spin than there are threads, and none of them ends before the streams are open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_open_while_decisions_spin() {
    let spinning = 4 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (gateway, _dir) = gateway("cpu-time = \"10m\"\ntimeout = \"10m\"").await;
    let requests: Vec<_> = (0..spinning)
        .map(|_| tokio::spawn(Wire::get(gateway.data, "/api/realtime?channel=spin", None, None)))
        .collect();
    let in_progress = async || metric(gateway.control, "tidegate_decisions_in_progress").await;
    wait_until("the decisions spin", async || in_progress().await == spinning as f64).await;
    open(gateway.data, 100).await;
    assert_eq!(in_progress().await, spinning as f64, "no decision has ended");
    assert!(requests.iter().all(|request| !request.is_finished()));
}
