//! Validates a parsed file, and builds test cases from it.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::policy::decision_view::DecisionView;
use crate::policy::key_prefix::check_prefix;
use crate::policy::{Failure, Request, request};
use crate::policytest::file::FileAccess;
use crate::policytest::file::schema::{Case, Expect, ExpectedValues, File, RawRequest};
use crate::policytest::{TestCase, TestEnv};
use crate::tokens::profile;
use crate::util::id::random_id;

/// The characters that `encodeURIComponent` does not encode, so that requests look like those of the stock client.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Builds a case that begins in this line of the file.
pub fn case(file: &File, case: &Case, line: usize, access: FileAccess<'_>) -> Result<TestCase, String> {
    let (request, channels) = request(&file.request, case)?;
    let expect = expect(&case.expect)?;
    let env = env(file, case, access)?;
    Ok(TestCase { name: case.name.clone(), line, request, channels, env, expect })
}

/// The environment of a case: its own values override those of the file.
fn env(file: &File, case: &Case, access: FileAccess<'_>) -> Result<TestEnv, String> {
    let mut store = file.store.clone();
    store.extend(case.store.clone());
    let mut settings = file.settings.clone();
    settings.extend(case.settings.clone());
    let named = case.lookup.prefixes.clone().or_else(|| file.lookup.prefixes.clone());
    let until_colon = |key: &String| key.find(':').map_or_else(|| key.clone(), |colon| key[..=colon].to_owned());
    for (n, prefix) in named.iter().flatten().enumerate() {
        check_prefix(prefix).map_err(|error| format!("lookup.prefixes[{n}]: {error}"))?;
    }
    let prefixes =
        named.unwrap_or_else(|| store.keys().map(until_colon).collect::<BTreeSet<_>>().into_iter().collect());
    let now = case.now.or(file.now).map(|time| time.0);
    let mut profiles = file.tokens.clone();
    profiles.extend(case.tokens.clone());
    let mut tokens = Vec::with_capacity(profiles.len());
    for (name, mut written) in profiles {
        let key = format!("tokens.{name}");
        // The result of a case must depend only on its files.
        if written.jwks_url.is_some() {
            return Err(format!("{key}.jwks-url: test cases fetch nothing: name a file with the keys, as jwks"));
        }
        for (kind, path) in [("pem", &mut written.pem), ("jwks", &mut written.jwks)] {
            if let Some(path) = path {
                *path = access.resolve(path).map_err(|error| format!("{key}.{kind}: {error}"))?;
            }
        }
        let profile = profile::validate(&key, &written, |text| Ok(text.into())).map_err(|error| error.to_string())?;
        tokens.push((name, profile));
    }
    let tokens = tokens.into_iter().collect();
    Ok(TestEnv { now, prefixes, store, store_unavailable: case.store_unavailable, settings, tokens })
}

/// The request, and the channels in its query.
fn request(common: &RawRequest, case: &Case) -> Result<(Request, Vec<String>), String> {
    let own = &case.request;
    let pick = |own: &Option<String>, common: &Option<String>, default: &str| {
        own.clone().or_else(|| common.clone()).unwrap_or_else(|| default.to_owned())
    };
    let method = pick(&own.method, &common.method, "GET");
    Method::from_bytes(method.as_bytes()).map_err(|_| format!("request.method: {method:?} is not an HTTP method"))?;
    let scheme = pick(&own.scheme, &common.scheme, "https");
    if !matches!(&*scheme, "http" | "https") {
        return Err(format!("request.scheme: {scheme:?}: must be http or https"));
    }
    let client_address = pick(&own.client_address, &common.client_address, "192.0.2.1");
    let client_address = request::parse_client_address(&client_address).map_err(|_| {
        format!("request.client-address: {client_address:?} is not an IP address; an empty one stands for an unknown address")
    })?;
    let path = pick(&own.path, &common.path, "/api/realtime");
    let path_with_query = with_channels(path, case.channels.as_deref())?;
    let query = path_with_query.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let channels = request::channels(query);
    let authority = pick(&own.authority, &common.authority, "gate.example");
    let mut headers = HeaderMap::new();
    let mut fields = common.headers.clone();
    fields.extend(own.headers.clone());
    for (name, values) in fields {
        let header: HeaderName = name.parse().map_err(|_| format!("request.headers: {name:?} is not a header name"))?;
        for value in values.list() {
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| format!("request.headers.{name}: the value is not valid in a header"))?;
            headers.append(&header, value);
        }
    }
    request::join_cookies(&mut headers);
    if !headers.contains_key(http::header::HOST)
        && let Ok(host) = HeaderValue::from_str(&authority)
    {
        headers.insert(http::header::HOST, host);
    }
    let request = Request { method, scheme, authority, path_with_query, headers, client_address, id: random_id() };
    Ok((request, channels))
}

