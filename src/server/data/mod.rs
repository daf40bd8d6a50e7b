//! The data port: streams, the emitter's REST protocol, and the playground.

pub(crate) mod client_address;
pub mod playground;
mod redis_rest;
pub(crate) mod rejection_delay;
pub(crate) mod request;
pub(crate) mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::respond::{self, Response};
use crate::stream::registry::AbortSignal;

/// Answers a request to the data port.
pub async fn answer(
    app: &Arc<App>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    abort: AbortSignal,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    if path == "/healthz" {
        return Ok(health(app));
    }
    if let Some(playground) = &app.playground {
        playground::check_visitor(app, playground, &request, peer)?;
    }
    if app.config.stream.matches(path) {
        if app.playground.is_some() {
            playground::sign_in(&app.config.stream.path, &mut request);
        }
        return Ok(stream::answer(app, request, peer, abort).await);
    }
    if path == "/redis" || path.starts_with("/redis/") {
        return redis_rest::answer(app, request, peer, abort).await;
    }
    if let Some(playground) = &app.playground
        && (path == "/" || path.starts_with("/playground/"))
    {
        return playground::answer(app, playground, request).await;
    }
    Err(ApiError::NotFound)
}

/// For load balancers, on the port that their clients use: not healthy once the node drains.
fn health(app: &App) -> Response {
    let (status, text) =
        if app.is_draining() { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "ok") };
    respond::json(status, &json!({ "status": text }))
}
