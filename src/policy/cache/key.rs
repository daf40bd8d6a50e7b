//! What has to be the same for an answer to be given again, as bytes that two different questions never share.

use http::{HeaderMap, HeaderName};

use crate::policy::Request;

/// Headers that one answer may depend on.
pub const MAX_NAMES: usize = 16;

/// What an answer depends on, beside what all answers depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// In order, without repeats: lists that say the same are the same.
    names: Box<[HeaderName]>,
    /// Whether it holds for clients of any address.
    any_address: bool,
}

impl Vary {
    /// As a policy says it.
    pub fn new(names: &[String], any_address: bool) -> Result<Self, String> {
        if names.len() > MAX_NAMES {
            return Err(format!("cache-for with {} header names, of at most {MAX_NAMES}", names.len()));
        }
        let parse = |name: &String| {
            // A valid name in HTTP, and there it stands for all that no header says: nothing could be kept.
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name != "*");
            name.ok_or("cache-for with an invalid header name")
        };
        let mut names = names.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Ok(Self { names: names.into(), any_address })
    }

    /// The bytes that it takes.
    pub fn size(&self) -> usize {
        self.names.iter().map(|name| size_of::<HeaderName>() + name.as_str().len()).sum()
    }
}

/// Under which the ways stand in which answers to such requests vary: `base` itself, made different from every answer's key.
pub fn ways(base: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(base.len() + 1);
    key.extend_from_slice(base);
    key.push(b'w');
    key
}

/// What every answer depends on. Each part is told apart by its length, so this is never the beginning of another's.
pub fn base(request: &Request, channels: &[String]) -> Vec<u8> {
    let mut key = Vec::with_capacity(request.path_with_query.len() + 128);
    for part in [&request.method, &request.scheme, &request.authority] {
        push(&mut key, part.as_bytes());
    }
    let (path, query) = match request.path_with_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*request.path_with_query, None),
    };
    push(&mut key, path.as_bytes());
    list(&mut key, query.into_iter().flat_map(without_acks).map(str::as_bytes));
    // They are what the query says; should that ever be read in another way here than there, nobody gets a stranger's channels.
    list(&mut key, channels.iter().map(String::as_bytes));
    key
}

/// The key of an answer that varies in this way.
pub fn full(base: &[u8], vary: &Vary, request: &Request) -> Vec<u8> {
    let mut key = Vec::with_capacity(base.len() + 256);
    key.extend_from_slice(base);
    key.push(b'a');
    number(&mut key, vary.names.len());
    for name in &vary.names {
        push(&mut key, name.as_str().as_bytes());
        values(&mut key, &request.headers, name);
    }
    // No address is empty.
    push(&mut key, if vary.any_address { b"" } else { request.client_address.as_bytes() });
    key
}

/// All values of a header, in order; none is not an empty one.
fn values(key: &mut Vec<u8>, headers: &HeaderMap, name: &HeaderName) {
    list(key, headers.get_all(name).iter().map(http::HeaderValue::as_bytes));
}

/// A query's parameters as they were sent, less those that say where a channel starts.
pub fn without_acks(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|parameter| !is_ack(parameter))
}

/// Whether a parameter is one of those: its name is read as the server reads it.
fn is_ack(parameter: &str) -> bool {
    form_urlencoded::parse(parameter.as_bytes()).next().is_some_and(|(name, _)| name.starts_with("last_ack_"))
}

fn list<'a>(key: &mut Vec<u8>, parts: impl Iterator<Item = &'a [u8]>) {
    let at = key.len();
    number(key, 0);
    let mut count = 0;
    for part in parts {
        push(key, part);
        count += 1;
    }
    key[at..at + 8].copy_from_slice(&(count as u64).to_le_bytes());
}

fn push(key: &mut Vec<u8>, part: &[u8]) {
    number(key, part.len());
    key.extend_from_slice(part);
}

fn number(key: &mut Vec<u8>, number: usize) {
    key.extend_from_slice(&(number as u64).to_le_bytes());
}
