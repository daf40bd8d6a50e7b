//! `GET` of the stream path opens a stream; CORS says which web pages may read it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::channel::cursor::StartPosition;
use crate::config::cors::Cors;
use crate::event::StreamId;
use crate::policy::{Decision, Grant, Outcome};
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::data::request::{Query, for_policy};
use crate::server::respond::{self, Response};
use crate::stream::body::{ChannelStart, EventStream};
use crate::stream::position::{KnownPosition, Position, Positions};
use crate::stream::registry::{AbortSignal, StreamInfo};
use crate::telemetry::metrics::StreamRequestOutcome;
use crate::util::client_key::ClientKey;
use crate::util::clock::now_ms;

/// Answers a request to the stream path. CORS headers are on errors too, so that a page can read them.
pub async fn answer(app: &Arc<App>, mut request: Request<Incoming>, peer: SocketAddr, abort: AbortSignal) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let result = match *request.method() {
        Method::GET => open(app, &mut request, peer, abort).await,
        Method::OPTIONS => Ok(preflight(&app.live().cors, request.headers())),
        _ => Err(ApiError::MethodNotAllowed { allow: "GET, OPTIONS".into() }),
    };
    let mut response = result.unwrap_or_else(ApiError::into_response);
    apply_cors(&app.live().cors, origin, &mut response);
    response
}

/// Adds the CORS headers for the request's origin.
fn apply_cors(cors: &Cors, origin: Option<HeaderValue>, response: &mut Response) {
    let headers = response.headers_mut();
    match &cors.origins {
        None => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Some(origins) => {
            // A cache must not give one origin's answer to another.
            headers.append(header::VARY, HeaderValue::from_static("origin"));
            let origin = origin.filter(|o| o.to_str().is_ok_and(|o| origins.iter().any(|own| own.matches(o))));
            if let Some(origin) = origin {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                if cors.credentials {
                    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                }
            }
        }
    }
}

/// Answers a preflight request.
fn preflight(cors: &Cors, request: &HeaderMap) -> Response {
    let requested = request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, OPTIONS"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.allowed(requested));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    headers.insert(header::ALLOW, HeaderValue::from_static("GET, OPTIONS"));
    response
}

/// Opens a stream: the request is checked first; then the policy is evaluated once, on the whole set of channels.
async fn open(
    app: &App,
    request: &mut Request<Incoming>,
    peer: SocketAddr,
    abort: AbortSignal,
) -> Result<Response, ApiError> {
    let query = parse(app, request).map_err(|error| refused(app, error))?;
    let policy_request = Arc::new(for_policy(request, peer, &app.config));
    let headers = &policy_request.headers;
    app.forwarding_warnings.check(headers, peer.ip(), policy_request.client_address);
    let delay = app.live().reject_delay;
    let retry_key = app.rejection_delay.client_key(delay, &policy_request);
    app.rejection_delay.wait(delay, retry_key).await;
    let client = Arc::new(ClientKey::of_address(policy_request.client_address).with_connection(peer));
    let max = app.config.stream.max_streams;
    let too_many = |refusal| refused(app, ApiError::TooManyStreams { max, refusal });
    let mut permit = app.streams.admit(client.network, abort).map_err(too_many)?;
    let (decision, guard) = app.authorizer.authorize(&policy_request, &query.channels, &client).await;
    app.rejection_delay.record(retry_key, &decision.outcome);
    let outcome = outcome(&decision);
    if outcome != StreamRequestOutcome::Allowed {
        app.metrics.stream_requested(outcome);
    }
    app.recent_rejections.record(&policy_request.id, &query.channels, &decision);
    let grant = match decision.outcome {
        Outcome::Allowed(grant) => grant,
        Outcome::Rejected(_) if decision.revoked => return Err(ApiError::Revoked),
        Outcome::Rejected(r) => return Ok(respond::verbatim(r.status, r.headers, r.body, guard)),
        Outcome::Failed(failure) => return Err(failure.into()),
    };
    let header = headers.get_all("last-event-id").iter().map(HeaderValue::as_bytes).find(|id| !id.is_empty());
    let (entries, positions) = start_positions(query, header, &grant);
    let subject: Option<Arc<str>> = grant.subject.as_deref().map(Into::into);
    if let Some(subject) = &subject {
        permit.set_subject(Arc::clone(subject)).map_err(too_many)?;
    }
    let client = Arc::new(ClientKey::clone(&client).with_subject(subject));
    let body = EventStream::new(app.stream_context.clone(), permit, &entries, positions, &client)
        .map_err(|refusal| refused(app, ApiError::ChannelMemoryExhausted(refusal)))?;
    // Only now: a stream that does not fit was refused.
    app.metrics.stream_requested(outcome);
    let info = StreamInfo {
        request_id: policy_request.id.clone(),
        subject: grant.subject.map(Into::into),
        channels: body.channels(),
        address: policy_request.client_address,
        since: now_ms(),
        expires_at: grant.expires_at,
        generation: decision.policy.map_or(0, |info| info.generation),
    };
    body.register(info, grant.expires_at.map(deadline));
    let mut response = respond::events(body, guard);
    for (name, value) in &grant.headers {
        response.headers_mut().append(name, value.clone());
    }
    Ok(response)
}

