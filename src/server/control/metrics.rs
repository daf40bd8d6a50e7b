//! `GET /metrics`: what was counted, and what is looked up now.

use crate::telemetry::metrics::metrics;
use std::time::Duration;

use http::StatusCode;
use prometheus::TextEncoder;

use crate::server::App;
use crate::server::respond;
use crate::server::respond::{Response, error};
use crate::stream::registry::EndReason;
use crate::telemetry::metrics::Book;
use crate::telemetry::process;

/// The text format of Prometheus, which says its version.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Whoever asks for metrics is not kept waiting by a store that does not answer.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// `GET /metrics`
pub async fn answer(app: &App) -> Response {
    let store_is_up = store_is_up(app).await;
    let book = Book::default();
    node(app, &book, store_is_up);
    policy(app, &book);
    decisions(app, &book);
    streams(app, &book);
    pool(app, &book);
    process::enter(&book);
    let mut families = metrics().gather();
    families.extend(book.0.gather());
    match TextEncoder::new().encode_to_string(&families) {
        Ok(text) => respond::full(StatusCode::OK, TEXT, text),
        Err(cause) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, "no_metrics", format!("the metrics cannot be written: {cause}"))
        }
    }
}

/// Whether the store gives a sign of life, soon.
pub async fn store_is_up(app: &App) -> bool {
    matches!(tokio::time::timeout(SIGN_OF_LIFE, app.hub.store().ping()).await, Ok(Ok(())))
}

