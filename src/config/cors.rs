//! Validates `[cors]`, and matches origins as browsers send them.

use std::collections::BTreeSet;

use http::HeaderName;
use http::header::{self, HeaderValue};
use url::Url;

use crate::config::{ConfigError, invalid, schema};
use crate::egress::origin::is_host_name;

const ORIGINS: &str = "cors.origins";
const HEADERS: &str = "cors.headers";

/// Request headers that a page may always send: credentials, and what event-source clients set by themselves.
const STANDARD_HEADERS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::CACHE_CONTROL, header::CONTENT_TYPE, HeaderName::from_static("last-event-id")];
/// Maximum size of the names that a preflight requests; no page needs more.
const MAX_REQUESTED_BYTES: usize = 2048;
/// Headers that no page can set, after the fetch standard; so are those that begin with `proxy-` and `sec-`.
const FORBIDDEN_HEADERS: [&str; 22] = [
    "accept-charset",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "connection",
    "content-length",
    "cookie",
    "cookie2",
    "date",
    "dnt",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Which web pages may read streams.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Allowed origins; `None` allows all.
    pub origins: Option<Vec<Origin>>,
    /// Whether requests may have cookies.
    pub credentials: bool,
    /// Which headers requests may have.
    pub headers: RequestHeaders,
}

/// The request headers that pages may send.
#[derive(Clone, Debug)]
pub enum RequestHeaders {
    Any,
    /// The value of `Access-Control-Allow-Headers`.
    Listed(HeaderValue),
}

impl RequestHeaders {
    fn validate(raw: &schema::Cors) -> Result<Self, ConfigError> {
        let Some(names) = &raw.headers else {
            let is_any = !raw.origins.iter().any(|origin| origin == "*");
            return Ok(if is_any { Self::Any } else { Self::listed(&BTreeSet::new()) });
        };
        if names.iter().any(|name| name == "*") {
            let alone = "* allows every header: remove the others, or the *";
            return if names.len() == 1 { Ok(Self::Any) } else { Err(invalid(HEADERS, alone)) };
        }
        let mut listed = BTreeSet::new();
        for (n, name) in names.iter().enumerate() {
            let name = parse_header(name).map_err(|what| invalid(&format!("{HEADERS}[{n}]"), what))?;
            listed.insert(name.as_str().to_owned());
        }
        Ok(Self::listed(&listed))
    }

    /// The standard headers and these.
    fn listed(names: &BTreeSet<String>) -> Self {
        Self::Listed(header_list(names.iter().map(String::as_str)))
    }

    /// `Access-Control-Allow-Headers` for a preflight that requests these headers.
    pub fn allowed<'a>(&self, requested: impl Iterator<Item = &'a HeaderValue>) -> HeaderValue {
        match self {
            Self::Listed(value) => value.clone(),
            Self::Any => {
                // With credentials a browser takes `*` for the name of a header, so each is named.
                let mut fields: Vec<&str> = requested.filter_map(|field| field.to_str().ok()).collect();
                if fields.iter().map(|field| field.len()).sum::<usize>() > MAX_REQUESTED_BYTES {
                    fields.clear();
                }
                let names = fields.iter().flat_map(|field| field.split(',')).map(str::trim);
                header_list(names.filter(|name| HeaderName::try_from(*name).is_ok()))
            }
        }
    }
}

/// A list of the standard headers and the others of these names.
fn header_list<'a>(names: impl Iterator<Item = &'a str>) -> HeaderValue {
    let is_standard = |name: &str| STANDARD_HEADERS.iter().any(|standard| standard.as_str().eq_ignore_ascii_case(name));
    let others: Vec<&str> = names.filter(|name| !is_standard(name)).collect();
    let list = STANDARD_HEADERS.iter().map(HeaderName::as_str).chain(others).collect::<Vec<_>>().join(", ");
    // Names of headers have only characters that a value may have.
    HeaderValue::try_from(list).unwrap_or_else(|_| HeaderValue::from_static("authorization"))
}

