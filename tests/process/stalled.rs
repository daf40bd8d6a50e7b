//! Clients that stop reading: memory stays within the documented bound, and no event is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use tokio::task::JoinHandle;

use crate::client::Wire;
use crate::control_port::metric;
use crate::memory::{NOISE_BYTES, SETTLE_TIME, allocated};
use crate::processes::{Gateway, is_full_soak, with_timeout};
use crate::redis_server::Redis;

/// The term of a stream over HTTP/1.1 in docs/configuration.md#memory.
const STREAM_TERM: usize = 48 << 10;
/// Bytes of an event's data. Two such events, which are nearly too large to be copied, fit in the largest chunk.
const SIZE: usize = 16_000;

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

/// Emits the events with these numbers, as a stock emitter does, and adds their ids.
async fn emit(redis: &mut MultiplexedConnection, numbers: std::ops::Range<usize>, ids: &mut Vec<String>) {
    for first in numbers.clone().step_by(100) {
        let batch = first..(first + 100).min(numbers.end);
        let mut add = redis::pipe();
        for n in batch.clone() {
            add.cmd("XADD").arg("flood").arg("*").arg(&["data", &data_of(n), "event", "e", "channel", "flood"]);
        }
        let added: Vec<String> = add.query_async(redis).await.expect("added");
        let mut publish = redis::pipe();
        for (n, id) in batch.zip(&added) {
            let payload = format!("{{\"data\":{},\"event\":\"e\",\"channel\":\"flood\",\"id\":\"{id}\"}}", data_of(n));
            publish.cmd("PUBLISH").arg("flood").arg(payload).ignore();
        }
        publish.exec_async(redis).await.expect("published");
        ids.extend(added);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_clients_stay_within_the_memory_bound_and_lose_no_events() {
    let (streams, events, buffer, replay) = if is_full_soak() { (200, 5_000, 16, 1) } else { (32, 400, 2, 1) };
    let redis = Redis::start(&[]).await;
    let gateway = Gateway::start(&format!(
        "store = \"{}\"\nallow-all = true\nlog.filter = \"warn\"\nstream.buffer-memory = \"{buffer}MiB\"\n\
         stream.replay-memory = \"{replay}MiB\"",
        redis.url()
    ))
    .await;
    // A client that keeps reading shows when the gateway has received everything, and that stalled clients do not delay it.
    let active = Reader::open(&gateway).await;
    let received = Arc::clone(&active.received);
    let active = active.read(3 * events, |n, frame| frame.contains(&format!("\"n\":{},", 1_000_000 + n)));
    let mut connection = redis.connect().await;
    let mut ids = Vec::with_capacity(3 * events);
    // The bound of a failure: other tests share the machine.
    let timeout = Duration::from_secs(if is_full_soak() { 900 } else { 120 });
    let mut emit_and_deliver = async || {
        let first = ids.len();
        emit(&mut connection, first..first + events, &mut ids).await;
        let begin = Instant::now();
        while received.load(Ordering::Relaxed) < ids.len() && begin.elapsed() < timeout {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let received = received.load(Ordering::Relaxed);
        assert!(received == ids.len(), "the client that keeps reading has {received} of {} events", ids.len());
    };
    let idle = allocated(&gateway).await;
    // Fills the event buffer.
    emit_and_deliver().await;
    let filled = allocated(&gateway).await;
    let buffers = (buffer + replay) << 20;
    assert!(filled <= idle + buffers + (1 << 20), "{filled} bytes with a full buffer, after {idle} when idle");
    // Measured at rest: while events are delivered, they are also in transit from Redis, which is a term of its own.
    let mut add_stalled = async || {
        let mut clients = Vec::new();
        for _ in 0..streams {
            clients.push(Reader::open(&gateway).await);
        }
        emit_and_deliver().await;
        tokio::time::sleep(SETTLE_TIME).await;
        (clients, allocated(&gateway).await)
    };
    let ((first, with_first), (second, with_both)) = (add_stalled().await, add_stalled().await);
    // A replay may have begun between the two measurements.
    let (grown, bound) = (with_both.saturating_sub(with_first), streams * STREAM_TERM + (replay << 20));
    println!("memory: {streams} more streams that do not read: {grown} bytes, bound {bound}");
    assert!(grown <= bound + NOISE_BYTES, "{streams} more stalled streams take {grown} bytes; the bound is {bound}");
    let clients = [first, second];
    active.await.expect("no panic").expect("the client that keeps reading receives every event");
    let sent = metric(gateway.control, "tidegate_events_sent_total").await as usize;
    let stalled = sent - 3 * events;
    assert!(stalled < streams * 3 * events * 3 / 4, "{stalled} events fit into the sockets: the clients did not stall");

    // The stream was not trimmed, so it holds every entry.
    let stored_entries: Arc<Vec<String>> = Arc::new(ids);
    let (resumed, at_rest) = (Instant::now(), allocated(&gateway).await);
    let mut readers = Vec::new();
    for (part, clients) in clients.into_iter().enumerate() {
        let skipped = (part + 1) * events;
        for client in clients.into_iter().take(4) {
            let stored_entries = Arc::clone(&stored_entries);
            readers.push(client.read(3 * events - skipped, move |n, frame| {
                let n = skipped + n;
                let rest = frame.strip_prefix("{\"id\":\"").and_then(|rest| rest.strip_prefix(&*stored_entries[n]));
                let data = rest.and_then(|rest| rest.strip_prefix("\",\"data\":"));
                let data = data.and_then(|rest| rest.strip_suffix(",\"event\":\"e\",\"channel\":\"flood\"}"));
                data.is_some_and(|text| text == data_of(n))
            }));
        }
    }
    let mut peak = 0;
    while readers.iter().any(|reader| !reader.is_finished()) && resumed.elapsed() < timeout {
        peak = peak.max(allocated(&gateway).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "stalled: {streams} clients twice, 3 times {events} events: {idle} bytes idle, {filled} with a full buffer, {at_rest} with stalled clients, \
         {peak} while some of them read; {:.2} s of CPU",
        gateway.process.cpu_time(),
    );
    for reader in readers {
        assert!(reader.is_finished(), "a client that resumes reading has not received every event");
        reader.await.expect("no panic").expect("a client that resumes reading receives every event");
    }
    assert!(peak <= at_rest + buffers + (1 << 20), "replays: {peak} bytes, after {at_rest}");
}
