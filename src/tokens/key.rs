//! Keys that verify signatures. The key, not the token's header, decides which algorithms are possible.

use std::collections::HashSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde_json::Value;

use crate::tokens::jwt::Token;

/// Maximum keys of one set.
const MAX_KEYS: usize = 100;
/// Maximum keys that are tried on one token, to bound the cost of an invalid token.
const MAX_KEYS_TRIED: usize = 8;
/// Bits of an RSA modulus. Smaller ones can be factored; larger ones make verification expensive.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not PEM: expected a public key, which starts with -----BEGIN PUBLIC KEY-----")]
    NotPem,
    #[error("a private key: expected the public key (openssl pkey -in key.pem -pubout)")]
    Private,
    #[error("not a supported key: expected RSA, P-256, P-384 or Ed25519")]
    Unknown,
    #[error("an RSA key of {0} bits: expected 2048 to 4096 bits")]
    RsaBits(usize),
    #[error("not a JWKS: expected {{\"keys\": […]}}")]
    NotJwks,
    #[error("no key in it can verify signatures")]
    Empty,
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
    #[error("both secrets (kty oct) and public keys: a profile uses one kind")]
    Mixed,
}

#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The keys of a profile.
#[derive(Clone)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// A secret that the issuer shares with the gateway.
    pub fn from_secret(secret: &[u8]) -> Self {
        let algorithms = AlgorithmFamily::Hmac.algorithms().to_vec();
        Self(vec![Key { id: None, algorithms, key: DecodingKey::from_secret(secret) }])
    }

    /// Public keys or certificates, one PEM block each.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        const BEGIN: &str = "-----BEGIN ";
        let blocks: Vec<String> = text.split(BEGIN).skip(1).map(|block| format!("{BEGIN}{block}")).collect();
        let keys = blocks.iter().map(|block| Key::from_pem(block)).collect::<Result<Vec<_>, _>>()?;
        match keys.len() {
            0 => Err(KeyError::NotPem),
            n if n > MAX_KEYS => Err(KeyError::TooMany),
            _ => Ok(Self(keys)),
        }
    }

    /// A JSON Web Key Set. Keys that are not for signatures or of unknown types are skipped. `allow_secrets` is for files of the operator:
    /// keys from a URL are public.
    pub fn from_jwks(text: &[u8], allow_secrets: bool) -> Result<Self, KeyError> {
        let set: Value = serde_json::from_slice(text).map_err(|_| KeyError::NotJwks)?;
        let values = set.get("keys").and_then(Value::as_array).ok_or(KeyError::NotJwks)?;
        if values.len() > MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        let jwks = values.iter().filter_map(|value| serde_json::from_value::<Jwk>(value.clone()).ok());
        let keys: Vec<Key> =
            jwks.filter_map(|jwk| Key::from_jwk(&jwk)).filter(|key| allow_secrets || !key.is_secret()).collect();
        let secrets = keys.iter().filter(|key| key.is_secret()).count();
        match keys.len() {
            0 => Err(KeyError::Empty),
            all if secrets != 0 && secrets != all => Err(KeyError::Mixed),
            _ => Ok(Self(keys)),
        }
    }

    /// Whether any key may verify a token with this key id: the key with the id, or one without an id.
    pub fn has_key_for(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref().is_none_or(|id| id == kid))
    }

    /// The algorithms of all keys, without duplicates.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms: Vec<Algorithm> = self.0.iter().flat_map(|key| key.algorithms.iter().copied()).collect();
        let mut unique = HashSet::new();
        algorithms.retain(|algorithm| unique.insert(*algorithm));
        algorithms
    }

    /// Verifies the signature of a token, with the keys of its key id or else those without an id. A token without a key id may use any
    /// key.
    pub fn verify(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        let kid = token.header.kid.as_ref();
        let mut keys: Vec<&Key> =
            self.0.iter().filter(|key| kid.is_none_or(|kid| key.id.as_ref() == Some(kid))).collect();
        if keys.is_empty() {
            keys = self.0.iter().filter(|key| key.id.is_none()).collect();
        }
        let fitting = keys.into_iter().filter(|key| key.algorithms.contains(&algorithm)).take(MAX_KEYS_TRIED);
        let (signature, message) = (token.signature, token.message.as_bytes());
        let verifies = |key: &Key| jsonwebtoken::crypto::verify(signature, message, &key.key, algorithm);
        fitting.into_iter().any(|key| verifies(key).unwrap_or(false))
    }
}

