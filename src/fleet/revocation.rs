//! Revocation: closes streams on all nodes, and with a duration rejects matching clients until it ends.
//!
//! A command closes the streams. A revocation with a duration is in a hash of the store, and is active exactly as long as it is there and its
//! end, by the store's clock, has not come. The hash is written before the command is sent, and an entry is removed before the command that
//! lifts it. A command only says which entries to read again, so a forged one can neither add a revocation nor lift one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::field;

use crate::authz::authorizer::Authorizer;
use crate::authz::cache::CacheSelector;
use crate::authz::revocation_list::{Revocation, RevocationList};
use crate::fleet::commands;
use crate::fleet::commands::{CommandHandler, ResyncReason};
use crate::policy::stream_selector::StreamSelector;
use crate::store::fleet::Replication;
use crate::store::fleet_keys::FleetKeys;
use crate::store::revocations::{NewRevocation, RevocationIds};
use crate::store::{EventStore, StoreError};
use crate::stream::registry::StreamRegistry;
use crate::util::id::random_id;

/// The longest time that a revocation can last.
pub const MAX_REVOCATION_DURATION: Duration = Duration::from_secs(30 * 86_400);
/// Longest subject or channel of a revocation in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Ids that one read of the store names. If more are waiting, all revocations are read.
const MAX_PENDING_IDS: usize = 256;
/// Time between two reads of the store's clock while revocations are active.
const CLOCK_READ_INTERVAL: Duration = Duration::from_secs(10);
/// A read that moves the clock further means that the store's clock was set, and not that the reply was late.
const MAX_CLOCK_DRIFT_MS: u64 = 1_000;
/// Time limit for the nodes to reply with the number of streams that they closed.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for a replica of the store to confirm a revocation that not every node has confirmed: replicas report every second.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(3);

/// An operator's request: which access to revoke, and for how long.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationRequest {
    /// The subject that the policy granted.
    pub subject: Option<Box<str>>,
    pub channel: Option<Box<str>>,
    /// All access.
    #[serde(default)]
    pub all: bool,
    /// As `15m`; without it, the policy decides when clients reconnect.
    #[serde(default, rename = "for", with = "crate::util::duration::option")]
    pub time: Option<Duration>,
}

/// The result of a revocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevocationResult {
    /// The number of streams that were closed.
    pub streams: u64,
    /// The same, by node name.
    pub nodes: BTreeMap<String, u64>,
    /// Subscribed or live nodes that did not reply in time; they apply the revocation nevertheless.
    pub missing: usize,
    /// Neither every node has replied, nor is a replica of the store known to have the revocation: a failover may lose it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_replicated: bool,
    /// The stored revocation, where a duration was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// The store's time when the revocation was stored, ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<u64>,
}

