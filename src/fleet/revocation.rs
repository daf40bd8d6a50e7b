//! Revocation: ends streams on all nodes, and with a duration refuses the clients until it is over.
//!
//! A command ends the streams. A revocation with a duration is also in a hash of the store, so that a node that starts knows it. The hash is
//! written before the command is sent, and an entry is removed before the command that lifts it.

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
use crate::fleet::commands::{CommandHandler, ReceivedCommand, ResyncReason};
use crate::policy::stream_selector::StreamSelector;
use crate::store::fleet_keys::FleetKeys;
use crate::store::{EventStore, StoreError};
use crate::stream::registry::StreamRegistry;
use crate::util::clock::now_ms;
use crate::util::id::random_id;

/// The kinds of command.
pub const KINDS: &[&str] = &["revoke", "lift"];
/// The longest time that a revocation can last.
pub const MAX_REVOCATION_DURATION: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of a subject or a channel.
const MAX_NAME_BYTES: usize = 1024;
/// Time limit for the nodes to reply with the number of streams that they ended.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Whose right is taken away, and for how long it stays so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationRequest {
    /// Of whoever the policy calls so.
    #[serde(default)]
    pub subject: Option<Box<str>>,
    /// To read this channel.
    #[serde(default)]
    pub channel: Option<Box<str>>,
    /// Everybody's, to read anything.
    #[serde(default)]
    pub all: bool,
    /// As `15m`; without it, the policy decides when they come back.
    #[serde(default, rename = "for", with = "crate::util::duration::option")]
    pub time: Option<Duration>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevocationResult {
    /// The streams that were ended.
    pub streams: u64,
    /// The same, by the names of the nodes.
    pub nodes: BTreeMap<String, u64>,
    /// Nodes that listen and did not say in time how many; they do it nevertheless.
    pub missing: usize,
    /// The stored revocation, where a duration was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
}

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The order is none.
    #[error("{0}")]
    InvalidRequest(String),
    /// The list of revocations is full.
    #[error(
        "{} revocations are active, which is the maximum: remove some with `revoke --lift`, or let the policy decide",
        RevocationList::MAX_REVOCATIONS
    )]
    Full,
    /// The store did not do its part.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What the command says. A field of a newer version must not be passed over: it may narrow who is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    subject: Option<Box<str>>,
    #[serde(default)]
    channel: Option<Box<str>>,
    #[serde(default)]
    id: Option<Box<str>>,
    #[serde(default)]
    until: Option<u64>,
}

/// Does on this node what is commanded.
pub struct RevocationService {
    authorizer: Arc<Authorizer>,
    streams: StreamRegistry,
    store: Arc<dyn EventStore>,
    keys: FleetKeys,
}

impl RevocationService {
    /// For this door and these streams, in the fleet with these keys.
    #[must_use]
    pub fn new(
        authorizer: Arc<Authorizer>,
        streams: StreamRegistry,
        store: Arc<dyn EventStore>,
        keys: FleetKeys,
    ) -> Self {
        Self { authorizer, streams, store, keys }
    }

    /// First nobody comes in any more, then nothing is remembered of who was let in, then the streams end: so that none slips through
    /// between. One that is being decided about is found when it registers.
    fn revoke(&self, revoke: Revoke) -> Result<usize, String> {
        let selector = StreamSelector { subject: revoke.subject, channel: revoke.channel };
        if let (Some(id), Some(until)) = (revoke.id, revoke.until)
            && !self.authorizer.revocations().add(Revocation { id, selector: selector.clone(), until })
        {
            // The streams are ended nevertheless.
            tracing::error!(?selector, "the list of revocations is full: this revocation is not applied");
        }
        Ok(self.end(&selector))
    }

    /// Ends the streams of these on this node. How many there were.
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
    fn handle(&self, command: &ReceivedCommand<'_>) -> Result<Option<Value>, String> {
        if command.fields.get("kind").is_some_and(|kind| kind == "lift") {
            let id = command.fields.get("id").and_then(Value::as_str).ok_or("it has no id")?;
            let lifted = self.authorizer.revocations().remove(id);
            if lifted {
                tracing::info!(id, "revocation lifted");
            }
            return Ok(Some(json!(lifted)));
        }
        let revoke: Revoke =
            serde_json::from_value(Value::Object(command.fields.clone())).map_err(|error| error.to_string())?;
        let (subject, channel, until) = (revoke.subject.clone(), revoke.channel.clone(), revoke.until);
        let streams = self.revoke(revoke)?;
        let all = (subject.is_none() && channel.is_none()).then_some(true);
        let (subject, channel) = (subject.as_deref().map(field::debug), channel.as_deref().map(field::debug));
        tracing::info!(subject, channel, all, until, streams, "revoked");
        Ok(Some(json!(streams)))
    }

