//! `/redis`: the part of the Upstash REST protocol that the npm package's server half uses. Errors are strings, as in that protocol.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;

use crate::server::access::shows_token;
use crate::server::api_error::{ApiError, RETRY_AFTER_SECONDS};
use crate::server::app::App;
use crate::server::body::{BODY_TIMEOUT, BodyLimits, read_body};
use crate::server::body_budget::Reservation;
use crate::server::respond::{self, Counts, Response};
use crate::store::StoreError;
use crate::store::command::{Reply, RestCommand};
use crate::stream::registry::AbortSignal;
use crate::util::client_key::ClientKey;

/// Commands of one pipeline.
const MAX_COMMANDS: usize = 1000;
/// Pause after which a silent subscription sends a comment.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// The last frame of a subscription whose messages were dropped. The protocol has no frame for an error, so it is a comment.
const TOO_SLOW: &str = ": closed: messages were dropped, because this subscriber did not read them in time\n\n";

enum SubscriptionPhase {
    Opening,
    Open,
    Ended,
}

/// Bytes of memory for each byte of a body: the body, the command that is parsed of it, and the copies that the client of the store makes.
const BODY_MEMORY_FACTOR: usize = 6;
/// Memory of an answer that is not known to be larger, in bytes: its limit, [`ANSWER_MEMORY_FACTOR`] times.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
/// Bytes of memory for each byte of an answer: the store's reply, and its JSON, which may have twice as many bytes.
const ANSWER_MEMORY_FACTOR: usize = 4;
const MAX_ESCAPE_FACTOR: usize = 2;

/// Answers a request below `/redis`.
pub async fn answer(
    app: &Arc<App>,
    request: Request<Incoming>,
    peer: SocketAddr,
    abort: AbortSignal,
) -> Result<Response, ApiError> {
    if app.live().rest_tokens.is_empty() {
        return Err(ApiError::NotFound);
    }
    let result = dispatch(app, request, peer, abort).await;
    Ok(result.unwrap_or_else(|error| {
        let status = match error {
            // The protocol answers 400 whatever is wrong with a command.
            ApiError::Store(StoreError::WrongType) | ApiError::EventTooLarge { .. } => StatusCode::BAD_REQUEST,
            ref error => error.status(),
        };
        let mut response = respond::json(status, &json!({ "error": error_text(&error) }));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
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
        // The text of Redis, which begins with a code.
        ApiError::Store(StoreError::InvalidCommand(text) | StoreError::NotReady(text) | StoreError::Refused(text)) => {
            text.clone()
        }
        ApiError::Command(cause) => cause.to_string(),
        error => format!("ERR {}", error.message()),
    }
}

async fn dispatch(
    app: &Arc<App>,
    request: Request<Incoming>,
    peer: SocketAddr,
    abort: AbortSignal,
) -> Result<Response, ApiError> {
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
        return subscribe(app, channel, request.headers().clone(), abort);
    }
    let in_base64 = request.headers().get("upstash-encoding").is_some_and(|v| v == "base64");
    // Of a trusted proxy only the limit of all bodies applies.
    let holder = (!app.config.is_trusted_proxy(peer.ip())).then(|| ClientKey::of_address(Some(peer.ip())));
    let mut memory = app.body_budget.reservation(holder);
    let limits = BodyLimits {
        // A whole event with its overhead, escaped.
        max_bytes: app.config.stream.hub.max_event_size * 2 + (64 << 10),
        timeout: BODY_TIMEOUT,
        memory: Some((&mut memory, BODY_MEMORY_FACTOR)),
    };
    let body = read_body(request.into_body(), limits).await?;
    let json: &RawValue =
        serde_json::from_slice(&body).map_err(|cause| invalid(format!("the body is not JSON: {cause}")))?;
    let mut answer = Answer::new(app, memory, in_base64).await?;
    match &*path {
        "" => answer.run(json).await?,
        "pipeline" => answer.run_all(json).await?,
        _ => return Err(ApiError::NotFound),
    }
    let mut response = respond::json_text(answer.memory.hold_with(answer.text));
    response.body_mut().counts = Counts::Reserved;
    Ok(response)
}

/// The body is neither a command nor a pipeline.
const fn invalid(reason: String) -> ApiError {
    ApiError::InvalidBody { code: "invalid_command", reason }
}

/// The commands of a pipeline, not parsed yet.
struct Pipeline<'a>(Vec<&'a RawValue>);

