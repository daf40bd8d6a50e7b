//! The revocations of a fleet in its store: a hash of JSON objects by id, whose `until` is a time of the store's own clock.
//!
//! The store parses no more of them than their end. Anyone with write access to the store may have written them, so `crate::fleet` parses
//! them.

use std::time::Duration;

/// Maximum entries of the hash that are read; a larger hash is an error. Larger than the number that can be active, because entries that
/// ended stay until the next one is added, and concurrent requests may each find the last free entry.
pub const MAX_STORED_REVOCATIONS: usize = 30_000;
/// Maximum bytes of an entry: subject and channel, with each character escaped.
pub const MAX_REVOCATION_BYTES: usize = 16 << 10;

/// A revocation that is to be added.
#[derive(Clone, Copy, Debug)]
pub struct NewRevocation<'a> {
    pub id: &'a str,
    /// A JSON object without its end, `until`, which the store adds.
    pub value: &'a str,
    /// The time until its end.
    pub duration: Duration,
    /// It is added only if fewer than this number are active.
    pub max_active: usize,
}

/// The result of [`EventStore::add_revocation`](crate::store::EventStore::add_revocation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedRevocation {
    /// The store's time, ms since the Unix epoch.
    pub now: u64,
    /// The end by the store's clock, ms since the Unix epoch; none if too many are active.
    pub until: Option<u64>,
}

/// Revocations as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRevocations {
    /// The store's time of the read, ms since the Unix epoch; none if the store's user may not read it.
    pub now: Option<u64>,
    /// The values, by id.
    pub entries: Vec<(String, Vec<u8>)>,
}

/// Which revocations to read.
#[derive(Clone, Copy, Debug)]
pub enum RevocationIds<'a> {
    All,
    Some(&'a [&'a str]),
}

/// The end of a stored revocation; none for a value that is not one.
pub(super) fn end_of(value: &str) -> Option<u64> {
    let (_, rest) = value.split_once(r#""until":"#)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
