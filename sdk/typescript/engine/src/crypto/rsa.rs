//! RSA. A public key is PKCS #1's `RSAPublicKey`, a private key its `RSAPrivateKey`, both as DER.
//!
//! Keys are not generated: that takes seconds, many times what a decision may take, and 100 KB.

use ::rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey};
use ::rsa::{Oaep, Pkcs1v15Sign, PrivateKey, Pss, PublicKey};

use super::aes::Direction;
use super::hash::{Hash, with_hash, with_standard_hash};
use super::{CryptoError, Random};

/// How a message is padded before it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    Pkcs1,
    /// The salt's length in bytes; `None` accepts every length, in verifications only.
    Pss {
        salt_length: Option<usize>,
    },
}

const NO_PUBLIC_KEY: CryptoError = CryptoError::data("the RSA public key is malformed, or not of 1024 to 8192 bits");
const NO_PRIVATE_KEY: CryptoError = CryptoError::data("the RSA private key is malformed, or not of 1024 to 8192 bits");

pub(super) fn public(der: &[u8]) -> Result<PublicKey, CryptoError> {
    PublicKey::from_pkcs1_der(der).map_err(|_| NO_PUBLIC_KEY)
}

pub(super) fn private(der: &[u8]) -> Result<PrivateKey, CryptoError> {
    PrivateKey::from_pkcs1_der(der).map_err(|_| NO_PRIVATE_KEY)
}

pub(super) fn sign(
    private_key: &[u8],
    padding: Padding,
    hash: Hash,
    data: &[u8],
    random: &mut Random,
) -> Result<Vec<u8>, CryptoError> {
    let key = private(private_key)?;
    let digest = hash.digest(data);
    let signature = match padding {
        Padding::Pkcs1 => key.sign_with_rng(random, pkcs1(hash), &digest),
        Padding::Pss { salt_length } => {
            let salt_length = salt_length.unwrap_or(digest.len());
            // The library allocates the salt before it compares its length with the key's.
            if salt_length > private_key.len() {
                return Err(TOO_SHORT);
            }
            with_standard_hash!(hash, D => key.sign_with_rng(random, Pss::<D>::new_with_salt(salt_length), &digest))
        }
    };
    signature.map_err(|_| TOO_SHORT)
}

const TOO_SHORT: CryptoError = CryptoError::operation("the RSA key is too short for this hash and salt");

pub(super) fn verify(
    public_key: &[u8],
    padding: Padding,
    hash: Hash,
    data: &[u8],
    signature: &[u8],
) -> Result<bool, CryptoError> {
    let key = public(public_key)?;
    let digest = hash.digest(data);
    let valid = match padding {
        Padding::Pkcs1 => key.verify(pkcs1(hash), &digest, signature),
        Padding::Pss { salt_length } => with_standard_hash!(hash, D => {
            let mut scheme = Pss::<D>::new();
            scheme.salt_len = salt_length;
            key.verify(scheme, &digest, signature)
        }),
    };
    Ok(valid.is_ok())
}

/// RSAES-OAEP with MGF1 of the same hash.
pub fn oaep(
    direction: Direction,
    key: &[u8],
    hash: Hash,
    label: &[u8],
    data: &[u8],
    random: &mut Random,
) -> Result<Vec<u8>, CryptoError> {
    with_standard_hash!(hash, D => {
        let padding = Oaep::<D>::new_with_label(label);
        match direction {
            Direction::Encrypt => public(key)?
                .encrypt(random, padding, data)
                .map_err(|_| CryptoError::operation("the data is too long for this RSA key")),
            Direction::Decrypt => private(key)?
                .decrypt_blinded(random, padding, data)
                .map_err(|_| CryptoError::operation("the data cannot be decrypted with this key")),
        }
    })
}

fn pkcs1(hash: Hash) -> Pkcs1v15Sign {
    with_hash!(hash, D => Pkcs1v15Sign::new::<D>())
}
