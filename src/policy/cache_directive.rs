//! What a policy allows of the reuse of its decision.

use std::time::Duration;

use http::HeaderName;

/// For how long an answer may be given again, and to whom.
#[derive(Clone, Debug)]
pub struct CacheDirective {
    /// From when it was asked for.
    pub time: Duration,
    /// What it depends on.
    pub vary: Vary,
}

/// Headers that one answer may depend on.
pub const MAX_NAMES: usize = 16;

/// What an answer depends on, beside what all answers depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// In order, without repeats: lists that say the same are the same.
    pub names: Box<[HeaderName]>,
    /// Whether it holds for clients of any address.
    pub any_address: bool,
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
