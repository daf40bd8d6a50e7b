//! The cost of single checks for each open and each event, such as those for rotations and revocations, in this process.

use std::hint::black_box;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tidegate::authz::revocation_list::{Revocation, RevocationList};
use tidegate::policy::Grant;
use tidegate::policy::stream_selector::StreamSelector;
use tidegate::stream::registry::{AbortSignal, StreamInfo, StreamRegistry};
use tidegate::telemetry::metrics::{Metrics, StreamRequestOutcome};

use crate::common::median;
use crate::common::report::{Report, Table, number};

const CALLS_PER_ROUND: u32 = 20_000;
const ROUNDS: usize = 11;
/// Other open streams, and active revocations of other clients.
const OTHERS: usize = 10_000;

pub fn measure(report: &Report) {
    let mut table = Table::new("Checks of each open and each event", &["", "ns"]);
    let streams = StreamRegistry::new(2 * OTHERS);
    let first = open(&streams);
    row(&mut table, "an open: registered in the stream registry, and removed", || drop(black_box(open(&streams))));
    let others: Vec<_> = (0..OTHERS).map(|_| open(&streams)).collect();
    row(&mut table, &format!("the same with {OTHERS} other streams"), || drop(black_box(open(&streams))));
    row(&mut table, "an event: whether the end of the stream is requested", || {
        black_box(first.is_end_requested(Waker::noop()));
    });
    drop(others);
    let (revocation_list, channels) = (RevocationList::default(), ["alice-news".to_owned()]);
    let grant = Grant { subject: Some("alice".into()), ..Grant::default() };
    row(&mut table, "an open: whether it is revoked, without revocations", || {
        assert!(!black_box(&revocation_list).revokes(&grant, &channels));
    });
    let revocations = (0..OTHERS).map(|number| Revocation {
        id: number.to_string().into(),
        selector: StreamSelector { subject: Some(format!("mallory-{number}").into()), channel: None },
        until: u64::MAX,
    });
    revocation_list.replace(revocations.collect());
    row(&mut table, &format!("the same with {OTHERS} revocations of other clients"), || {
        assert!(!black_box(&revocation_list).revokes(&grant, &channels));
    });
    let metrics = Metrics::new();
    row(&mut table, "an open: counted", || metrics.stream_requested(black_box(StreamRequestOutcome::Allowed)));
    row(&mut table, "a connection: counted when it opens and when it closes", || {
        drop(black_box(metrics.connection("data")))
    });
    row(&mut table, "an event: counted", || {
        metrics.events_sent.inc_by(black_box(1));
        metrics.stream_sent_bytes.inc_by(black_box(200));
    });
    report.add("checks", &table);
}

fn open(streams: &StreamRegistry) -> tidegate::stream::registry::StreamPermit {
    let permit = streams.admit(None, AbortSignal::default()).expect("a permit");
    let info = StreamInfo {
        request_id: "0123456789abcdef".into(),
        subject: Some("alice".into()),
        channels: [Arc::from("alice-news")].into(),
        address: Some(std::net::IpAddr::from([192, 0, 2, 7])),
        since: 0,
        expires_at: None,
        generation: 1,
    };
    permit.register(info, None);
    permit
}

fn row(table: &mut Table, name: &str, mut check: impl FnMut()) {
    let mut round = || {
        let start = Instant::now();
        (0..CALLS_PER_ROUND).for_each(|_| check());
        nanos_per_call(start.elapsed())
    };
    // The first round warms up.
    round();
    table.row(&[&name, &number(median((0..ROUNDS).map(|_| round()).collect()), 0)]);
}

fn nanos_per_call(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e9 / f64::from(CALLS_PER_ROUND)
}
