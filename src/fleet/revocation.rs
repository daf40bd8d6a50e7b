//! Revocation: the right to read is taken away, on all nodes, and for a while if that is wanted.
//!
//! Streams end because of a command. Who is kept out for a while stands in a hash of the store too, so that a node that starts knows it;
//! a denial is written there before the command is sent, and goes from there before its lifting is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::field;

use super::commands::{self, Anew, Heard, Listener};
use crate::policy::gate::Gate;
use crate::policy::{Denial, Denied, Forget, Whom};
use crate::store::fleet_keys::FleetKeys;
use crate::store::{Store, StoreError};
use crate::stream::now_ms;
use crate::stream::registry::Streams;

/// The kinds of command.
pub const KINDS: &[&str] = &["revoke", "lift"];
/// Nobody is kept out for longer.
pub const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of a subject or a channel.
const NAME: usize = 1024;
/// Nodes have so long to say how many streams they ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose right is taken away, and for how long it stays so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
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
    #[serde(default, rename = "for", with = "crate::times::option")]
    pub time: Option<Duration>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// The streams that were ended.
    pub streams: u64,
    /// The same, by the names of the nodes.
    pub nodes: BTreeMap<String, u64>,
    /// Nodes that listen and did not say in time how many; they do it nevertheless.
    pub missing: usize,
    /// Who is kept out, where a time was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
}

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The order is none.
    #[error("{0}")]
    Order(String),
    /// Too many are kept out.
    #[error("{} are kept out, which is the most that there may be: lift some, or let the policy decide", Denied::MOST)]
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
pub struct Revocations {
    gate: Arc<Gate>,
    streams: Streams,
    store: Arc<dyn Store>,
    keys: FleetKeys,
}

impl Revocations {
    /// For this door and these streams, in the fleet with these keys.
    #[must_use]
    pub fn new(gate: Arc<Gate>, streams: Streams, store: Arc<dyn Store>, keys: FleetKeys) -> Self {
        Self { gate, streams, store, keys }
    }

    /// First nobody comes in any more, then nothing is remembered of who was let in, then the streams end: so that none slips through
    /// between. One that is being decided about is found when it registers.
    fn revoke(&self, revoke: Revoke) -> Result<usize, String> {
        let whom = Whom { subject: revoke.subject, channel: revoke.channel };
        if let (Some(id), Some(until)) = (revoke.id, revoke.until)
            && !self.gate.denied().add(Denial { id, whom: whom.clone(), until })
        {
            // What can be done is done.
            tracing::error!(?whom, "there is no room for one more who is kept out");
        }
        Ok(self.end(&whom))
    }

    /// Ends the streams of these on this node. How many there were.
    pub fn end(&self, whom: &Whom) -> usize {
        self.gate.forget(match (&whom.subject, &whom.channel) {
            (Some(subject), _) => Forget::Subject(subject),
            (None, Some(channel)) => Forget::Channel(channel),
            (None, None) => Forget::All,
        });
        self.streams.revoke(whom)
    }
}

#[async_trait]
impl Listener for Revocations {
    fn hear(&self, heard: &Heard<'_>) -> Result<Option<Value>, String> {
        if heard.fields.get("kind").is_some_and(|kind| kind == "lift") {
            let id = heard.fields.get("id").and_then(Value::as_str).ok_or("it has no id")?;
            let lifted = self.gate.denied().lift(id);
            if lifted {
                tracing::info!(id, "a denial is lifted");
            }
            return Ok(Some(json!(lifted)));
        }
        let revoke: Revoke =
            serde_json::from_value(Value::Object(heard.fields.clone())).map_err(|error| error.to_string())?;
        let (subject, channel, until) = (revoke.subject.clone(), revoke.channel.clone(), revoke.until);
        let streams = self.revoke(revoke)?;
        let all = (subject.is_none() && channel.is_none()).then_some(true);
        let (subject, channel) = (subject.as_deref().map(field::debug), channel.as_deref().map(field::debug));
        tracing::info!(subject, channel, all, until, streams, "revoked");
        Ok(Some(json!(streams)))
    }

    async fn begin(&self, why: Anew) -> Result<(), StoreError> {
        let stored = stored(&*self.store, &self.keys).await?;
        let denied = self.gate.denied();
        if why == Anew::WentBack {
            // A store that lost its end may have lost these too; nobody lifted them.
            for denial in denied.list() {
                if !stored.iter().any(|known| known.id == denial.id) {
                    write(&*self.store, &self.keys, &denial).await?;
                }
            }
            stored.into_iter().for_each(|denial| {
                let _ = denied.add(denial);
            });
        } else {
            denied.replace(stored);
        }
        if why == Anew::First {
            return Ok(());
        }
        // Anybody may have been meant by what was not heard. Behind a start there are no streams yet, most often.
        let streams = self.end(&Whom::default());
        if why != Anew::Start || streams > 0 {
            tracing::warn!(streams, "all streams come back through the policy, for revocations may have been missed");
        }
        Ok(())
    }
}

