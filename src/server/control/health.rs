//! Whether this node lives, and whether it should be sent clients.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::super::App;
use super::super::api_error::ApiError;
use super::super::respond::{self, Response};

/// A node that does not know for so long what the fleet says feeds nobody.
const HEARING: Duration = Duration::from_millis(500);

/// `GET /healthz`
pub async fn live() -> Result<Response, ApiError> {
    Ok(respond::json(StatusCode::OK, &json!({ "status": "ok" })))
}

/// `GET /readyz`
pub async fn ready(app: &App) -> Result<Response, ApiError> {
    let store = match app.hub.store().ping().await {
        // After each command it is so for a moment.
        Ok(()) if tokio::time::timeout(HEARING, app.commands.known()).await.is_err() => "unsynced",
        Ok(()) => "ok",
        Err(_) => "unavailable",
    };
    let policy = if app.gate.is_ready() { "ok" } else { "none" };
    let draining = app.is_draining();
    let ready = store == "ok" && policy == "ok" && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({ "ready": ready, "store": store, "policy": policy, "draining": draining });
    if let Some(why) = app.fleet.get().and_then(|fleet| fleet.trouble()) {
        body["fleet_error"] = why.into();
    }
    Ok(respond::json(status, &body))
}
