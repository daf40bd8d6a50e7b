//! Construction of requests for tests.

use crate::Request;
use crate::bindings::tidegate::policy::types;

/// Constructors for tests.
impl Request {
    /// A `GET` request to `https://gate.example` with this path and query.
    #[must_use]
    pub fn get(path_with_query: &str) -> Self {
        Self::new(types::Request {
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "gate.example".to_owned(),
            path_with_query: path_with_query.to_owned(),
            headers: Vec::new(),
            client_address: "192.0.2.1".to_owned(),
        })
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.inner.headers.push(types::Header { name: name.to_ascii_lowercase(), value: value.into() });
        self
    }

    /// Adds a cookie.
    #[must_use]
    pub fn with_cookie(self, name: &str, value: &str) -> Self {
        self.with_header("cookie", format!("{name}={value}"))
    }

    /// Adds a bearer token.
    #[must_use]
    pub fn with_bearer(self, token: &str) -> Self {
        self.with_header("authorization", format!("Bearer {token}"))
    }

    /// Replaces the client's address.
    #[must_use]
    pub fn from_address(mut self, address: &str) -> Self {
        address.clone_into(&mut self.inner.client_address);
        self
    }
}
