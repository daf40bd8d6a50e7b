//! Numbers of this process, for Prometheus. Whoever has something to count does so here, at the cost of an atomic; what can be looked
//! up is not counted, but read when somebody asks (`server::control::metrics`).
//!
//! No label has a value that a client, a publisher or a policy chooses.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// A policy takes tens of microseconds, or as long as `policy.timeout` lets it.
const DECISIONS: [f64; 19] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// The clocks of two machines are a few milliseconds apart at best; whoever catches up after an outage is minutes behind.
const LAGS: [f64; 14] = [1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];
/// An id that is so old is no time, but a number that its emitter chose.
const NO_TIME: Duration = Duration::from_secs(86_400);

/// What came of a client's wish for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is open.
    Allowed,
    /// The policy said no, with this status.
    Rejected(u16),
    /// It could not be decided; the kind of the failure.
    Error(&'static str),
    /// The gateway itself said no, before or behind the policy; the code of its error.
    Refused(&'static str),
}

impl Opened {
    /// The values of the two labels.
    const fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Allowed => ["allowed", ""],
            Self::Rejected(300..=399) => ["rejected", "3xx"],
            Self::Rejected(400..=499) => ["rejected", "4xx"],
            Self::Rejected(500..=599) => ["rejected", "5xx"],
            Self::Rejected(_) => ["rejected", "2xx"],
            Self::Error(kind) => ["error", kind],
            Self::Refused(code) => ["refused", code],
        }
    }
}

/// One count, with what it is of.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// `allowed`, `rejected`, `error` or `refused`.
    pub outcome: String,
    /// What of that; empty for `allowed`.
    pub cause: String,
    /// How many.
    pub count: u64,
}

/// All that is counted where it happens.
pub struct Metrics {
    registry: Registry,
    opens: IntCounterVec,
    /// Decisions of a policy, and answers that were given again.
    decisions: [Histogram; 2],
    refused: IntCounterVec,
    received: IntCounter,
    sent: IntCounter,
    sent_bytes: IntCounter,
    lag: Histogram,
    gaps: IntCounterVec,
    replays: IntCounter,
    replay_pages: IntCounter,
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    cut: IntCounter,
    store_connects: IntCounter,
    store_failures: IntCounter,
}

