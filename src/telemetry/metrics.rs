//! Counters of one gateway, for Prometheus. Each event is counted where it happens, with an atomic operation. Values that exist anyway,
//! such as the number of open streams, are read at scrape time instead (`server::control::metrics`).
//!
//! No label has a value that a client, a publisher or a policy chooses, so none of them can create series.

use std::time::Duration;

use prometheus::core::{Collector, Metric};
use prometheus::proto::{Bucket, MetricFamily};
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::util::clock::now_ms;

/// Buckets in seconds: a decision takes tens of microseconds, or as long as `policy.timeout` allows.
const DECISION_BUCKETS: [f64; 19] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Buckets in seconds: the clocks of two machines differ by a few milliseconds at best; after an outage the lag is minutes.
const LAG_BUCKETS: [f64; 14] = [1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];
/// An event id that is this old is not a time, but a number that its emitter chose.
const MAX_LAG: Duration = Duration::from_secs(86_400);

/// The values of the label `port`.
const PORTS: [&str; 2] = ["data", "control"];

/// The outcome of a request for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRequestOutcome {
    /// The stream is open.
    Allowed,
    /// The policy rejected the request with this status.
    Rejected(u16),
    /// There was no decision; the kind of the failure.
    Error(&'static str),
    /// The gateway refused the request, before or after the policy; the code of the error.
    Refused(&'static str),
}

impl StreamRequestOutcome {
    /// The values of the labels `outcome` and `cause`.
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

/// The number of stream requests with one outcome and cause.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StreamRequestCount {
    /// `allowed`, `rejected`, `error` or `refused`.
    pub outcome: String,
    /// The cause of the outcome; empty for `allowed`.
    pub cause: String,
    /// The number of requests.
    pub count: u64,
}

/// The counters of a gateway, which all its components share.
pub struct Metrics {
    registry: Registry,
    stream_requests: IntCounterVec,
    /// Of [`StreamRequestOutcome::Allowed`].
    allowed_requests: IntCounter,
    /// Durations of fresh decisions and of cached decisions, in this order.
    decision_durations: [Histogram; 2],
    activation_failures: IntCounterVec,
    events_received: IntCounter,
    /// Events that were written to streams.
    pub events_sent: IntCounter,
    /// Bytes that were written to streams.
    pub stream_sent_bytes: IntCounter,
    event_lag: Histogram,
    gaps: IntCounterVec,
    replays: IntCounter,
    replay_pages: IntCounter,
    /// Open and accepted connections of the ports of [`PORTS`].
    connections: [(IntGauge, IntCounter); 2],
    connections_refused: IntCounterVec,
    connections_ended: IntCounterVec,
    /// Connections that were cut because the client did not read.
    pub slow_client_disconnects: IntCounter,
    /// Pub/sub connections to the store that were established.
    pub pubsub_connects: IntCounter,
    /// Pub/sub connections to the store that were lost or could not be established.
    pub pubsub_failures: IntCounter,
    /// Subscriptions to a channel that the store refused.
    pub subscriptions_refused: IntCounter,
    /// Changes of the master that sentinels name.
    pub master_changes: IntCounter,
    /// New certificates for the store that are not valid.
    pub certificate_errors: IntCounter,
    redirections: IntCounterVec,
    /// Replies of a cluster about its slots.
    pub topology_refreshes: IntCounter,
    /// Attempts to learn the slots of a cluster that no node answered.
    pub topology_failures: IntCounter,
    /// Messages of this node to itself through a cluster that did not arrive.
    pub canary_failures: IntCounter,
    /// 1 while a cluster says that it is down.
    pub cluster_down: IntGauge,
    /// Slots of a cluster that no node serves.
    pub slots_without_master: IntGauge,
}

impl Metrics {
    pub fn new() -> Self {
        let builder = MetricBuilder::default();
        let decision_durations = builder.histograms(
            "tidegate_decision_duration_seconds",
            "Duration of decisions, including the wait for an instance; cached is true if the decision came from the cache.",
            &["cached"],
            &DECISION_BUCKETS,
        );
        let stream_requests = builder.counters(
            "tidegate_stream_requests_total",
            "Requests for a stream by outcome: allowed; rejected by the policy (cause: class of the status); error (cause: kind of the \
             failure); refused by the gateway (cause: error code).",
            &["outcome", "cause"],
        );
        let connections = builder.gauges("tidegate_connections", "Open connections by port.", &["port"]);
        let accepted =
            builder.counters("tidegate_connections_accepted_total", "Accepted connections by port.", &["port"]);
        Self {
            allowed_requests: stream_requests.with_label_values(&StreamRequestOutcome::Allowed.labels()),
            stream_requests,
            decision_durations: [
                decision_durations.with_label_values(&["false"]),
                decision_durations.with_label_values(&["true"]),
            ],
            activation_failures: builder.counters(
                "tidegate_policy_activation_failures_total",
                "Policies that failed to activate, by the stage that they did not reach.",
                &["stage"],
            ),
            events_received: builder.counter(
                "tidegate_events_received_total",
                "Events that were added to an event buffer, once each regardless of the number of streams.",
            ),
            events_sent: builder.counter("tidegate_events_sent_total", "Events that were written to streams."),
            stream_sent_bytes: builder.counter("tidegate_stream_sent_bytes_total", "Bytes that were written to streams."),
            event_lag: builder.histogram(
                "tidegate_event_lag_seconds",
                "Time from the timestamp in an event's id (clock of the store) until the event was in its event buffer (clock of this node).",
                &LAG_BUCKETS,
            ),
            gaps: builder.counters(
                "tidegate_gaps_total",
                "Gaps in channels that were reported to streams, by reason; a gap in an event buffer counts once.",
                &["reason"],
            ),
            replays: builder.counter(
                "tidegate_replays_total",
                "Replays from the store by streams whose position is no longer in the event buffer.",
            ),
            replay_pages: builder.counter("tidegate_replay_pages_total", "Pages that replays read from the store."),
            connections: PORTS.map(|port| (connections.with_label_values(&[port]), accepted.with_label_values(&[port]))),
            connections_refused: builder.counters(
                "tidegate_connections_refused_total",
                "Connections that were closed at once because the port was full (limit), or nearly full and their address had its share (share).",
                &["port", "reason"],
            ),
            connections_ended: builder.counters(
                "tidegate_connections_ended_total",
                "Connections, and exchanges of HTTP/2 connections, that the gateway ended: by a timeout, for a new connection, for lack of memory.",
                &["port", "reason"],
            ),
            slow_client_disconnects: builder.counter(
                "tidegate_slow_client_disconnects_total",
                "Connections that were cut because the client did not read the end of a stream.",
            ),
            pubsub_connects: builder.counter(
                "tidegate_store_pubsub_connects_total",
                "Pub/sub connections to the store that were established; each after the first is a reconnect.",
            ),
            pubsub_failures: builder.counter(
                "tidegate_store_pubsub_failures_total",
                "Pub/sub connections to the store that were lost or could not be established.",
            ),
            subscriptions_refused: builder.counter(
                "tidegate_store_subscriptions_refused_total",
                "Subscriptions to a channel that the store refused; each is tried again.",
            ),
            master_changes: builder.counter(
                "tidegate_store_master_changes_total",
                "Times that the sentinels named another master than before.",
            ),
            certificate_errors: builder.counter(
                "tidegate_store_certificate_errors_total",
                "Renewed certificates for the store that are not valid, so that the gateway keeps those that it has.",
            ),
            redirections: builder.counters(
                "tidegate_store_redirections_total",
                "Commands that a node of a Redis Cluster sent elsewhere: moved (the slot has another master) or ask (it is being moved).",
                &["kind"],
            ),
            topology_refreshes: builder.counter(
                "tidegate_store_topology_refreshes_total",
                "Replies of a Redis Cluster about which node is the master of each slot.",
            ),
            topology_failures: builder.counter(
                "tidegate_store_topology_failures_total",
                "Attempts to learn the masters of a Redis Cluster that no node answered.",
            ),
            canary_failures: builder.counter(
                "tidegate_store_canary_failures_total",
                "Messages that this node sent to itself through a Redis Cluster and that did not arrive; the second in a row ends the pub/sub connection.",
            ),
            cluster_down: builder.gauge(
                "tidegate_store_cluster_down",
                "1 while a Redis Cluster says that it is down: slots have no master, or most masters cannot be reached.",
            ),
            slots_without_master: builder.gauge(
                "tidegate_store_slots_without_master",
                "Slots of a Redis Cluster that no node serves, at the last topology refresh; a failed master serves its slots until it is replaced.",
            ),
            registry: builder.0,
        }
    }

    /// Creates the series of label values that may occur, so that their first increment is an increase from 0.
    pub fn register_labels(&self, outcomes: &[StreamRequestOutcome], stages: &[&str], gap_reasons: &[&str]) {
        use StreamRequestOutcome::{Allowed, Rejected};
        for outcome in [Allowed, Rejected(400), Rejected(500), Rejected(300)].iter().chain(outcomes) {
            self.stream_requests.with_label_values(&outcome.labels());
        }
        stages.iter().for_each(|stage| drop(self.activation_failures.with_label_values(&[stage])));
        gap_reasons.iter().for_each(|reason| drop(self.gaps.with_label_values(&[reason])));
        ["moved", "ask"].iter().for_each(|kind| drop(self.redirections.with_label_values(&[kind])));
    }

    /// Creates the series of a port.
    pub fn register_port(&self, port: &str, refusals: &[&str], end_causes: &[&str]) {
        refusals.iter().for_each(|reason| drop(self.connections_refused.with_label_values(&[port, reason])));
        end_causes.iter().for_each(|reason| drop(self.connections_ended.with_label_values(&[port, reason])));
    }

    /// Counts a request for a stream.
    pub fn stream_requested(&self, outcome: StreamRequestOutcome) {
        match outcome {
            StreamRequestOutcome::Allowed => self.allowed_requests.inc(),
            _ => self.stream_requests.with_label_values(&outcome.labels()).inc(),
        }
    }

    /// Records the duration of a decision.
    pub fn decided(&self, duration: Duration, cached: bool) {
        self.decision_durations[usize::from(cached)].observe(duration.as_secs_f64());
    }

    /// Counts a failed activation, by the stage that the policy did not reach.
    pub fn policy_activation_failed(&self, stage: &str) {
        self.activation_failures.with_label_values(&[stage]).inc();
    }

    /// Counts an event that was added to an event buffer; `ms` is the time in its id.
    pub fn event_received(&self, ms: u64) {
        self.events_received.inc();
        // Saturating, because the store's clock may be ahead.
        let lag = Duration::from_millis(now_ms().saturating_sub(ms));
        if lag < MAX_LAG {
            self.event_lag.observe(lag.as_secs_f64());
        }
    }

    /// Counts a gap.
    pub fn gap(&self, reason: &str) {
        self.gaps.with_label_values(&[reason]).inc();
    }

    /// Counts a page that a replay read from the store.
    pub fn replay_page(&self, first: bool) {
        if first {
            self.replays.inc();
        }
        self.replay_pages.inc();
    }

    /// Counts a command that a node of a cluster redirected: `moved` or `ask`.
    pub fn redirected(&self, kind: &str) {
        self.redirections.with_label_values(&[kind]).inc();
    }

    /// Counts a connection that was refused.
    pub fn connection_refused(&self, port: &str, reason: &str) {
        self.connections_refused.with_label_values(&[port, reason]).inc();
    }

    /// Counts a connection, or an exchange of an HTTP/2 connection, that the gateway ended.
    pub fn connection_ended(&self, port: &str, reason: &str) {
        self.connections_ended.with_label_values(&[port, reason]).inc();
    }

    /// Counts an accepted connection. It counts as open until the guard is dropped.
    pub fn connection(&self, port: &str) -> ConnectionGuard {
        let (open, accepted) = &self.connections[usize::from(port != PORTS[0])];
        accepted.inc();
        open.inc();
        ConnectionGuard(open.clone())
    }

    /// The current values of all metrics.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The number of stream requests by outcome and cause.
    pub fn stream_requests(&self) -> Vec<StreamRequestCount> {
        let families = self.stream_requests.collect();
        let counts = families.iter().flat_map(MetricFamily::get_metric).map(|metric| {
            let label = |name: &str| metric.get_label().iter().find(|label| label.name() == name);
            let label = |name: &str| label(name).map_or_else(String::new, |label| label.value().to_owned());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was an integer before")]
            let count = metric.get_counter().get_value() as u64;
            StreamRequestCount { outcome: label("outcome"), cause: label("cause"), count }
        });
        counts.collect()
    }

    /// Cumulative buckets of the duration of all decisions, cached ones included: upper bound in seconds, and the number of decisions
    /// up to it.
    pub fn decision_buckets(&self) -> Vec<(f64, u64)> {
        let bounds = DECISION_BUCKETS.iter().copied().chain([f64::INFINITY]);
        let mut all: Vec<(f64, u64)> = bounds.map(|bound| (bound, 0)).collect();
        for histogram in self.decision_durations.iter().map(Metric::metric) {
            let histogram = histogram.get_histogram();
            let counts = histogram.get_bucket().iter().map(Bucket::cumulative_count);
            for (sum, count) in all.iter_mut().zip(counts.chain([histogram.get_sample_count()])) {
                sum.1 += count;
            }
        }
        all
    }

    /// The number of events received and sent.
    pub fn events(&self) -> (u64, u64) {
        (self.events_received.get(), self.events_sent.get())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts a connection as open until it is dropped.
pub struct ConnectionGuard(IntGauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Creates metrics and registers each of them once.
#[derive(Default)]
pub struct MetricBuilder(pub Registry);

impl MetricBuilder {
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub fn float_counter(&self, name: &str, help: &str) -> Counter {
        self.register(Counter::new(name, help))
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    #[expect(clippy::expect_used, reason = "names and labels are constants; any scrape would show a wrong one")]
    fn register<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let collector = metric.expect("a valid name");
        self.0.register(Box::new(collector.clone())).expect("a unique name");
        collector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_buckets_include_cached_decisions() {
        let metrics = Metrics::new();
        for (micros, cached) in [(5, true), (30, false), (30, false), (2_000, false), (60_000_000, false)] {
            metrics.decided(Duration::from_micros(micros), cached);
        }
        let buckets = metrics.decision_buckets();
        let up_to = |bound: f64| buckets.iter().find(|bucket| bucket.0 >= bound).map(|bucket| bucket.1);
        assert_eq!([up_to(1e-5), up_to(5e-5), up_to(1.0), up_to(1e9)], [Some(1), Some(3), Some(4), Some(5)]);
    }

    #[test]
    fn stream_requests_are_counted_by_outcome_and_cause() {
        use StreamRequestOutcome::{Allowed, Error, Refused, Rejected};
        let metrics = Metrics::new();
        metrics.register_labels(&[Refused("draining")], &["tested"], &["trimmed"]);
        for outcome in [Allowed, Rejected(403), Rejected(401), Error("trap")] {
            metrics.stream_requested(outcome);
        }
        let count = |outcome: &str, cause: &str| {
            metrics.stream_requests().into_iter().find(|c| c.outcome == outcome && c.cause == cause).map(|c| c.count)
        };
        assert_eq!(
            [count("allowed", ""), count("rejected", "4xx"), count("error", "trap")],
            [Some(1), Some(2), Some(1)]
        );
        assert_eq!([count("refused", "draining"), count("error", "cpu")], [Some(0), None]);
    }

    #[test]
    fn event_ids_that_are_not_times_do_not_count_as_lag() {
        let metrics = Metrics::new();
        let now = now_ms();
        for ms in [5, now - 100, now + 60_000] {
            metrics.event_received(ms);
        }
        assert_eq!((metrics.events_received.get(), metrics.event_lag.get_sample_count()), (3, 2));
        assert!(metrics.event_lag.get_sample_sum() < 30.0);
    }
}