impl<'a> Deserialize<'a> for Pipeline<'a> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(PipelineVisitor)
    }
}

struct PipelineVisitor;

impl<'a> Visitor<'a> for PipelineVisitor {
    type Value = Pipeline<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a JSON array of at most {MAX_COMMANDS} commands")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<Pipeline<'a>, A::Error> {
        let mut commands = Vec::new();
        while let Some(command) = array.next_element()? {
            if commands.len() == MAX_COMMANDS {
                return Err(A::Error::invalid_length(MAX_COMMANDS + 1, &self));
            }
            commands.push(command);
        }
        Ok(Pipeline(commands))
    }
}

/// The answer of a request, as JSON.
struct Answer<'a> {
    app: &'a App,
    in_base64: bool,
    text: Vec<u8>,
    /// The memory of the request's body, and of an answer of `limit` bytes.
    memory: Reservation,
    body_memory: usize,
    limit: usize,
}

impl<'a> Answer<'a> {
    async fn new(app: &'a App, memory: Reservation, in_base64: bool) -> Result<Self, ApiError> {
        let body_memory = memory.bytes();
        let mut answer = Self { app, in_base64, text: Vec::new(), memory, body_memory, limit: 0 };
        answer.set_limit(SMALL_ANSWER_BYTES).await?;
        Ok(answer)
    }

    async fn set_limit(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.memory.grow_to(self.body_memory + bytes * ANSWER_MEMORY_FACTOR).await?;
        self.limit = bytes;
        Ok(())
    }

    async fn run_all(&mut self, json: &RawValue) -> Result<(), ApiError> {
        let Ok(Pipeline(commands)) = serde_json::from_str(json.get()) else {
            return Err(invalid(format!("a pipeline is a JSON array of at most {MAX_COMMANDS} commands")));
        };
        for (number, command) in commands.into_iter().enumerate() {
            self.text.push(if number == 0 { b'[' } else { b',' });
            if let Err(error) = self.run(command).await {
                self.text.extend_from_slice(json!({ "error": error_text(&error) }).to_string().as_bytes());
            }
        }
        self.text.extend_from_slice(if self.text.is_empty() { b"[]" } else { b"]" });
        Ok(())
    }

    /// Runs a command and appends its result. After an error nothing was appended.
    async fn run(&mut self, json: &RawValue) -> Result<(), ApiError> {
        let mut command = RestCommand::parse(json.get())?;
        self.app.check_channel(command.key())?;
        let max_bytes = self.app.config.stream.hub.max_event_size;
        if let RestCommand::Add { fields, .. } = &command
            && fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > max_bytes
        {
            return Err(ApiError::EventTooLarge { max_bytes });
        }
        // Room for the largest event.
        let large = max_bytes.max(SMALL_ANSWER_BYTES) + (64 << 10);
        loop {
            if let RestCommand::Range { max_bytes, .. } = &mut command {
                *max_bytes = self.room();
            }
            let appended = match self.app.hub.store().command(&command).await {
                Ok(reply) => self.append(&reply),
                Err(error) => Err(error),
            };
            match appended {
                // Only now, since most answers are small.
                Err(StoreError::AnswerTooLarge(_)) if self.limit < large => self.set_limit(large).await?,
                result => return Ok(result?),
            }
        }
    }

