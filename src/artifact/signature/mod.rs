//! Who made a policy: ed25519 signatures over what its component and its cases are, and over a number that only goes upwards, so
//! that nobody puts an older policy back in force who could not sign it anew.

pub(crate) mod key;

use crate::artifact::signature::key::TrustedKeys;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};

use crate::artifact::digest::Digest;
use crate::artifact::signature::key::{KeyId, PublicKey};
use crate::util::files;

/// How the statement and the file are laid out.
const VERSION: u32 = 1;
/// Bytes of a signature's file; it has some 400.
pub const MAX_SIZE: usize = 4 << 10;
/// Sequence numbers go so far, which every reader of JSON can tell apart.
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The component.
    pub component: Digest,
    /// The cases that travel with it.
    pub cases: Option<Digest>,
    /// Greater than that of every policy before it.
    pub sequence: u64,
}

impl Statement {
    /// What a policy is, under this number.
    #[must_use]
    pub fn of(component: &[u8], cases: Option<&str>, sequence: u64) -> Self {
        Self { component: Digest::of(component), cases: cases.map(|text| Digest::of(text.as_bytes())), sequence }
    }

    /// The bytes that are signed. The first line tells them from everything else that a key may sign; every other has one form.
    fn canonical(&self) -> String {
        let cases = self.cases.map_or_else(|| "none".into(), |digest| digest.to_string());
        let Self { component, sequence, .. } = self;
        format!("tidegate policy signature {VERSION}\ncomponent {component}\ncases {cases}\nsequence {sequence}\n")
    }

    /// Signs it.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Signature {
        Signature {
            version: VERSION,
            component: self.component,
            cases: self.cases,
            sequence: self.sequence,
            key: KeyId::of(&key.verifying_key()).to_string(),
            signature: STANDARD.encode(key.sign(self.canonical().as_bytes()).to_bytes()),
        }
    }
}

/// A signature as it lies beside a component, `policy.wasm.sig`, and travels with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    version: u32,
    component: Digest,
    cases: Option<Digest>,
    sequence: u64,
    /// For people: verification asks every trusted key.
    key: String,
    signature: String,
}

impl Signature {
    /// Reads a signature's text.
    pub fn parse(text: &[u8]) -> Result<Self, SignatureError> {
        if text.len() > MAX_SIZE {
            return Err(SignatureError::Malformed(format!("it has more than {MAX_SIZE} bytes")));
        }
        let malformed = |error: serde_json::Error| SignatureError::Malformed(error.to_string());
        let signature: Self = serde_json::from_slice(text).map_err(malformed)?;
        if signature.version != VERSION {
            let text = format!("it has version {}; this gateway knows version {VERSION}", signature.version);
            return Err(SignatureError::Malformed(text));
        }
        Ok(signature)
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What it says, be it true or not.
    #[must_use]
    pub fn statement(&self) -> Statement {
        Statement { component: self.component, cases: self.cases, sequence: self.sequence }
    }

    /// The id of the key that it says to be made with.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    fn is_by(&self, key: &PublicKey) -> bool {
        let Ok(bytes) = STANDARD.decode(&self.signature) else { return false };
        let Ok(signature) = ed25519_dalek::Signature::from_slice(&bytes) else { return false };
        key.verifies(self.statement().canonical().as_bytes(), &signature)
    }
}

/// Where the signature of a component in a file lies.
#[must_use]
pub fn path(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The signature that lies beside a component in a file, if there is one.
pub fn beside(component: &Path) -> Result<Option<Signature>, SignatureError> {
    let path = path(component);
    let text = files::if_exists(files::read(&path, MAX_SIZE as u64));
    let text = text.map_err(|error| SignatureError::Malformed(format!("{}: {error}", path.display())))?;
    text.map(|text| Signature::parse(&text)).transpose()
}

/// Why a policy is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A key is configured and there is no signature.
    #[error("it is not signed, and policy.trusted-keys asks for it: sign it with `tidegate policy sign`")]
    Unsigned,
    /// There is a signature and no key to check it with.
    #[error(
        "it is signed, and there is no key to check that with: name the public key in policy.trusted-keys, or take the signature away"
    )]
    NoKey,
    /// The signature's text is none.
    #[error("its signature cannot be read: {0}; `tidegate policy sign` makes one")]
    Malformed(String),
    /// It is about another component or about other cases.
    #[error("its signature is about another {what}: it names {signed}, and this is {is}")]
    Other {
        /// `component` or `cases`
        what: &'static str,
        /// What the signature is about.
        signed: String,
        /// What is here.
        is: String,
    },
    /// No trusted key made it.
    #[error("no trusted key made its signature: it names the key {named}, and trusted are {}", trusted.join(", "))]
    Untrusted {
        /// The key that the signature names.
        named: String,
        /// Those that are trusted.
        trusted: Vec<String>,
    },
    /// Its number is no number of a policy.
    #[error("its signature has the sequence number {0}; these are from 1 to {MAX_SEQUENCE}")]
    Sequence(u64),
    /// Something newer was seen.
    #[error(
        "its sequence number {sequence} is behind {seen}, which was in force here: to go back to an older policy, sign it again with a greater number"
    )]
    Backwards {
        /// That of the policy.
        sequence: u64,
        /// The greatest one that was in force.
        seen: u64,
    },
    /// The same number, signed twice.
    #[error("another policy was in force here under its sequence number {0}: sign it again with a greater number")]
    Reused(u64),
    /// The record of the greatest sequence number cannot be read or written.
    #[error("{0}; the file holds the greatest sequence number that was active, so that no older policy is activated")]
    SequenceLedger(String),
}

impl TrustedKeys {
    /// Whether a policy may be taken: the four rows. What was signed, if anything had to be.
    pub fn verify(
        &self,
        component: Digest,
        cases: Option<&str>,
        signature: Option<&Signature>,
    ) -> Result<Option<Statement>, SignatureError> {
        // Asked first is whether a signature is wanted; what the signature says of itself decides nothing.
        let signature = match (self.is_wanted(), signature) {
            (false, None) => return Ok(None),
            (true, None) => return Err(SignatureError::Unsigned),
            (false, Some(_)) => return Err(SignatureError::NoKey),
            (true, Some(signature)) => signature,
        };
        let cases = cases.map(|text| Digest::of(text.as_bytes()));
        let is = Statement { component, cases, sequence: signature.sequence };
        let other = |what, signed: String, is: String| SignatureError::Other { what, signed, is };
        if signature.component != is.component {
            return Err(other("component", signature.component.to_string(), is.component.to_string()));
        }
        if signature.cases != is.cases {
            let say = |digest: Option<Digest>| digest.map_or_else(|| "none".into(), |digest| digest.to_string());
            return Err(other("table of cases", say(signature.cases), say(is.cases)));
        }
        if !(1..=MAX_SEQUENCE).contains(&signature.sequence) {
            return Err(SignatureError::Sequence(signature.sequence));
        }
        if !self.keys().iter().any(|key| signature.is_by(key)) {
            let trusted = self.keys().iter().map(|key| key.id().to_string()).collect();
            // What a stranger wrote goes to the log only if it can be a key's id.
            let named = if KeyId::is_one(&signature.key) { signature.key.clone() } else { "?".into() };
            return Err(SignatureError::Untrusted { named, trusted });
        }
        Ok(Some(is))
    }
}

#[cfg(test)]
mod tests;
