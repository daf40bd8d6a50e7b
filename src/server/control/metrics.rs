//! `GET /metrics`: the counters of this gateway, and values that are looked up at scrape time.

use http::StatusCode;
use prometheus::TextEncoder;

use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::connection::limits::PortKind;
use crate::server::control::health::{Readiness, StoreState};
use crate::server::respond::{self, Response};
use crate::stream::registry::EndReason;
use crate::telemetry::metrics::MetricBuilder;
use crate::telemetry::process;

/// Media type of the Prometheus text format, with its version.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`
pub async fn answer(app: &App) -> Result<Response, ApiError> {
    let readiness = app.readiness().await;
    let builder = MetricBuilder::default();
    node(app, &builder, readiness);
    policy(app, &builder);
    decisions(app, &builder);
    streams(app, &builder);
    wasm_pool(app, &builder);
    process::register(&builder, app.started_at);
    let mut families = app.metrics.gather();
    families.extend(builder.0.gather());
    let text = TextEncoder::new().encode_to_string(&families);
    let text = text.map_err(|cause| ApiError::Internal(format!("the metrics cannot be encoded: {cause}")))?;
    Ok(respond::full(StatusCode::OK, TEXT, text))
}

fn count(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn node(app: &App, builder: &MetricBuilder, readiness: Readiness) {
    builder
        .gauges("tidegate_build_info", "Build information; always 1.", &["version"])
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
    builder
        .gauge("tidegate_store_up", "1 if the store answers a ping.")
        .set((readiness.store != StoreState::Unavailable).into());
    let synced = app.commands.are_synced();
    builder
        .gauge(
            "tidegate_fleet_commands_synced",
            "1 if all fleet commands have been processed; event delivery is paused while 0.",
        )
        .set(synced.into());
    builder
        .gauge(
            "tidegate_store_master_proven",
            "1 if this node has a recent proof that it reads from the store's current master, or needs none; event delivery is paused while 0.",
        )
        .set(app.commands.is_master_proven().into());
    builder
        .gauge("tidegate_revocations_active", "Active revocations; each refuses matching clients until it expires.")
        .set(count(app.authorizer.revocations().list().len()));
    builder
        .gauge("tidegate_ready", "1 if this node is ready for clients, as /readyz reports it.")
        .set(readiness.is_ready().into());
    builder.gauge("tidegate_draining", "1 if this node is shutting down.").set(app.is_draining().into());
    connections(app, builder);
    builder.gauge("tidegate_channels", "Channels that this node reads.").set(count(app.hub.channel_count()));
    builder
        .gauge(
            "tidegate_channel_bytes",
            "Memory used by the channels that this node reads, without their events, in bytes.",
        )
        .set(count(app.hub.channel_bytes()));
    builder
        .float_gauge(
            "tidegate_channel_check_delay_seconds",
            "How late the check of channels for events without a notification is (stream.reconcile-interval), in seconds.",
        )
        .set(app.hub.check_delay().as_secs_f64());
    builder
        .gauge("tidegate_channel_limit_bytes", "Memory limit of channels in bytes (stream.channel-memory).")
        .set(count(app.config.stream.hub.channel_memory));
    builder
        .gauge("tidegate_event_buffer_bytes", "Memory used by the event buffers of all channels in bytes.")
        .set(count(app.hub.buffer_bytes()));
    builder
        .gauge(
            "tidegate_event_buffer_limit_bytes",
            "Memory limit of the event buffers in bytes (stream.buffer-memory).",
        )
        .set(count(app.config.stream.hub.buffer_memory));
    builder
        .gauge("tidegate_replay_bytes", "Memory used by replays from the store in bytes.")
        .set(count(app.stream_context.replay_budget.used_bytes()));
    builder
        .gauge("tidegate_replay_limit_bytes", "Memory limit of replays in bytes (stream.replay-memory).")
        .set(count(app.config.stream.replay_memory));
    builder
        .gauge("tidegate_body_memory_bytes", "Memory reserved for bodies of requests and answers of /redis in bytes.")
        .set(count(app.body_budget.used_bytes()));
    builder
        .gauge("tidegate_body_memory_limit_bytes", "Memory limit of bodies and answers in bytes (server.body-memory).")
        .set(count(app.config.body_memory));
}

/// The bounds of both ports.
fn connections(app: &App, builder: &MetricBuilder) {
    let limit = builder.gauges("tidegate_connections_limit", "Maximum number of connections by port.", &["port"]);
    let used = builder.gauges(
        "tidegate_connection_memory_bytes",
        "Memory for large heads that are arriving and for responses that are not yet written, by port, in bytes.",
        &["port"],
    );
    let max = builder.gauges(
        "tidegate_connection_memory_limit_bytes",
        "Limit of this memory by port in bytes (server.connection-memory for the data port).",
        &["port"],
    );
    for kind in [PortKind::Data, PortKind::Control] {
        let (limits, port) = (app.port_limits(kind), kind.as_str());
        limit.with_label_values(&[port]).set(count(limits.max_connections));
        used.with_label_values(&[port]).set(count(limits.memory.total()));
        max.with_label_values(&[port]).set(count(limits.max_memory));
    }
}

fn policy(app: &App, builder: &MetricBuilder) {
    let authorizer = &app.authorizer;
    let info = builder.gauges("tidegate_policy_info", "The active policy, by its digest; always 1.", &["digest"]);
    if let Some(policy) = authorizer.active() {
        info.with_label_values(&[&*policy.digest]).set(1);
        builder
            .gauge("tidegate_policy_generation", "Generation of the active policy: counts activations in this process.")
            .set(count(policy.generation));
        #[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
        builder
            .float_gauge(
                "tidegate_policy_activation_timestamp_seconds",
                "Time of the last policy activation since unix epoch in seconds.",
            )
            .set(policy.since as f64 / 1e3);
    }
    builder
        .counter("tidegate_policy_activations_total", "Policy activations, including the first one.")
        .inc_by(*authorizer.generations().borrow());
    let retired = authorizer.retired();
    builder
        .gauge(
            "tidegate_policy_retired_generations",
            "Retired policy generations that still have decisions in progress.",
        )
        .set(count(retired.len()));
    builder
        .gauge("tidegate_policy_retired_decisions_in_progress", "In-progress decisions of retired policy generations.")
        .set(count(retired.iter().map(|generation| generation.decisions).sum::<usize>()));
    builder
        .gauge(
            "tidegate_decisions_in_progress",
            "Decisions that have an instance, not counting those that wait for one.",
        )
        .set(count(authorizer.evaluating()));
    builder
        .gauge("tidegate_decisions_limit", "Maximum number of concurrent decisions (policy.concurrency).")
        .set(count(app.config.limits.concurrency));
    builder
        .gauge("tidegate_decisions_waiting_for_jwks", "Decisions that wait for the keys of a token profile.")
        .set(count(authorizer.waiting_for_keys()));
    builder
        .gauge("tidegate_decision_cache_bytes", "Approximate size of the decision cache in bytes.")
        .set(count(authorizer.cached_bytes()));
    builder
        .gauge(
            "tidegate_rejected_requests_delayed",
            "Requests of rejected clients that are being delayed (reject.delay).",
        )
        .set(count(app.delayed_requests()));
}

/// Decision log, recording and shadow policy. Their counters exist and are 0 where none is configured.
fn decisions(app: &App, builder: &MetricBuilder) {
    let shadow = app.shadow.current();
    if let Some(shadow) = &shadow {
        let info = builder.gauges("tidegate_shadow_info", "The shadow policy, by its digest; always 1.", &["digest"]);
        info.with_label_values(&[&**shadow.policy().digest()]).set(1);
    }
    let shadow_decisions = builder.counters(
        "tidegate_shadow_decisions_total",
        "Shadow decisions by result; starts at 0 for each new shadow policy.",
        &["result"],
    );
    let counts = shadow.map(|shadow| shadow.counts()).unwrap_or_default();
    for (result, count) in counts.named() {
        shadow_decisions.with_label_values(&[result]).inc_by(count);
    }
    for (name, help, lines) in [
        ("tidegate_decision_log_lines_total", "Lines of the decision log, written or dropped.", app.audit.log_counts()),
        (
            "tidegate_log_lines_total",
            "Lines of the log, written or dropped because standard error was not read fast enough.",
            app.log_lines.get().map(|lines| lines.counts()).unwrap_or_default(),
        ),
        (
            "tidegate_recording_lines_total",
            "Lines of the decision recording, written or dropped.",
            app.audit.recording_counts(),
        ),
    ] {
        let counts = builder.counters(name, help, &["result"]);
        counts.with_label_values(&["written"]).inc_by(lines.written);
        counts.with_label_values(&["dropped"]).inc_by(lines.dropped);
    }
}

fn streams(app: &App, builder: &MetricBuilder) {
    builder
        .gauge("tidegate_streams", "Open streams, including those that wait for their decision.")
        .set(count(app.streams.count()));
    builder
        .gauge("tidegate_streams_limit", "Maximum number of open streams (stream.max-streams).")
        .set(count(app.config.stream.max_streams));
    let ended = builder.counters(
        "tidegate_streams_ended_total",
        "Streams that the gateway closed so that their clients reconnect, by reason: rotation, revocation, drain or expired grant.",
        &["reason"],
    );
    for reason in EndReason::ALL {
        ended.with_label_values(&[reason.as_str()]).inc_by(app.streams.ended(reason));
    }
}

fn wasm_pool(app: &App, builder: &MetricBuilder) {
    let pool = app.authorizer.compiler().and_then(|compiler| compiler.engines().pool_usage());
    // Without enough address space the engines have no pool.
    let Some(pool) = pool else { return };
    let in_use = builder.gauges(
        "tidegate_wasm_pool_in_use",
        "Resources of the WebAssembly instance pool that are in use.",
        &["resource"],
    );
    for (resource, number) in [
        ("component_instances", count(pool.component_instances)),
        ("core_instances", count(pool.core_instances)),
        ("memories", count(pool.memories)),
        ("tables", count(pool.tables)),
        ("stacks", count(pool.stacks)),
    ] {
        in_use.with_label_values(&[resource]).set(number);
    }
    builder
        .gauge("tidegate_wasm_pool_idle_memory_bytes", "Resident memory of idle linear memories in the pool in bytes.")
        .set(count(pool.idle_memory_bytes));
    builder
        .gauge("tidegate_wasm_pool_idle_table_bytes", "Resident memory of idle tables in the pool in bytes.")
        .set(count(pool.idle_table_bytes));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use http_body_util::BodyExt;

    use super::*;
    use crate::artifact::sequence_ledger::SignaturePolicy;
    use crate::authz::authorizer::Authorizer;
    use crate::channel::hub::Hub;
    use crate::config::Config;
    use crate::rollout::Observers;
    use crate::store::EventStore;
    use crate::store::memory::MemoryStore;
    use crate::telemetry::metrics::Metrics;
    use crate::util::clock::system_clock;
    use crate::util::golden::golden;
    use crate::wasm::component::Policy;
    use crate::wasm::engine;

    const EXAMPLE: &[u8] = include_bytes!("../../../guest-examples/rust-role-based/policy.wasm");

    async fn scrape() -> String {
        let raw = toml::from_str("store = 'memory:'\nallow-all = true").expect("TOML");
        let config = Config::validate(raw).expect("a configuration");
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new(1 << 20, Default::default(), system_clock()));
        let env = config.env(Arc::clone(&store));
        let metrics = Arc::<Metrics>::default();
        let authorizer =
            Authorizer::new(engine::shared().expect("an engine"), env, config.limits.clone(), Arc::clone(&metrics));
        let observers = Observers::new(config.limits.shadow_concurrency);
        let compiler = authorizer.compiler().expect("it has one");
        authorizer.activate(Policy::new(compiler, EXAMPLE).expect("it loads"));
        let hub = Hub::start(store, config.stream.hub.clone(), metrics);
        let response = answer(&App::new(
            config,
            "node".into(),
            hub,
            Arc::new(authorizer),
            observers,
            None,
            SignaturePolicy::default(),
        ))
        .await
        .expect("metrics");
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &TEXT.parse().expect("a value"))
        );
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    /// Names, types, labels and help: dashboards and alerts depend on them.
    #[tokio::test]
    async fn golden_names() {
        let text = scrape().await;
        let mut lines = BTreeSet::new();
        for line in text.lines() {
            if let Some(info) = line.strip_prefix("# ") {
                let (what, rest) = info.split_once(' ').expect("HELP or TYPE");
                let (name, rest) = rest.split_once(' ').expect("a name");
                lines.insert(format!("{name} {what} {rest}"));
            } else if let Some((name, labels)) = line.split_once('{') {
                let labels = labels.split("=\"").filter_map(|part| part.rsplit([',', '{', '"']).next());
                let labels: Vec<&str> = labels.filter(|label| !label.starts_with('}') && *label != "le").collect();
                let name = name.strip_suffix("_bucket").unwrap_or(name);
                if !labels.is_empty() && !name.ends_with("_sum") && !name.ends_with("_count") {
                    lines.insert(format!("{name} LABELS {}", labels.join(" ")));
                }
            }
        }
        golden("metrics.txt", &lines.into_iter().fold(String::new(), |text, line| text + &line + "\n"));
    }

    /// The naming rules of promtool, for machines without it.
    #[tokio::test]
    async fn metric_names_follow_prometheus_conventions() {
        let text = scrape().await;
        let types: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        assert!(types.len() > 30, "{text}");
        for (name, kind) in types {
            assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name} is ours");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name} is snake_case"
            );
            assert_eq!(
                kind == "counter",
                name.ends_with("_total"),
                "{name}: counters end in _total, and nothing else does"
            );
            assert!(
                !["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)),
                "{name} looks like a series of a histogram"
            );
            let words = || name.split('_');
            assert!(
                !words().any(|word| ["counter", "gauge", "histogram", "summary"].contains(&word)),
                "{name} contains its type"
            );
            let units = [
                "ms",
                "us",
                "ns",
                "s",
                "sec",
                "kb",
                "mb",
                "gb",
                "milliseconds",
                "microseconds",
                "kilobytes",
                "minutes",
                "hours",
            ];
            assert!(!words().any(|word| units.contains(&word)), "{name}: use seconds and bytes");
            let help =
                text.lines().find_map(|line| line.strip_prefix("# HELP ")?.strip_prefix(name)?.strip_prefix(' '));
            assert!(help.is_some_and(|help| help.ends_with('.')), "{name} needs a help text that is a sentence");
        }
    }

    /// Every metric is in the documentation.
    #[tokio::test]
    async fn all_metrics_are_documented() {
        let page = std::fs::read_to_string("docs/operations/monitoring.md").expect("the page");
        for line in scrape().await.lines() {
            let Some((name, _)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else { continue };
            assert!(
                name.starts_with("process_") || page.contains(&format!("`{name}`")),
                "docs/operations/monitoring.md has no {name}"
            );
        }
    }
}