impl Order {
    /// Checks who is meant, and for how long.
    pub fn check(self) -> Result<(Whom, Option<Duration>), RevokeError> {
        let wrong = |text: String| Err(RevokeError::Order(text));
        let Self { subject, channel, all, time } = self;
        if all == (subject.is_some() || channel.is_some()) {
            return wrong("it is a subject, a channel, both of them, or all".into());
        }
        for (what, name) in [("subject", &subject), ("channel", &channel)] {
            // A variable of a script that is not set, most likely.
            if name.as_ref().is_some_and(|name| name.is_empty()) {
                return wrong(format!("the {what} is empty"));
            }
            if name.as_ref().is_some_and(|name| name.len() > NAME) {
                return wrong(format!("the {what} has more than {NAME} bytes"));
            }
        }
        if time.is_some_and(|time| time.is_zero() || time > LONGEST) {
            return wrong("for: a time between 1ms and 30days, as 15m".into());
        }
        Ok((Whom { subject, channel }, time))
    }
}

/// Takes a right away on all nodes, and says how many streams that ended.
pub async fn revoke(store: &dyn Store, keys: &FleetKeys, order: Order) -> Result<Revoked, RevokeError> {
    let (whom, time) = order.check()?;
    let mut command = json!({ "kind": "revoke" });
    for (field, name) in [("subject", &whom.subject), ("channel", &whom.channel)] {
        if let Some(name) = name {
            command[field] = json!(name);
        }
    }
    let denial = time.map(|time| {
        let until = now_ms().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Denial { id: format!("{:016x}", rand::random::<u64>()).into(), whom, until }
    });
    if let Some(denial) = &denial {
        (command["id"], command["until"]) = (json!(denial.id), json!(denial.until));
        if list(store, keys).await?.len() >= Denied::MOST {
            return Err(RevokeError::Full);
        }
        // Should the command fail, it is seen in the list, and holds on nodes that start: the error says to try again.
        write(store, keys, denial).await?;
    }
    let answers = commands::ask(store, keys, &command, PATIENCE).await?;
    let nodes: BTreeMap<String, u64> =
        answers.by_node.into_iter().filter_map(|(node, count)| Some((node, count.as_u64()?))).collect();
    Ok(Revoked { streams: nodes.values().sum(), nodes, missing: answers.missing, denial })
}

/// Who is kept out for now, the longest last. What is over goes from the store.
pub async fn list(store: &dyn Store, keys: &FleetKeys) -> Result<Vec<Denial>, StoreError> {
    let (mut hold, now) = (Vec::new(), now_ms());
    for denial in stored(store, keys).await? {
        if denial.until > now {
            hold.push(denial);
        } else {
            store.hash_set(&keys.revocations(), &denial.id, None).await?;
        }
    }
    hold.sort_by(|a, b| (a.until, &a.id).cmp(&(b.until, &b.id)));
    Ok(hold)
}

/// Lets somebody in again. False if there is no such denial in the store; the nodes are told in any case.
pub async fn lift(store: &dyn Store, keys: &FleetKeys, id: &str) -> Result<bool, StoreError> {
    let was = stored(store, keys).await?.iter().any(|denial| *denial.id == *id);
    store.hash_set(&keys.revocations(), id, None).await?;
    commands::ask(store, keys, &json!({ "kind": "lift", "id": id }), PATIENCE).await?;
    Ok(was)
}

async fn write(store: &dyn Store, keys: &FleetKeys, denial: &Denial) -> Result<(), StoreError> {
    store.hash_set(&keys.revocations(), &denial.id, Some(&json!(denial).to_string())).await
}

async fn stored(store: &dyn Store, keys: &FleetKeys) -> Result<Vec<Denial>, StoreError> {
    let key = keys.revocations();
    let read = |(id, bytes): (String, Vec<u8>)| match serde_json::from_slice::<Denial>(&bytes) {
        Ok(denial) if *denial.id == *id => Some(denial),
        _ => {
            tracing::error!(id, "an entry of {key} is no denial");
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
        let says = |order: Order| order.check().map_err(|error| error.to_string()).err().unwrap_or_default();
        let named = |subject: Option<&str>, channel: Option<&str>| Order {
            subject: subject.map(Into::into),
            channel: channel.map(Into::into),
            ..Order::default()
        };
        assert_eq!(says(named(Some("alice"), None)), "");
        assert_eq!(says(named(Some("alice"), Some("news"))), "");
        assert_eq!(says(Order { all: true, ..Order::default() }), "");
        // A script whose variable is not set must not be told that all went well.
        assert_eq!(says(named(Some(""), None)), "the subject is empty");
        assert_eq!(says(named(Some("alice"), Some(""))), "the channel is empty");
        for none in [Order::default(), Order { all: true, ..named(Some("alice"), None) }] {
            assert_eq!(says(none), "it is a subject, a channel, both of them, or all");
        }
    }
}