/// The revocations that have not ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ActiveRevocations {
    /// The one that ends last at the end.
    pub revocations: Vec<Revocation>,
    /// The store's time, by which they end, ms since the Unix epoch. Null if the store's user may not read it; then those that have ended
    /// are listed too.
    pub now: Option<u64>,
}

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("{0}")]
    InvalidRequest(String),
    #[error(
        "{} revocations are active, which is the maximum: remove some with `revoke --lift`, or let the policy decide",
        RevocationList::MAX_REVOCATIONS
    )]
    Full,
    /// The matching streams were closed.
    #[error("the revocation ended, after {0:?}, before every node had replied: choose a longer time")]
    Ended(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A command to all nodes. An unknown field is an error: a field of a newer version may narrow which streams are meant.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum RevocationCommand {
    Revoke {
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<Box<str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<Box<str>>,
        /// Of a stored revocation.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Box<str>>,
    },
    Lift {
        id: Box<str>,
    },
}

/// Applies revocations on this node.
pub struct RevocationService {
    pub authorizer: Arc<Authorizer>,
    pub streams: StreamRegistry,
    pub store: Arc<dyn EventStore>,
    pub keys: FleetKeys,
    pending: Mutex<PendingReads>,
    /// Revocations that this node has written back to the store, and whose command it has not sent yet.
    unannounced: Mutex<Vec<Revocation>>,
}

/// What to read from the store again.
#[derive(Default)]
struct PendingReads {
    ids: BTreeSet<Box<str>>,
    all: bool,
    /// When the store's clock is to be read again; none before the first read.
    next_clock_read: Option<Instant>,
}

impl PendingReads {
    fn add(&mut self, id: Box<str>) {
        if self.ids.len() < MAX_PENDING_IDS {
            self.ids.insert(id);
        } else {
            self.all = true;
        }
    }

    fn is_due(&self) -> bool {
        self.all || !self.ids.is_empty() || self.next_clock_read.is_some_and(|at| at <= Instant::now())
    }
}

impl RevocationService {
    pub fn new(
        authorizer: Arc<Authorizer>,
        streams: StreamRegistry,
        store: Arc<dyn EventStore>,
        keys: FleetKeys,
    ) -> Self {
        Self { authorizer, streams, store, keys, pending: Mutex::default(), unannounced: Mutex::default() }
    }

    /// Reads revocations, and sets the clock by which they end. With the distance by which that moves the clock, in ms.
    async fn read(&self, ids: RevocationIds<'_>) -> Result<(Vec<Revocation>, u64), StoreError> {
        let (stored, now) = stored(&*self.store, &self.keys, ids).await?;
        let no_clock = || StoreError::Refused("the store's user may not read its time (TIME)".into());
        let moved = self.authorizer.revocations().clock().set(now.ok_or_else(no_clock)?);
        self.pending.lock().next_clock_read = Some(Instant::now() + CLOCK_READ_INTERVAL);
        Ok((stored, moved))
    }

    /// Takes over the stored state of all revocations, or of those of these ids.
    async fn read_again(&self, pending: &PendingReads) -> Result<(), StoreError> {
        let revocations = self.authorizer.revocations();
        if !pending.all {
            let ids: Vec<&str> = pending.ids.iter().map(|id| &**id).collect();
            let (stored, moved) = self.read(RevocationIds::Some(&ids)).await?;
            for id in ids {
                match stored.iter().find(|revocation| *revocation.id == *id) {
                    Some(revocation) if !revocations.add(revocation.clone()) => {
                        // The streams are closed nevertheless.
                        tracing::error!(id, "the list of revocations is full: this revocation is not applied");
                    }
                    Some(_) => {}
                    None if revocations.remove(id) => tracing::info!(id, "revocation lifted"),
                    None => {}
                }
            }
            // If the store's clock was set, other revocations may have ended here and be active again.
            if moved <= MAX_CLOCK_DRIFT_MS {
                return Ok(());
            }
        }
        revocations.replace(self.read(RevocationIds::All).await?.0);
        Ok(())
    }

    /// Writes back the revocations that this node has and the store has lost, and sends their commands again: a node that did not get them
    /// before the loss would not read the entries.
    async fn restore(&self, stored: &[Revocation]) -> Result<(), StoreError> {
        for revocation in self.authorizer.revocations().list() {
            // One without an end is that of a command whose entry was not read yet.
            if revocation.until < u64::MAX && !stored.iter().any(|known| known.id == revocation.id) {
                let value = json!(*revocation).to_string();
                if self.store.restore_revocation(&self.keys.revocations(), &revocation.id, &value).await? {
                    tracing::warn!(id = %revocation.id, "the store has lost an active revocation: it is written back");
                    self.unannounced.lock().push(Revocation::clone(&revocation));
                }
            }
        }
        loop {
            let Some(revocation) = self.unannounced.lock().first().cloned() else { return Ok(()) };
            let StreamSelector { subject, channel } = revocation.selector;
            let command = RevocationCommand::Revoke { subject, channel, id: Some(revocation.id.clone()) };
            commands::send(&*self.store, &self.keys, &json!(command)).await?;
            self.unannounced.lock().retain(|other| other.id != revocation.id);
        }
    }

    /// Closes the matching streams of this node, after it has removed the matching cached decisions. Returns the number of streams.
    pub fn end(&self, selector: &StreamSelector) -> usize {
        self.authorizer.invalidate(match (&selector.subject, &selector.channel) {
            (Some(subject), _) => CacheSelector::Subject(subject),
            (None, Some(channel)) => CacheSelector::Channel(channel),
            (None, None) => CacheSelector::All,
        });
        self.streams.revoke(selector)
    }
}

#[async_trait]
impl CommandHandler for RevocationService {
    fn handle(&self, command: &str) -> Result<Value, String> {
        match serde_json::from_str(command).map_err(|error| error.to_string())? {
            RevocationCommand::Lift { id } => {
                // Removed when the store does not have it: a command alone lifts nothing.
                self.pending.lock().add(id);
                Ok(Value::Null)
            }
            RevocationCommand::Revoke { subject, channel, id } => {
                let selector = StreamSelector { subject, channel };
                // First the list, then the cache, then the streams: a decision made in between is rejected, and a stream that opens in
                // between is found when it registers. The list has it without an end until the store was read.
                if let Some(id) = &id {
                    let revocation = Revocation { id: id.clone(), selector: selector.clone(), until: u64::MAX };
                    // If the list is full, the error is logged after the read.
                    let _ = self.authorizer.revocations().add(revocation);
                    self.pending.lock().add(id.clone());
                }
                let streams = self.end(&selector);
                let (subject, channel) = (selector.subject.as_deref(), selector.channel.as_deref());
                let all = (subject.is_none() && channel.is_none()).then_some(true);
                let (subject, channel) = (subject.map(field::debug), channel.map(field::debug));
                tracing::info!(subject, channel, all, id, streams, "revoked");
                Ok(json!(streams))
            }
        }
    }

    async fn settle(&self) -> Result<(), StoreError> {
        let pending = {
            let mut waiting = self.pending.lock();
            if !waiting.is_due() {
                return Ok(());
            }
            std::mem::take(&mut *waiting)
        };
        let is_idle = !pending.all && pending.ids.is_empty() && self.authorizer.revocations().is_empty();
        // Without a revocation the clock does not matter, and the next one causes a read.
        let result = if is_idle { Ok(()) } else { self.read_again(&pending).await };
        if result.is_err() {
            self.pending.lock().all = true;
        }
        result
    }

    async fn resync(&self, reason: ResyncReason) -> Result<(), StoreError> {
        let (stored, _) = self.read(RevocationIds::All).await?;
        let revocations = self.authorizer.revocations();
        if reason == ResyncReason::StoreReset {
            // A store that lost its latest commands may have lost revocations too, although they were not lifted.
            self.restore(&stored).await?;
            stored.into_iter().for_each(|revocation| {
                let _ = revocations.add(revocation);
            });
        } else {
            revocations.replace(stored);
        }
        if reason == ResyncReason::First {
            return Ok(());
        }
        // Any stream may be subject to a missed revocation. After a start there are usually no streams yet.
        let streams = self.end(&StreamSelector::default());
        if reason != ResyncReason::Start || streams > 0 {
            tracing::warn!(
                streams,
                "revocations may have been missed: all streams are ended, and clients are authorized again"
            );
        }
        Ok(())
    }
}

impl RevocationRequest {
    /// Checks the request. Returns which streams it means, and the duration.
    pub fn check(self) -> Result<(StreamSelector, Option<Duration>), RevokeError> {
        let invalid = |text: String| Err(RevokeError::InvalidRequest(text));
        let Self { subject, channel, all, time } = self;
        if all == (subject.is_some() || channel.is_some()) {
            return invalid("it is a subject, a channel, both of them, or all".into());
        }
        for (what, name) in [("subject", &subject), ("channel", &channel)] {
            match name.as_ref().map(|name| name.len()) {
                // A variable of a script that is not set, most likely.
                Some(0) => return invalid(format!("the {what} is empty")),
                Some(1..=MAX_NAME_BYTES) | None => {}
                Some(_) => return invalid(format!("the {what} has more than {MAX_NAME_BYTES} bytes")),
            }
        }
        if time.is_some_and(|time| time.is_zero() || time > MAX_REVOCATION_DURATION) {
            return invalid("for: must be from 1ms to 30days, such as 15m".into());
        }
        Ok((StreamSelector { subject, channel }, time))
    }
}

/// Revokes access on all nodes, and returns how many streams that closed.
pub async fn revoke(
    store: &dyn EventStore,
    keys: &FleetKeys,
    request: RevocationRequest,
) -> Result<RevocationResult, RevokeError> {
    let (selector, duration) = request.check()?;
    let (mut revocation, mut now) = (None, None);
    let started = Instant::now();
    if let Some(duration) = duration {
        let id = random_id();
        // If the command fails, the revocation is in the list and on nodes that start later: the error says to try again.
        let value = json!(StoredRevocation { id: &id, selector: &selector }).to_string();
        let new = NewRevocation { id: &id, value: &value, duration, max_active: RevocationList::MAX_REVOCATIONS };
        let added = store.add_revocation(&keys.revocations(), new).await?;
        let until = added.until.ok_or(RevokeError::Full)?;
        now = Some(added.now);
        revocation = Some(Revocation { id: id.into(), selector: selector.clone(), until });
    }
    let StreamSelector { subject, channel } = selector;
    let id = revocation.as_ref().map(|revocation| revocation.id.clone());
    let command = RevocationCommand::Revoke { subject, channel, id };
    let replies = commands::send_and_wait(store, keys, &json!(command), REPLY_TIMEOUT).await?;
    if let Some(duration) = duration.filter(|duration| started.elapsed() >= *duration) {
        return Err(RevokeError::Ended(duration));
    }
    let nodes: BTreeMap<String, u64> =
        replies.by_node.into_iter().filter_map(|(node, streams)| Some((node, streams.as_u64()?))).collect();
    let missing = replies.missing;
    let not_replicated = if missing > 0 {
        may_be_lost(store, keys).await
    } else {
        // No node is known to live, which an outage of the store could explain: only a replica is left to confirm it.
        nodes.is_empty() && replication(store, keys).await == Some(Replication::Missing)
    };
    Ok(RevocationResult { streams: nodes.values().sum(), nodes, missing, not_replicated, revocation, now })
}

/// Whether a failover may lose the last writes to the fleet's keys: the store has replicas, and none is known to have it. If the replicas
/// cannot be asked, that is not known, and counts as lost.
async fn may_be_lost(store: &dyn EventStore, keys: &FleetKeys) -> bool {
    store.fleet(keys).is_some() && replication(store, keys).await != Some(Replication::Confirmed)
}

/// Whether the replicas have the last writes; `None` if that is not known.
async fn replication(store: &dyn EventStore, keys: &FleetKeys) -> Option<Replication> {
    store.fleet(keys)?.replication(REPLICATION_TIMEOUT).await.ok()
}

/// A revocation without its end, as it is passed to the store.
#[derive(Serialize)]
struct StoredRevocation<'a> {
    id: &'a str,
    #[serde(flatten)]
    selector: &'a StreamSelector,
}

