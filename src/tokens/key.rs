//! Keys that signatures are checked with. Each knows what it may be used for: that, and not a token's header, decides how.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde_json::Value;

use crate::tokens::jwt::Token;

/// Keys of one set.
const MAX_KEYS: usize = 100;
/// Keys that are tried on one token: the cost of a bad token is bounded.
const MAX_TRIED: usize = 8;
/// Bits of an RSA modulus. Fewer are broken, more are not computed with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why something is no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a PEM file.
    #[error("it has no PEM block; a public key begins with -----BEGIN PUBLIC KEY-----")]
    NotPem,
    /// It could sign.
    #[error("it is a private key; give the public one (openssl pkey -in key.pem -pubout)")]
    Private,
    /// Broken, or of a kind that is not known.
    #[error("it is not a key that is known: RSA, P-256, P-384 or Ed25519")]
    Unknown,
    /// Too short, or too long.
    #[error("it is an RSA key of {0} bits; they have from 2048 to 4096")]
    RsaBits(usize),
    /// A set that is none.
    #[error("it is not a JWKS: {{\"keys\": […]}}")]
    NotJwks,
    /// A set of nothing that could be used.
    #[error("it has no key that signatures could be checked with")]
    Empty,
    /// Too many keys.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    /// Secrets beside public keys.
    #[error("it has secrets (kty oct) beside public keys; a profile has one sort")]
    Mixed,
}

/// One key.
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
    /// A secret that both sides know.
    pub fn secret(secret: &[u8]) -> Self {
        let algorithms = AlgorithmFamily::Hmac.algorithms().to_vec();
        Self(vec![Key { id: None, algorithms, key: DecodingKey::from_secret(secret) }])
    }

    /// Public keys, or certificates, one PEM block each.
    pub fn pem(text: &str) -> Result<Self, KeyError> {
        const BEGIN: &str = "-----BEGIN ";
        let blocks: Vec<String> = text.split(BEGIN).skip(1).map(|block| format!("{BEGIN}{block}")).collect();
        let keys = blocks.iter().map(|block| Key::pem(block)).collect::<Result<Vec<_>, _>>()?;
        match keys.len() {
            0 => Err(KeyError::NotPem),
            n if n > MAX_KEYS => Err(KeyError::TooMany),
            _ => Ok(Self(keys)),
        }
    }

    /// A JSON Web Key Set. Keys for other ends, and of kinds that are not known, are passed over; secrets are only taken from a
    /// file of the operator's.
    pub fn jwks(text: &[u8], secrets: bool) -> Result<Self, KeyError> {
        let set: Value = serde_json::from_slice(text).map_err(|_| KeyError::NotJwks)?;
        let values = set.get("keys").and_then(Value::as_array).ok_or(KeyError::NotJwks)?;
        if values.len() > MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        let jwks = values.iter().filter_map(|value| serde_json::from_value::<Jwk>(value.clone()).ok());
        let keys: Vec<Key> = jwks.filter_map(|jwk| Key::jwk(&jwk)).filter(|key| secrets || !key.is_secret()).collect();
        let secret = keys.iter().filter(|key| key.is_secret()).count();
        match keys.len() {
            0 => Err(KeyError::Empty),
            all if secret != 0 && secret != all => Err(KeyError::Mixed),
            _ => Ok(Self(keys)),
        }
    }

    /// Whether there is a key that a token with this id may be checked with.
    pub fn knows(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref().is_none_or(|id| id == kid))
    }

    /// The algorithms of all keys.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms: Vec<Algorithm> = self.0.iter().flat_map(|key| key.algorithms.iter().copied()).collect();
        let mut seen = BTreeSet::new();
        algorithms.retain(|algorithm| seen.insert(format!("{algorithm:?}")));
        algorithms
    }

    /// Whether a token's signature holds: by a key with its id if there is one, else by one without an id; by any if it names none.
    pub fn verify(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        let named = |key: &&Key| match &token.header.kid {
            Some(kid) => key.id.as_ref() == Some(kid),
            None => true,
        };
        let mut keys: Vec<&Key> = self.0.iter().filter(named).collect();
        if keys.is_empty() {
            keys = self.0.iter().filter(|key| key.id.is_none()).collect();
        }
        let fitting = keys.into_iter().filter(|key| key.algorithms.contains(&algorithm)).take(MAX_TRIED);
        let holds = |key: &Key| {
            jsonwebtoken::crypto::verify(token.signature, token.message.as_bytes(), &key.key, algorithm)
                .unwrap_or(false)
        };
        fitting.into_iter().any(holds)
    }
}

impl Key {
    fn is_secret(&self) -> bool {
        self.key.family() == AlgorithmFamily::Hmac
    }

    fn pem(block: &str) -> Result<Self, KeyError> {
        let label = block.lines().next().unwrap_or_default();
        if label.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        let bytes = block.as_bytes();
        let key = DecodingKey::from_ec_pem(bytes)
            .or_else(|_| DecodingKey::from_ed_pem(bytes))
            .or_else(|_| DecodingKey::from_rsa_pem(bytes))
            .map_err(|_| KeyError::Unknown)?;
        let algorithms = usable(&key)?;
        Ok(Self { id: None, algorithms, key })
    }

    /// None for one that is not for signatures, or not known.
    fn jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let other_use = common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature);
        let no_verify = common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify));
        if other_use || no_verify {
            return None;
        }
        let key = match &jwk.algorithm {
            // The crate takes any curve and any length here.
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve != EllipticCurve::Ed25519 => return None,
            AlgorithmParameters::EllipticCurve(curve) => {
                let size = match curve.curve {
                    EllipticCurve::P256 => 32,
                    EllipticCurve::P384 => 48,
                    _ => return None,
                };
                let length = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map(|bytes| bytes.len()).ok();
                if length(&curve.x) != Some(size) || length(&curve.y) != Some(size) {
                    return None;
                }
                DecodingKey::from_jwk(jwk).ok()?
            }
            _ => DecodingKey::from_jwk(jwk).ok()?,
        };
        let mut algorithms = usable(&key).ok()?;
        if let Some(own) = common.key_algorithm {
            let own = Algorithm::try_from(own).ok()?;
            algorithms.retain(|algorithm| *algorithm == own);
        }
        (!algorithms.is_empty()).then(|| Self { id: common.key_id.clone(), algorithms, key })
    }
}

/// What a key may be used for, once it has been seen to be one.
fn usable(key: &DecodingKey) -> Result<Vec<Algorithm>, KeyError> {
    let algorithms = match (key.family(), key.kind()) {
        (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) if !secret.is_empty() => {
            AlgorithmFamily::Hmac.algorithms()
        }
        (AlgorithmFamily::Rsa, kind) => {
            let bits = match kind {
                DecodingKeyKind::RsaModulusExponent { n, .. } => bits(n),
                DecodingKeyKind::SecretOrDer(der) => {
                    let parts = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(der);
                    bits(&parts.map_err(|_| KeyError::Unknown)?.0)
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
        // A shorter one would be the end of the thread that checks with it.
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) if point.len() == 32 => &[Algorithm::EdDSA][..],
        _ => return Err(KeyError::Unknown),
    };
    // A point that is not on its curve is found here.
    (DEFAULT_PROVIDER.verifier_factory)(&algorithms[0], key).map_err(|_| KeyError::Unknown)?;
    Ok(algorithms.to_vec())
}

fn bits(number: &[u8]) -> usize {
    let significant = number.iter().position(|byte| *byte != 0).map_or(&[][..], |from| &number[from..]);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}
