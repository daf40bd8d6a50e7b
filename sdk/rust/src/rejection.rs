//! Keeping a client out.

use serde::Serialize;

use crate::answer;
use crate::bindings::tidegate::policy::types;

/// Keeps a client out. It is what the client gets, as it stands.
#[derive(Clone, Debug)]
#[must_use = "a rejection keeps nobody out until it is returned"]
pub struct Rejection {
    pub(crate) inner: types::Rejection,
    pub(crate) reason: Option<String>,
}

impl Rejection {
    /// Of any status from 200 to 599, with a text.
    pub fn new(status: u16, text: impl Into<Vec<u8>>) -> Self {
        Self::typed(status, "text/plain", text.into())
    }

    /// Of any status from 200 to 599, with a value that becomes JSON.
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

    /// 400: the request makes no sense.
    pub fn bad_request(text: impl Into<Vec<u8>>) -> Self {
        Self::new(400, text)
    }

    /// 401: who is it?
    pub fn unauthorized(text: impl Into<Vec<u8>>) -> Self {
        Self::new(401, text)
    }

    /// 403: not for this one.
    pub fn forbidden(text: impl Into<Vec<u8>>) -> Self {
        Self::new(403, text)
    }

    /// 404: there is no such channel, or none that this client may know of.
    pub fn not_found(text: impl Into<Vec<u8>>) -> Self {
        Self::new(404, text)
    }

    /// 429: too often.
    pub fn too_many_requests(text: impl Into<Vec<u8>>) -> Self {
        Self::new(429, text)
    }

    /// 503: it cannot be told now.
    pub fn unavailable(text: impl Into<Vec<u8>>) -> Self {
        Self::new(503, text)
    }

    /// A header of the response, beside `content-type`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.inner.headers.push(types::Header { name: name.into(), value: value.into() });
        self
    }

    /// Why, for the operator's log. The client is not told.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
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
