//! Streams that disconnect again and again, concurrent emitters, and a Redis that is killed: each stream receives each entry once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::Wire;
use crate::emitter::{self, EmitterReport, Random};
use crate::event_source::{Source, assert_complete, stored_entries, wait_for_all};
use crate::processes::{Gateway, is_full_soak};
use crate::redis_server::{DURABLE, Redis};

const CHANNELS: [&str; 3] = ["soak", "soak:two words & more", "soak/ü🎉"];

/// Reads, is disconnected, and reconnects, until the runtime ends.
async fn follow(source: Arc<Source>, to: SocketAddr, cuts: Arc<AtomicU64>) {
    let mut random = Random(source.number as u64 + 1000);
    loop {
        if let Some(wire) = source.connect(to).await {
            read(&source, wire, &mut random).await;
            cuts.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(random.below(800))).await;
    }
}

async fn read(source: &Source, mut wire: Wire, random: &mut Random) {
    loop {
        tokio::select! {
            () = source.cut.notified() => break,
            more = wire.read_more(64 << 10) => match more {
                Ok(true) => wire.blocks(|block| source.lock().take(&block)),
                // In this test only the client ends streams.
                ended => return source.lock().unexpected.push(format!("{ended:?}")),
            }
        }
    }
    // Some more bytes, so that the connection breaks within a block.
    let limit = 1 + random.below(400);
    if let Ok(Ok(true)) = tokio::time::timeout(Duration::from_millis(100), wire.read_more(limit)).await {
        wire.blocks(|block| source.lock().take(&block));
    }
}

/// The ack of a stream: none, one that replays all or recent events, or that of a browser whose clock is fast.
fn ack(number: usize) -> Option<u64> {
    let now = tidegate::util::clock::now_ms();
    match number % 4 {
        0 => None,
        1 => Some(0),
        2 => Some(now - 1500),
        _ => Some(now + 300_000),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_delivered_once_despite_disconnects_and_a_redis_restart() {
    let (streams, time, outage) = if is_full_soak() { (500, 60, 3000) } else { (60, 8, 700) };
    let time = Duration::from_secs(time);
    let mut redis = Redis::start(DURABLE).await;
    let gateway =
        Gateway::start(&format!("store = \"{}\"\nallow-all = true\nlog.filter = \"warn\"", redis.url())).await;
    let begin = Instant::now();
    let emitters: Vec<_> = (0..3).map(|n| emitter::start(redis.port, &CHANNELS, n, 20, time)).collect();

    let cuts = Arc::new(AtomicU64::new(0));
    let mut sources: Vec<Arc<Source>> = Vec::new();
    let open = |sources: &mut Vec<Arc<Source>>| {
        let number = sources.len();
        let source = Source::new(number, &CHANNELS, ack(number));
        sources.push(Arc::clone(&source));
        tokio::spawn(follow(source, gateway.data, Arc::clone(&cuts)));
    };
    let (mut random, mut peak, mut second) = (Random(1), 0, 1);
    let (mut killed, mut restarted) = (false, false);
    while begin.elapsed() < time {
        // Two thirds of the streams open at once, and the others during the first half.
        let due =
            streams * 2 / 3 + streams * begin.elapsed().as_millis() as usize / (time.as_millis() as usize * 3 / 2);
        while sources.len() < due.min(streams) {
            open(&mut sources);
        }
        if begin.elapsed() >= Duration::from_secs(second) {
            second += 1;
            for _ in 0..streams / 10 {
                sources[random.below(sources.len() as u64) as usize].cut.notify_one();
            }
        }
        if !killed && begin.elapsed() >= time / 2 {
            killed = true;
            redis.kill().await;
        }
        if killed && !restarted && begin.elapsed() >= time / 2 + Duration::from_millis(outage) {
            restarted = true;
            redis.restart().await;
        }
        peak = peak.max(gateway.process.resident());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(restarted && sources.len() == streams);
    let (mut added, mut uncertain, mut published) = (0, 0, 0);
    for emitter in emitters {
        let report = EmitterReport::of(emitter).await;
        (added, uncertain, published) =
            (added + report.added, uncertain + report.uncertain, published + report.published);
    }
    let mut all = Vec::new();
    for channel in CHANNELS {
        all.push(stored_entries(&redis, channel).await);
    }
    let total = all.iter().map(Vec::len).sum::<usize>() as u64;
    assert!(
        (added..=added + uncertain).contains(&total),
        "Redis has {total} entries; {added} were added, and {uncertain} may have been added"
    );

    // Every stream completes after at most one reconciliation; then each reconnects once more, and receives nothing new.
    let late = wait_for_all(&sources, Duration::from_secs(20), |received| received.has_all(&all)).await;
    let settled = begin.elapsed();
    let before: Vec<_> = sources.iter().map(|source| source.lock().connections).collect();
    sources.iter().for_each(|source| source.cut.notify_one());
    for (source, before) in sources.iter().zip(before) {
        let reconnected = wait_for_all(std::slice::from_ref(source), Duration::from_secs(20), |received| {
            received.connections > before && received.is_open()
        });
        assert_eq!(reconnected.await, 0, "all streams reconnect");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    peak = peak.max(gateway.process.resident());

    let deliveries = assert_complete(&sources, &all);
    assert_eq!(late, 0, "some streams are incomplete");
    assert!(sources.iter().all(|source| source.lock().reconnects.is_empty()), "no stream was rotated");
    println!(
        "soak: {streams} streams, {total} entries ({uncertain} uncertain, {published} published), {} cuts, {deliveries} deliveries in \
         {:.1} s; the gateway: {peak} KiB at most, {:.2} s of CPU",
        cuts.load(Ordering::Relaxed),
        settled.as_secs_f64(),
        gateway.process.cpu_time(),
    );
    assert!(published < total && deliveries > total as usize * streams / 4, "{published} of {total}, {deliveries}");
}