    async fn resync(&self, reason: ResyncReason) -> Result<(), StoreError> {
        let stored = stored(&*self.store, &self.keys).await?;
        let denied = self.authorizer.revocations();
        if reason == ResyncReason::StoreReset {
            // A store that lost its latest commands may have lost revocations too, though nobody lifted them.
            for revocation in denied.list() {
                if !stored.iter().any(|known| known.id == revocation.id) {
                    write(&*self.store, &self.keys, &revocation).await?;
                }
            }
            stored.into_iter().for_each(|revocation| {
                let _ = denied.add(revocation);
            });
        } else {
            denied.replace(stored);
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
    /// Checks who is meant, and for how long.
    pub fn check(self) -> Result<(StreamSelector, Option<Duration>), RevokeError> {
        let wrong = |text: String| Err(RevokeError::InvalidRequest(text));
        let Self { subject, channel, all, time } = self;
        if all == (subject.is_some() || channel.is_some()) {
            return wrong("it is a subject, a channel, both of them, or all".into());
        }
        for (what, name) in [("subject", &subject), ("channel", &channel)] {
            // A variable of a script that is not set, most likely.
            if name.as_ref().is_some_and(|name| name.is_empty()) {
                return wrong(format!("the {what} is empty"));
            }
            if name.as_ref().is_some_and(|name| name.len() > MAX_NAME_BYTES) {
                return wrong(format!("the {what} has more than {MAX_NAME_BYTES} bytes"));
            }
        }
        if time.is_some_and(|time| time.is_zero() || time > MAX_REVOCATION_DURATION) {
            return wrong("for: a time between 1ms and 30days, as 15m".into());
        }
        Ok((StreamSelector { subject, channel }, time))
    }
}

/// Revokes access on all nodes, and returns how many streams that ended.
pub async fn revoke(
    store: &dyn EventStore,
    keys: &FleetKeys,
    order: RevocationRequest,
) -> Result<RevocationResult, RevokeError> {
    let (selector, time) = order.check()?;
    let mut command = json!({ "kind": "revoke" });
    for (field, name) in [("subject", &selector.subject), ("channel", &selector.channel)] {
        if let Some(name) = name {
            command[field] = json!(name);
        }
    }
    let revocation = time.map(|time| {
        let until = now_ms().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Revocation { id: random_id().into(), selector, until }
    });
    if let Some(revocation) = &revocation {
        (command["id"], command["until"]) = (json!(revocation.id), json!(revocation.until));
        if list(store, keys).await?.len() >= RevocationList::MAX_REVOCATIONS {
            return Err(RevokeError::Full);
        }
        // If the command fails, the revocation is in the list and on nodes that start later: the error says to try again.
        write(store, keys, revocation).await?;
    }
    let answers = commands::send_and_wait(store, keys, &command, REPLY_TIMEOUT).await?;
    let nodes: BTreeMap<String, u64> =
        answers.by_node.into_iter().filter_map(|(node, count)| Some((node, count.as_u64()?))).collect();
    Ok(RevocationResult { streams: nodes.values().sum(), nodes, missing: answers.missing, revocation })
}

/// The active revocations, the one that ends last at the end. Removes the others from the store.
pub async fn list(store: &dyn EventStore, keys: &FleetKeys) -> Result<Vec<Revocation>, StoreError> {
    let (mut hold, now) = (Vec::new(), now_ms());
    for revocation in stored(store, keys).await? {
        if revocation.until > now {
            hold.push(revocation);
        } else {
            store.hash_set(&keys.revocations(), &revocation.id, None).await?;
        }
    }
    hold.sort_by(|a, b| (a.until, &a.id).cmp(&(b.until, &b.id)));
    Ok(hold)
}

/// Lifts a revocation. False if the store has none of this id; the command is sent in any case.
pub async fn lift(store: &dyn EventStore, keys: &FleetKeys, id: &str) -> Result<bool, StoreError> {
    let was = stored(store, keys).await?.iter().any(|revocation| *revocation.id == *id);
    store.hash_set(&keys.revocations(), id, None).await?;
    commands::send_and_wait(store, keys, &json!({ "kind": "lift", "id": id }), REPLY_TIMEOUT).await?;
    Ok(was)
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
    fn an_order_says_whom_it_means() {
        let says =
            |order: RevocationRequest| order.check().map_err(|error| error.to_string()).err().unwrap_or_default();
        let named = |subject: Option<&str>, channel: Option<&str>| RevocationRequest {
            subject: subject.map(Into::into),
            channel: channel.map(Into::into),
            ..RevocationRequest::default()
        };
        assert_eq!(says(named(Some("alice"), None)), "");
        assert_eq!(says(named(Some("alice"), Some("news"))), "");
        assert_eq!(says(RevocationRequest { all: true, ..RevocationRequest::default() }), "");
        // A script whose variable is not set must not be told that all went well.
        assert_eq!(says(named(Some(""), None)), "the subject is empty");
        assert_eq!(says(named(Some("alice"), Some(""))), "the channel is empty");
        for none in [RevocationRequest::default(), RevocationRequest { all: true, ..named(Some("alice"), None) }] {
            assert_eq!(says(none), "it is a subject, a channel, both of them, or all");
        }
    }
}