/// The channels of a request, if the gateway allows them.
fn parse(app: &App, request: &Request<Incoming>) -> Result<Query, ApiError> {
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let (count, max) = (query.channels.len(), app.config.stream.max_channels_per_stream);
    if count > max {
        return Err(ApiError::TooManyChannels { count, max });
    }
    query.channels.iter().try_for_each(|name| app.check_channel(name))?;
    Ok(query)
}

/// Counts a refusal by the gateway.
fn refused(app: &App, error: ApiError) -> ApiError {
    app.metrics.stream_requested(StreamRequestOutcome::Refused(error.code()));
    error
}

/// How a decision is counted.
fn outcome(decision: &Decision) -> StreamRequestOutcome {
    match &decision.outcome {
        Outcome::Rejected(_) if decision.revoked => StreamRequestOutcome::Refused("revoked"),
        Outcome::Allowed(_) => StreamRequestOutcome::Allowed,
        Outcome::Rejected(rejection) => StreamRequestOutcome::Rejected(rejection.status.as_u16()),
        Outcome::Failed(failure) => StreamRequestOutcome::Error(failure.kind()),
    }
}

/// Where each granted channel starts: at `Last-Event-ID`, else at the URL's ack, else at the tail; never before the grant's `replay-since`.
/// A `Last-Event-ID` that cannot be used is reported as a gap, unless there is an ack, which is older and loses nothing.
fn start_positions(query: Query, header: Option<&[u8]>, grant: &Grant) -> (Vec<ChannelStart>, Positions) {
    let mut positions = Positions::new(&query.channels);
    if let Some(id) = header.or(query.last_event_id.as_deref().map(str::as_bytes)) {
        positions.resume(id);
    }
    let floor = StreamId::new(grant.replay_since.unwrap_or(0), 0).before();
    let mut entries = Vec::with_capacity(query.channels.len());
    for (number, (name, ack)) in query.channels.into_iter().zip(query.starts).enumerate() {
        if grant.channels.as_ref().is_some_and(|granted| !granted.contains(&name)) {
            positions.set(number, KnownPosition::None);
            continue;
        }
        let requested = match positions.get(number) {
            KnownPosition::At(position) => position.start(),
            KnownPosition::Unusable if ack == StartPosition::Tail => StartPosition::Unknown,
            KnownPosition::Unusable | KnownPosition::None => ack,
        };
        let start = match requested.position() {
            Some(at) if at < floor => StartPosition::From(floor),
            _ => requested,
        };
        let at = |id, is_entry, content| KnownPosition::At(Position { id, is_entry, content });
        // What a browser sends if it is disconnected before the channel is open. A time is in its URL.
        let position = match requested {
            StartPosition::Id(id) | StartPosition::IdOrTime(id) => at(id, true, None),
            StartPosition::Entry { id, content } => at(id, true, Some(content)),
            StartPosition::Between(id) => at(id, false, None),
            StartPosition::Unknown => KnownPosition::Unusable,
            StartPosition::Tail | StartPosition::From(_) => KnownPosition::None,
        };
        positions.set(number, position);
        entries.push(ChannelStart { number, name, start, floor });
    }
    (entries, positions)
}

/// A grant's end on the monotonic clock, a random part earlier, so that streams that were granted together do not all end at once.
fn deadline(expires_at: u64) -> Instant {
    let left = Duration::from_millis(expires_at.saturating_sub(now_ms()));
    let early = (left / 10).min(Duration::from_secs(30)).mul_f64(rand::random_range(0.0..1.0));
    // A time beyond the range of the clock becomes a year.
    let now = Instant::now();
    now.checked_add(left - early).unwrap_or(now + Duration::from_secs(365 * 86_400))
}
