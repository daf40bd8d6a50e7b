//! Signatures of policies: ed25519 over the digests of component and cases and over a sequence, which only increases, so that an older
//! policy cannot become active again without a new signature.

pub(crate) mod key;
pub(crate) mod proof;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::artifact::digest::Digest;
use crate::artifact::signature::key::{TrustedKeys, is_key_id, key_id};
use crate::util::files;

/// The version of the statement's and the file's format.
const FORMAT_VERSION: u32 = 1;
/// Bytes of a signature file, which has some 400.
pub const MAX_SIGNATURE_BYTES: usize = 4 << 10;
/// The greatest integer that every JSON reader represents exactly.
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;

/// The statement that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    pub component: Digest,
    pub cases: Option<Digest>,
    /// Greater than that of every earlier policy.
    pub sequence: u64,
}

impl Statement {
    pub fn of(component: &[u8], cases: Option<&str>, sequence: u64) -> Self {
        Self { component: Digest::of(component), cases: cases.map(|text| Digest::of(text.as_bytes())), sequence }
    }

    /// The signed bytes. The first line distinguishes them from everything else that the key may sign; each statement has one form.
    fn canonical(&self) -> String {
        let Self { component, cases, sequence } = self;
        let cases = text(*cases);
        format!(
            "tidegate policy signature {FORMAT_VERSION}\ncomponent {component}\ncases {cases}\nsequence {sequence}\n"
        )
    }

    pub fn sign(&self, key: &SigningKey) -> Signature {
        Signature {
            version: FORMAT_VERSION,
            component: self.component,
            cases: self.cases,
            sequence: self.sequence,
            key: key_id(&key.verifying_key()),
            signature: STANDARD.encode(key.sign(self.canonical().as_bytes()).to_bytes()),
        }
    }
}

/// The content of a signature file, `policy.wasm.sig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    version: u32,
    component: Digest,
    cases: Option<Digest>,
    sequence: u64,
    /// For display: verification tries every trusted key.
    key: String,
    signature: String,
}

impl Signature {
    /// Reads a signature's text.
    pub fn parse(text: &[u8]) -> Result<Self, SignatureError> {
        if text.len() > MAX_SIGNATURE_BYTES {
            return Err(SignatureError::Malformed(format!("larger than {MAX_SIGNATURE_BYTES} bytes")));
        }
        let malformed = |error: serde_json::Error| SignatureError::Malformed(error.to_string());
        let signature: Self = serde_json::from_slice(text).map_err(malformed)?;
        if signature.version != FORMAT_VERSION {
            let text = format!("its format is version {}; expected version {FORMAT_VERSION}", signature.version);
            return Err(SignatureError::Malformed(text));
        }
        Ok(signature)
    }

    pub fn text(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What the signature claims to sign; not verified.
    pub fn statement(&self) -> Statement {
        Statement { component: self.component, cases: self.cases, sequence: self.sequence }
    }

    /// The id of the key that the signature names; not verified.
    pub fn key_id(&self) -> &str {
        &self.key
    }

    fn is_made_by(&self, key: &VerifyingKey) -> bool {
        let Ok(bytes) = STANDARD.decode(&self.signature) else { return false };
        let Ok(signature) = ed25519_dalek::Signature::from_slice(&bytes) else { return false };
        // Strict, which rejects malleable signatures and weak keys.
        key.verify_strict(self.statement().canonical().as_bytes(), &signature).is_ok()
    }
}

fn text(digest: Option<Digest>) -> String {
    digest.map_or_else(|| "none".into(), |digest| digest.to_string())
}

/// The path of the signature of a component file.
pub fn path_for(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Reads the signature of a component file, if it exists.
pub fn read_for(component: &Path) -> Result<Option<Signature>, SignatureError> {
    let path = path_for(component);
    let text = files::if_exists(files::read(&path, MAX_SIGNATURE_BYTES as u64));
    let text = text.map_err(|error| SignatureError::Malformed(format!("{}: {error}", path.display())))?;
    text.map(|text| Signature::parse(&text)).transpose()
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error(
        "the policy is not signed but `policy.trusted-keys` requires a signature: sign it with `tidegate policy sign`, or with --key of the command that pushes it"
    )]
    Unsigned,
    #[error(
        "the policy is signed but no trusted key is configured: set `policy.trusted-keys`, or remove the signature file"
    )]
    NoTrustedKey,
    #[error("the signature cannot be read: {0}; create one with `tidegate policy sign`")]
    Malformed(String),
    #[error("the signature is for another {part}: it names {signed}, and this is {actual}")]
    Mismatch {
        /// `component` or `table of cases`
        part: &'static str,
        signed: String,
        actual: String,
    },
    #[error("no trusted key made the signature of this content: it names the key {key_id}; trusted keys are {}", trusted.join(", "))]
    Untrusted {
        /// Of the key that the signature names.
        key_id: String,
        trusted: Vec<String>,
    },
    #[error("the signature has the sequence number {0}: expected a number from 1 to {MAX_SEQUENCE}")]
    InvalidSequence(u64),
    #[error(
        "the sequence number {sequence} is less than {recorded}, which was active on this node: to go back to an older policy, sign it again with a greater number (`--sequence`)"
    )]
    SequenceNotIncreasing {
        sequence: u64,
        /// The greatest sequence that was active.
        recorded: u64,
    },
    /// The sequence was used for two policies.
    #[error(
        "another policy with the sequence number {0} was active on this node: sign this one again with a greater number"
    )]
    SequenceReused(u64),
    /// The record of the greatest sequence number cannot be read or written.
    #[error("{0}; this file records the greatest sequence number that was active, to refuse older policies")]
    Ledger(String),
}

impl TrustedKeys {
    /// Verifies a policy's signature; returns the verified statement, or `None` if no signature is required.
    pub fn verify(
        &self,
        component: Digest,
        cases: Option<&str>,
        signature: Option<&Signature>,
    ) -> Result<Option<Statement>, SignatureError> {
        // Only the configuration decides whether a signature is required, never the bundle.
        let signature = match (self.require_signatures(), signature) {
            (false, None) => return Ok(None),
            (true, None) => return Err(SignatureError::Unsigned),
            (false, Some(_)) => return Err(SignatureError::NoTrustedKey),
            (true, Some(signature)) => signature,
        };
        let cases = cases.map(|text| Digest::of(text.as_bytes()));
        self.find_signer(component, cases, signature)?;
        Ok(Some(signature.statement()))
    }

    /// The key that signed exactly this component and these cases, with a valid sequence.
    fn find_signer(
        &self,
        component: Digest,
        cases: Option<Digest>,
        signature: &Signature,
    ) -> Result<&VerifyingKey, SignatureError> {
        for (part, signed, actual) in
            [("component", Some(signature.component), Some(component)), ("table of cases", signature.cases, cases)]
        {
            if signed != actual {
                return Err(SignatureError::Mismatch { part, signed: text(signed), actual: text(actual) });
            }
        }
        if !(1..=MAX_SEQUENCE).contains(&signature.sequence) {
            return Err(SignatureError::InvalidSequence(signature.sequence));
        }
        self.0.iter().find(|key| signature.is_made_by(key)).ok_or_else(|| {
            let trusted = self.0.iter().map(key_id).collect();
            // Untrusted text: it goes to the log only if it has the form of a key id.
            let key_id = if is_key_id(&signature.key) { signature.key.clone() } else { "?".into() };
            SignatureError::Untrusted { key_id, trusted }
        })
    }
}

#[cfg(test)]
mod tests;
