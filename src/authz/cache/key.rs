//! Cache keys: everything that must be equal for a decision to be reused, as bytes that two different requests never share.

use http::HeaderValue;

use crate::policy::Request;
use crate::policy::cache_directive::Vary;
use crate::policy::request::is_position;

/// The key of the known [`Vary`] values. Its last byte makes it differ from every decision's key.
pub fn vary_values(base: &[u8]) -> Vec<u8> {
    [base, b"w"].concat()
}

/// What every decision depends on. Each part begins with its length, so no base is the prefix of another.
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
    list(&mut key, query.into_iter().flat_map(without_positions).map(str::as_bytes));
    // The query names the channels already. They are added in case the key and the server ever parse it differently: a decision must
    // not apply to other channels than its own.
    list(&mut key, channels.iter().map(String::as_bytes));
    key
}

/// The key of a decision with this `vary`. `None` if the decision depends on an address that is unknown: clients of unknown addresses are
/// not one client.
pub fn decision(base: &[u8], vary: &Vary, request: &Request) -> Option<Vec<u8>> {
    let address = if vary.any_address { String::new() } else { request.client_address?.to_string() };
    let mut key = Vec::with_capacity(base.len() + 256);
    key.extend_from_slice(base);
    key.push(b'a');
    number(&mut key, vary.names.len());
    for name in &vary.names {
        push(&mut key, name.as_str().as_bytes());
        // All values in order; an absent header differs from an empty one.
        list(&mut key, request.headers.get_all(name).iter().map(HeaderValue::as_bytes));
    }
    // An address is never empty.
    push(&mut key, address.as_bytes());
    Some(key)
}

/// A query's parameters as they were sent, without the positions of the client.
pub fn without_positions(query: &str) -> impl Iterator<Item = &str> {
    // Names are decoded in the way of the server.
    let name = |parameter: &str| form_urlencoded::parse(parameter.as_bytes()).next().map(|(name, _)| name.into_owned());
    query.split('&').filter(move |parameter| !name(parameter).is_some_and(|name| is_position(&name)))
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
