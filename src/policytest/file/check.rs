//! From what was written to cases that can be asked.

use crate::tokens::profile::profile;
use std::collections::{BTreeSet, HashSet};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use toml::Spanned;

use crate::egress::origin::EgressOrigin;
use crate::policy::decision_view::DecisionView;
use crate::policy::{Failure, request};
use crate::policytest::file::reach::FileAccess;
use crate::policytest::file::schema::{Case as RawCase, Expect, ExpectedValues, File, Request};
use crate::policytest::file::{NAME, PATH};
use crate::policytest::{Requirements, TestCase, TestRequest, TestSuite, TestWorld};
use crate::tokens::Tokens;
use crate::tokens::profile::WrittenProfile;

/// What `encodeURIComponent` leaves as it is, so that a request looks as the stock client's.
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

/// What is wrong, and where.
pub enum Wrong {
    File(String),
    Case { line: usize, name: String, what: String },
}

pub fn suite(file: File, reach: FileAccess<'_>, line: &dyn Fn(usize) -> usize) -> Result<TestSuite, Wrong> {
    if file.case.is_empty() && file.requires == Requirements::default() {
        return Err(Wrong::File(format!(
            "there is no case in it; one begins with [[case]], a name and expect.… ({NAME})"
        )));
    }
    for url in &file.requires.egress {
        EgressOrigin::parse(url, true).map_err(|error| Wrong::File(format!("requires.egress: {url:?}: {error}")))?;
    }
    let mut names = HashSet::new();
    let mut cases = Vec::with_capacity(file.case.len());
    for raw in &file.case {
        let (line, raw): (usize, &RawCase) = (line(raw.span().start), Spanned::get_ref(raw));
        let wrong = |what: String| Wrong::Case { line, name: raw.name.clone(), what };
        if !names.insert(&raw.name) {
            return Err(wrong("another case before it has the same name".into()));
        }
        let ask = ask(&file.request, raw).map_err(wrong)?;
        let expect = expect(&raw.expect).map_err(wrong)?;
        cases.push(TestCase {
            name: raw.name.clone(),
            line,
            ask,
            world: world(&file, raw, reach).map_err(wrong)?,
            expect,
        });
    }
    Ok(TestSuite { cases, requires: file.requires })
}

/// The case's world, laid over what the file says for all.
fn world(file: &File, case: &RawCase, reach: FileAccess<'_>) -> Result<TestWorld, String> {
    let mut store = file.store.clone();
    store.extend(case.store.clone());
    let mut settings = file.settings.clone();
    settings.extend(case.settings.clone());
    let named = case.lookup.prefixes.clone().or_else(|| file.lookup.prefixes.clone());
    let until_colon = |key: &String| key.find(':').map_or_else(|| key.clone(), |colon| key[..=colon].to_owned());
    let prefixes =
        named.unwrap_or_else(|| store.keys().map(until_colon).collect::<BTreeSet<_>>().into_iter().collect());
    let now = case.now.or(file.now).map(|time| time.0);
    let mut profiles = file.tokens.clone();
    profiles.extend(case.tokens.clone());
    let tokens = profiles.into_iter().map(|(name, written)| {
        // What a case comes to depends on nothing but its file.
        if written.jwks_url.is_some() {
            return Err(format!("tokens.{name}.jwks-url: cases fetch nothing; name a file with the keys, as jwks"));
        }
        let written = with_files(written, reach).map_err(|what| format!("tokens.{name}.{what}"))?;
        let profile = profile(&format!("tokens.{name}"), &written, &|text| Ok(text.into()));
        Ok((name, profile.map_err(|error| error.to_string())?))
    });
    let tokens = tokens.collect::<Result<Tokens, String>>()?;
    Ok(TestWorld { now, prefixes, store, store_away: case.store_away, settings, tokens })
}

/// The same with its files meant from where the cases are, if they may be read.
fn with_files(mut profile: WrittenProfile, reach: FileAccess<'_>) -> Result<WrittenProfile, String> {
    for (key, path) in [("pem", &mut profile.pem), ("jwks", &mut profile.jwks)] {
        if let Some(path) = path {
            *path = reach.file(path).map_err(|why| format!("{key}: {why}"))?;
        }
    }
    Ok(profile)
}

