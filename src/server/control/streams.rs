//! `GET /v1/streams`: the open streams of this node.

use http::Request;
use serde_json::{Value, json};

use crate::policy::request;
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::control::params::Params;
use crate::server::respond::{self, Response};
use crate::stream::registry::StreamInfo;

const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 1000;
/// A page ends after this many bytes: a stream may have a hundred long channel names.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// A page of the matching streams, in the order in which they were opened.
pub async fn list<B>(app: &App, request: Request<B>) -> Result<Response, ApiError> {
    let known = ["subject", "channel", "generation", "address", "limit", "after"];
    let params = Params::read(request.uri(), &known)?;
    let (subject, channel) = (params.text("subject"), params.text("channel"));
    let address = params.text("address").map(|text| {
        let expected = format!("address must be an IP address, or empty for unknown ones, not {text:?}");
        request::parse_client_address(text).map_err(|_| ApiError::InvalidParameter(expected))
    });
    let address = address.transpose()?;
    let generation = params.number("generation", 0, u64::MAX)?;
    let limit = params.number("limit", 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let after = params.number("after", 0, u64::MAX)?.unwrap_or(0);
    let matches = |info: &StreamInfo| {
        subject.is_none_or(|value| info.subject.as_deref() == Some(value))
            && channel.is_none_or(|value| info.channels.iter().any(|name| **name == *value))
            && generation.is_none_or(|value| info.generation == value)
            && address.is_none_or(|value| info.address == value)
    };
    // One more than the limit, to know whether there is a next page.
    let max = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = app.streams.list(after, max.saturating_add(1), matches);
    let (mut bytes, mut count) = (0, 0);
    while count < found.len().min(max) && bytes <= MAX_PAGE_BYTES {
        bytes += 128 + found[count].1.channels.iter().map(|name| name.len()).sum::<usize>();
        count += 1;
    }
    let (page, rest) = found.split_at(count);
    let next = page.last().filter(|_| !rest.is_empty()).map(|(id, _)| id);
    let streams: Vec<Value> = page.iter().map(|(id, info)| describe(*id, info)).collect();
    Ok(respond::ok(json!({ "count": app.streams.count(), "streams": streams, "next": next })))
}

fn describe(id: u64, info: &StreamInfo) -> Value {
    json!({
        "id": id,
        "request_id": info.request_id,
        "subject": info.subject,
        "channels": info.channels.iter().map(|name| &**name).collect::<Vec<_>>(),
        "address": info.address,
        "since": info.since,
        "expires_at": info.expires_at,
        "generation": info.generation,
    })
}