impl Key {
    fn is_secret(&self) -> bool {
        self.key.family() == AlgorithmFamily::Hmac
    }

    fn from_pem(block: &str) -> Result<Self, KeyError> {
        let label = block.lines().next().unwrap_or_default();
        if label.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        let bytes = block.as_bytes();
        let key = DecodingKey::from_ec_pem(bytes)
            .or_else(|_| DecodingKey::from_ed_pem(bytes))
            .or_else(|_| DecodingKey::from_rsa_pem(bytes))
            .map_err(|_| KeyError::Unknown)?;
        let algorithms = algorithms(&key)?;
        Ok(Self { id: None, algorithms, key })
    }

    /// `None` for a key that is not for signatures or of an unknown type.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let other_use = common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature);
        let no_verify = common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify));
        // Checked here because `DecodingKey::from_jwk` accepts any curve and any length.
        let has_valid_curve = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(pair) => pair.curve == EllipticCurve::Ed25519,
            AlgorithmParameters::EllipticCurve(point) => {
                let length = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_or(0, |bytes| bytes.len());
                let expected = [(EllipticCurve::P256, 32), (EllipticCurve::P384, 48)];
                expected.contains(&(point.curve.clone(), length(&point.x))) && length(&point.x) == length(&point.y)
            }
            _ => true,
        };
        if other_use || no_verify || !has_valid_curve {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let mut algorithms = algorithms(&key).ok()?;
        if let Some(own) = common.key_algorithm {
            let own = Algorithm::try_from(own).ok()?;
            algorithms.retain(|algorithm| *algorithm == own);
        }
        (!algorithms.is_empty()).then(|| Self { id: common.key_id.clone(), algorithms, key })
    }
}

/// Checks a key and returns the algorithms that it may be used for.
fn algorithms(key: &DecodingKey) -> Result<Vec<Algorithm>, KeyError> {
    let algorithms = match (key.family(), key.kind()) {
        (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) if !secret.is_empty() => {
            AlgorithmFamily::Hmac.algorithms()
        }
        (AlgorithmFamily::Rsa, kind) => {
            let bits = match kind {
                DecodingKeyKind::RsaModulusExponent { n, .. } => bit_length(n),
                DecodingKeyKind::SecretOrDer(der) => {
                    let parts = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(der);
                    bit_length(&parts.map_err(|_| KeyError::Unknown)?.0)
                }
            };
            if !RSA_BITS.contains(&bits) {
                return Err(KeyError::RsaBits(bits));
            }
            AlgorithmFamily::Rsa.algorithms()
        }
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => match point.len() {
            65 => &[Algorithm::ES256],
            97 => &[Algorithm::ES384],
            _ => return Err(KeyError::Unknown),
        },
        // Checked because verification with a shorter key panics.
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) if point.len() == 32 => &[Algorithm::EdDSA][..],
        _ => return Err(KeyError::Unknown),
    };
    // Fails for a point that is not on its curve.
    (DEFAULT_PROVIDER.verifier_factory)(&algorithms[0], key).map_err(|_| KeyError::Unknown)?;
    Ok(algorithms.to_vec())
}

fn bit_length(number: &[u8]) -> usize {
    let significant = number.iter().position(|byte| *byte != 0).map_or(&[][..], |from| &number[from..]);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}
