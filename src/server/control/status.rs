//! `GET /v1/status`: the status of this node, for the page at `/` and for scripts; and `GET /v1/fleet`: that of all nodes.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::fleet::node_status;
use crate::fleet::status::FleetStatus;
use crate::policy::info::PolicyInfo;
use crate::rollout::stage::ActivationError;
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::control::stream_stats::StreamStats;
use crate::server::recent_rejections::truncate;
use crate::server::respond::{self, Response};
use crate::stream::registry::EndReason;
use crate::telemetry::process;
use crate::util::clock::now_ms;

/// Time for the store to return the status of all nodes; without it the page shows this node alone.
const NODES_TIMEOUT: Duration = Duration::from_secs(1);

/// `GET /v1/status`
pub async fn status(app: &App) -> Result<Response, ApiError> {
    let nodes = tokio::time::timeout(NODES_TIMEOUT, nodes(app));
    let (readiness, nodes) = tokio::join!(app.readiness(), nodes);
    let stats = app.stream_stats.get(&app.streams).await?;
    let (received, sent) = app.metrics.events();
    Ok(respond::ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": app.node(),
        "now": now_ms(),
        "started_at": app.started_at,
        "ready": readiness.is_ready(),
        "draining": readiness.draining,
        "store": readiness.store,
        "policy": policy(app),
        "streams": streams(app, &stats),
        "stream_requests": app.metrics.stream_requests(),
        "decisions": decisions(app),
        "events": { "received": received, "sent": sent },
        "memory": {
            "resident_bytes": process::resident(),
            "event_buffer_bytes": app.hub.buffer_bytes(),
            "event_buffer_limit_bytes": app.config.stream.hub.buffer_memory,
            "replay_bytes": app.stream_context.replay_budget.used_bytes(),
            "replay_limit_bytes": app.config.stream.replay_memory,
        },
        "recent_rejections": app.recent_rejections.list(),
        "revocations": app.authorizer.revocations().list().len(),
        "nodes": nodes.unwrap_or_default(),
        "shadow": shadow(app),
    })))
}

/// `GET /v1/fleet`
pub async fn fleet(app: &App) -> Result<Response, ApiError> {
    let fleet = app.fleet.get().ok_or(ApiError::NoFleet("a node on memory: is alone and has no fleet"))?;
    let mut body = json!(FleetStatus::of(fleet.store()).await?);
    body["fleet_managed"] = fleet.is_fleet_managed().into();
    body["error"] = fleet.error().into();
    Ok(respond::ok(body))
}

/// The status of all nodes; null without a fleet, or while the store is unavailable.
async fn nodes(app: &App) -> Value {
    let Some(fleet) = app.fleet.get() else { return Value::Null };
    node_status::live_nodes(fleet.store()).await.map_or(Value::Null, |nodes| json!(nodes))
}

/// The shadow policy's report without its disagreements, which `/v1/policy/shadow` has.
fn shadow(app: &App) -> Value {
    let Some(shadow) = app.shadow.current() else { return Value::Null };
    let mut report = json!(shadow.report());
    if let Some(report) = report.as_object_mut() {
        report.remove("disagreements");
    }
    report
}

fn policy(app: &App) -> Value {
    let status = app.rollout.status();
    let active = app.authorizer.active();
    let past: Vec<&PolicyInfo> = status.activations.iter().map(|info| &**info).collect();
    let retired: Vec<Value> = (app.authorizer.retired().iter())
        .map(|old| json!({ "generation": old.info.generation, "decisions_in_progress": old.decisions }))
        .collect();
    json!({
        "allow_all": app.authorizer.compiler().is_none(),
        "active": active.as_deref(),
        "retired": retired,
        "activations": *app.authorizer.generations().borrow(),
        "history": past,
        "failures": status.failures.iter().map(|error| failure(error)).collect::<Vec<_>>(),
    })
}

/// A failed activation. The reason is truncated, since a compiler's message may be long.
fn failure(error: &ActivationError) -> Value {
    json!({
        "time": error.time,
        "stage": error.stage,
        "reason": truncate(&error.reason),
        "source": error.origin.source,
    })
}

fn streams(app: &App, stats: &StreamStats) -> Value {
    let ended: Map<String, Value> =
        EndReason::ALL.iter().map(|reason| (reason.as_str().to_owned(), app.streams.ended(*reason).into())).collect();
    json!({
        "count": app.streams.count(),
        "limit": app.config.stream.max_streams,
        "delayed": app.delayed_requests(),
        "ended": ended,
        "top": stats,
    })
}

/// A cumulative histogram of decision times in seconds; the last bucket has no bound.
fn decisions(app: &App) -> Value {
    let buckets = app.metrics.decision_buckets().into_iter();
    let buckets = buckets.map(|(le, count)| json!({ "le": le.is_finite().then_some(le), "count": count }));
    json!({ "buckets": buckets.collect::<Vec<_>>() })
}
