//! `POST /v1/emit`

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::value::RawValue;
use serde_json::{Number, json};

use crate::event::{NewEvent, StreamId};
use crate::server::App;
use crate::server::request::{Expected, json_body};
use crate::server::respond;
use crate::server::respond::{Response, error};
use crate::store::Retention;

/// What `POST /v1/emit` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Emit {
    channel: String,
    event: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "whole")]
    max_length: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    expire_seconds: Option<u64>,
}

/// A whole number, in whatever way JSON writes it: `60.0` is one. More entries or seconds than that is a mistake, and no Redis takes
/// all that 64 bits can say.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(from)? else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and not negative")]
    let float = || number.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64);
    match number.as_u64().or_else(float).filter(|n| *n <= u64::from(u32::MAX)) {
        Some(whole) => Ok(Some(whole)),
        None => Err(D::Error::custom(format!("{number} is no whole number from 0 to {}", u32::MAX))),
    }
}

/// Emits what the body says; the playground does it the same way.
pub async fn emit(app: &App, request: Request<Incoming>) -> Response {
    let expected =
        Expected { error: "invalid_event", example: r#"{"channel":"news","event":"post.created","data":{}}"# };
    let emit = match json_body(request, app.config.stream.hub.max_event_size + (64 << 10), expected).await {
        Ok(emit) => emit,
        Err(response) => return *response,
    };
    match emit_event(app, emit).await {
        Ok(id) => respond::json(StatusCode::OK, &json!({ "id": id.to_string() })),
        Err(response) => *response,
    }
}

async fn emit_event(app: &App, emit: Emit) -> Result<StreamId, Box<Response>> {
    if !app.permits(&emit.channel) {
        let text = format!("{:?} is not a channel here (channels.allow, channels.deny)", emit.channel);
        return Err(Box::new(error(StatusCode::FORBIDDEN, "channel_not_allowed", text)));
    }
    let event = NewEvent::from_json(emit.event, emit.data.as_deref().unwrap_or(RawValue::NULL));
    let max = app.config.stream.hub.max_event_size;
    if event.text.len() + event.event.len() > max {
        let text = format!("an event of more than {max} bytes (stream.max-event) would reach nobody");
        return Err(Box::new(error(StatusCode::PAYLOAD_TOO_LARGE, "event_too_large", text)));
    }
    let retention = Retention { max_length: emit.max_length, expire_seconds: emit.expire_seconds };
    app.hub.store().emit(&emit.channel, &event, retention).await.map_err(|cause| Box::new(respond::store_error(&cause)))
}
