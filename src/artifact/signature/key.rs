//! Ed25519 keys in the PEM forms of OpenSSL: PKCS#8 for private keys, SubjectPublicKeyInfo for public ones.

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::artifact::digest::Digest;
use crate::util::files;

/// Bytes of a key file, which has some 120.
const MAX_KEY_FILE_BYTES: u64 = 4 << 10;
const KEY_ID_HEX_DIGITS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{}: cannot be read: {error}", files::display(path))]
    Read { path: PathBuf, error: std::io::Error },
    #[error(
        "{0}: not an ed25519 public key: expected a PEM file with BEGIN PUBLIC KEY, as `tidegate policy keygen` or `openssl pkey -pubout` makes it"
    )]
    Public(PathBuf),
    #[error(
        "{0}: not an ed25519 private key: expected a PEM file with BEGIN PRIVATE KEY, as `tidegate policy keygen` or `openssl genpkey -algorithm ed25519` makes it"
    )]
    Private(PathBuf),
    /// A private key where a public one is expected.
    #[error("{0}: a private key, which a gateway must not have: name the public key")]
    Secret(PathBuf),
    /// Signatures for such a key can be made without a private key.
    #[error(
        "{0}: a weak public key, for which anyone can make signatures: generate a key with `tidegate policy keygen`"
    )]
    Weak(PathBuf),
    #[error("cannot encode a key as PEM: {0}")]
    Write(String),
}

/// The text that identifies a key: the first digits of its digest.
pub fn key_id(key: &VerifyingKey) -> String {
    Digest::of(key.as_bytes()).hex()[..KEY_ID_HEX_DIGITS].to_owned()
}

/// Whether a text has the form of a key id.
pub fn is_key_id(text: &str) -> bool {
    text.len() == KEY_ID_HEX_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The keys that may sign policies. If empty, policies need no signature.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(pub(super) Vec<VerifyingKey>);

impl TrustedKeys {
    /// Reads public keys from PEM files.
    pub fn load(paths: &[PathBuf]) -> Result<Self, KeyError> {
        paths.iter().map(|path| read_public_key(path)).collect::<Result<_, _>>().map(Self)
    }

    /// These keys, and one more.
    pub fn with(mut self, key: VerifyingKey) -> Self {
        self.0.push(key);
        self
    }

    /// Whether one of the keys has this id.
    pub fn has_key(&self, id: &str) -> bool {
        self.0.iter().any(|key| key_id(key) == id)
    }

    /// Whether policies must be signed.
    pub fn require_signatures(&self) -> bool {
        !self.0.is_empty()
    }
}

pub fn generate() -> SigningKey {
    SigningKey::from_bytes(&rand::random())
}

fn read_public_key(path: &Path) -> Result<VerifyingKey, KeyError> {
    let text = read(path)?;
    if text.contains("PRIVATE KEY") {
        return Err(KeyError::Secret(path.into()));
    }
    let key = VerifyingKey::from_public_key_pem(text.trim()).map_err(|_| KeyError::Public(path.into()))?;
    if key.is_weak() { Err(KeyError::Weak(path.into())) } else { Ok(key) }
}

pub fn read_private_key(path: &Path) -> Result<SigningKey, KeyError> {
    SigningKey::from_pkcs8_pem(read(path)?.trim()).map_err(|_| KeyError::Private(path.into()))
}

/// The private and the public key as PEM.
pub fn to_pem(key: &SigningKey) -> Result<(String, String), KeyError> {
    let failed = |error: &dyn fmt::Display| KeyError::Write(error.to_string());
    // Without the public key, which PKCS#8 version 2 may include but not every tool accepts.
    let private = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let private = private.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(&error))?;
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(|error| failed(&error))?;
    Ok((private.to_string(), public))
}

fn read(path: &Path) -> Result<String, KeyError> {
    files::read_text(path, MAX_KEY_FILE_BYTES).map_err(|error| KeyError::Read { path: path.into(), error })
}
