//! `GET /v1/status`: how things stand, for the page at `/` and for scripts.

use crate::telemetry::metrics::metrics;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::policy::info::PolicyInfo;
use crate::rollout::stage::ActivationError;
use crate::server::App;
use crate::server::control::fleet;
use crate::server::control::metrics::{SIGN_OF_LIFE, store_is_up};
use crate::server::recent::short;
use crate::server::respond;
use crate::server::respond::Response;
use crate::stream::registry::EndReason;
use crate::telemetry::process;
use crate::util::clock::now_ms;

/// `GET /v1/status`
pub async fn status(app: &App) -> Response {
    let nodes = tokio::time::timeout(SIGN_OF_LIFE, fleet::nodes(app));
    let (store_is_up, nodes) = tokio::join!(store_is_up(app), nodes);
    let ready = store_is_up && app.commands.are_known() && app.authorizer.is_ready() && !app.is_draining();
    let (received, sent) = metrics().events();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time behind 1970")]
    let started = (process::started() * 1e3) as u64;
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": app.fleet.get().map(|fleet| fleet.word().name).or_else(|| app.config.node.clone()),
        "now": now_ms(),
        "started": started,
        "ready": ready,
        "draining": app.is_draining(),
        "store": if store_is_up { "ok" } else { "away" },
        "policy": policy(app),
        "streams": streams(app),
        "opens": metrics().opens(),
        "decisions": decisions(),
        "events": { "received": received, "sent": sent },
        "memory": {
            "resident": process::resident(),
            "log": app.hub.log_bytes(),
            "log_limit": app.config.stream.hub.log_memory,
            "replay": app.replays.used(),
            "replay_limit": app.config.stream.replay_memory,
        },
        "kept_out": app.recent.list(),
        "denials": app.authorizer.denied().list().len(),
        "nodes": nodes.unwrap_or_default(),
        "candidate": candidate(app),
    });
    respond::json(StatusCode::OK, &body)
}

/// The candidate in numbers; where it differs is asked of `/v1/policy/candidate`.
fn candidate(app: &App) -> Value {
    let Some(candidate) = app.shadow.candidate() else { return Value::Null };
    let mut report = json!(candidate.report());
    if let Some(report) = report.as_object_mut() {
        report.remove("disagreements");
    }
    report
}

fn policy(app: &App) -> Value {
    let status = app.rollout.status();
    let active = app.authorizer.active();
    let past: Vec<&PolicyInfo> = status.activations.iter().map(|info| &**info).collect();
    let old =
        app.authorizer.old().into_iter().map(|old| json!({ "number": old.info.number, "decisions": old.decisions }));
    json!({
        "allow_all": app.authorizer.compiler().is_none(),
        "in_force": active.as_deref(),
        "old": old.collect::<Vec<_>>(),
        "swaps": *app.authorizer.swaps().borrow(),
        "history": past,
        "refused": status.failures.iter().map(|refused| refusal(refused)).collect::<Vec<_>>(),
    })
}

/// What a compiler says may be long.
fn refusal(refused: &ActivationError) -> Value {
    json!({
        "time": refused.time,
        "stage": refused.stage.as_str(),
        "why": short(&refused.why),
        "source": refused.origin.source,
    })
}

fn streams(app: &App) -> Value {
    let top = app.top.get(&app.streams);
    let ended: Map<String, Value> =
        EndReason::ALL.iter().map(|why| (why.as_str().to_owned(), app.streams.ended(*why).into())).collect();
    json!({
        "count": app.streams.count(),
        "limit": app.config.stream.max_streams,
        "held": app.held(),
        "ended": ended,
        "top": *top,
    })
}

/// How many took up to so many seconds; the last bucket has no bound.
fn decisions() -> Value {
    let buckets = metrics().decision_buckets().into_iter();
    let buckets = buckets.map(|(le, count)| json!({ "le": le.is_finite().then_some(le), "count": count }));
    json!({ "buckets": buckets.collect::<Vec<_>>() })
}
