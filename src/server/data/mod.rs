//! The data port: streams, and what stands beside them.

mod cors;
pub mod playground;
mod redis_rest;
pub mod rejection_delay;
pub mod request;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::App;
use super::respond::{self, Response};

pub use stream::REFUSALS;

/// The whole data port.
pub async fn answer(app: &Arc<App>, mut request: Request<Incoming>, peer: SocketAddr) -> Response {
    let path = request.uri().path();
    if app.config.stream.matches(path) {
        if app.playground.is_some() {
            playground::sign_in(&app.config.stream.path, &mut request);
        }
        return stream::answer(app, &request, peer).await;
    }
    if path == "/healthz" {
        // Balancers ask here, where their clients go.
        let (status, text) =
            if app.is_draining() { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "ok") };
        return respond::json(status, &json!({ "status": text }));
    }
    if path == "/redis" || path.starts_with("/redis/") {
        return redis_rest::answer(app, request).await;
    }
    if let Some(playground) = &app.playground
        && (path == "/" || path.starts_with("/playground/"))
    {
        return playground::answer(app, playground, request, peer).await;
    }
    respond::not_found()
}
