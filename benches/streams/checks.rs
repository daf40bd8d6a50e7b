//! What swaps and revocations ask of each open and each event: small parts, in this process, one at a time.

use std::hint::black_box;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tidegate::authz::revocation_list::{Revocation, RevocationList};
use tidegate::policy::Grant;
use tidegate::policy::stream_selector::StreamSelector;
use tidegate::stream::registry::{AbortSignal, StreamInfo, StreamRegistry};
use tidegate::telemetry::metrics::{Metrics, StreamRequestOutcome};

use super::median;

const TURN: u32 = 20_000;
const TURNS: usize = 11;
/// Streams that are there already, and readers who are kept out.
const OTHERS: usize = 10_000;

pub async fn measure() {
    println!("\n### What is asked of each open and each event\n");
    println!("| | ns |\n| --- | ---: |");
    let streams = StreamRegistry::new(2 * OTHERS);
    let first = open(&streams);
    row("a place in the registry of streams, and back", || drop(black_box(open(&streams))));
    let others: Vec<_> = (0..OTHERS).map(|_| open(&streams)).collect();
    row(&format!("the same beside {OTHERS} streams"), || drop(black_box(open(&streams))));
    row("an event: whether the stream shall end", || {
        black_box(first.is_end_requested(Waker::noop()));
    });
    drop(others);
    let (denied, channels) = (RevocationList::default(), ["alice-news".to_owned()]);
    let grant = Grant { subject: Some("alice".into()), ..Grant::default() };
    row("an open: who is kept out, nobody", || assert!(!black_box(&denied).revokes(&grant, &channels)));
    let revocations = (0..OTHERS).map(|number| Revocation {
        id: number.to_string().into(),
        selector: StreamSelector { subject: Some(format!("mallory-{number}").into()), channel: None },
        until: u64::MAX,
    });
    denied.replace(revocations.collect());
    row(&format!("the same, {OTHERS} others"), || assert!(!black_box(&denied).revokes(&grant, &channels)));
    let metrics = Metrics::new();
    row("an open: counted", || metrics.stream_requested(black_box(StreamRequestOutcome::Allowed)));
    row("a connection: counted, and gone", || drop(black_box(metrics.connection("data"))));
    row("an event: counted", || {
        metrics.events_sent(black_box(1));
        metrics.bytes_sent(black_box(200));
    });
}

fn open(streams: &StreamRegistry) -> tidegate::stream::registry::StreamPermit {
    let permit = streams.admit(AbortSignal::default()).expect("there is room");
    let reader = StreamInfo {
        request_id: "0123456789abcdef".into(),
        subject: Some("alice".into()),
        channels: [Arc::from("alice-news")].into(),
        address: "192.0.2.7".into(),
        since: 0,
        expires_at: None,
        generation: 1,
    };
    permit.register(reader, None);
    permit
}

fn row(name: &str, mut one: impl FnMut()) {
    let mut turn = || {
        let start = Instant::now();
        (0..TURN).for_each(|_| one());
        nanos(start.elapsed())
    };
    turn();
    println!("| {name} | {:.0} |", median((0..TURNS).map(|_| turn()).collect()));
}

fn nanos(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(TURN)
}
