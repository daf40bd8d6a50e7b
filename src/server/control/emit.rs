//! `POST /v1/emit`

use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::value::RawValue;
use serde_json::{Number, json};

use crate::event::NewEvent;
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::body::{BODY_TIMEOUT, BodyLimits, ExpectedBody, from_json, json_bytes};
use crate::server::respond::{self, Response};
use crate::store::Retention;
use crate::store::emit::{self, Attempt, EmitToken};

/// Body of `POST /v1/emit`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Emit<'a> {
    channel: String,
    event: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "whole")]
    max_length: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    expire_seconds: Option<u64>,
}

/// A whole number in any JSON notation, `60.0` too. The limit of 32 bits catches mistakes, and Redis does not accept all 64-bit values.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(from)? else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and not negative")]
    let float = || number.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64);
    match number.as_u64().or_else(float).filter(|n| *n <= u64::from(u32::MAX)) {
        Some(whole) => Ok(Some(whole)),
        None => Err(D::Error::custom(format!("{number} is not a whole number from 0 to {}", u32::MAX))),
    }
}

/// Bytes of memory for each byte of a body: the event, its notification, and the script's arguments with both, which the client of the
/// store copies several times.
const EMIT_MEMORY_FACTOR: usize = 12;

/// The header with the client's own key of an emit, the same in each of its attempts.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// An emit without a reply is tried again for this time.
const EMIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Emits an event. The playground uses it, too.
pub async fn emit(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let expected =
        ExpectedBody { code: "invalid_event", example: r#"{"channel":"news","event":"post.created","data":{}}"# };
    let max_bytes = app.config.stream.hub.max_event_size;
    let mut memory = app.body_budget.reservation(None);
    let limits = BodyLimits {
        max_bytes: max_bytes + (64 << 10),
        timeout: BODY_TIMEOUT,
        memory: Some((&mut memory, EMIT_MEMORY_FACTOR)),
    };
    // A key of the client's own may be that of an attempt before this one.
    let key = request.headers().get(IDEMPOTENCY_KEY).map(|key| key.to_str().unwrap_or_default().parse());
    let key: Option<EmitToken> = key
        .transpose()
        .map_err(|_| ApiError::InvalidParameter("Idempotency-Key: 1 to 128 visible ASCII characters".into()))?;
    let (token, is_repeated) = key.map_or_else(|| (EmitToken::new(), false), |key| (key, true));
    let body = json_bytes(request, limits).await?;
    let Emit { channel, event, data, max_length, expire_seconds } = from_json(&body, &expected)?;
    app.check_channel(&channel)?;
    let event = NewEvent::from_json(event, data.unwrap_or(RawValue::NULL));
    drop(body);
    if event.text.len() + event.event.len() > max_bytes {
        return Err(ApiError::EventTooLarge { max_bytes });
    }
    let retention = Retention { max_length, expire_seconds };
    let attempt = Attempt { token: &token, is_repeated };
    let emitted = emit::emit(&**app.hub.store(), &channel, &event, retention, attempt, EMIT_TIMEOUT).await?;
    let mut answer = json!({ "id": emitted.id.to_string() });
    if emitted.is_uncertain {
        answer["uncertain"] = true.into();
    }
    Ok(respond::ok(answer))
}
