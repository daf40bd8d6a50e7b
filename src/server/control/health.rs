//! `GET /healthz` for liveness probes, and whether a node should be sent clients: one answer for `GET /readyz`, the metric
//! `tidegate_ready` and `GET /v1/status`.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::respond::{self, Response};

/// Time for the store to answer a ping: an endpoint that reports readiness does not wait for a store that does not answer.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the node to read the fleet's commands. After each command it reads for a moment, which is no reason to be not ready.
const SYNC_TIMEOUT: Duration = Duration::from_millis(500);

/// The state of the store, as far as readiness depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreState {
    /// It answers, and all fleet commands have been processed.
    Ok,
    /// It answers, but fleet commands cannot be read: event delivery is paused.
    Unsynced,
    /// It answers, but this node has no proof that it is the current master: event delivery is paused.
    Unproven,
    /// It does not answer.
    Unavailable,
}

/// Whether a node is ready, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub store: StoreState,
    /// Whether requests can be decided: a policy is active, or all are allowed.
    pub has_policy: bool,
    pub draining: bool,
}

impl Readiness {
    /// Whether the node should be sent clients.
    pub fn is_ready(self) -> bool {
        self.store == StoreState::Ok && self.has_policy && !self.draining
    }
}

impl App {
    /// This node's readiness now.
    pub async fn readiness(&self) -> Readiness {
        let store = match timeout(PING_TIMEOUT, self.hub.store().ping()).await {
            Ok(Ok(())) if !self.commands.is_master_proven() => StoreState::Unproven,
            Ok(Ok(())) if timeout(SYNC_TIMEOUT, self.commands.wait_synced()).await.is_ok() => StoreState::Ok,
            Ok(Ok(())) => StoreState::Unsynced,
            _ => StoreState::Unavailable,
        };
        Readiness { store, has_policy: self.authorizer.is_ready(), draining: self.is_draining() }
    }
}

/// `GET /healthz`
pub async fn live() -> Result<Response, ApiError> {
    Ok(respond::ok(json!({ "status": "ok" })))
}

/// `GET /readyz`
pub async fn ready(app: &App) -> Result<Response, ApiError> {
    let readiness = app.readiness().await;
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({
        "ready": readiness.is_ready(),
        "store": readiness.store,
        "policy": if readiness.has_policy { "ok" } else { "none" },
        "draining": readiness.draining,
    });
    if let Some(error) = app.fleet.get().and_then(|fleet| fleet.error()) {
        body["fleet_error"] = error.into();
    }
    Ok(respond::json(status, &body))
}
