//! The answer that rejects a client.

use serde::Serialize;

use crate::answer;
use crate::bindings::tidegate::policy::types;

/// Rejects a client. The client gets this response unchanged.
#[derive(Clone, Debug)]
#[must_use = "a rejection has no effect until it is returned"]
pub struct Rejection {
    pub(crate) inner: types::Rejection,
    pub(crate) reason: Option<String>,
}

impl Rejection {
    /// A response with a status from 200 to 599 and a text body.
    pub fn new(status: u16, text: impl Into<Vec<u8>>) -> Self {
        Self::typed(status, "text/plain", text.into())
    }

    /// A response with a status from 200 to 599 and a JSON body.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::typed(status, "application/json", body),
            Err(error) => crate::Error::from(error).into(),
        }
    }

    fn typed(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![types::Header { name: "content-type".into(), value: content_type.into() }];
        Self { inner: types::Rejection { status, headers, body }, reason: None }
    }

    /// 400: the request is malformed.
    pub fn bad_request(text: impl Into<Vec<u8>>) -> Self {
        Self::new(400, text)
    }

    /// 401: the client is not authenticated.
    pub fn unauthorized(text: impl Into<Vec<u8>>) -> Self {
        Self::new(401, text)
    }

    /// 403: the client may not read a requested channel.
    pub fn forbidden(text: impl Into<Vec<u8>>) -> Self {
        Self::new(403, text)
    }

    /// 404: a requested channel does not exist, or the client may not know that it does.
    pub fn not_found(text: impl Into<Vec<u8>>) -> Self {
        Self::new(404, text)
    }

    /// 429: the client sent too many requests.
    pub fn too_many_requests(text: impl Into<Vec<u8>>) -> Self {
        Self::new(429, text)
    }

    /// 503: the policy cannot decide now.
    pub fn unavailable(text: impl Into<Vec<u8>>) -> Self {
        Self::new(503, text)
    }

    /// Adds a response header, in addition to `content-type`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.inner.headers.push(types::Header { name: name.into(), value: value.into() });
        self
    }

    /// The reason for the decision, for the operator's log; never sent to the client.
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub(crate) fn answer(self) -> types::Rejection {
        if let Some(reason) = &self.reason {
            answer::reason(reason);
        }
        self.inner
    }
}
