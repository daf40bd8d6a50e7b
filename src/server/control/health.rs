//! `GET /healthz` for liveness probes and `GET /readyz` for readiness probes.

use http::StatusCode;
use serde_json::json;

use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::respond;
use crate::server::respond::Response;

/// `GET /healthz`
pub async fn live() -> Result<Response, ApiError> {
    Ok(respond::json(StatusCode::OK, &json!({ "status": "ok" })))
}

/// `GET /readyz`
pub async fn ready(app: &App) -> Result<Response, ApiError> {
    let readiness = app.readiness().await;
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({
        "ready": readiness.is_ready(),
        "store": readiness.store.as_str(),
        "policy": if readiness.has_policy { "ok" } else { "none" },
        "draining": readiness.draining,
    });
    if let Some(error) = app.fleet.get().and_then(|fleet| fleet.error()) {
        body["fleet_error"] = error.into();
    }
    Ok(respond::json(status, &body))
}
