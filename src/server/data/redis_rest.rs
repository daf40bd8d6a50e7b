//! `/redis`: the part of the Upstash REST protocol that the npm package's server half uses. Errors are strings, as in that protocol.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::server::access::shows_token;
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::body::read_body;
use crate::server::respond::{self, Response};

use crate::store::StoreError;
use crate::store::command::{Reply, RestCommand};

/// Commands of one pipeline.
const MAX_COMMANDS: usize = 1000;
/// Pause after which a silent subscription sends a comment.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// Answers a request below `/redis`.
pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    if app.live().rest_tokens.is_empty() {
        return Err(ApiError::NotFound);
    }
    let result = dispatch(app, request).await;
    Ok(result.unwrap_or_else(|error| {
        let status = match error {
            // The protocol answers 400 whatever is wrong with a command.
            ApiError::Store(StoreError::WrongType) | ApiError::EventTooLarge { .. } => StatusCode::BAD_REQUEST,
            ref error => error.status(),
        };
        respond::json(status, &json!({ "error": error_text(&error) }))
    }))
}

/// An error in the form of the Upstash protocol: `CODE text`.
fn error_text(error: &ApiError) -> String {
    match error {
        ApiError::InvalidRestToken => format!("WRONGPASS {error}"),
        ApiError::ChannelNotAllowed(_) => format!("NOPERM {error}"),
        ApiError::Store(StoreError::WrongType) => {
            "WRONGTYPE Operation against a key holding the wrong kind of value".into()
        }
        // Both begin with a code.
        ApiError::Store(StoreError::InvalidCommand(text) | StoreError::Refused(text)) => text.clone(),
        ApiError::Command(cause) => cause.to_string(),
        error => format!("ERR {}", error.message()),
    }
}

async fn dispatch(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    if !shows_token(request.headers(), &app.live().rest_tokens) {
        return Err(ApiError::InvalidRestToken);
    }
    if request.method() != Method::POST {
        return Err(ApiError::MethodNotAllowed { allow: "POST".into() });
    }
    // Exactly one spelling of each path: a proxy's rule for it must hold.
    let path = request.uri().path();
    let path = path.strip_prefix("/redis").map_or(path, |rest| rest.strip_prefix('/').unwrap_or(rest)).to_owned();
    if let Some(channel) = path.strip_prefix("subscribe/") {
        return subscribe(app, channel, request.headers().clone());
    }
    let in_base64 = request.headers().get("upstash-encoding").is_some_and(|v| v == "base64");
    // A whole event with its overhead, escaped.
    let limit = app.config.stream.hub.max_event_size * 2 + (64 << 10);
    let body = read_body(request.into_body(), limit).await?;
    let body: Value =
        serde_json::from_slice(&body).map_err(|cause| invalid(format!("the body is not JSON: {cause}")))?;
    match &*path {
        "" => {
            let reply = run(app, &body).await?;
            Ok(respond::ok(json!({ "result": to_json(reply, in_base64) })))
        }
        "pipeline" => pipeline(app, &body, in_base64).await,
        _ => Err(ApiError::NotFound),
    }
}

/// The body is neither a command nor a pipeline.
const fn invalid(reason: String) -> ApiError {
    ApiError::InvalidBody { code: "invalid_command", reason }
}

async fn pipeline(app: &App, body: &Value, in_base64: bool) -> Result<Response, ApiError> {
    let Some(commands) = body.as_array().filter(|list| list.len() <= MAX_COMMANDS) else {
        return Err(invalid(format!("a pipeline is a JSON array of at most {MAX_COMMANDS} commands")));
    };
    let mut results = Vec::with_capacity(commands.len());
    for command in commands {
        results.push(match run(app, command).await {
            Ok(reply) => json!({ "result": to_json(reply, in_base64) }),
            Err(error) => json!({ "error": error_text(&error) }),
        });
    }
    Ok(respond::ok(results))
}

async fn run(app: &App, body: &Value) -> Result<Reply, ApiError> {
    let command = RestCommand::parse(body)?;
    app.check_channel(command.key())?;
    let max_bytes = app.config.stream.hub.max_event_size;
    if let RestCommand::Add { fields, .. } = &command
        && fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > max_bytes
    {
        return Err(ApiError::EventTooLarge { max_bytes });
    }
    Ok(app.hub.store().command(&command).await?)
}

/// Strings in base64 if the client requested it, except `OK`.
fn to_json(reply: Reply, in_base64: bool) -> Value {
    match reply {
        Reply::Nil => Value::Null,
        Reply::Int(number) => number.into(),
        Reply::List(items) => items.into_iter().map(|item| to_json(item, in_base64)).collect(),
        Reply::Text(bytes) if in_base64 && bytes != b"OK" => STANDARD.encode(bytes).into(),
        Reply::Text(bytes) => String::from_utf8_lossy(&bytes).into(),
    }
}

/// `SUBSCRIBE` as an event stream. The client does not escape slashes in the channel, so the rest of the path is one channel.
fn subscribe(app: &App, channel: &str, headers: HeaderMap) -> Result<Response, ApiError> {
    let channel = percent_decode_str(channel).decode_utf8_lossy();
    app.check_channel(&channel)?;
    // A line break would end a frame.
    let name = channel.replace(['\n', '\r'], " ");
    let subscription = app.hub.subscribe_raw(&channel).map_err(ApiError::ChannelMemoryExhausted)?;
    let frames = stream::unfold((subscription, false), move |(mut subscription, is_ready)| {
        let name = name.clone();
        async move {
            let frame = if is_ready {
                match tokio::time::timeout(HEARTBEAT, subscription.next()).await {
                    // In JSON a line break is whitespace between tokens; other messages lose it.
                    Ok(message) => {
                        let text = String::from_utf8_lossy(&message?).replace(['\n', '\r'], " ");
                        format!("data: message,{name},{text}\n\n")
                    }
                    Err(_) => ": ping\n\n".to_owned(),
                }
            } else {
                subscription.ready().await;
                format!("data: subscribe,{name},1\n\n")
            };
            Some((Bytes::from(frame), (subscription, true)))
        }
    });
    let (draining, mut options) = (app.draining(), app.options.subscribe());
    let end = async move {
        // A subscription ends when its token is removed from the configuration.
        let removed = options.wait_for(|live| !shows_token(&headers, &live.rest_tokens));
        tokio::select! { () = draining => {}, _ = removed => {} }
    };
    Ok(respond::frames(frames, end))
}
