//! Signatures of all asymmetric algorithms.

use super::ec::EcCurve;
use super::hash::Hash;
use super::keys::Family;
use super::rsa::Padding;
use super::{CryptoError, Random, okp, rsa};

/// An algorithm with the parameters of its signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa(Padding, Hash),
    Ecdsa(EcCurve, Hash),
    Ed25519,
}

impl Scheme {
    /// The scheme by the standard's name of the algorithm. `hash` and `salt_length` are for those that have them; without a `salt_length`,
    /// signatures of RSA-PSS may have a salt of any length.
    pub fn find(algorithm: &str, family: Family, hash: &str, salt_length: Option<usize>) -> Result<Self, CryptoError> {
        let kind = match (algorithm, family) {
            ("RSASSA-PKCS1-v1_5", Family::Rsa) => Kind::Rsa(Padding::Pkcs1, Hash::find(hash)?),
            ("RSA-PSS", Family::Rsa) => Kind::Rsa(Padding::Pss { salt_length }, Hash::find(hash)?),
            ("ECDSA", Family::Ec(curve)) => Kind::Ecdsa(curve, Hash::find(hash)?),
            ("Ed25519", Family::Okp(okp::Use::Ed25519)) => Kind::Ed25519,
            _ => return Err(CryptoError::not_supported("the key is not for this algorithm")),
        };
        Ok(Self(kind))
    }

    /// Signs data with a private key.
    pub fn sign(self, private: &[u8], data: &[u8], random: &mut Random) -> Result<Vec<u8>, CryptoError> {
        match self.0 {
            Kind::Rsa(padding, hash) => rsa::sign(private, padding, hash, data, random),
            Kind::Ecdsa(curve, hash) => curve.sign(private, &hash.digest(data)),
            Kind::Ed25519 => okp::sign(private, data),
        }
    }

    /// Whether a signature is valid for a public key and data. A malformed one is not valid.
    pub fn verify(self, public: &[u8], data: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        match self.0 {
            Kind::Rsa(padding, hash) => rsa::verify(public, padding, hash, data, signature),
            Kind::Ecdsa(curve, hash) => Ok(curve.verify(public, &hash.digest(data), signature)),
            Kind::Ed25519 => Ok(okp::verify(public, data, signature)),
        }
    }
}