fn parse_header(text: &str) -> Result<HeaderName, &'static str> {
    let name = HeaderName::try_from(text)
        .map_err(|_| "not the name of a header, such as x-tenant: write one name for each item of the list")?;
    if name.as_str().contains('*') {
        return Err("not a pattern: write the whole name, or [\"*\"] for any header");
    }
    let is_forbidden =
        |name: &str| FORBIDDEN_HEADERS.contains(&name) || name.starts_with("proxy-") || name.starts_with("sec-");
    if name == header::COOKIE {
        return Err("a page cannot set this header: set cors.credentials, so that the browser sends its cookies");
    }
    if is_forbidden(name.as_str()) {
        return Err("a page cannot set this header, for browsers set it themselves: remove it");
    }
    Ok(name)
}

/// An origin with a fixed port or any port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme_and_host: String,
    any_port: bool,
}

/// Why a text is not an origin that a browser sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    #[error(
        "not an origin: write a scheme and a host, with a port if it has one, such as https://app.example or http://localhost:3000"
    )]
    NotOrigin,
    #[error("several origins, or white space: write each origin as an item of the list, such as https://app.example")]
    Several,
    #[error(
        "a * stands for the port (http://localhost:*), or alone for all origins, and not for a part of a name: write each origin, such as \
         https://app.example"
    )]
    Wildcard,
    #[error(
        "browsers send the origin null for files and sandboxed frames, and every page can create such a frame: serve the page from a host, \
         such as https://app.example"
    )]
    Null,
    #[error("web pages have http or https: write the origin of the page, such as https://app.example")]
    Scheme,
    #[error(
        "an origin has neither user nor path, not even a / at the end: write scheme and host, such as https://app.example"
    )]
    Path,
    #[error("browsers send scheme and host in lower case: write it as https://app.example")]
    UpperCase,
    #[error(
        "browsers leave out the default port (443 of https, 80 of http): write the origin without it, such as https://app.example"
    )]
    DefaultPort,
    #[error(
        "browsers write this host in another way, such as xn--bcher-kva.example or [::1]: write what `location.origin` of the page shows"
    )]
    Spelling,
}

impl Origin {
    /// Parses an origin of the configuration.
    pub fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        if text.contains([',', ';']) || text.contains(char::is_whitespace) {
            return Err(InvalidOrigin::Several);
        }
        let scheme_and_host = text.strip_suffix(":*").unwrap_or(text);
        if scheme_and_host == "null" || scheme_and_host.starts_with("file:") {
            return Err(InvalidOrigin::Null);
        }
        if scheme_and_host.contains('*') {
            return Err(InvalidOrigin::Wildcard);
        }
        check_origin(scheme_and_host)?;
        Ok(Self { scheme_and_host: scheme_and_host.to_owned(), any_port: scheme_and_host != text })
    }

    /// Whether a browser's `Origin` header matches.
    pub fn matches(&self, origin: &str) -> bool {
        match origin.strip_prefix(&*self.scheme_and_host) {
            Some("") => true,
            Some(rest) => self.any_port && rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
            None => false,
        }
    }

    /// Whether this origin matches all that another one matches.
    fn covers(&self, other: &Self) -> bool {
        self == other || (self.any_port && self.matches(&other.scheme_and_host))
    }
}

/// Fails if no browser sends this origin.
fn check_origin(text: &str) -> Result<(), InvalidOrigin> {
    let (_, authority) = text.split_once("://").ok_or(InvalidOrigin::NotOrigin)?;
    if authority.contains(['/', '?', '#', '@', '\\']) {
        return Err(InvalidOrigin::Path);
    }
    let url = Url::parse(text).map_err(|_| InvalidOrigin::NotOrigin)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(InvalidOrigin::NotOrigin)?;
    let is_page = matches!(url.scheme(), "http" | "https");
    // Apps have schemes of their own, such as capacitor://localhost; one like `htps` is a mistake.
    if !is_page && (url.origin().is_tuple() || url.scheme().starts_with("ht")) {
        return Err(InvalidOrigin::Scheme);
    }
    let sent = if is_page { url.origin().ascii_serialization() } else { url.to_string() };
    if text.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(InvalidOrigin::UpperCase);
    }
    if text != sent {
        let has_default_port = [":443", ":80", ":"].iter().any(|port| format!("{sent}{port}") == text);
        return Err(if has_default_port { InvalidOrigin::DefaultPort } else { InvalidOrigin::Spelling });
    }
    if url.port() == Some(0) || (is_page && !is_host_name(host)) {
        return Err(InvalidOrigin::NotOrigin);
    }
    Ok(())
}