fn count(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn node(app: &App, book: &Book, store_is_up: bool) {
    book.gauges("tidegate_build_info", "What this is; always 1.", &["version"])
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
    book.gauge("tidegate_store_up", "Whether the store answers a ping now.").set(store_is_up.into());
    let heard = app.commands.are_known();
    book.gauge("tidegate_commands_heard", "Whether all is known that the fleet said; else nothing is delivered.")
        .set(heard.into());
    book.gauge("tidegate_denials", "Who is kept out for a while, whatever the policy says.")
        .set(count(app.authorizer.denied().list().len()));
    let ready = store_is_up && heard && app.authorizer.is_ready() && !app.is_draining();
    book.gauge("tidegate_ready", "Whether this node should be sent clients, as /readyz says it.").set(ready.into());
    book.gauge("tidegate_draining", "Whether this node is going away.").set(app.is_draining().into());
    book.gauge("tidegate_channels", "Channels that are read here.").set(count(app.hub.channels()));
    book.gauge("tidegate_log_bytes", "Bytes in the logs of all channels.").set(count(app.hub.log_bytes()));
    book.gauge("tidegate_log_limit_bytes", "Bytes that may be there (stream.log-memory).")
        .set(count(app.config.stream.hub.log_memory));
    book.gauge("tidegate_replay_bytes", "Bytes that are taken by what streams read from the store by themselves.")
        .set(count(app.replays.used()));
    book.gauge("tidegate_replay_limit_bytes", "Bytes that may be taken (stream.replay-memory).")
        .set(count(app.config.stream.replay_memory));
}

fn policy(app: &App, book: &Book) {
    let authorizer = &app.authorizer;
    let info = book.gauges(
        "tidegate_policy_info",
        "The policy in force; always 1. The version counts the swaps of this process.",
        &["digest", "version"],
    );
    if let Some(policy) = authorizer.active() {
        info.with_label_values(&[&*policy.digest, &policy.number.to_string()]).set(1);
        #[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
        book.float("tidegate_policy_since_timestamp_seconds", "When the policy in force took it, since 1970.")
            .set(policy.since as f64 / 1e3);
    }
    book.counter("tidegate_policy_swaps_total", "Policies that took force, the first one too.")
        .inc_by(*authorizer.swaps().borrow());
    let old = authorizer.old();
    book.gauge("tidegate_policy_old_versions", "Versions that are in force no longer and still decide about somebody.")
        .set(count(old.len()));
    book.gauge("tidegate_policy_old_decisions", "Decisions of those that are not done.")
        .set(count(old.iter().map(|old| old.decisions).sum::<usize>()));
    book.gauge("tidegate_decisions_in_progress", "Decisions that have an instance, or are about to.")
        .set(count(authorizer.deciding()));
    book.gauge("tidegate_decisions_limit", "Decisions that there may be at once (policy.concurrency).")
        .set(count(app.config.limits.concurrency));
    book.gauge("tidegate_decisions_awaiting_keys", "Decisions that wait for the keys of a token profile.")
        .set(count(authorizer.waiting_for_keys()));
    book.gauge("tidegate_decision_cache_bytes", "Bytes of answers that may be given again, about.")
        .set(count(authorizer.cached_bytes()));
    book.gauge("tidegate_requests_held", "Requests of refused clients that wait (reject.hold).").set(count(app.held()));
}

/// What is written of decisions: 0 where nothing is.
fn decisions(app: &App, book: &Book) {
    let candidate = app.shadow.candidate();
    if let Some(candidate) = &candidate {
        let info = book.gauges("tidegate_candidate_info", "The candidate that is asked; always 1.", &["digest"]);
        info.with_label_values(&[&**candidate.policy().digest()]).set(1);
    }
    let asked = book.counters(
        "tidegate_candidate_decisions_total",
        "Decisions of a candidate's share, by what came of them. A new candidate begins at 0.",
        &["result"],
    );
    let counts = candidate.map(|candidate| candidate.counts()).unwrap_or_default();
    for (result, count) in counts.named() {
        asked.with_label_values(&[result]).inc_by(count);
    }
    for (name, help, lines) in [
        ("tidegate_decision_log_lines_total", "Lines of the decision log, by what became of them.", app.audit.logged()),
        (
            "tidegate_recording_lines_total",
            "Decisions that were to be recorded, by what became of them.",
            app.audit.recorded(),
        ),
    ] {
        let counts = book.counters(name, help, &["result"]);
        counts.with_label_values(&["written"]).inc_by(lines.written);
        counts.with_label_values(&["dropped"]).inc_by(lines.dropped);
    }
}

fn streams(app: &App, book: &Book) {
    book.gauge("tidegate_streams", "Open streams, those too that are being decided about.")
        .set(count(app.streams.count()));
    book.gauge("tidegate_streams_limit", "Streams that there may be (stream.max-streams).")
        .set(count(app.config.stream.max_streams));
    let ended = book.counters(
        "tidegate_streams_ended_total",
        "Streams that the gateway told to come back: for another policy is in force, their right was taken away, the node goes, or their grant is over.",
        &["reason"],
    );
    for why in EndReason::ALL {
        ended.with_label_values(&[why.as_str()]).inc_by(app.streams.ended(why));
    }
}

fn pool(app: &App, book: &Book) {
    let pool = app.authorizer.compiler().and_then(|compiler| compiler.engine().pooling_allocator_metrics());
    // A machine without the address space for a pool has none.
    let Some(pool) = pool else { return };
    let used = book.gauges("tidegate_pool_in_use", "What instances of policies have taken from the pool.", &["what"]);
    for (what, number) in [
        ("component_instances", count(pool.component_instances())),
        ("core_instances", count(pool.core_instances())),
        ("memories", count(pool.memories())),
        ("tables", count(pool.tables())),
        ("stacks", count(pool.stacks())),
    ] {
        used.with_label_values(&[what]).set(number);
    }
    book.gauge("tidegate_pool_idle_memory_bytes", "Bytes in RAM of memories that wait for the next instance.")
        .set(count(pool.unused_memory_bytes_resident()));
    book.gauge("tidegate_pool_idle_table_bytes", "Bytes in RAM of tables that wait for the next instance.")
        .set(count(pool.unused_table_bytes_resident()));
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
    use crate::rollout::observers::Observers;
    use crate::store::Store;
    use crate::store::memory::{MemoryStore, system_clock};
    use crate::util::golden::golden;
    use crate::wasm::component::Policy;
    use crate::wasm::engine;

    const EXAMPLE: &[u8] = include_bytes!("../../../guest-examples/rust-role-based/policy.wasm");

    async fn scrape() -> String {
        let raw = toml::from_str("store = 'memory:'\nallow-all = true").expect("TOML");
        let config = Config::check(raw).expect("a configuration");
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20, Default::default(), system_clock()));
        let env = config.env(Arc::clone(&store));
        let authorizer = Authorizer::new(engine::shared().expect("an engine"), env, config.limits.clone());
        let observers = Observers::new(config.limits.shadow);
        let compiler = authorizer.compiler().expect("it has one");
        authorizer.activate(Policy::new(compiler, EXAMPLE).expect("it loads"));
        let hub = Hub::start(store, config.stream.hub.clone());
        let response =
            answer(&App::new(config, hub, Arc::new(authorizer), observers, None, SignaturePolicy::default())).await;
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &TEXT.parse().expect("a value"))
        );
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    /// Names, types, labels and help: what dashboards and alarms are made of.
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

    /// Those that promtool has, for where there is none.
    #[tokio::test]
    async fn names_follow_the_rules() {
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
            assert!(!["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)), "{name} looks like a part");
            let words = || name.split('_');
            assert!(
                !words().any(|word| ["counter", "gauge", "histogram", "summary"].contains(&word)),
                "{name} says its type"
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
            assert!(!words().any(|word| units.contains(&word)), "{name}: seconds and bytes");
            let help =
                text.lines().find_map(|line| line.strip_prefix("# HELP ")?.strip_prefix(name)?.strip_prefix(' '));
            assert!(help.is_some_and(|help| help.ends_with('.')), "{name} has a sentence of help");
        }
    }

    /// An operator finds each in the documentation.
    #[tokio::test]
    async fn all_are_documented() {
        let page = std::fs::read_to_string("docs/operations.md").expect("the page");
        for line in scrape().await.lines() {
            let Some((name, _)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else { continue };
            assert!(
                name.starts_with("process_") || page.contains(&format!("`{name}`")),
                "docs/operations.md has no {name}"
            );
        }
    }
}
