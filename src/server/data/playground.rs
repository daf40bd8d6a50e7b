//! The playground of `tidegate dev`. It can emit events and use any session, the sessions and the token of `/redis` are public, and a path
//! signs in. So the whole data port is for programs and pages of this machine only, unless the operator opens it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_SECURITY_POLICY, COOKIE, HeaderValue, ORIGIN};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::server::access::{host_is_address, is_foreign_page, is_local_origin};
use crate::server::api_error::ApiError;
use crate::server::app::{App, Playground};
use crate::server::control;
use crate::server::data::client_address::client_address;
use crate::server::respond::{self, Response};

use crate::authz::authorizer::ObservedDecision;
use crate::policy::Outcome;

const PAGE: &str = include_str!("playground.html");
/// Only the page's own script and style run, and it sends requests only to its own origin.
const CSP: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Characters of a rejection's body that are shown.
const MAX_BODY_CHARS: usize = 1024;

/// Sets the session cookie from a path such as `/api/realtime/as/alice`, for an app that sends no cookie to another origin.
pub fn sign_in<B>(stream_path: &str, request: &mut Request<B>) {
    let session = request.uri().path().strip_prefix(stream_path).and_then(|rest| rest.strip_prefix("/as/"));
    let Some(cookie) = session.and_then(|session| HeaderValue::from_str(&format!("session={session}")).ok()) else {
        return;
    };
    request.headers_mut().entry(COOKIE).or_insert(cookie);
}

/// Refuses clients of other machines, and pages of other machines in a browser of this one: those that name this port by a DNS name that
/// they pointed here, and those of origins that may not read streams.
pub fn check_visitor<B>(
    app: &App,
    playground: &Playground,
    request: &Request<B>,
    peer: SocketAddr,
) -> Result<(), ApiError> {
    if playground.open_to_all {
        return Ok(());
    }
    let client = client_address(request.headers(), peer.ip(), &app.config);
    if !(client.is_some_and(|address| address.is_loopback()) && host_is_address(request)) {
        return Err(ApiError::LoopbackOnly);
    }
    // A page of an app on this machine has another port, and so another origin.
    let is_allowed = |origin: &str| match &app.live().cors.origins {
        Some(origins) => origins.iter().any(|own| own.matches(origin)),
        None => is_local_origin(origin),
    };
    let origin = request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok());
    if is_foreign_page(request) && !origin.is_some_and(is_allowed) {
        return Err(ApiError::OriginNotAllowed);
    }
    Ok(())
}

/// Answers the page and its requests.
pub async fn answer(app: &Arc<App>, playground: &Playground, request: Request<Incoming>) -> Result<Response, ApiError> {
    match (request.uri().path(), request.method()) {
        ("/", &Method::GET) => Ok(page()),
        ("/playground/state", &Method::GET) => Ok(respond::ok(state(app, playground))),
        ("/playground/decisions", &Method::GET) => Ok(decisions(app)),
        ("/playground/emit", &Method::POST) if is_foreign_page(&request) => Err(ApiError::OriginNotAllowed),
        ("/playground/emit", &Method::POST) => control::emit::emit(app, request).await,
        ("/playground/emit", _) => Err(ApiError::MethodNotAllowed { allow: "POST".into() }),
        ("/" | "/playground/state" | "/playground/decisions", _) => {
            Err(ApiError::MethodNotAllowed { allow: "GET".into() })
        }
        _ => Err(ApiError::NotFound),
    }
}

fn page() -> Response {
    let mut response = respond::full(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    response
}

fn state(app: &App, playground: &Playground) -> Value {
    let users =
        playground.users.iter().map(|(session, description)| json!({ "session": session, "description": description }));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "stream_path": app.config.stream.path,
        "policy": { "name": playground.policy, "digest": app.authorizer.active().map(|info| info.digest.to_string()) },
        "users": users.collect::<Vec<_>>(),
        "channels": playground.channels,
    })
}

/// All decisions from now on, as an event stream.
fn decisions(app: &App) -> Response {
    let decisions = stream::unfold(app.authorizer.watch(), async |mut watch| {
        loop {
            match watch.recv().await {
                Ok(observed) => return Some((format!("data: {}\n\n", describe(&observed)).into(), watch)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let greeting = stream::iter([Bytes::from_static(b": watching\n\n")]);
    respond::frames(greeting.chain(decisions), app.draining())
}

fn describe(observed: &ObservedDecision) -> Value {
    let decision = &observed.decision;
    let (outcome, status, kind, body, subject, error) = match &decision.outcome {
        Outcome::Allowed(grant) => ("allowed", 200, None, None, grant.subject.clone(), None),
        Outcome::Rejected(rejection) => {
            let body = String::from_utf8_lossy(&rejection.body).chars().take(MAX_BODY_CHARS).collect::<String>();
            ("rejected", rejection.status.as_u16(), None, Some(body), None, None)
        }
        Outcome::Failed(failure) => {
            let status = ApiError::from(failure.clone()).status().as_u16();
            ("error", status, Some(failure.kind()), None, None, Some(failure.to_string()))
        }
    };
    json!({
        "time": observed.time,
        "request_id": observed.request_id,
        "channels": observed.channels,
        "outcome": outcome,
        "status": status,
        "kind": kind,
        "body": body,
        "reason": decision.reason.clone().or(error),
        "subject": subject,
        "cached": decision.cached,
        "duration_us": u64::try_from(decision.duration.as_micros()).unwrap_or(u64::MAX),
        "policy": decision.policy_digest(),
    })
}