pub fn check_cors(raw: &schema::Cors) -> Result<Cors, ConfigError> {
    let all = raw.origins.iter().any(|origin| origin == "*");
    if all && raw.origins.len() > 1 {
        return Err(invalid(ORIGINS, "* allows every origin: remove the others, or the *"));
    }
    if all && raw.credentials {
        return Err(invalid(
            "cors.credentials",
            "browsers refuse credentials with the origin *: name the origins in cors.origins",
        ));
    }
    if raw.origins.is_empty() && (raw.credentials || raw.headers.is_some()) {
        let key = if raw.credentials { "cors.credentials" } else { HEADERS };
        return Err(invalid(key, "no page may read streams: name the origins of pages in cors.origins"));
    }
    let origins = if all { None } else { Some(parse_origins(&raw.origins)?) };
    Ok(Cors { origins, credentials: raw.credentials, headers: RequestHeaders::validate(raw)? })
}

fn parse_origins(texts: &[String]) -> Result<Vec<Origin>, ConfigError> {
    let mut origins: Vec<Origin> = Vec::with_capacity(texts.len());
    for (n, text) in texts.iter().enumerate() {
        let key = |n: usize| format!("{ORIGINS}[{n}]");
        let origin = Origin::parse(text).map_err(|error| invalid(&key(n), error))?;
        for (other, before) in origins.iter().enumerate() {
            let covered =
                if before.covers(&origin) { Some((n, other)) } else { origin.covers(before).then_some((other, n)) };
            if let Some((covered, covering)) = covered {
                let what = format!("{} allows this origin as well: remove one of the two", key(covering));
                return Err(invalid(&key(covered), what));
            }
        }
        origins.push(origin);
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_that_browsers_send() {
        for valid in [
            "https://app.example",
            "http://app.example:8080",
            "https://app.example:80",
            "http://localhost:*",
            "https://xn--bcher-kva.example",
            "https://my_app.example",
            "https://app.example.",
            "http://127.0.0.1:3000",
            "http://[::1]:*",
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://0f0c2a9e-41b7-4608-a1b2-000000000000",
            "app://-",
        ] {
            let origin = Origin::parse(valid).unwrap_or_else(|error| panic!("{valid}: {error}"));
            assert!(origin.matches(valid.trim_end_matches(":*")), "{valid}");
        }
        use InvalidOrigin::{DefaultPort, NotOrigin, Null, Path, Scheme, Several, Spelling, UpperCase, Wildcard};
        for (wrong, reason) in [
            ("", NotOrigin),
            ("app.example", NotOrigin),
            ("app.example:443", NotOrigin),
            ("localhost:*", NotOrigin),
            ("//app.example", NotOrigin),
            ("https:app.example", NotOrigin),
            ("https://", NotOrigin),
            ("https://app.example:0", NotOrigin),
            ("https://app.example:99999", NotOrigin),
            ("https://app.example:x", NotOrigin),
            ("https://.app.example", NotOrigin),
            ("https://app..example", NotOrigin),
            ("https://app!.example", NotOrigin),
            ("https://app.example/", Path),
            ("https://app.example/path", Path),
            ("https://app.example?x", Path),
            ("https://app.example#x", Path),
            ("https://user:pw@app.example", Path),
            ("capacitor://localhost/", Path),
            ("http://localhost:*/", Wildcard),
            ("*.example.com", Wildcard),
            ("https://*", Wildcard),
            ("https://*.example.com", Wildcard),
            ("https://app.*", Wildcard),
            ("http://localhost:30*", Wildcard),
            ("http://*:*", Wildcard),
            ("*://app.example", Wildcard),
            ("**", Wildcard),
            ("HTTPS://app.example", UpperCase),
            ("https://App.example", UpperCase),
            ("https://app.example:443", DefaultPort),
            ("http://app.example:80", DefaultPort),
            ("https://app.example:", DefaultPort),
            ("https://bücher.example", Spelling),
            ("http://127.1", Spelling),
            ("http://[0:0:0:0:0:0:0:1]", Spelling),
            ("https://app.example:0443", Spelling),
            ("null", Null),
            ("file://", Null),
            ("file:///index.html", Null),
            ("ws://app.example", Scheme),
            ("wss://app.example", Scheme),
            ("ftp://app.example", Scheme),
            ("htps://app.example", Scheme),
            ("https://a.example,https://b.example", Several),
            ("https://a.example https://b.example", Several),
            ("https://a.example;https://b.example", Several),
            (" https://a.example", Several),
            ("https://a.example\n", Several),
        ] {
            assert_eq!(Origin::parse(wrong), Err(reason), "{wrong:?}");
        }
    }

    #[test]
    fn origins_match_scheme_host_and_port() {
        let check = |own: &str, origin: &str, expect: bool| {
            assert_eq!(Origin::parse(own).expect(own).matches(origin), expect, "{own} {origin}");
        };
        check("https://app.example", "https://app.example", true);
        check("https://app.example", "https://app.example.evil.example", false);
        check("https://app.example", "https://app.example:8443", false);
        check("http://localhost:*", "http://localhost:3000", true);
        check("http://localhost:*", "http://localhost", true);
        check("http://localhost:*", "http://localhost:3000.evil.example", false);
        check("http://localhost:*", "http://localhost.evil.example", false);
        check("capacitor://localhost", "capacitor://localhost", true);
        check("capacitor://localhost", "http://localhost", false);
    }

    #[test]
    fn names_of_headers_that_a_page_can_set_are_valid() {
        for valid in ["x-tenant", "X-Tenant", "content-type", "authorization", "accept", "traceparent", "secret"] {
            assert!(parse_header(valid).is_ok(), "{valid}");
        }
        for (wrong, says) in [
            ("", "not the name of a header"),
            ("x tenant", "one name for each item"),
            ("x-a,x-b", "one name for each item"),
            ("x-tenant:", "not the name of a header"),
            ("x-ü", "not the name of a header"),
            ("x-*", "not a pattern"),
            ("cookie", "cors.credentials"),
            ("Cookie", "cors.credentials"),
            ("host", "cannot set"),
            ("Origin", "cannot set"),
            ("referer", "cannot set"),
            ("proxy-authorization", "cannot set"),
            ("Sec-Fetch-Mode", "cannot set"),
        ] {
            let error = parse_header(wrong).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn allowed_headers_are_the_standard_ones_and_those_of_the_operator() {
        const STANDARD: &str = "authorization, cache-control, content-type, last-event-id";
        let check = |origins: &[&str], headers: Option<&[&str]>, requested: &str, more: &str| {
            let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let raw = schema::Cors { origins: texts(origins), credentials: false, headers: headers.map(texts) };
            let cors = check_cors(&raw).expect("valid");
            let allowed = cors.headers.allowed([HeaderValue::from_str(requested).expect("a value")].iter());
            assert_eq!(allowed, format!("{STANDARD}{more}"), "{origins:?} {headers:?} {requested:?}");
        };
        let app = ["https://app.example"];
        check(&["*"], None, "x-a", "");
        check(&app, None, "x-a", ", x-a");
        check(&app, None, "authorization,X-A, x-b", ", X-A, x-b");
        check(&app, None, "", "");
        check(&app, None, "x a, , é", "");
        check(&app, None, &"x-a,".repeat(1000), "");
        check(&app, Some(&[]), "x-a", "");
        check(&app, Some(&["X-Tenant", "content-type", "x-b"]), "x-a", ", x-b, x-tenant");
        check(&["*"], Some(&["*"]), "x-a", ", x-a");
        check(&["*"], Some(&["x-b"]), "x-a", ", x-b");
    }
}
