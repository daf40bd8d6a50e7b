//! Revocation: closes streams on all nodes, and with a duration rejects matching clients until it ends.
//!
//! A command closes the streams. A revocation with a duration is also in a hash of the store, so that a node that starts knows it. The hash
//! is written before the command is sent, and an entry is removed before the command that lifts it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::field;

use crate::authz::authorizer::Authorizer;
use crate::authz::cache::CacheSelector;
use crate::authz::revocation_list::{Revocation, RevocationList};
use crate::fleet::commands;
use crate::fleet::commands::{CommandHandler, ResyncReason};
use crate::policy::stream_selector::StreamSelector;
use crate::store::fleet_keys::FleetKeys;
use crate::store::{EventStore, StoreError};
use crate::stream::registry::StreamRegistry;
use crate::util::clock::now_ms;
use crate::util::id::random_id;

/// The longest time that a revocation can last.
pub const MAX_REVOCATION_DURATION: Duration = Duration::from_secs(30 * 86_400);
/// Longest subject or channel of a revocation in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Time limit for the nodes to reply with the number of streams that they closed.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// Subscribed nodes that did not reply in time; they apply the revocation nevertheless.
    pub missing: usize,
    /// The stored revocation, where a duration was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
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
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Box<str>>,
        /// In ms since 1970.
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
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
}

impl RevocationService {
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
                let is_lifted = self.authorizer.revocations().remove(&id);
                if is_lifted {
                    tracing::info!(id, "revocation lifted");
                }
                Ok(json!(is_lifted))
            }
            RevocationCommand::Revoke { subject, channel, id, until } => {
                let selector = StreamSelector { subject, channel };
                // First the list, then the cache, then the streams: a decision made in between is rejected, and a stream that opens in
                // between is found when it registers.
                if let (Some(id), Some(until)) = (id, until)
                    && !self.authorizer.revocations().add(Revocation { id, selector: selector.clone(), until })
                {
                    // The streams are closed nevertheless.
                    tracing::error!(?selector, "the list of revocations is full: this revocation is not applied");
                }
                let streams = self.end(&selector);
                let (subject, channel) = (selector.subject.as_deref(), selector.channel.as_deref());
                let all = (subject.is_none() && channel.is_none()).then_some(true);
                let (subject, channel) = (subject.map(field::debug), channel.map(field::debug));
                tracing::info!(subject, channel, all, until, streams, "revoked");
                Ok(json!(streams))
            }
        }
    }

    async fn resync(&self, reason: ResyncReason) -> Result<(), StoreError> {
        let stored = stored(&*self.store, &self.keys).await?;
        let revocations = self.authorizer.revocations();
        if reason == ResyncReason::StoreReset {
            // A store that lost its latest commands may have lost revocations too, although they were not lifted.
            for revocation in revocations.list() {
                if !stored.iter().any(|known| known.id == revocation.id) {
                    write(&*self.store, &self.keys, &revocation).await?;
                }
            }
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
    let StreamSelector { subject, channel } = selector.clone();
    let revocation = duration.map(|duration| {
        let until = now_ms().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        Revocation { id: random_id().into(), selector, until }
    });
    if let Some(revocation) = &revocation {
        if list(store, keys).await?.len() >= RevocationList::MAX_REVOCATIONS {
            return Err(RevokeError::Full);
        }
        // If the command fails, the revocation is in the list and on nodes that start later: the error says to try again.
        write(store, keys, revocation).await?;
    }
    let (id, until) = revocation.as_ref().map(|revocation| (revocation.id.clone(), revocation.until)).unzip();
    let command = RevocationCommand::Revoke { subject, channel, id, until };
    let replies = commands::send_and_wait(store, keys, &json!(command), REPLY_TIMEOUT).await?;
    let nodes: BTreeMap<String, u64> =
        replies.by_node.into_iter().filter_map(|(node, streams)| Some((node, streams.as_u64()?))).collect();
    Ok(RevocationResult { streams: nodes.values().sum(), nodes, missing: replies.missing, revocation })
}

/// The active revocations, the one that ends last at the end. Removes the others from the store.
pub async fn list(store: &dyn EventStore, keys: &FleetKeys) -> Result<Vec<Revocation>, StoreError> {
    let now = now_ms();
    let (mut active, ended): (Vec<_>, Vec<_>) =
        stored(store, keys).await?.into_iter().partition(|revocation| revocation.until > now);
    for revocation in ended {
        store.hash_set(&keys.revocations(), &revocation.id, None).await?;
    }
    active.sort_by(|a, b| (a.until, &a.id).cmp(&(b.until, &b.id)));
    Ok(active)
}

/// Lifts a revocation. False if the store has none of this id; the command is sent in any case.
pub async fn lift(store: &dyn EventStore, keys: &FleetKeys, id: &str) -> Result<bool, StoreError> {
    let was_stored = stored(store, keys).await?.iter().any(|revocation| *revocation.id == *id);
    store.hash_set(&keys.revocations(), id, None).await?;
    let command = RevocationCommand::Lift { id: id.into() };
    commands::send_and_wait(store, keys, &json!(command), REPLY_TIMEOUT).await?;
    Ok(was_stored)
}

async fn write(store: &dyn EventStore, keys: &FleetKeys, revocation: &Revocation) -> Result<(), StoreError> {
    store.hash_set(&keys.revocations(), &revocation.id, Some(&json!(revocation).to_string())).await
}

async fn stored(store: &dyn EventStore, keys: &FleetKeys) -> Result<Vec<Revocation>, StoreError> {
    let key = keys.revocations();
    let read = |(id, bytes): (String, Vec<u8>)| match serde_json::from_slice::<Revocation>(&bytes) {
        Ok(revocation) if *revocation.id == *id => Some(revocation),
        _ => {
            tracing::error!(id, "an entry of {key} is not a revocation");
            None
        }
    };
    Ok(store.hash_all(&key).await?.into_iter().filter_map(read).collect())
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
