//! Outbound requests by `wasi:http`, several at a time.

use std::cell::RefCell;
use std::collections::BTreeMap;

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler::{ErrorCode, FutureIncomingResponse, OutgoingRequest, handle};
use wasip2::http::types::{Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, Scheme};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use crate::gateway::{NetworkEvent, OutboundRequest};

/// Bytes of a response's body that are read at once.
const CHUNK_BYTES: u64 = 64 << 10;

thread_local! {
    static REQUESTS: RefCell<Requests> = const { RefCell::new(Requests(BTreeMap::new())) };
}

/// Calls `work` with the requests of this instance.
pub fn with<T>(work: impl FnOnce(&mut Requests) -> T) -> T {
    REQUESTS.with_borrow_mut(work)
}

/// The requests that are not finished, by id: each is polled in this order.
pub struct Requests(BTreeMap<u32, Exchange>);

/// A request and its response. Fields are dropped in order: streams before the bodies that they belong to.
struct Exchange {
    upload: Option<Upload>,
    phase: Phase,
}

/// The rest of a request's body.
struct Upload {
    stream: OutputStream,
    body: OutgoingBody,
    bytes: Vec<u8>,
    written: usize,
}

enum Phase {
    /// The request could not be sent.
    Failed(String),
    Sent(FutureIncomingResponse),
    /// The head was reported. With `wanted` the platform script waits for the next part of the body.
    Body {
        stream: InputStream,
        _body: IncomingBody,
        _response: IncomingResponse,
        wanted: bool,
    },
}

impl Requests {
    pub fn send(&mut self, request: OutboundRequest) {
        let id = request.id;
        let exchange =
            Exchange::start(request).unwrap_or_else(|error| Exchange { upload: None, phase: Phase::Failed(error) });
        self.0.insert(id, exchange);
    }

    pub fn read(&mut self, id: u32) {
        if let Some(Exchange { phase: Phase::Body { wanted, .. }, .. }) = self.0.get_mut(&id) {
            *wanted = true;
        }
    }

    pub fn cancel(&mut self, id: u32) {
        self.0.remove(&id);
    }

    /// Waits for the next event, for at most this time in ms.
    pub fn wait(&mut self, time: Option<f64>) -> Option<(u32, NetworkEvent)> {
        let deadline = time.map(|ms| monotonic_clock::now().saturating_add((ms * 1e6) as u64));
        loop {
            if let Some(event) = self.next_event() {
                return Some(event);
            }
            let mut pollables: Vec<Pollable> = self.0.values().flat_map(Exchange::pollables).collect();
            if let Some(deadline) = deadline {
                if monotonic_clock::now() >= deadline {
                    return None;
                }
                pollables.push(monotonic_clock::subscribe_instant(deadline));
            }
            if pollables.is_empty() {
                return None;
            }
            poll(&pollables.iter().collect::<Vec<_>>());
        }
    }

    fn next_event(&mut self) -> Option<(u32, NetworkEvent)> {
        let (id, event) = self.0.iter_mut().find_map(|(id, exchange)| Some((*id, exchange.advance()?)))?;
        if matches!(event, NetworkEvent::End | NetworkEvent::Failed(_)) {
            self.0.remove(&id);
        }
        Some((id, event))
    }
}

