//! The page of `tidegate dev`. It acts: so it is for this machine's own browser only, unless the operator says otherwise.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_SECURITY_POLICY, COOKIE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::authz::authorizer::ObservedDecision;
use crate::policy::Outcome;
use crate::server::request::{host_is_address, is_foreign_page};
use crate::server::respond;
use crate::server::respond::{Response, error};
use crate::server::{App, control};

const PAGE: &str = include_str!("playground.html");
/// Nothing but the page's own script and style, and requests to where it came from.
const CSP: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A refusal's body is shown to this length.
const SHOWN: usize = 1024;

/// What the page shows beside the streams.
pub struct Playground {
    /// The policy's name.
    pub policy: String,
    /// Sessions to choose from, with a word about each.
    pub users: Vec<(String, String)>,
    /// Channels to try.
    pub channels: Vec<String>,
    /// Also for visitors from elsewhere.
    pub open_to_all: bool,
}

/// Signs in whom the path names, as in `/api/realtime/as/alice`, for an app that sends no cookie to another origin.
pub fn sign_in<B>(stream_path: &str, request: &mut Request<B>) {
    let session = request.uri().path().strip_prefix(stream_path).and_then(|rest| rest.strip_prefix("/as/"));
    let Some(cookie) = session.and_then(|session| HeaderValue::from_str(&format!("session={session}")).ok()) else {
        return;
    };
    request.headers_mut().entry(COOKIE).or_insert(cookie);
}

/// The page and what it asks for.
pub async fn answer(app: &Arc<App>, playground: &Playground, request: Request<Incoming>, peer: SocketAddr) -> Response {
    let from_here = peer.ip().to_canonical().is_loopback() && host_is_address(&request);
    if !(playground.open_to_all || from_here) {
        let text = "the playground is for this machine only; --playground-unsafe opens it to all";
        return error(StatusCode::FORBIDDEN, "loopback_only", text);
    }
    match (request.uri().path(), request.method()) {
        ("/", &Method::GET) => page(),
        ("/playground/state", &Method::GET) => respond::json(StatusCode::OK, &state(app, playground)),
        ("/playground/decisions", &Method::GET) => decisions(app),
        ("/playground/emit", &Method::POST) => emit(app, request).await,
        ("/playground/emit", _) => respond::method_not_allowed("POST"),
        ("/" | "/playground/state" | "/playground/decisions", _) => respond::method_not_allowed("GET"),
        _ => respond::not_found(),
    }
}

fn page() -> Response {
    let mut response = respond::full(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    response
}

fn state(app: &App, playground: &Playground) -> Value {
    let users = playground.users.iter().map(|(session, info)| json!({ "session": session, "about": info }));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "stream_path": app.config.stream.path,
        "policy": { "name": playground.policy, "digest": app.authorizer.active().map(|info| info.digest.to_string()) },
        "users": users.collect::<Vec<_>>(),
        "channels": playground.channels,
    })
}

async fn emit(app: &App, request: Request<Incoming>) -> Response {
    if is_foreign_page(&request) {
        return error(StatusCode::FORBIDDEN, "foreign_origin", "web pages of other origins have no business here");
    }
    control::emit::emit(app, request).await
}

/// Every decision from now on.
fn decisions(app: &App) -> Response {
    let frames = stream::unfold((app.authorizer.watch(), false), |(mut watch, greeted)| async move {
        if !greeted {
            return Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b": watching\n\n"))), (watch, true)));
        }
        let text = loop {
            match watch.recv().await {
                Ok(watched) => break format!("data: {}\n\n", describe(&watched)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        };
        Some((Ok(Frame::data(Bytes::from(text))), (watch, greeted)))
    });
    respond::event_stream(StreamBody::new(frames.take_until(Box::pin(app.departure.begun()))))
}

fn describe(watched: &ObservedDecision) -> Value {
    let decision = &watched.decision;
    let (outcome, status, kind, body, subject, why) = match &decision.outcome {
        Outcome::Allowed(grant) => ("allowed", 200, None, None, grant.subject.clone(), None),
        Outcome::Rejected(rejection) => {
            let body = String::from_utf8_lossy(&rejection.body).chars().take(SHOWN).collect::<String>();
            ("rejected", rejection.status.as_u16(), None, Some(body), None, None)
        }
        Outcome::Failed(failure) => {
            let status = respond::failure(failure).status().as_u16();
            ("error", status, Some(failure.kind()), None, None, Some(failure.to_string()))
        }
    };
    json!({
        "time": watched.time,
        "request_id": watched.request_id,
        "channels": watched.channels,
        "outcome": outcome,
        "status": status,
        "kind": kind,
        "body": body,
        "reason": decision.reason.clone().or(why),
        "subject": subject,
        "cached": decision.cached,
        "micros": u64::try_from(decision.duration.as_micros()).unwrap_or(u64::MAX),
        "policy": decision.policy_digest(),
    })
}
