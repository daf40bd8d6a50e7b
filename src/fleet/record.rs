//! The fleet's records in the store. Any client with write access to Redis may have written them, so they are parsed with limits.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::artifact::signature::key::TrustedKeys;
use crate::artifact::signature::proof::{NotProven, Proof};
use crate::artifact::signature::{MAX_SEQUENCE, Signature};
use crate::policy::info::PolicyOrigin;
use crate::rollout::pipeline::MAX_CASES;
use crate::rollout::stage::{Stage, StageError};
use crate::store::StoreError;
use crate::store::fleet::{FleetStore, MAX_RECORD_BYTES};
use crate::util::id::random_id;
use crate::util::printable::printable;
use crate::util::ratio::Ratio;
use crate::wasm::load_error;

/// Delay before a node tries a policy again that failed a stage: the cause may be fixed by then.
pub const FAILED_STAGE_RETRY_DELAY: Duration = Duration::from_secs(30);
/// Delay before a node tries a policy again after a store error.
pub const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Characters of an error in a status.
const MAX_ERROR_CHARS: usize = 2_000;

/// A pushed policy: the active one, or an entry of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRecord {
    /// Greater than that of every earlier push.
    #[serde(deserialize_with = "sequence")]
    pub sequence: u64,
    pub component: Digest,
    /// Of the test cases.
    pub cases: Option<Digest>,
    pub signature: Option<Signature>,
    /// Time of the push, ms since 1970.
    pub pushed_at: u64,
    /// The push that set it.
    pub push_id: PushId,
    /// For a rollback: the sequence of the earlier push whose policy this one activates again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
}

/// A sequence above those that can be signed is invalid: no push could follow it.
fn sequence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let sequence = u64::deserialize(deserializer)?;
    let too_great = || D::Error::custom(format!("the sequence {sequence} is greater than {MAX_SEQUENCE}"));
    if sequence <= MAX_SEQUENCE { Ok(sequence) } else { Err(too_great()) }
}

/// The identity of a push: 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PushId(String);

impl PushId {
    /// A random id.
    pub fn new() -> Self {
        Self(random_id())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PushId {
    type Error = &'static str;

    /// Checked, because the id becomes a part of a key.
    fn try_from(text: String) -> Result<Self, &'static str> {
        let is_valid = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_valid { Ok(Self(text)) } else { Err("a push id has 16 hexadecimal digits") }
    }
}

/// The policy that every node prepares during a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingPush {
    /// The active record after the commit.
    #[serde(rename = "pointer")]
    pub record: ActiveRecord,
}

/// The shadow policy that every node evaluates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShadowPush {
    /// The active record that a push of the policy would set.
    #[serde(flatten)]
    pub record: ActiveRecord,
    /// The share of clients, from 0 to 1.
    pub share: Ratio,
}

/// A node's report about a pending push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReport {
    /// The process that reports: after a restart the node has to prepare the policy again.
    pub instance: String,
    /// Why the node could not prepare the policy; none if it is prepared.
    pub failure: Option<StageError>,
}

/// The error of a stage on a node, with a reason that fits into a status.
pub fn stage_error(stage: Stage, reason: impl ToString) -> StageError {
    StageError { stage, reason: truncate_error(&reason.to_string()) }
}

/// Shortens an error to the length that a status allows, and makes it printable.
pub fn truncate_error(text: &str) -> String {
    truncate(text, MAX_ERROR_CHARS)
}

/// The same with another maximum length.
pub fn truncate(text: &str, max_chars: usize) -> String {
    let text = printable(text);
    let shortened: String = text.chars().take(max_chars).collect();
    if shortened.len() < text.len() { shortened + "…" } else { shortened }
}

/// Parses a record. The error may quote a part of it.
pub fn parse<'a, T: Deserialize<'a>>(record: &'a [u8]) -> Result<T, String> {
    if record.len() > MAX_RECORD_BYTES {
        return Err(format!("the record has more than {MAX_RECORD_BYTES} bytes"));
    }
    serde_json::from_slice(record).map_err(|error| printable(&error.to_string()).into_owned())
}

