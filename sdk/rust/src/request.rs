//! The client's request.

use std::borrow::Cow;

use crate::bindings::tidegate::policy::types;

/// A client's request to read channels.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) inner: types::Request,
}

impl Request {
    pub(crate) fn new(inner: types::Request) -> Self {
        Self { inner }
    }

    /// The HTTP method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.inner.method
    }

    /// `http` or `https`, as the client sees it.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.inner.scheme
    }

    /// Host and port, as the client sees them.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.inner.authority
    }

    /// The path as it was sent, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.split().0
    }

    /// Path and query as they were sent.
    #[must_use]
    pub fn path_with_query(&self) -> &str {
        &self.inner.path_with_query
    }

    /// The client's IP address; behind a trusted proxy, the one that the proxy names. Empty if it is unknown, because the proxy names none.
    #[must_use]
    pub fn client_address(&self) -> &str {
        &self.inner.client_address
    }

    /// The first header with this name, case-insensitively; `None` if its value is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next().and_then(|value| str::from_utf8(value).ok())
    }

    /// The values of all headers with this name, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = move |header: &&types::Header| header.name.eq_ignore_ascii_case(name);
        self.inner.headers.iter().filter(named).map(|header| &*header.value)
    }

    /// The first cookie with this name; `None` if it is empty or not UTF-8.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let mut pairs = self.headers("cookie").flat_map(|header| header.split(|&byte| byte == b';'));
        // Pairs that are not `name=value` are skipped, as other servers do.
        let value = pairs.find_map(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            let (found, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
            (found == name.as_bytes()).then_some(value)
        })?;
        str::from_utf8(value).ok().filter(|value| !value.is_empty())
    }

    /// The token of `authorization: Bearer <token>`; `None` if there are several such headers.
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        let mut headers = self.headers("authorization");
        let (first, None) = (headers.next()?, headers.next()) else { return None };
        let (scheme, token) = str::from_utf8(first).ok()?.split_once(' ')?;
        Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
    }

    /// The first query parameter with this name, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.queries(name).next()
    }

    /// All query parameters with this name, decoded, in order.
    pub fn queries(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        let pairs = form_urlencoded::parse(self.split().1.as_bytes());
        pairs.filter(move |(found, _)| found == name).map(|(_, value)| value)
    }

    fn split(&self) -> (&str, &str) {
        self.inner.path_with_query.split_once('?').unwrap_or((&self.inner.path_with_query, ""))
    }
}

#[cfg(test)]
mod tests;