impl Exchange {
    fn start(request: OutboundRequest) -> Result<Self, String> {
        let invalid = |what: &str| format!("the {what} of the request is invalid");
        let fields = Fields::new();
        for (name, value) in &request.headers {
            // Characters of a header are bytes.
            let bytes: Vec<u8> = value.chars().map(|char| char as u8).collect();
            fields.append(name, &bytes).map_err(|error| format!("header {name}: {error}"))?;
        }
        let (scheme, rest) = request.url.split_once("://").ok_or_else(|| invalid("URL"))?;
        let path_start = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_start);
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => Scheme::Other(other.into()),
        };

        let outgoing = OutgoingRequest::new(fields);
        outgoing.set_method(&method(&request.method)).map_err(|()| invalid("method"))?;
        outgoing.set_scheme(Some(&scheme)).map_err(|()| invalid("scheme"))?;
        outgoing.set_authority(Some(authority)).map_err(|()| invalid("authority"))?;
        outgoing.set_path_with_query(Some(path)).map_err(|()| invalid("path"))?;
        let body = outgoing.body().map_err(|()| invalid("body"))?;
        let stream = body.write().map_err(|()| invalid("body"))?;
        let response = handle(outgoing, None).map_err(|error| describe(&error))?;
        let upload = Upload { stream, body, bytes: request.body.unwrap_or_default(), written: 0 };
        let mut exchange = Self { upload: Some(upload), phase: Phase::Sent(response) };
        exchange.write();
        Ok(exchange)
    }

    /// The pollables to wait for.
    fn pollables(&self) -> impl Iterator<Item = Pollable> {
        let upload = self.upload.as_ref().map(|upload| upload.stream.subscribe());
        let download = match &self.phase {
            Phase::Sent(response) => Some(response.subscribe()),
            Phase::Body { stream, wanted: true, .. } => Some(stream.subscribe()),
            _ => None,
        };
        upload.into_iter().chain(download)
    }

    fn advance(&mut self) -> Option<NetworkEvent> {
        self.write();
        match &mut self.phase {
            Phase::Failed(error) => Some(NetworkEvent::Failed(std::mem::take(error))),
            Phase::Sent(response) => {
                let response = match response.get()? {
                    Ok(Ok(response)) => response,
                    Ok(Err(error)) => return Some(NetworkEvent::Failed(describe(&error))),
                    Err(()) => return Some(NetworkEvent::Failed("the response was taken twice".into())),
                };
                Some(self.start_body(response))
            }
            Phase::Body { stream, wanted, .. } if *wanted => match stream.read(CHUNK_BYTES) {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => {
                    *wanted = false;
                    Some(NetworkEvent::Chunk(bytes))
                }
                Err(StreamError::Closed) => Some(NetworkEvent::End),
                Err(StreamError::LastOperationFailed(error)) => Some(NetworkEvent::Failed(error.to_debug_string())),
            },
            Phase::Body { .. } => None,
        }
    }

    fn start_body(&mut self, response: IncomingResponse) -> NetworkEvent {
        let fields = response.headers().entries();
        let headers =
            fields.into_iter().map(|(name, value)| (name, value.into_iter().map(char::from).collect())).collect();
        let status = response.status();
        let opened = response.consume().and_then(|body| Ok((body.stream()?, body)));
        let Ok((stream, body)) = opened else {
            return NetworkEvent::Failed("the response has no body".into());
        };
        self.phase = Phase::Body { stream, _body: body, _response: response, wanted: false };
        NetworkEvent::Head { status, headers }
    }

    /// Writes as much of the request's body as the gateway takes, and ends it. A failure is that of the response, too.
    fn write(&mut self) {
        let Some(upload) = &mut self.upload else { return };
        while let rest @ [_, ..] = &upload.bytes[upload.written..] {
            let Ok(space) = upload.stream.check_write() else { break };
            if space == 0 {
                return;
            }
            let part = &rest[..rest.len().min(usize::try_from(space).unwrap_or(usize::MAX))];
            if upload.stream.write(part).is_err() {
                break;
            }
            upload.written += part.len();
        }
        if let Some(Upload { stream, body, bytes, written }) = self.upload.take() {
            drop(stream);
            if written == bytes.len() {
                // An error there is reported by the response.
                let _ = OutgoingBody::finish(body, None);
            }
        }
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.into()),
    }
}

/// A failure as one line, for the `cause` of a `TypeError`.
fn describe(error: &ErrorCode) -> String {
    match error {
        ErrorCode::HttpRequestDenied => {
            "the gateway does not allow requests to this host, or no further request".into()
        }
        ErrorCode::ConnectionRefused => "the host refused the connection".into(),
        ErrorCode::DnsError(_) => "the host has no address".into(),
        ErrorCode::HttpResponseTimeout | ErrorCode::ConnectionTimeout => "the host did not answer in time".into(),
        ErrorCode::HttpResponseBodySize(_) => "the response is too large".into(),
        ErrorCode::HttpRequestBodySize(_) => "the request's body is too large".into(),
        other => format!("{other:?}").trim_start_matches("ErrorCode::").to_string(),
    }
}