fn ask(common: &Request, case: &RawCase) -> Result<TestRequest, String> {
    let own = &case.request;
    let pick = |own: &Option<String>, common: &Option<String>, default: &str| {
        own.clone().or_else(|| common.clone()).unwrap_or_else(|| default.to_owned())
    };
    let method = pick(&own.method, &common.method, "GET");
    Method::from_bytes(method.as_bytes()).map_err(|_| format!("request.method: {method:?} is no method"))?;
    let scheme = pick(&own.scheme, &common.scheme, "https");
    if !matches!(&*scheme, "http" | "https") {
        return Err(format!("request.scheme: {scheme:?}: it is http or https"));
    }
    let client_address = pick(&own.client_address, &common.client_address, "192.0.2.1");
    if client_address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("request.client-address: {client_address:?} is not an IP address"));
    }
    let path = pick(&own.path, &common.path, PATH);
    let path_with_query = with_channels(path, case.channels.as_deref())?;
    let query = path_with_query.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let channels = request::channels(query);
    let authority = pick(&own.authority, &common.authority, "gate.example");
    let mut headers = HeaderMap::new();
    let mut fields = common.headers.clone();
    fields.extend(own.headers.clone());
    for (name, values) in fields {
        let header: HeaderName = name.parse().map_err(|_| format!("request.headers: {name:?} is no header's name"))?;
        for value in values.0 {
            let value = HeaderValue::from_bytes(value.as_bytes());
            headers.append(
                &header,
                value.map_err(|_| format!("request.headers.{name}: a header cannot have this value"))?,
            );
        }
    }
    request::join_cookies(&mut headers);
    if !headers.contains_key(http::header::HOST)
        && let Ok(host) = HeaderValue::from_str(&authority)
    {
        headers.insert(http::header::HOST, host);
    }
    Ok(TestRequest { method, scheme, authority, path_with_query, headers, client_address, channels })
}

/// The path with the channels in its query, unless they are there already.
fn with_channels(mut path: String, channels: Option<&[String]>) -> Result<String, String> {
    let valid = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
    if !valid || path.contains('#') {
        return Err(format!("request.path: {path:?}: it begins with / and is encoded, as /api/realtime?channel=a%20b"));
    }
    let Some(channels) = channels else { return Ok(path) };
    let query = path.split_once('?').map(|(_, query)| query);
    if query.is_some_and(|query| form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "channel")) {
        return Err("channels: request.path names channels already; say them in one place".into());
    }
    let mut separator = if query.is_some() { '&' } else { '?' };
    for channel in channels {
        path.push(separator);
        path.push_str("channel=");
        path.extend(utf8_percent_encode(channel, COMPONENT));
        separator = '&';
    }
    Ok(path)
}

/// The fields that are expected, in the order of [`DecisionView`].
fn expect(raw: &Expect) -> Result<DecisionView, String> {
    let allow = "allow = true, or status for a rejection, or error for a failure";
    let kind = match (raw.allow, raw.status, &raw.error) {
        (Some(true), None, None) => ("allow", json!(true)),
        (None, Some(status @ 200..=599), None) => ("status", json!(status)),
        (None, Some(status), None) => return Err(format!("expect.status: {status}: a rejection's is from 200 to 599")),
        (None, None, Some(kind)) if Failure::KINDS.contains(&&**kind) => ("error", json!(kind)),
        (None, None, Some(kind)) => {
            return Err(format!("expect.error: {kind:?}: it is one of {}", Failure::KINDS.join(", ")));
        }
        (Some(false), ..) => return Err(format!("expect.allow: false does not say what is expected: {allow}")),
        (None, None, None) => return Err(format!("expect: what shall come of it? {allow}")),
        _ => return Err(format!("expect: only one of {allow}")),
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
            return Err(format!("expect.{name}: there is none where {} is expected", fields[0].0));
        }
        fields.push((name, value));
    }
    Ok(DecisionView { fields })
}

fn headers(expected: &std::collections::BTreeMap<String, ExpectedValues>) -> Result<Value, String> {
    let each = |(name, values): (&String, &ExpectedValues)| {
        let known: HeaderName = name.parse().map_err(|_| format!("expect.headers: {name:?} is no header's name"))?;
        let values = match values {
            ExpectedValues::Any => json!(true),
            ExpectedValues::These(values) => json!(values),
        };
        Ok((known.as_str().to_owned(), values))
    };
    let all: Result<serde_json::Map<String, Value>, String> = expected.iter().map(each).collect();
    all.map(Value::Object)
}
