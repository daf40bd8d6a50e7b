//! Clients that stop reading: memory stays within the documented bound, and no event is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::client::Wire;
use crate::processes::{Gateway, is_full_soak, with_timeout};
use crate::redis_server::Redis;

/// `server.max-header-size`, in KiB.
const HEAD: usize = 64;
/// Bytes of an event's data.
const SIZE: usize = 1024;

/// A client of the channel, with the shared number of events that it has received.
struct Reader {
    wire: Wire,
    received: Arc<AtomicUsize>,
}

impl Reader {
    async fn open(gateway: &Gateway) -> Self {
        // A small receive buffer, so that the gateway is blocked soon.
        let target = "/api/realtime?channel=flood";
        let mut wire =
            with_timeout("a stream", Wire::get(gateway.data, target, None, Some(32 << 10))).await.expect("an answer");
        assert_eq!(wire.status, 200);
        let mut connected = false;
        with_timeout("a channel opens", async {
            while !connected {
                wire.blocks(|block| connected |= block.data.contains("connected"));
                if !connected {
                    wire.read_more(64 << 10).await.expect("the connection holds");
                }
            }
        })
        .await;
        Self { wire, received: Arc::default() }
    }

    /// Reads this many events; `expect` checks each of them.
    fn read(
        mut self,
        count: usize,
        expect: impl Fn(usize, &str) -> bool + Send + 'static,
    ) -> JoinHandle<Result<(), String>> {
        tokio::spawn(async move {
            let mut n = 0;
            while n < count {
                self.wire.read_more(256 << 10).await.map_err(|error| format!("after {n} events: {error}"))?;
                let mut wrong = None;
                self.wire.blocks(|block| {
                    if wrong.is_none() && !block.data.is_empty() && !block.data.starts_with(r#"{"type":"ping""#) {
                        if !expect(n, block.data) {
                            wrong = Some(format!("event {n} is {:.150}", block.data));
                        }
                        n += 1;
                    }
                });
                wrong.map_or(Ok(()), Err)?;
                self.received.store(n, Ordering::Relaxed);
            }
            Ok(())
        })
    }
}

/// The data of an event.
fn data_of(n: usize) -> String {
    format!("{{\"n\":{},\"pad\":\"{}\"}}", 1_000_000 + n, "x".repeat(SIZE - 21))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_clients_stay_within_the_memory_bound_and_lose_no_events() {
    let (streams, events, buffer, replay) = if is_full_soak() { (100, 100_000, 16, 8) } else { (20, 10_000, 4, 2) };
    let redis = Redis::start(&[]).await;
    let gateway = Gateway::start(&format!(
        "store = \"{}\"\nallow-all = true\nlog.filter = \"warn\"\nserver.max-header-size = \"{HEAD}KiB\"\nstream.buffer-memory = \"{buffer}MiB\"\n\
         stream.replay-memory = \"{replay}MiB\"",
        redis.url()
    ))
    .await;
    let idle = gateway.process.resident();
    // The bound of docs/configuration.md; data in transit from Redis is added to it.
    let bound = idle + (buffer + replay) * 1024 + (streams + 1) * (2 * HEAD + 64);
    let in_flight = 24 * 1024;
    let mut clients = Vec::new();
    for _ in 0..streams {
        clients.push(Reader::open(&gateway).await);
    }
    let connected = gateway.process.resident();
    let begin = Instant::now();
    // A client that keeps reading shows when the gateway has received everything, and that stalled clients do not delay it.
    let active = Reader::open(&gateway).await;
    let received = Arc::clone(&active.received);
    let active = active.read(events, |n, frame| frame.contains(&format!("\"n\":{},", 1_000_000 + n)));
    let mut peak = connected;
    let mut ids = Vec::with_capacity(events);
    let mut connection = redis.connect().await;
    for batch in 0..events / 100 {
        let range = batch * 100..(batch + 1) * 100;
        let mut add = redis::pipe();
        for n in range.clone() {
            add.cmd("XADD").arg("flood").arg("*").arg(&["data", &data_of(n), "event", "e", "channel", "flood"]);
        }
        let added: Vec<String> = add.query_async(&mut connection).await.expect("added");
        let mut publish = redis::pipe();
        for (n, id) in range.zip(&added) {
            let payload = format!("{{\"data\":{},\"event\":\"e\",\"channel\":\"flood\",\"id\":\"{id}\"}}", data_of(n));
            publish.cmd("PUBLISH").arg("flood").arg(payload).ignore();
        }
        publish.exec_async(&mut connection).await.expect("published");
        ids.extend(added);
        peak = peak.max(gateway.process.resident());
    }
    let emitted = begin.elapsed();
    // The bound of a failure: other tests share the machine.
    let timeout = Duration::from_secs(if is_full_soak() { 900 } else { 120 });
    let mut finished = false;
    while !finished && begin.elapsed() < timeout {
        finished = active.is_finished();
        peak = peak.max(gateway.process.resident());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(finished, "the client that keeps reading has {} of {events} events", received.load(Ordering::Relaxed));
    active.await.expect("no panic").expect("the client that keeps reading receives every event");
    let (delivered, peak_while_stalled, cpu_while_stalled) = (begin.elapsed(), peak, gateway.process.cpu_time());

    // The stream was not trimmed, so it holds every entry.
    let stored_entries: Arc<Vec<String>> = Arc::new(ids);
    let resumed = Instant::now();
    let mut counters = Vec::new();
    let mut readers = Vec::new();
    for client in clients {
        counters.push(Arc::clone(&client.received));
        let stored_entries = Arc::clone(&stored_entries);
        readers.push(client.read(events, move |n, frame| {
            let rest = frame.strip_prefix("{\"id\":\"").and_then(|rest| rest.strip_prefix(&*stored_entries[n]));
            let data = rest.and_then(|rest| rest.strip_prefix("\",\"data\":"));
            let data = data.and_then(|rest| rest.strip_suffix(",\"event\":\"e\",\"channel\":\"flood\"}"));
            data.is_some_and(|text| text == data_of(n))
        }));
    }
    let mut peak_after_resume = gateway.process.resident();
    while readers.iter().any(|reader| !reader.is_finished()) && resumed.elapsed() < timeout {
        peak_after_resume = peak_after_resume.max(gateway.process.resident());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "stalled: {streams} clients, {events} events; emitted in {:.1} s, read by one in {:.1} s, by the others later in {:.1} s; the gateway: \
         {idle} KiB idle, {connected} with its clients, {peak_while_stalled} while they were stalled, {peak_after_resume} after they resumed, bound \
         {bound} (+ {in_flight} in flight); {cpu_while_stalled:.2} s and {:.2} s of CPU",
        emitted.as_secs_f64(),
        delivered.as_secs_f64(),
        resumed.elapsed().as_secs_f64(),
        gateway.process.cpu_time() - cpu_while_stalled,
    );
    let incomplete: Vec<usize> = counters.iter().map(|c| c.load(Ordering::Relaxed)).filter(|n| *n < events).collect();
    assert!(incomplete.is_empty(), "{} clients received only {incomplete:?} of {events} events", incomplete.len());
    for reader in readers {
        reader.await.expect("no panic").expect("a client that resumes reading receives every event");
    }
    let peak = peak_while_stalled.max(peak_after_resume);
    assert!(peak <= bound + in_flight, "{peak} KiB; the bound is {bound} (+ {in_flight})");
}
