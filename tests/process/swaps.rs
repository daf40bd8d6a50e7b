//! A policy that is replaced over and over: memory does not grow, and whoever asks meanwhile is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::children::{Gateway, is_full, until};
use crate::client::Wire;
use crate::control_port::{WASM, ask, policy};
use crate::guests::component;
use crate::rollout::distinct;

/// More than cores, each asking again as soon as it was answered.
const CLIENTS: usize = 16;

/// Clients that ask without a pause, and how often they were answered.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(gateway: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| tokio::spawn(asks(gateway, Arc::clone(&stop), Arc::clone(&answered)));
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, answered, clients }
    }

    /// Waits until so many more were answered.
    async fn answers(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        until("answers", async || self.answered.load(Ordering::Relaxed) >= wanted).await;
    }

    /// Ends it. How many were answered; none may be wrong.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            let wrong = client.await.expect("a client");
            assert!(wrong.is_empty(), "{} are wrong, such as {}", wrong.len(), wrong[0]);
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// A client that asks again and again; says what was wrong.
async fn asks(gateway: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Vec<String> {
    let mut wrong = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match Wire::get(gateway, "/api/realtime?channel=c", None, None).await {
            Ok(wire) if wire.status == 418 => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(wire) => wrong.push(wire.head),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_leave_nothing_behind() {
    let swaps = if is_full() { 1000 } else { 60 };
    let dir = tempfile::tempdir().expect("a folder");
    let (file, cache) = (dir.path().join("policy.wasm"), dir.path().join("cache"));
    let deny = component("deny");
    std::fs::write(&file, &deny).expect("the policy is written");
    let toml = format!("store = \"memory:\"\nlog.filter = \"warn\"\npolicy.file = {file:?}\ncache-dir = {cache:?}");
    let gateway = Gateway::start(&toml).await;
    let swap = async |number| {
        let (status, told) = ask(gateway.control, "PUT", "/v1/policy", WASM, &distinct(&deny, number)).await;
        assert_eq!(status, 200, "{number}: {told}");
    };
    // Held against each other is the memory of the process when it has nothing to do, behind a load that it had seen before.
    let load = Load::on(gateway.data);
    for number in 1..=10 {
        load.answers(500).await;
        swap(number).await;
    }
    load.answers(500).await;
    let mut answered = load.end().await;
    let (after_ten, own_after_ten) = (gateway.process.resident(), gateway.process.own_memory());
    let (begin, load, mut most) = (Instant::now(), Load::on(gateway.data), 0);
    for number in 11..=swaps {
        // Each version has something to do.
        load.answers(20).await;
        swap(number).await;
        most = most.max(gateway.process.resident());
    }
    answered += load.end().await;
    let (now, own) = (gateway.process.resident(), gateway.process.own_memory());
    println!(
        "swaps: {swaps}, the last of them in {:.1} s, beside {answered} answers; {after_ten} KiB after ten ({own_after_ten} its own), {now} after all ({own}), {most} at the most",
        begin.elapsed().as_secs_f64()
    );
    let told = policy(gateway.control).await;
    assert_eq!(told["in_force"]["number"], swaps + 1, "{told}");
    assert_eq!(told["old"].as_array().map(Vec::len), Some(0), "{told}");
    // Without the pages of the program's file: the system maps them when they are first used, or before, as it likes.
    assert!(own.saturating_sub(own_after_ten) * 10 <= after_ten, "{own_after_ten} KiB of {after_ten} became {own}");
    let blobs = std::fs::read_dir(cache.join("blobs")).expect("a folder").map(|file| file.expect("a file").path());
    let (compiled, stored): (Vec<_>, Vec<_>) = blobs.partition(|path| path.extension().is_some());
    assert!(compiled.len() <= 32 && stored.len() <= 8, "{} {}", compiled.len(), stored.len());
}
