//! The data port: streams, and what stands beside them.

use crate::telemetry::metrics::metrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::Instant;

use crate::channel::StartPosition;
use crate::policy::{Decision, Grant, Outcome};
use crate::server::request::{Query, for_policy};
use crate::server::respond;
use crate::server::respond::{Pinned, Response, error};
use crate::server::{App, cors, playground, redis_rest};
use crate::stream::body::{ChannelStart, EventStream};
use crate::stream::position::Positions;
use crate::stream::registry::{AbortSignal, StreamInfo};
use crate::telemetry::metrics::Opened;
use crate::util::clock::now_ms;

/// The whole data port.
pub async fn answer(app: &Arc<App>, mut request: Request<Incoming>, peer: SocketAddr) -> Response {
    let path = request.uri().path();
    if app.config.stream.matches(path) {
        if app.playground.is_some() {
            playground::sign_in(&app.config.stream.path, &mut request);
        }
        return stream_path(app, &request, peer).await;
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

async fn stream_path(app: &Arc<App>, request: &Request<Incoming>, peer: SocketAddr) -> Response {
    let mut response = match *request.method() {
        Method::GET => open(app, request, peer).await.unwrap_or_else(|response| *response),
        Method::OPTIONS => cors::preflight(),
        _ => respond::method_not_allowed("GET, OPTIONS"),
    };
    cors::apply(&app.live().cors, request.headers(), &mut response);
    response
}

/// The codes of the errors with which the gateway itself keeps clients out.
pub const REFUSALS: [&str; 5] =
    ["invalid_ack", "too_many_channels", "channel_not_allowed", "too_many_streams", "revoked"];

/// Opens a stream: whatever is wrong with the request comes first, then the policy, once, on the whole set of channels.
async fn open(app: &App, request: &Request<Incoming>, peer: SocketAddr) -> Result<Response, Box<Response>> {
    let refuse = |status, code, message: String| {
        metrics().opened(Opened::Refused(code));
        Box::new(error(status, code, message))
    };
    let query = Query::parse(request.uri().query().unwrap_or_default())
        .map_err(|cause| refuse(StatusCode::BAD_REQUEST, "invalid_ack", cause.to_string()))?;
    let max = app.config.stream.max_channels;
    if query.channels.len() > max {
        let text = format!("{} channels, of at most {max} (stream.max-channels)", query.channels.len());
        return Err(refuse(StatusCode::BAD_REQUEST, "too_many_channels", text));
    }
    if let Some(name) = query.channels.iter().find(|name| !app.permits(name)) {
        return Err(refuse(StatusCode::FORBIDDEN, "channel_not_allowed", format!("{name:?} is not a channel here")));
    }
    let asked = for_policy(request, peer, &app.config);
    let time = app.live().reject_hold;
    let who = app.hold.who(time, &asked);
    app.hold.wait(time, who).await;
    let cut = request.extensions().get::<AbortSignal>().cloned().unwrap_or_default();
    let Some(ticket) = app.streams.admit(cut) else {
        let text = format!("there are {} streams (stream.max-streams)", app.config.stream.max_streams);
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", text));
    };
    let (decision, pin) = app.authorizer.admit(&asked, &query.channels).await;
    app.hold.decided(who, &decision.outcome);
    metrics().opened(opened(&decision));
    app.recent.remember(&asked.id, &query.channels, &decision);
    let grant = match decision.outcome {
        Outcome::Allowed(grant) => grant,
        Outcome::Rejected(_) if decision.revoked => return Err(Box::new(respond::revoked())),
        Outcome::Rejected(r) => return Err(Box::new(respond::verbatim(r.status, r.headers, r.body, pin))),
        Outcome::Failed(failure) => return Err(Box::new(respond::failure(&failure))),
    };
    let last_event_id = request.headers().get("last-event-id").and_then(|v| v.to_str().ok());
    let (entries, positions) = starts(query, last_event_id, &grant);
    let body = EventStream::new(app.stream_context(), ticket, entries, positions);
    let reader = StreamInfo {
        request: asked.id,
        subject: grant.subject.map(Into::into),
        channels: body.channels(),
        address: asked.client_address.into(),
        since: now_ms(),
        expires_at: grant.expires_at,
        version: decision.policy.map_or(0, |info| info.number),
    };
    body.register(reader, grant.expires_at.map(deadline));
    let mut response = respond::event_stream(Pinned { body, pin });
    for (name, value) in &grant.headers {
        response.headers_mut().append(name, value.clone());
    }
    Ok(response)
}

fn opened(decision: &Decision) -> Opened {
    match &decision.outcome {
        Outcome::Rejected(_) if decision.revoked => Opened::Refused("revoked"),
        Outcome::Allowed(_) => Opened::Allowed,
        Outcome::Rejected(rejection) => Opened::Rejected(rejection.status.as_u16()),
        Outcome::Failed(failure) => Opened::Error(failure.kind()),
    }
}

/// Where each granted channel starts: `Last-Event-ID` over the URL's ack over the tail, and nothing that the policy keeps back.
fn starts(query: Query, last_event_id: Option<&str>, grant: &Grant) -> (Vec<ChannelStart>, Positions) {
    let mut positions = Positions::new(&query.channels);
    if let Some(id) = last_event_id {
        positions.resume(id);
    }
    let not_before = grant.replay_since.map(|time| crate::event::StreamId::new(time, 0).before());
    let mut entries = Vec::with_capacity(query.channels.len());
    for (number, (name, ack)) in query.channels.into_iter().zip(query.starts).enumerate() {
        if grant.channels.as_ref().is_some_and(|granted| !granted.contains(&name)) {
            positions.set(number, None);
            continue;
        }
        let asked = positions.get(number).map_or(ack, StartPosition::Id);
        let start = match (asked, not_before) {
            (StartPosition::From(at) | StartPosition::Id(at), Some(bound)) if at < bound => StartPosition::From(bound),
            _ => asked,
        };
        // What the browser shall send back if it is cut off before the channel is open.
        positions.set(number, if let StartPosition::Id(id) = start { Some(id) } else { None });
        entries.push(ChannelStart { number, name, start });
    }
    (entries, positions)
}

/// A grant's end on this process' clock, somewhat before its time: those that were granted together do not end together.
fn deadline(expires_at: u64) -> Instant {
    let left = Duration::from_millis(expires_at.saturating_sub(now_ms()));
    let early = (left / 10).min(Duration::from_secs(30)).mul_f64(rand::random_range(0.0..1.0));
    // A time so far away that the clock cannot say it is a year.
    let now = Instant::now();
    now.checked_add(left - early).unwrap_or(now + Duration::from_secs(365 * 86_400))
}
