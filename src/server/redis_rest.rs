//! `/redis`: the part of the Upstash REST protocol that the npm package's server half speaks. Its errors are strings, as
//! that protocol's are.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::channel::raw_subscription::RawSubscription;
use crate::server::App;
use crate::server::request::{read_body, shows_token};
use crate::server::respond;
use crate::server::respond::Response;
use crate::store::StoreError;
use crate::store::command::{Command, Reply};

/// Commands of one pipeline.
const MAX_COMMANDS: usize = 1000;
/// A silent subscription says something this often.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// Everything under `/redis`.
pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Response {
    let live = app.live();
    if live.rest_tokens.is_empty() {
        return respond::not_found();
    }
    if !shows_token(request.headers(), &live.rest_tokens) {
        return fail(StatusCode::UNAUTHORIZED, "WRONGPASS the bearer token is not one of redis-rest.tokens");
    }
    if request.method() != Method::POST {
        return fail(StatusCode::METHOD_NOT_ALLOWED, "ERR commands are sent by POST, as a JSON array");
    }
    let path = request.uri().path().trim_start_matches("/redis").trim_start_matches('/').to_owned();
    if let Some(channel) = path.strip_prefix("subscribe/") {
        return subscribe(app, channel, request.headers().clone());
    }
    let in_base64 = request.headers().get("upstash-encoding").is_some_and(|v| v == "base64");
    // A whole event and its overhead, escaped.
    let limit = app.config.stream.hub.max_event_size * 2 + (64 << 10);
    let body = match read_body(request.into_body(), limit).await {
        Ok(body) => body,
        Err(unread) => return fail(unread.status(), &format!("ERR {unread}")),
    };
    let body: Value = match serde_json::from_slice(&body) {
        Ok(body) => body,
        Err(cause) => return fail(StatusCode::BAD_REQUEST, &format!("ERR the body is no JSON: {cause}")),
    };
    match &*path {
        "" => match run(app, &body).await {
            Ok(reply) => respond::json(StatusCode::OK, &json!({ "result": to_json(reply, in_base64) })),
            Err((status, text)) => fail(status, &text),
        },
        "pipeline" => pipeline(app, &body, in_base64).await,
        _ => fail(StatusCode::NOT_FOUND, "ERR only single commands, /pipeline and /subscribe/… are here"),
    }
}

fn fail(status: StatusCode, text: &str) -> Response {
    respond::json(status, &json!({ "error": text }))
}

async fn pipeline(app: &App, body: &Value, in_base64: bool) -> Response {
    let Some(commands) = body.as_array().filter(|list| list.len() <= MAX_COMMANDS) else {
        return fail(
            StatusCode::BAD_REQUEST,
            &format!("ERR a pipeline is a JSON array of at most {MAX_COMMANDS} commands"),
        );
    };
    let mut results = Vec::with_capacity(commands.len());
    for command in commands {
        results.push(match run(app, command).await {
            Ok(reply) => json!({ "result": to_json(reply, in_base64) }),
            Err((_, text)) => json!({ "error": text }),
        });
    }
    respond::json(StatusCode::OK, &Value::Array(results))
}

async fn run(app: &App, body: &Value) -> Result<Reply, (StatusCode, String)> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let command = Command::parse(body).map_err(|cause| bad(cause.to_string()))?;
    let key = command.key();
    if !app.permits(key) {
        return Err((
            StatusCode::FORBIDDEN,
            format!("NOPERM {key:?} is not a channel here (channels.allow, channels.deny)"),
        ));
    }
    let max = app.config.stream.hub.max_event_size;
    if let Command::Add { fields, .. } = &command
        && fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > max
    {
        return Err(bad(format!("ERR an event of more than {max} bytes (stream.max-event) would reach nobody")));
    }
    app.hub.store().command(&command).await.map_err(|cause| match cause {
        StoreError::WrongType => bad("WRONGTYPE Operation against a key holding the wrong kind of value".into()),
        StoreError::Refused(text) => bad(text),
        StoreError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ERR the store does not answer".into()),
    })
}

/// Strings in base64, where the client wants that; all but `OK`.
fn to_json(reply: Reply, in_base64: bool) -> Value {
    match reply {
        Reply::Nil => Value::Null,
        Reply::Int(number) => number.into(),
        Reply::List(items) => items.into_iter().map(|item| to_json(item, in_base64)).collect(),
        Reply::Text(bytes) if in_base64 && bytes != b"OK" => STANDARD.encode(bytes).into(),
        Reply::Text(bytes) => String::from_utf8_lossy(&bytes).into(),
    }
}

/// `SUBSCRIBE` as an event stream. The client puts the channel into the path as it is: the whole rest is the one channel.
fn subscribe(app: &App, channel: &str, headers: HeaderMap) -> Response {
    let channel = percent_decode_str(channel).decode_utf8_lossy().into_owned();
    if !app.permits(&channel) {
        return fail(StatusCode::FORBIDDEN, &format!("NOPERM {channel:?} is not a channel here"));
    }
    let listener = Listener { tap: app.hub.subscribe_raw(&channel), channel, greeted: false };
    let frames = stream::unfold(listener, |mut listener| async move {
        let frame = listener.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(frame)), listener))
    });
    let (begun, mut options) = (app.departure.begun(), app.options.subscribe());
    let end = async move {
        // A token that was taken away reads no more.
        let gone = options.wait_for(|live| !shows_token(&headers, &live.rest_tokens));
        tokio::select! { () = begun => {}, _ = gone => {} }
    };
    respond::event_stream(StreamBody::new(frames.take_until(Box::pin(end))))
}

struct Listener {
    tap: RawSubscription,
    channel: String,
    greeted: bool,
}

impl Listener {
    async fn next(&mut self) -> Option<Bytes> {
        let channel = self.channel.replace(['\n', '\r'], " ");
        if !self.greeted {
            self.tap.ready().await;
            self.greeted = true;
            return Some(format!("data: subscribe,{channel},1\n\n").into());
        }
        match tokio::time::timeout(HEARTBEAT, self.tap.next()).await {
            Ok(message) => {
                // JSON has line breaks only between its tokens; anything else loses them.
                let text = String::from_utf8_lossy(&message?).replace(['\n', '\r'], " ");
                Some(format!("data: message,{channel},{text}\n\n").into())
            }
            Err(_) => Some(Bytes::from_static(b": ping\n\n")),
        }
    }
}
