//! More that an answer may say, before it is returned.

use std::time::Duration;

use crate::host;

/// Why, for the decision log and the playground. The client is never told. The last one counts; `because` of
/// [`Grant`](crate::Grant::because) and [`Rejection`](crate::Rejection::because) comes after all.
pub fn reason(text: &str) {
    host::answer::reason(text);
}

/// Nothing older than this (ms since 1970) is replayed to the client.
pub fn replay_since(time: u64) {
    host::answer::replay_since(time);
}

/// This answer may be given again for so long to requests of the same URL and client address whose headers named here are the
/// same too. Credentials belong here: `cookie`, `authorization`.
pub fn cache_for(time: Duration, vary: &[&str]) {
    let vary: Vec<String> = vary.iter().map(|&name| name.to_owned()).collect();
    host::answer::cache_for(u32::try_from(time.as_secs()).unwrap_or(u32::MAX), &vary);
}

/// What [`cache_for`] keeps holds for clients of any address.
pub fn cache_any_address() {
    host::answer::cache_any_address();
}
