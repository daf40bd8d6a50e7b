//! How a policy allows its decision to be cached.

use std::time::Duration;

use http::HeaderName;

#[derive(Clone, Debug)]
pub struct CacheDirective {
    /// Counted from the start of the evaluation.
    pub max_age: Duration,
    pub vary: Vary,
}

/// Header names of one `cache-for`.
pub const MAX_VARY_HEADERS: usize = 16;

/// What a cached decision depends on, in addition to what every decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// Sorted and without duplicates, so that equal sets compare equal.
    pub names: Box<[HeaderName]>,
    /// Whether it applies to clients of any address.
    pub any_address: bool,
}

impl Vary {
    /// Checks the names that a policy gives.
    pub fn new(names: &[String], any_address: bool) -> Result<Self, String> {
        if names.len() > MAX_VARY_HEADERS {
            return Err(format!("cache-for with {} header names, of at most {MAX_VARY_HEADERS}", names.len()));
        }
        let parse = |name: &String| {
            // `*` is a valid header name, but in `Vary` it means that no request may share the answer.
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name != "*");
            name.ok_or("cache-for with an invalid header name")
        };
        let mut names = names.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Ok(Self { names: names.into(), any_address })
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        self.names.iter().map(|name| size_of::<HeaderName>() + name.as_str().len()).sum()
    }
}