/// Those of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        let book = Book::default();
        let decisions = book.histograms(
            "tidegate_decision_seconds",
            "Time to a decision about a stream, waiting for an instance included; cached: whether an answer was given again.",
            &["cached"],
            &DECISIONS,
        );
        Self {
            opens: book.counters(
                "tidegate_opens_total",
                "Requests for a stream, by what came of them: allowed; rejected by the policy (cause: the status' class); error (cause: the \
                 kind of the failure); refused by the gateway (cause: the code of the error).",
                &["outcome", "cause"],
            ),
            decisions: [decisions.with_label_values(&["false"]), decisions.with_label_values(&["true"])],
            refused: book.counters(
                "tidegate_policy_refused_total",
                "Policies that did not take force, by the stage that they did not reach.",
                &["stage"],
            ),
            received: book.counter("tidegate_events_received_total", "Events that came into a channel's log, once each."),
            sent: book.counter("tidegate_events_sent_total", "Events that were written to streams."),
            sent_bytes: book.counter("tidegate_stream_sent_bytes_total", "Bytes that were written to streams."),
            lag: book.histogram(
                "tidegate_event_lag_seconds",
                "From the time in an event's id, by the store's clock, until it was in its channel's log, by this node's.",
                &LAGS,
            ),
            gaps: book.counters(
                "tidegate_gaps_total",
                "Holes that streams were told of, by reason; one in a channel's log counts once, whoever reads it.",
                &["reason"],
            ),
            replays: book.counter(
                "tidegate_replays_total",
                "Times that a stream began to read from the store by itself, behind its channel's log.",
            ),
            replay_pages: book.counter("tidegate_replay_pages_total", "Pages that streams read from the store by themselves."),
            connections: book.gauges("tidegate_connections", "Open connections.", &["port"]),
            accepted: book.counters("tidegate_connections_accepted_total", "Connections that were accepted.", &["port"]),
            cut: book.counter(
                "tidegate_connections_cut_total",
                "Connections that were cut, for their client did not read a stream to its end.",
            ),
            store_connects: book.counter(
                "tidegate_store_connects_total",
                "Connections for doorbells that the store granted; more than one is a reconnect.",
            ),
            store_failures: book.counter(
                "tidegate_store_failures_total",
                "Connections for doorbells that were lost or could not be made.",
            ),
            registry: book.0,
        }
    }

    /// Counts from 0 what may happen, so that the first time is an increase too.
    pub fn foresee(&self, opens: &[Opened], stages: &[&str], gaps: &[&str]) {
        let usual = [Opened::Allowed, Opened::Rejected(400), Opened::Rejected(500), Opened::Rejected(300)];
        for opened in usual.iter().chain(opens) {
            self.opens.with_label_values(&opened.labels());
        }
        stages.iter().for_each(|stage| drop(self.refused.with_label_values(&[stage])));
        gaps.iter().for_each(|reason| drop(self.gaps.with_label_values(&[reason])));
        for port in ["data", "control"] {
            self.accepted.with_label_values(&[port]);
            self.connections.with_label_values(&[port]);
        }
    }

    /// A client wanted a stream.
    pub fn opened(&self, what: Opened) {
        self.opens.with_label_values(&what.labels()).inc();
    }

    /// It was decided about a stream.
    pub fn decided(&self, took: Duration, cached: bool) {
        self.decisions[usize::from(cached)].observe(took.as_secs_f64());
    }

    /// A policy did not take force.
    pub fn policy_refused(&self, stage: &str) {
        self.refused.with_label_values(&[stage]).inc();
    }

    /// An event came into a log; `ms` is the time in its id.
    pub fn event_received(&self, ms: u64) {
        self.received.inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The store's clock may be ahead.
        let lag = now.saturating_sub(Duration::from_millis(ms));
        if lag < NO_TIME {
            self.lag.observe(lag.as_secs_f64());
        }
    }

    /// Events were written to a stream.
    pub fn events_sent(&self, count: u64) {
        if count > 0 {
            self.sent.inc_by(count);
        }
    }

    /// A piece of a stream's body goes out.
    pub fn bytes_sent(&self, count: usize) {
        self.sent_bytes.inc_by(count as u64);
    }

    /// There is a hole.
    pub fn gap(&self, reason: &str) {
        self.gaps.with_label_values(&[reason]).inc();
    }

    /// A stream reads a page from the store by itself.
    pub fn replay_page(&self, first: bool) {
        if first {
            self.replays.inc();
        }
        self.replay_pages.inc();
    }

    /// A connection, as long as what is answered lives.
    pub fn connection(&self, port: &str) -> Connection {
        self.accepted.with_label_values(&[port]).inc();
        let open = self.connections.with_label_values(&[port]);
        open.inc();
        Connection(open)
    }

    /// A connection was cut.
    pub fn connection_cut(&self) {
        self.cut.inc();
    }

    /// The store took a connection for doorbells.
    pub fn store_connected(&self) {
        self.store_connects.inc();
    }

    /// That was lost, or could not be made.
    pub fn store_failed(&self) {
        self.store_failures.inc();
    }

    /// All of them, as they are now.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// What came of all wishes for a stream.
    #[must_use]
    pub fn opens(&self) -> Vec<Count> {
        let families = self.opens.collect();
        let counts = families.iter().flat_map(MetricFamily::get_metric).map(|metric| {
            let label = |name: &str| metric.get_label().iter().find(|label| label.name() == name);
            let label = |name: &str| label(name).map_or_else(String::new, |label| label.value().to_owned());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was an integer before")]
            Count { outcome: label("outcome"), cause: label("cause"), count: metric.get_counter().get_value() as u64 }
        });
        counts.collect()
    }

    /// How many decisions took up to so many seconds, cached ones too: one pair a bucket, each with those of the ones before.
    #[must_use]
    pub fn decision_buckets(&self) -> Vec<(f64, u64)> {
        let mut all: Vec<(f64, u64)> =
            DECISIONS.iter().copied().chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
        for family in self.decisions.iter().flat_map(Collector::collect) {
            for histogram in family.get_metric().iter().map(|metric| metric.get_histogram()) {
                for (sum, bucket) in all.iter_mut().zip(histogram.get_bucket()) {
                    sum.1 += bucket.cumulative_count();
                }
                if let Some(last) = all.last_mut() {
                    last.1 += histogram.get_sample_count();
                }
            }
        }
        all
    }

    /// Events that came in and went out.
    #[must_use]
    pub fn events(&self) -> (u64, u64) {
        (self.received.get(), self.sent.get())
    }
}

