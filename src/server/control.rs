//! The control port: for operators and emitters of this machine, and for nobody's web page.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::App;
use super::request::{host_is_address, is_foreign_page, json_body, shows_token};
use super::respond::{self, Response, error};
use crate::event::{NewEvent, StreamId};
use crate::store::Retention;

/// The whole control port.
pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Response {
    if request.uri().path() == "/healthz" {
        return respond::json(StatusCode::OK, &json!({ "status": "ok" }));
    }
    if let Some(refusal) = guard(app, &request) {
        return refusal;
    }
    match (request.uri().path(), request.method()) {
        ("/readyz", &Method::GET) => ready(app).await,
        ("/v1/emit", &Method::POST) => emit(app, request).await,
        ("/readyz", _) => respond::method_not_allowed("GET"),
        ("/v1/emit", _) => respond::method_not_allowed("POST"),
        _ => respond::not_found(),
    }
}

fn guard<B>(app: &App, request: &Request<B>) -> Option<Response> {
    if is_foreign_page(request) {
        return Some(error(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "web pages of other origins have no business here",
        ));
    }
    match &app.config.control_token {
        Some(token) if !shows_token(request, [token]) => Some(error(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the control port needs its token: authorization: Bearer …",
        )),
        // Without a token, a name that somebody pointed to this machine must not be a way in.
        None if !host_is_address(request) => Some(error(
            StatusCode::FORBIDDEN,
            "foreign_host",
            "use the address of this port, or localhost, or set control.token",
        )),
        _ => None,
    }
}

async fn ready(app: &App) -> Response {
    let store = match app.hub.store().ping().await {
        Ok(()) => "ok",
        Err(_) => "away",
    };
    let policy = if app.gate.is_ready() { "ok" } else { "none" };
    let draining = app.is_draining();
    let ready = store == "ok" && policy == "ok" && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::json(status, &json!({ "ready": ready, "store": store, "policy": policy, "draining": draining }))
}

/// What `POST /v1/emit` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Emit {
    channel: String,
    event: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    max_length: Option<u64>,
    #[serde(default)]
    expire_seconds: Option<u64>,
}

/// Emits what the body says; the playground does it the same way.
pub async fn emit(app: &App, request: Request<Incoming>) -> Response {
    let example = r#"{"channel":"news","event":"post.created","data":{}}"#;
    let emit = match json_body(request, app.config.stream.hub.max_event + (64 << 10), example).await {
        Ok(emit) => emit,
        Err(response) => return *response,
    };
    match emit_event(app, emit).await {
        Ok(id) => respond::json(StatusCode::OK, &json!({ "id": id.to_string() })),
        Err(response) => *response,
    }
}

async fn emit_event(app: &App, emit: Emit) -> Result<StreamId, Box<Response>> {
    if !app.config.channels.permit(&emit.channel) {
        let text = format!("{:?} is not a channel here (channels.allow, channels.deny)", emit.channel);
        return Err(Box::new(error(StatusCode::FORBIDDEN, "channel_not_allowed", text)));
    }
    let event = NewEvent::from_json(emit.event, emit.data.as_deref().unwrap_or(RawValue::NULL));
    let max = app.config.stream.hub.max_event;
    if event.text.len() + event.event.len() > max {
        let text = format!("an event of more than {max} bytes (stream.max-event) would reach nobody");
        return Err(Box::new(error(StatusCode::PAYLOAD_TOO_LARGE, "event_too_large", text)));
    }
    let retention = Retention { max_length: emit.max_length, expire_seconds: emit.expire_seconds };
    app.hub.store().emit(&emit.channel, &event, retention).await.map_err(|cause| Box::new(respond::store_error(&cause)))
}
