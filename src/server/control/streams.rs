//! `GET /v1/streams`: who reads what here.

use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::server::App;
use crate::server::control::params::Params;
use crate::server::respond;
use crate::server::respond::Response;
use crate::stream::registry::StreamInfo;

/// Streams of one page, unless fewer are wanted.
const USUAL: u64 = 100;
const MOST: u64 = 1000;
/// A page ends when it has so many bytes: a stream may have a hundred long names.
const BYTES: usize = 1 << 20;

/// The streams that match, in the order in which they came, a page at a time.
pub async fn list<B>(app: &App, request: Request<B>) -> Response {
    page(app, &request).unwrap_or_else(|refusal| *refusal)
}

fn page<B>(app: &App, request: &Request<B>) -> Result<Response, Box<Response>> {
    let known = ["subject", "channel", "version", "address", "limit", "after"];
    let params = Params::read(request.uri(), &known)?;
    let (subject, channel, address) = (params.text("subject"), params.text("channel"), params.text("address"));
    let version = params.number("version", 0, u64::MAX)?;
    let limit = params.number("limit", 1, MOST)?.unwrap_or(USUAL);
    let after = params.number("after", 0, u64::MAX)?.unwrap_or(0);
    let matches = |reader: &StreamInfo| {
        subject.is_none_or(|wanted| reader.subject.as_deref() == Some(wanted))
            && channel.is_none_or(|wanted| reader.channels.iter().any(|name| **name == *wanted))
            && version.is_none_or(|wanted| reader.generation == wanted)
            && address.is_none_or(|wanted| *reader.address == *wanted)
    };
    // One more than wanted says whether there is a next page.
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = app.streams.list(after, most.saturating_add(1), matches);
    let (mut streams, mut bytes, mut last) = (Vec::new(), 0, None);
    for (number, reader) in &found {
        if streams.len() == most || bytes > BYTES {
            let body = json!({ "count": app.streams.count(), "streams": streams, "next": last });
            return Ok(respond::json(StatusCode::OK, &body));
        }
        bytes += 128 + reader.channels.iter().map(|name| name.len()).sum::<usize>();
        streams.push(describe(*number, reader));
        last = Some(*number);
    }
    let body = json!({ "count": app.streams.count(), "streams": streams, "next": null });
    Ok(respond::json(StatusCode::OK, &body))
}

fn describe(number: u64, reader: &StreamInfo) -> Value {
    json!({
        "number": number,
        "request": reader.request_id,
        "subject": reader.subject,
        "channels": reader.channels.iter().map(|name| &**name).collect::<Vec<_>>(),
        "address": reader.address,
        "since": reader.since,
        "expires_at": reader.expires_at,
        "version": reader.generation,
    })
}
