//! Keys, as OpenSSL writes them: private ones as PKCS#8, public ones as SubjectPublicKeyInfo, both in PEM.

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};

use crate::artifact::digest::Digest;
use crate::util::files;

/// Bytes of a key's file; it has some 120.
const MAX_SIZE: u64 = 4 << 10;

/// A file that is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("{0}: cannot be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is no public key.
    #[error(
        "{0}: not an ed25519 public key: expected a PEM file with BEGIN PUBLIC KEY, as `tidegate policy keygen` or `openssl pkey -pubout` makes it"
    )]
    Public(PathBuf),
    /// It is no private key.
    #[error(
        "{0}: not an ed25519 private key: expected a PEM file with BEGIN PRIVATE KEY, as `tidegate policy keygen` or `openssl genpkey -algorithm ed25519` makes it"
    )]
    Private(PathBuf),
    /// It is the half that should not be here.
    #[error("{0}: a private key, which a gateway has no use for and should not have: name the public one")]
    Secret(PathBuf),
    /// Everybody could have signed with it.
    #[error("{0}: a weak public key, for which anybody can make signatures")]
    Weak(PathBuf),
    /// It cannot be written as PEM.
    #[error("a key cannot be written: {0}")]
    Write(String),
}

/// What a key is called: the beginning of its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(Digest);

impl KeyId {
    /// Hexadecimal digits of it.
    const LENGTH: usize = 16;

    /// That of a key.
    #[must_use]
    pub fn of(key: &VerifyingKey) -> Self {
        Self(Digest::of(key.as_bytes()))
    }

    /// Whether a text can be one.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.len() == Self::LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex()[..Self::LENGTH])
    }
}

/// A key that signatures are checked with.
#[derive(Clone, Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// What it is called.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.0)
    }

    /// Whether its private half signed these bytes.
    pub(super) fn verifies(&self, bytes: &[u8], signature: &Signature) -> bool {
        // Strictly: one signature for one statement, and none that several keys could have made.
        self.0.verify_strict(bytes, signature).is_ok()
    }

    fn load(path: &Path) -> Result<Self, KeyError> {
        let text = read(path)?;
        if text.contains("PRIVATE KEY") {
            return Err(KeyError::Secret(path.into()));
        }
        let key = VerifyingKey::from_public_key_pem(text.trim()).map_err(|_| KeyError::Public(path.into()))?;
        if key.is_weak() { Err(KeyError::Weak(path.into())) } else { Ok(Self(key)) }
    }
}

/// Who may sign policies; nobody, and no policy has to be signed.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(Vec<PublicKey>);

impl TrustedKeys {
    /// Reads public keys.
    pub fn load(paths: &[PathBuf]) -> Result<Self, KeyError> {
        paths.iter().map(|path| PublicKey::load(path)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether policies have to be signed.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn keys(&self) -> &[PublicKey] {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn of(keys: &[&SigningKey]) -> Self {
        Self(keys.iter().map(|key| PublicKey(key.verifying_key())).collect())
    }
}

/// A new private key.
#[must_use]
pub fn generate() -> SigningKey {
    SigningKey::from_bytes(&rand::random())
}

/// Reads a private key.
pub fn private(path: &Path) -> Result<SigningKey, KeyError> {
    SigningKey::from_pkcs8_pem(read(path)?.trim()).map_err(|_| KeyError::Private(path.into()))
}

/// The two halves of a key as PEM, the private one first.
pub fn pem(key: &SigningKey) -> Result<(String, String), KeyError> {
    let failed = |error: &dyn fmt::Display| KeyError::Write(error.to_string());
    // Without the public half in it, which not every tool expects there.
    let private = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let private = private.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(&error))?;
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(|error| failed(&error))?;
    Ok((private.to_string(), public))
}

fn read(path: &Path) -> Result<String, KeyError> {
    files::read_text(path, MAX_SIZE).map_err(|error| KeyError::Read(path.into(), error))
}
