//! Emits that are tried again without adding an event twice. The emitter's token is a field of the entry, and an attempt that follows one
//! without a reply first looks for it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::{NewEvent, StreamId};
use crate::store::{EventStore, Retention, StoreError};
use crate::util::backoff::Backoff;
use crate::util::id::random_id;

/// The field of an entry with its emitter's token.
pub const TOKEN_FIELD: &str = "token";
/// A repeated emit looks at this many of the latest entries.
pub const LOOK_BACK_ENTRIES: usize = 256;
/// It looks at no entry that is this much older than the latest one.
pub const LOOK_BACK_TIME: Duration = Duration::from_secs(60);
/// It looks at no more bytes of entries: the look-up holds up the store.
pub const LOOK_BACK_BYTES: usize = 4 << 20;

/// Bytes of a token.
const MAX_TOKEN_BYTES: usize = 128;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// The identity of an emit, the same in each of its attempts: 1 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmitToken(Box<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid key of an emit: expected 1 to {MAX_TOKEN_BYTES} visible ASCII characters")]
pub struct InvalidToken;

impl EmitToken {
    /// A random token.
    pub fn new() -> Self {
        Self(random_id().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EmitToken {
    fn default() -> Self {
        Self::new()
    }
}

impl FromStr for EmitToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let is_valid = (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_valid { Ok(Self(text.into())) } else { Err(InvalidToken) }
    }
}

impl fmt::Display for EmitToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An attempt to emit an event.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub token: &'a EmitToken,
    /// An earlier attempt may have added the event.
    pub is_repeated: bool,
}

/// An event that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted {
    pub id: StreamId,
    /// The event may be in the stream twice: an earlier attempt got no reply, and its entry may have been trimmed.
    pub is_uncertain: bool,
}

/// Emits an event, and tries again after a lost reply, until `timeout` has passed since the call. With `is_repeated` the first attempt looks
/// for an earlier one, too.
pub async fn emit(
    store: &dyn EventStore,
    channel: &str,
    event: &NewEvent,
    retention: Retention,
    attempt: Attempt<'_>,
    timeout: Duration,
) -> Result<Emitted, StoreError> {
    let deadline = Instant::now() + timeout;
    let (mut attempt, mut retry) = (attempt, Backoff::new(RETRY_MIN, RETRY_MAX));
    loop {
        match store.emit_once(channel, event, retention, attempt).await {
            Err(error) if error.is_transient() => {
                let next_at = Instant::now() + retry.next_delay();
                if next_at >= deadline {
                    return Err(error);
                }
                attempt.is_repeated = true;
                tokio::time::sleep_until(next_at).await;
            }
            result => return result,
        }
    }
}

/// Another event has the same token: the id of its entry.
pub(super) fn conflict(id: StreamId) -> StoreError {
    StoreError::TokenReused(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_short_visible_texts() {
        for valid in ["a", "8e03978e-40d5-43e8-bc93-6894a57f9324", &"x".repeat(MAX_TOKEN_BYTES)] {
            assert_eq!(valid.parse::<EmitToken>().map(|token| token.to_string()), Ok(valid.to_owned()));
        }
        for invalid in ["", "a b", "ä", "a\n", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            assert_eq!(invalid.parse::<EmitToken>(), Err(InvalidToken), "{invalid:?}");
        }
        assert_ne!(EmitToken::new(), EmitToken::new());
    }
}