/// The active revocations. Changes nothing.
pub async fn list(store: &dyn EventStore, keys: &FleetKeys) -> Result<ActiveRevocations, StoreError> {
    let (mut revocations, now) = stored(store, keys, RevocationIds::All).await?;
    revocations.retain(|revocation| now.is_none_or(|now| revocation.until > now));
    revocations.sort_by(|a, b| (a.until, &a.id).cmp(&(b.until, &b.id)));
    Ok(ActiveRevocations { revocations, now })
}

/// Lifts a revocation. False if the store has none of this id; the command is sent in any case.
pub async fn lift(store: &dyn EventStore, keys: &FleetKeys, id: &str) -> Result<bool, StoreError> {
    let was_stored = store.remove_revocation(&keys.revocations(), id).await?;
    let command = RevocationCommand::Lift { id: id.into() };
    commands::send_and_wait(store, keys, &json!(command), REPLY_TIMEOUT).await?;
    Ok(was_stored)
}

/// The stored revocations, and the store's time.
async fn stored(
    store: &dyn EventStore,
    keys: &FleetKeys,
    ids: RevocationIds<'_>,
) -> Result<(Vec<Revocation>, Option<u64>), StoreError> {
    let key = keys.revocations();
    let parse = |(id, bytes): (String, Vec<u8>)| match serde_json::from_slice::<Revocation>(&bytes) {
        Ok(revocation) if *revocation.id == *id => Some(revocation),
        _ => {
            tracing::error!(id, "an entry of {key} is not a revocation");
            None
        }
    };
    let stored = store.revocations(&key, ids).await?;
    Ok((stored.entries.into_iter().filter_map(parse).collect(), stored.now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_names_a_subject_a_channel_or_all() {
        let error =
            |request: RevocationRequest| request.check().map_err(|error| error.to_string()).err().unwrap_or_default();
        let named = |subject: Option<&str>, channel: Option<&str>| RevocationRequest {
            subject: subject.map(Into::into),
            channel: channel.map(Into::into),
            ..RevocationRequest::default()
        };
        assert_eq!(error(named(Some("alice"), None)), "");
        assert_eq!(error(named(Some("alice"), Some("news"))), "");
        assert_eq!(error(RevocationRequest { all: true, ..RevocationRequest::default() }), "");
        // A script whose variable is not set must get an error.
        assert_eq!(error(named(Some(""), None)), "the subject is empty");
        assert_eq!(error(named(Some("alice"), Some(""))), "the channel is empty");
        for invalid in [RevocationRequest::default(), RevocationRequest { all: true, ..named(Some("alice"), None) }] {
            assert_eq!(error(invalid), "it is a subject, a channel, both of them, or all");
        }
    }
}
