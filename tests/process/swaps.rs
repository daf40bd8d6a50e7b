//! A policy that is replaced over and over: memory does not grow, and whoever asks meanwhile is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::children::{Gateway, is_full};
use crate::client::Wire;
use crate::control_port::{WASM, ask, policy};
use crate::guests::component;
use crate::rollout::distinct;

/// A client that asks again and again; says how often, and what was wrong.
async fn asks(gateway: std::net::SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Vec<String> {
    let mut wrong = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match Wire::get(gateway, "/api/realtime?channel=c", None, None).await {
            Ok(wire) if wire.status == 418 => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(wire) => wrong.push(wire.head),
            Err(error) => wrong.push(error.to_string()),
        }
        // Not as often as it can: then it would measure how far instances pile up on a busy machine.
        tokio::time::sleep(Duration::from_millis(2)).await;
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
    let toml = format!(
        "store = \"memory:\"\nlog.filter = \"warn\"\npolicy.file = {file:?}\npolicy.concurrency = 8\npolicy.rotate-within = \"0s\"\ncache-dir = {cache:?}"
    );
    let gateway = Gateway::start(&toml).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> =
        (0..2).map(|_| tokio::spawn(asks(gateway.data, Arc::clone(&stop), Arc::clone(&answered)))).collect();
    let (begin, mut after_ten, mut most) = (Instant::now(), 0, 0);
    for number in 1..=swaps {
        let (status, told) = ask(gateway.control, "PUT", "/v1/policy", WASM, &distinct(&deny, number)).await;
        assert_eq!(status, 200, "{number}: {told}");
        let resident = gateway.process.resident();
        most = most.max(resident);
        if number == 10 {
            after_ten = resident;
        }
    }
    let took = begin.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut wrong = Vec::new();
    for client in clients {
        wrong.extend(client.await.expect("a client"));
    }
    let told: Value = policy(gateway.control).await;
    let (now, answered) = (gateway.process.resident(), answered.load(Ordering::Relaxed));
    println!(
        "swaps: {swaps} in {:.1} s beside {answered} answers; {after_ten} KiB after ten, {now} after all, {most} at the most",
        took.as_secs_f64()
    );
    assert!(wrong.is_empty(), "{} are wrong, such as {}", wrong.len(), wrong[0]);
    assert!(answered > swaps as usize, "{answered}");
    assert_eq!(told["in_force"]["number"], swaps + 1, "{told}");
    assert_eq!(told["old"].as_array().map(Vec::len), Some(0), "{told}");
    assert!(now * 10 <= after_ten * 11, "{after_ten} KiB became {now}");
    let count = |folder: &str| std::fs::read_dir(cache.join(folder)).expect("a folder").count();
    assert!(count("compiled") <= 32 && count("policies") <= 16, "{} {}", count("compiled"), count("policies"));
}