/// Adds the channels to the query of a path.
fn with_channels(mut path: String, channels: Option<&[String]>) -> Result<String, String> {
    let valid = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
    if !valid || path.contains('#') {
        return Err(format!(
            "request.path: {path:?}: must begin with / and be percent-encoded, as /api/realtime?channel=a%20b"
        ));
    }
    let Some(channels) = channels else { return Ok(path) };
    let query = path.split_once('?').map(|(_, query)| query);
    if query.is_some_and(|query| form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "channel")) {
        return Err("channels: request.path has channels too: set them in one place".into());
    }
    let mut separator = if query.is_some() { '&' } else { '?' };
    for channel in channels {
        path += &format!("{separator}channel={}", utf8_percent_encode(channel, COMPONENT));
        separator = '&';
    }
    Ok(path)
}

/// The expected fields, in the order of [`DecisionView`].
fn expect(raw: &Expect) -> Result<DecisionView, String> {
    let kinds = "allow = true, status for a rejection, or error for a failure";
    let kind = match (raw.allow, raw.status, &raw.error) {
        (Some(true), None, None) => ("allow", json!(true)),
        (None, Some(status @ 200..=599), None) => ("status", json!(status)),
        (None, Some(status), None) => return Err(format!("expect.status: {status}: must be from 200 to 599")),
        (None, None, Some(kind)) if Failure::KINDS.contains(&&**kind) => ("error", json!(kind)),
        (None, None, Some(kind)) => {
            return Err(format!("expect.error: {kind:?}: must be one of {}", Failure::KINDS.join(", ")));
        }
        (Some(false), ..) => return Err(format!("expect.allow: false is not an expectation: set {kinds}")),
        (None, None, None) => return Err(format!("expect: no expectation: set {kinds}")),
        _ => return Err(format!("expect: set only one of {kinds}")),
    };
    let optional = [
        ("subject", "allow", raw.subject.as_ref().map(|text| json!(text))),
        ("channels", "allow", raw.channels.as_ref().map(|list| json!(list))),
        ("expires-at", "allow", raw.expires_at.map(|time| json!(time.0))),
        ("replay-since", "allow", raw.replay_since.map(|time| json!(time.0))),
        ("headers", "", raw.headers.as_ref().map(headers).transpose()?),
        ("body", "status", raw.body.as_ref().map(|text| json!(text))),
        ("reason", "", raw.reason.as_ref().map(|text| json!(text))),
    ];
    let mut fields = vec![kind];
    for (name, of, value) in optional {
        let Some(value) = value else { continue };
        let fits = if of.is_empty() { name == "reason" || fields[0].0 != "error" } else { of == fields[0].0 };
        if !fits {
            return Err(format!("expect.{name}: not possible with expect.{}", fields[0].0));
        }
        fields.push((name, value));
    }
    Ok(DecisionView { fields })
}

fn headers(expected: &BTreeMap<String, ExpectedValues>) -> Result<Value, String> {
    let mut headers = Map::new();
    for (name, values) in expected {
        let known: HeaderName = name.parse().map_err(|_| format!("expect.headers: {name:?} is not a header name"))?;
        let values = match values {
            ExpectedValues::Any => json!(true),
            ExpectedValues::These(values) => json!(values.list()),
        };
        headers.insert(known.as_str().to_owned(), values);
    }
    Ok(headers.into())
}
