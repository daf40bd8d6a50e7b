//! Repeated activations: memory does not grow, and all requests are answered meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::client::Wire;
use crate::control_port::{WASM, policy, send_request};
use crate::guests::component;
use crate::processes::{Gateway, is_full_soak, wait_until};
use crate::rollout::distinct;

/// More clients than cores, each sending the next request after an answer.
const CLIENTS: usize = 16;

/// Clients that send requests without a pause, and the number of answers.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(gateway: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| tokio::spawn(run_client(gateway, Arc::clone(&stop), Arc::clone(&answered)));
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, answered, clients }
    }

    /// Waits for this many more answers.
    async fn wait_for_answers(&self, count: usize) {
        let target = self.answered.load(Ordering::Relaxed) + count;
        wait_until("answers", async || self.answered.load(Ordering::Relaxed) >= target).await;
    }

    /// Stops the clients. Returns the number of answers, all of which must be as expected.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            let unexpected = client.await.expect("a client");
            assert!(unexpected.is_empty(), "{} unexpected answers, such as {}", unexpected.len(), unexpected[0]);
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// A client that sends request after request; returns unexpected answers.
async fn run_client(gateway: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Vec<String> {
    let mut unexpected = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match Wire::get(gateway, "/api/realtime?channel=c", None, None).await {
            Ok(wire) if wire.status == 418 => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(wire) => unexpected.push(wire.head),
            Err(error) => unexpected.push(error.to_string()),
        }
    }
    unexpected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_activations_do_not_grow_memory_or_files() {
    let activations = if is_full_soak() { 1000 } else { 60 };
    let dir = tempfile::tempdir().expect("a directory");
    let (file, cache) = (dir.path().join("policy.wasm"), dir.path().join("cache"));
    let deny = component("deny");
    std::fs::write(&file, &deny).expect("the policy is written");
    let toml = format!("store = \"memory:\"\nlog.filter = \"warn\"\npolicy.file = {file:?}\ncache-dir = {cache:?}");
    let gateway = Gateway::start(&toml).await;
    let activate = async |number| {
        let (status, reply) = send_request(gateway.control, "PUT", "/v1/policy", WASM, &distinct(&deny, number)).await;
        assert_eq!(status, 200, "{number}: {reply}");
    };
    // The test compares the memory of the idle process after the same load.
    let load = Load::on(gateway.data);
    for number in 1..=10 {
        load.wait_for_answers(500).await;
        activate(number).await;
    }
    load.wait_for_answers(500).await;
    let mut answered = load.end().await;
    let (after_ten, anonymous_after_ten) = (gateway.process.resident(), gateway.process.anonymous_memory());
    let (begin, load, mut peak) = (Instant::now(), Load::on(gateway.data), 0);
    for number in 11..=activations {
        // Each generation makes some decisions.
        load.wait_for_answers(20).await;
        activate(number).await;
        peak = peak.max(gateway.process.resident());
    }
    answered += load.end().await;
    let (now, anonymous) = (gateway.process.resident(), gateway.process.anonymous_memory());
    println!(
        "activations: {activations}, the last of them in {:.1} s, with {answered} answers; {after_ten} KiB after ten ({anonymous_after_ten} anonymous), {now} after all ({anonymous} anonymous), {peak} at most",
        begin.elapsed().as_secs_f64()
    );
    let reply = policy(gateway.control).await;
    assert_eq!(reply["active"]["generation"], activations + 1, "{reply}");
    assert_eq!(reply["retired"].as_array().map(Vec::len), Some(0), "{reply}");
    // Pages of the executable do not count, as the system decides when it maps them.
    assert!(
        anonymous.saturating_sub(anonymous_after_ten) * 10 <= after_ten,
        "{anonymous_after_ten} KiB of anonymous memory, of {after_ten}, became {anonymous}"
    );
    let blobs = std::fs::read_dir(cache.join("blobs")).expect("a directory").map(|file| file.expect("a file").path());
    let (compiled, stored): (Vec<_>, Vec<_>) = blobs.partition(|path| path.extension().is_some());
    assert!(compiled.len() <= 32 && stored.len() <= 8, "{} {}", compiled.len(), stored.len());
}