    /// Bytes of the limit that are left.
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.text.len() / MAX_ESCAPE_FACTOR)
    }

    fn append(&mut self, reply: &Reply) -> Result<(), StoreError> {
        let json = JsonReply { reply, in_base64: self.in_base64 };
        let mut length = LengthWriter(0);
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut length, &json);
        if let Reply::List(_) = reply
            && length.0 > self.room() * MAX_ESCAPE_FACTOR
        {
            return Err(StoreError::AnswerTooLarge(self.room()));
        }
        self.text.reserve_exact(length.0 + br#"{"result":}"#.len() + 1);
        self.text.extend_from_slice(br#"{"result":"#);
        let _ = serde_json::to_writer(&mut self.text, &json);
        self.text.push(b'}');
        Ok(())
    }
}

/// Counts bytes.
struct LengthWriter(usize);

impl io::Write for LengthWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reply as JSON: strings in base64 if the client requested it, except `OK`.
struct JsonReply<'a> {
    reply: &'a Reply,
    in_base64: bool,
}

impl Serialize for JsonReply<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let in_base64 = self.in_base64;
        match self.reply {
            Reply::Nil => to.serialize_none(),
            Reply::Int(number) => to.serialize_i64(*number),
            Reply::List(items) => to.collect_seq(items.iter().map(|reply| JsonReply { reply, in_base64 })),
            Reply::Text(bytes) if in_base64 && bytes != b"OK" => to.serialize_str(&STANDARD.encode(bytes)),
            Reply::Text(bytes) => to.serialize_str(&String::from_utf8_lossy(bytes)),
        }
    }
}

/// `SUBSCRIBE` as an event stream. The client does not escape slashes in the channel, so the rest of the path is one channel.
/// It counts as a stream.
fn subscribe(app: &App, channel: &str, headers: HeaderMap, abort: AbortSignal) -> Result<Response, ApiError> {
    let channel = percent_decode_str(channel).decode_utf8_lossy();
    app.check_channel(&channel)?;
    // Of a client with a token only the limit applies.
    let max = app.config.stream.max_streams;
    let permit = app.streams.admit(None, abort).map_err(|refusal| ApiError::TooManyStreams { max, refusal })?;
    // A line break would end a frame.
    let name = channel.replace(['\n', '\r'], " ");
    let subscription = app.hub.subscribe_raw(&channel).map_err(ApiError::ChannelMemoryExhausted)?;
    let start = (subscription, SubscriptionPhase::Opening);
    let frames = stream::unfold(start, move |(mut subscription, phase)| {
        let name = name.clone();
        async move {
            let (frame, phase) = match phase {
                SubscriptionPhase::Opening => {
                    subscription.ready().await;
                    (format!("data: subscribe,{name},1\n\n"), SubscriptionPhase::Open)
                }
                SubscriptionPhase::Open => match tokio::time::timeout(HEARTBEAT, subscription.next()).await {
                    // In JSON a line break is whitespace between tokens; other messages lose it.
                    Ok(Some(message)) => {
                        let text = String::from_utf8_lossy(&message).replace(['\n', '\r'], " ");
                        (format!("data: message,{name},{text}\n\n"), SubscriptionPhase::Open)
                    }
                    Ok(None) => (TOO_SLOW.to_owned(), SubscriptionPhase::Ended),
                    Err(_) => (": ping\n\n".to_owned(), SubscriptionPhase::Open),
                },
                SubscriptionPhase::Ended => return None,
            };
            Some((Bytes::from(frame), (subscription, phase)))
        }
    });
    let (draining, mut options) = (app.draining(), app.options.subscribe());
    let end = async move {
        let _permit = permit;
        // A subscription ends when its token is removed from the configuration.
        let removed = options.wait_for(|live| !shows_token(&headers, &live.rest_tokens));
        tokio::select! { () = draining => {}, _ = removed => {} }
    };
    Ok(respond::frames(frames, end))
}