/// A connection that is open.
pub struct Connection(IntGauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Where metrics are entered, each once.
#[derive(Default)]
pub struct Book(pub Registry);

impl Book {
    /// A number that only grows.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.enter(IntCounter::new(name, help))
    }

    /// The same for each value of labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.enter(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A number that is as it is.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.enter(IntGauge::new(name, help))
    }

    /// One with a fraction.
    pub fn float(&self, name: &str, help: &str) -> Gauge {
        self.enter(Gauge::new(name, help))
    }

    /// Seconds that only grow, up to now.
    pub fn seconds(&self, name: &str, help: &str, value: f64) {
        self.enter(Counter::new(name, help)).inc_by(value);
    }

    /// A number for each value of labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.enter(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.enter(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.enter(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    #[expect(
        clippy::expect_used,
        reason = "names and labels are constants; whatever asks for metrics would show a wrong one"
    )]
    fn enter<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("a name that Prometheus takes");
        self.0.register(Box::new(collector.clone())).expect("a name that is not taken");
        collector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_of_all_decisions() {
        let metrics = Metrics::new();
        for (micros, cached) in [(5, true), (30, false), (30, false), (2_000, false), (60_000_000, false)] {
            metrics.decided(Duration::from_micros(micros), cached);
        }
        let buckets = metrics.decision_buckets();
        let up_to = |bound: f64| buckets.iter().find(|bucket| bucket.0 >= bound).map(|bucket| bucket.1);
        assert_eq!([up_to(1e-5), up_to(5e-5), up_to(1.0), up_to(1e9)], [Some(1), Some(3), Some(4), Some(5)]);
    }

    #[test]
    fn opens_are_counted_by_what_came_of_them() {
        let metrics = Metrics::new();
        metrics.foresee(&[Opened::Refused("draining")], &["tested"], &["trimmed"]);
        for opened in [Opened::Allowed, Opened::Rejected(403), Opened::Rejected(401), Opened::Error("trap")] {
            metrics.opened(opened);
        }
        let count = |outcome: &str, cause: &str| {
            metrics.opens().into_iter().find(|c| c.outcome == outcome && c.cause == cause).map(|c| c.count)
        };
        assert_eq!(
            [count("allowed", ""), count("rejected", "4xx"), count("error", "trap")],
            [Some(1), Some(2), Some(1)]
        );
        assert_eq!([count("refused", "draining"), count("error", "cpu")], [Some(0), None]);
    }

    #[test]
    fn ids_that_are_no_times_say_nothing_of_the_lag() {
        let metrics = Metrics::new();
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis());
        let now = now.expect("a time");
        for ms in [5, now - 100, now + 60_000] {
            metrics.event_received(ms);
        }
        assert_eq!((metrics.received.get(), metrics.lag.get_sample_count()), (3, 2));
        assert!(metrics.lag.get_sample_sum() < 30.0);
    }
}
