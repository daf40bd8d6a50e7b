//! The notes that are in Redis, as types. Whoever can write there can have written them.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::artifact::signature::{MAX_SEQUENCE, Signature};
use crate::rollout::pipeline::MAX_CASES;
use crate::rollout::stage::Stage;
use crate::store::StoreError;
use crate::store::fleet::{FleetStore, MAX_RECORD_BYTES};
use crate::util::id::random_id;
use crate::wasm::load_error;

/// What is in force in the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRecord {
    /// Greater than that of the one before.
    #[serde(deserialize_with = "number")]
    pub sequence: u64,
    /// The component.
    pub component: Digest,
    /// The cases that travel with it.
    pub cases: Option<Digest>,
    /// Who says so, where that is asked for.
    pub signature: Option<Signature>,
    /// When it was pushed, ms since 1970.
    pub pushed_at: u64,
    /// The push that it came with.
    pub push_id: PushId,
    /// For a rollback: the sequence of the earlier push whose policy this one activates again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
}

/// A number of a push. What is beyond those that can be signed is none: nobody could push anything behind it.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    let beyond = || D::Error::custom(format!("the number {number}; they go to {MAX_SEQUENCE}"));
    if number <= MAX_SEQUENCE { Ok(number) } else { Err(beyond()) }
}

/// What a push is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PushId(String);

impl PushId {
    /// A new one.
    pub fn new() -> Self {
        Self(random_id())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PushId {
    type Error = &'static str;

    /// It becomes part of a key.
    fn try_from(text: String) -> Result<Self, &'static str> {
        let is_one = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_one { Ok(Self(text)) } else { Err("a push is called by 16 hexadecimal digits") }
    }
}

/// What every node shall prepare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingPush {
    /// What may be in force next.
    pub pointer: ActiveRecord,
}

/// What every node shall ask beside what is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShadowPush {
    /// What is asked, as it would be pushed.
    #[serde(flatten)]
    pub pointer: ActiveRecord,
    /// About how many clients.
    pub share: SampleRate,
}

/// A share, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct SampleRate(f64);

impl TryFrom<f64> for SampleRate {
    type Error = &'static str;

    fn try_from(share: f64) -> Result<Self, &'static str> {
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err("a share is from 0 to 1") }
    }
}

impl From<SampleRate> for f64 {
    fn from(portion: SampleRate) -> Self {
        portion.0
    }
}

/// What a node says of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReport {
    /// The process: another one of the same name has prepared nothing.
    pub instance: String,
    /// Why the node could not prepare it; none if it is prepared.
    pub failure: Option<PrepareFailure>,
}

/// Why a node cannot put something in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareFailure {
    /// What it did not become.
    pub stage: Stage,
    /// For people.
    pub reason: String,
}

/// Reads a note.
pub fn parse<'a, T: Deserialize<'a>>(note: &'a [u8]) -> Result<T, String> {
    if note.len() > MAX_RECORD_BYTES {
        return Err(format!("it has more than {MAX_RECORD_BYTES} bytes"));
    }
    serde_json::from_slice(note).map_err(|error| error.to_string())
}

/// Writes a note.
pub fn note<T: Serialize>(of: &T) -> String {
    // Strings, numbers and options of them: nothing that JSON does not have.
    serde_json::to_string(of).unwrap_or_default()
}

/// Something could not be had from the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MissingBlob {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not there.
    #[error("the store does not have {0}: push it again")]
    Gone(Digest),
    /// There is something else.
    #[error("what the store has as {0} is something else; somebody changed it")]
    Other(Digest),
    /// It is too large.
    #[error("what the store has as {0} is more than {1} bytes")]
    TooLarge(Digest, u64),
    /// It is no text.
    #[error("the cases {0} are no text")]
    NoText(Digest),
}

/// A content by its digest, as the store has it.
pub async fn blob(store: &dyn FleetStore, digest: Digest, max: u64) -> Result<Vec<u8>, MissingBlob> {
    let content = store.blob(&digest.hex(), max).await?.ok_or(MissingBlob::Gone(digest))?;
    if content.len() as u64 > max {
        return Err(MissingBlob::TooLarge(digest, max));
    }
    if Digest::of(&content) == digest { Ok(content) } else { Err(MissingBlob::Other(digest)) }
}

/// Why a pointer is not taken that says another number than its signature.
pub const OTHER_NUMBER: &str = "its sequence number is not the one that was signed";

impl ActiveRecord {
    /// Whether it says another number than was signed. That one counts; the pointer's own is anybody's.
    pub fn is_numbered_otherwise(&self) -> bool {
        self.signature.as_ref().is_some_and(|signature| signature.statement().sequence != self.sequence)
    }

    /// The digests of what it points to.
    pub fn blobs(&self) -> Vec<Digest> {
        [Some(self.component), self.cases].into_iter().flatten().collect()
    }

    /// All that it points to, from the store alone.
    pub async fn fetch(&self, store: &dyn FleetStore) -> Result<PolicyBundle, MissingBlob> {
        let component = blob(store, self.component, load_error::MAX_SIZE).await?;
        let cases = match self.cases {
            Some(digest) => Some(blob(store, digest, MAX_CASES as u64).await?),
            None => None,
        };
        self.artifact(component, cases)
    }

    /// What it points to, with its signature. The component is the one of its digest.
    pub fn artifact(&self, component: Vec<u8>, cases: Option<Vec<u8>>) -> Result<PolicyBundle, MissingBlob> {
        let text = |(cases, digest)| String::from_utf8(cases).map_err(|_| MissingBlob::NoText(digest));
        Ok(PolicyBundle {
            component: component.into(),
            digest: self.component,
            cases: cases.zip(self.cases).map(text).transpose()?,
            signature: self.signature.as_ref().map(Signature::text),
            folder: None,
        })
    }
}

/// What is in force; none if nothing is, or nothing that can be read.
pub async fn current(store: &dyn FleetStore) -> Result<Option<ActiveRecord>, StoreError> {
    Ok(store.active().await?.and_then(|note| parse(&note).ok()))
}

/// What was in force, the latest first.
pub async fn history(store: &dyn FleetStore) -> Result<Vec<ActiveRecord>, StoreError> {
    Ok(store.history().await?.iter().filter_map(|note| parse(note).ok()).collect())
}
