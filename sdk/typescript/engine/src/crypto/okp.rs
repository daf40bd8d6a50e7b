//! Ed25519 and X25519. Keys are 32 bytes, and a private key is followed by its public key.

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use x25519_dalek::{PublicKey, StaticSecret};

use super::CryptoError;

const SIZE: usize = 32;

/// Which of the curve's two uses a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Ed25519,
    X25519,
}

impl Use {
    pub(super) fn public_of(self, secret: &[u8; SIZE]) -> [u8; SIZE] {
        match self {
            Self::Ed25519 => SigningKey::from_bytes(secret).verifying_key().to_bytes(),
            Self::X25519 => PublicKey::from(&StaticSecret::from(*secret)).to_bytes(),
        }
    }
}

pub(super) fn sign(private: &[u8], data: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let secret = private.first_chunk::<SIZE>().ok_or(CryptoError::data("Ed25519 keys have 32 bytes"))?;
    Ok(SigningKey::from_bytes(secret).sign(data).to_bytes().to_vec())
}

/// Like OpenSSL without the cofactor, and false for a key that is no point of the curve.
pub(super) fn verify(public: &[u8], data: &[u8], signature: &[u8]) -> bool {
    let (Ok(public), Ok(signature)) = (<&[u8; SIZE]>::try_from(public), Signature::from_slice(signature)) else {
        return false;
    };
    VerifyingKey::from_bytes(public).is_ok_and(|key| key.verify(data, &signature).is_ok())
}

/// The shared secret of X25519.
pub(super) fn agree(private: &[u8], public: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let (Some(secret), Ok(public)) = (private.first_chunk::<SIZE>(), <[u8; SIZE]>::try_from(public)) else {
        return Err(CryptoError::data("X25519 keys have 32 bytes"));
    };
    let shared = StaticSecret::from(*secret).diffie_hellman(&PublicKey::from(public));
    // A public key of small order makes every secret key yield zero.
    if !shared.was_contributory() {
        return Err(CryptoError::operation("the public key is of small order"));
    }
    Ok(shared.to_bytes().to_vec())
}
