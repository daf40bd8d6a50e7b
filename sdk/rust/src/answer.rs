//! Options of the answer that the policy is about to return.

use std::time::Duration;

use crate::host;

/// The reason for the decision, for the decision log and the playground; never sent to the client. The last call wins, and `with_reason`
/// of [`Grant`](crate::Grant::with_reason) and [`Rejection`](crate::Rejection::with_reason) overrides it.
pub fn reason(text: &str) {
    host::answer::reason(text);
}

/// Events older than this time (ms since 1970) are not replayed to the client.
pub fn replay_since(time: u64) {
    host::answer::replay_since(time);
}

/// The gateway may reuse this answer for the given time, for requests with the same URL, client address and values of the headers in
/// `vary`. Name the headers that carry credentials there: `cookie`, `authorization`.
pub fn cache_for(time: Duration, vary: &[&str]) {
    let vary: Vec<String> = vary.iter().map(|&name| name.to_owned()).collect();
    host::answer::cache_for(u32::try_from(time.as_secs()).unwrap_or(u32::MAX), &vary);
}

/// The answer that [`cache_for`] caches is valid for clients of any address.
pub fn cache_any_address() {
    host::answer::cache_any_address();
}