/// Serializes a record.
pub fn to_json<T: Serialize>(record: &T) -> String {
    // Cannot fail: records have only strings, numbers and options of them.
    serde_json::to_string(record).unwrap_or_default()
}

/// A blob cannot be read from the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MissingBlob {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store does not have {0}: push it again")]
    NotStored(Digest),
    #[error("the content of {0} in the store has another digest: it was changed there; push it again")]
    DigestMismatch(Digest),
    #[error("{0} in the store has more than {1} bytes")]
    TooLarge(Digest, u64),
    #[error("the cases {0} are not UTF-8 text")]
    NotText(Digest),
}

impl MissingBlob {
    /// The delay before a node tries to read it again.
    pub const fn retry_delay(&self) -> Duration {
        match self {
            Self::Store(_) => STORE_RETRY_DELAY,
            _ => FAILED_STAGE_RETRY_DELAY,
        }
    }
}

/// Reads a blob, and checks its digest.
async fn blob(store: &dyn FleetStore, digest: Digest, max: u64) -> Result<Vec<u8>, MissingBlob> {
    let content = store.blob(&digest.hex(), max).await?.ok_or(MissingBlob::NotStored(digest))?;
    if content.len() as u64 > max {
        return Err(MissingBlob::TooLarge(digest, max));
    }
    if Digest::of(&content) == digest { Ok(content) } else { Err(MissingBlob::DigestMismatch(digest)) }
}

impl ActiveRecord {
    /// Fails if the record has another sequence than its signature. Any client with access to the store can change the record's own.
    pub fn check_sequence(&self) -> Result<(), StageError> {
        match &self.signature {
            Some(signature) if signature.statement().sequence != self.sequence => {
                Err(stage_error(Stage::Verified, "its sequence number is not the one that was signed"))
            }
            _ => Ok(()),
        }
    }

    /// Proves that one of these keys signed this policy with this sequence.
    pub fn prove(&self, keys: &TrustedKeys) -> Result<Proof, NotProven> {
        keys.prove(self.component, self.cases, self.sequence, self.signature.as_ref())
    }

    /// The origin of the policy that a node gets from this record.
    pub fn origin(&self, source: &str) -> PolicyOrigin {
        PolicyOrigin { source: source.into(), sequence: Some(self.sequence), ..PolicyOrigin::default() }
    }

    /// The digests of the component and of its cases.
    pub fn blobs(&self) -> Vec<Digest> {
        [Some(self.component), self.cases].into_iter().flatten().collect()
    }

    /// Reads the component and its cases from the store.
    pub async fn fetch(&self, store: &dyn FleetStore) -> Result<PolicyBundle, MissingBlob> {
        let component = blob(store, self.component, load_error::MAX_COMPONENT_BYTES).await?;
        let cases = match self.cases {
            Some(digest) => Some(blob(store, digest, MAX_CASES as u64).await?),
            None => None,
        };
        let text = |(cases, digest)| String::from_utf8(cases).map_err(|_| MissingBlob::NotText(digest));
        Ok(PolicyBundle {
            component: component.into(),
            digest: self.component,
            cases: cases.zip(self.cases).map(text).transpose()?,
            signature: self.signature.as_ref().map(Signature::text),
            cases_dir: None,
        })
    }
}

/// The active record; none if it does not exist or cannot be parsed.
pub async fn active(store: &dyn FleetStore) -> Result<Option<ActiveRecord>, StoreError> {
    Ok(store.active().await?.and_then(|record| parse(&record).ok()))
}

/// The records of the history, the latest first.
pub async fn history(store: &dyn FleetStore) -> Result<Vec<ActiveRecord>, StoreError> {
    Ok(store.history().await?.iter().filter_map(|record| parse(record).ok()).collect())
}

#[cfg(test)]
pub mod fixtures {
    use super::{ActiveRecord, Digest, PushId};

    /// The record of an unsigned policy without test cases.
    pub fn test_record(sequence: u64, component: &[u8]) -> ActiveRecord {
        ActiveRecord {
            sequence,
            component: Digest::of(component),
            cases: None,
            signature: None,
            pushed_at: 5,
            push_id: PushId::new(),
            rollback_of: None,
        }
    }
}
