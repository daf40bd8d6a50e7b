//! Keys of asymmetric algorithms, from and to their formats.
//!
//! The bytes of a key: PKCS #1 for RSA; a point, or a scalar and a point, for elliptic curves; 32 bytes, or twice 32, for Ed25519 and X25519.

use base64ct::{Base64UrlUnpadded, Encoding};
use pkcs8::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use pkcs8::der::{Decode, Encode, Tag, Tagged};
use pkcs8::{PrivateKeyInfoRef, SubjectPublicKeyInfoRef, spki::AlgorithmIdentifierRef};
use rsa::pkcs1::{RsaPrivateKey, RsaPrivateKeyRef, RsaPublicKeyRef};
use sec1::{EcParameters, EcPrivateKey};

use super::ec::EcCurve;
use super::okp::Use;
use super::rsa as rsa_keys;
use super::{CryptoError, Random, okp};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

const MALFORMED: CryptoError = CryptoError::data("the key is malformed");
const ANOTHER: CryptoError = CryptoError::data("the key is for another algorithm or curve");
const NO_PAIR: CryptoError = CryptoError::data("the private key does not belong to the public key");

/// What a key is a key of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Rsa,
    Ec(EcCurve),
    Okp(Use),
}

/// The binary formats of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Of a public key what SPKI contains: PKCS #1 for RSA, a point or 32 bytes for all others.
    Raw,
    /// A public key.
    Spki,
    /// A private key.
    Pkcs8,
    /// Of a private key what PKCS #8 contains: PKCS #1 for RSA, SEC 1 for elliptic curves.
    Traditional,
}

impl Format {
    /// The format by the standard's name.
    pub fn find(name: &str) -> Result<Self, CryptoError> {
        match name {
            "raw" => Ok(Self::Raw),
            "spki" => Ok(Self::Spki),
            "pkcs8" => Ok(Self::Pkcs8),
            "traditional" => Ok(Self::Traditional),
            _ => Err(CryptoError::not_supported("unsupported key format")),
        }
    }
}

impl Family {
    /// The family by name: `RSA`, or the name of the curve.
    pub fn find(name: &str) -> Result<Self, CryptoError> {
        match name {
            "RSA" => Ok(Self::Rsa),
            "P-256" => Ok(Self::Ec(EcCurve::P256)),
            "P-384" => Ok(Self::Ec(EcCurve::P384)),
            "P-521" => Ok(Self::Ec(EcCurve::P521)),
            "Ed25519" => Ok(Self::Okp(Use::Ed25519)),
            "X25519" => Ok(Self::Okp(Use::X25519)),
            _ => Err(CryptoError::not_supported("Unrecognized namedCurve")),
        }
    }

    /// The name that [`Family::find`] takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::Ec(EcCurve::P256) => "P-256",
            Self::Ec(EcCurve::P384) => "P-384",
            Self::Ec(EcCurve::P521) => "P-521",
            Self::Okp(Use::Ed25519) => "Ed25519",
            Self::Okp(Use::X25519) => "X25519",
        }
    }

    /// The family of a key that says what it is.
    pub fn of(format: Format, der: &[u8]) -> Result<Self, CryptoError> {
        match format {
            Format::Raw => Err(CryptoError::not_supported("a raw key does not say what it is")),
            Format::Spki => Self::of_algorithm(&spki(der)?.algorithm),
            Format::Pkcs8 => Self::of_algorithm(&pkcs8(der)?.algorithm),
            Format::Traditional if RsaPrivateKeyRef::from_der(der).is_ok() => Ok(Self::Rsa),
            Format::Traditional => {
                let key = EcPrivateKey::from_der(der).map_err(|_| MALFORMED)?;
                Self::of_curve(key.parameters.and_then(EcParameters::named_curve))
            }
        }
    }

    fn of_algorithm(algorithm: &AlgorithmIdentifierRef<'_>) -> Result<Self, CryptoError> {
        match algorithm.oid {
            RSA => Ok(Self::Rsa),
            ED25519 => Ok(Self::Okp(Use::Ed25519)),
            X25519 => Ok(Self::Okp(Use::X25519)),
            EC => Self::of_curve(algorithm.parameters_oid().ok()),
            _ => Err(ANOTHER),
        }
    }

    fn of_curve(curve: Option<ObjectIdentifier>) -> Result<Self, CryptoError> {
        match curve {
            Some(P256) => Ok(Self::Ec(EcCurve::P256)),
            Some(P384) => Ok(Self::Ec(EcCurve::P384)),
            Some(P521) => Ok(Self::Ec(EcCurve::P521)),
            _ => Err(ANOTHER),
        }
    }

    fn algorithm(self) -> AlgorithmIdentifierRef<'static> {
        let named = |curve: &'static ObjectIdentifier| (EC, Some(AnyRef::from(curve)));
        let (oid, parameters) = match self {
            Self::Rsa => (RSA, Some(AnyRef::NULL)),
            Self::Ec(EcCurve::P256) => named(&P256),
            Self::Ec(EcCurve::P384) => named(&P384),
            Self::Ec(EcCurve::P521) => named(&P521),
            Self::Okp(Use::Ed25519) => (ED25519, None),
            Self::Okp(Use::X25519) => (X25519, None),
        };
        AlgorithmIdentifierRef { oid, parameters }
    }

    /// Makes a new private key of a curve.
    pub fn generate(self, random: &mut Random) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::Rsa => Err(CryptoError::not_supported("RSA keys cannot be generated in a policy")),
            Self::Ec(curve) => curve.generate(random),
            Self::Okp(kind) => Ok(pair(kind, &random.array())),
        }
    }

    /// The public key of a private key.
    pub fn public_of(self, private: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::Rsa => {
                let key = RsaPrivateKeyRef::from_der(private).map_err(|_| MALFORMED)?;
                key.public_key().to_der().map_err(|_| MALFORMED)
            }
            Self::Ec(curve) => Ok(private.get(curve.size()..).ok_or(MALFORMED)?.to_vec()),
            Self::Okp(_) => Ok(private.get(32..).ok_or(MALFORMED)?.to_vec()),
        }
    }

    /// Reads a key, and checks that it is one.
    pub fn import(self, format: Format, bytes: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match format {
            Format::Raw => self.public(bytes),
            Format::Spki => {
                let key = spki(bytes)?;
                self.check(&key.algorithm)?;
                self.public(key.subject_public_key.as_bytes().ok_or(MALFORMED)?)
            }
            Format::Pkcs8 => {
                let key = pkcs8(bytes)?;
                self.check(&key.algorithm)?;
                self.private(key.private_key.as_bytes())
            }
            Format::Traditional => self.private(bytes),
        }
    }

    fn check(self, algorithm: &AlgorithmIdentifierRef<'_>) -> Result<(), CryptoError> {
        match Self::of_algorithm(algorithm)? == self {
            true => Ok(()),
            false => Err(ANOTHER),
        }
    }

    fn public(self, bytes: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::Rsa => rsa_keys::public(bytes).map(|_| bytes.to_vec()),
            Self::Ec(curve) => curve.point(bytes),
            Self::Okp(_) if bytes.len() == 32 => Ok(bytes.to_vec()),
            Self::Okp(_) => Err(CryptoError::data("keys of this algorithm have 32 bytes")),
        }
    }

    fn private(self, bytes: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::Rsa => rsa_keys::private(bytes).map(|_| bytes.to_vec()),
            Self::Ec(curve) => {
                let key = EcPrivateKey::from_der(bytes).map_err(|_| MALFORMED)?;
                let private = curve.private(key.private_key)?;
                match key.public_key {
                    Some(public) if private.get(curve.size()..) != Some(curve.point(public)?.as_slice()) => {
                        Err(NO_PAIR)
                    }
                    _ => Ok(private),
                }
            }
            Self::Okp(kind) => {
                let secret = <&OctetStringRef>::from_der(bytes).map_err(|_| MALFORMED)?;
                Ok(pair(kind, secret.as_bytes().try_into().map_err(|_| MALFORMED)?))
            }
        }
    }

    /// Writes a public key, as `Raw` or `Spki`, or a private one.
    pub fn export(self, format: Format, key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let algorithm = self.algorithm();
        let encoded = match format {
            Format::Raw => return Ok(key.to_vec()),
            Format::Spki => BitStringRef::from_bytes(key)
                .and_then(|subject_public_key| SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der()),
            Format::Pkcs8 => self.traditional(key, None).and_then(|key| private_key_info(algorithm, &key)),
            Format::Traditional => self.traditional(key, algorithm.parameters_oid().ok()),
        };
        encoded.map_err(|_| MALFORMED)
    }

    /// What PKCS #8 contains; the name of the curve is in the algorithm there.
    fn traditional(self, key: &[u8], curve: Option<ObjectIdentifier>) -> pkcs8::der::Result<Vec<u8>> {
        let size = match self {
            Self::Rsa => return Ok(key.to_vec()),
            Self::Ec(curve) => curve.size(),
            Self::Okp(_) => 32,
        };
        let (secret, public) = key.split_at_checked(size).ok_or_else(|| Tag::OctetString.length_error())?;
        match self {
            Self::Ec(_) => {
                let parameters = curve.map(EcParameters::NamedCurve);
                EcPrivateKey { private_key: secret, parameters, public_key: Some(public) }.to_der()
            }
            _ => OctetStringRef::new(secret)?.to_der(),
        }
    }

    /// Reads the members of a JSON Web Key: n, e, d, p, q, dp, dq, qi; x, y, d; or x, d. Those after the public ones make it private.
    pub fn import_jwk(self, members: &[&str]) -> Result<Vec<u8>, CryptoError> {
        let members = members.iter().map(|text| from_base64_url(text)).collect::<Result<Vec<_>, _>>()?;
        let members: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
        match (self, members.as_slice()) {
            (Self::Rsa, &[n, e]) => self.public(&rsa_public(n, e).map_err(|_| MALFORMED)?),
            (Self::Rsa, members) => self.private(&rsa_private(members).ok_or(MALFORMED)?),
            (Self::Ec(curve), &[x, y]) => curve.point(&joined(curve, x, y)?),
            (Self::Ec(curve), &[x, y, d]) => {
                let private = curve.private(&padded(d, curve.size())?)?;
                match private.get(curve.size()..) == Some(joined(curve, x, y)?.as_slice()) {
                    true => Ok(private),
                    false => Err(NO_PAIR),
                }
            }
            (Self::Okp(_), &[x]) => self.public(x),
            (Self::Okp(kind), &[x, d]) => {
                let private = pair(kind, d.try_into().map_err(|_| MALFORMED)?);
                match private.get(32..) == Some(x) {
                    true => Ok(private),
                    false => Err(NO_PAIR),
                }
            }
            _ => Err(MALFORMED),
        }
    }

    /// The members of a JSON Web Key, in the order of [`Family::import_jwk`].
    pub fn export_jwk(self, key: &[u8], is_private: bool) -> Result<Vec<String>, CryptoError> {
        let encode = |members: &[&[u8]]| Ok(members.iter().map(|bytes| to_base64_url(bytes)).collect());
        match (self, is_private) {
            (Self::Rsa, false) => {
                let key = RsaPublicKeyRef::from_der(key).map_err(|_| MALFORMED)?;
                encode(&[key.modulus.as_bytes(), key.public_exponent.as_bytes()])
            }
            (Self::Rsa, true) => {
                let key = RsaPrivateKeyRef::from_der(key).map_err(|_| MALFORMED)?;
                let RsaPrivateKey { modulus, public_exponent, private_exponent, prime1, prime2, .. } = &key;
                let numbers = [
                    modulus,
                    public_exponent,
                    private_exponent,
                    prime1,
                    prime2,
                    &key.exponent1,
                    &key.exponent2,
                    &key.coefficient,
                ];
                encode(&numbers.map(UintRef::as_bytes))
            }
            (Self::Ec(curve), _) => {
                let (scalar, point) =
                    key.split_at_checked(if is_private { curve.size() } else { 0 }).ok_or(MALFORMED)?;
                let (x, y) = point.get(1..).and_then(|point| point.split_at_checked(curve.size())).ok_or(MALFORMED)?;
                if is_private { encode(&[x, y, scalar]) } else { encode(&[x, y]) }
            }
            (Self::Okp(_), false) => encode(&[key]),
            (Self::Okp(_), true) => {
                let (secret, public) = key.split_at_checked(32).ok_or(MALFORMED)?;
                encode(&[public, secret])
            }
        }
    }

    /// The shared secret of a private and a public key.
    pub fn agree(self, private: &[u8], public: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::Ec(curve) => curve.agree(private, public),
            Self::Okp(Use::X25519) => okp::agree(private, public),
            _ => Err(CryptoError::not_supported("the key is not for key agreement")),
        }
    }
}

/// The SPKI of a certificate of X.509.
pub fn spki_of_certificate(der: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let parts = |der| Vec::<AnyRef<'_>>::from_der(der).map_err(|_| MALFORMED);
    let certificate = parts(der)?;
    let to_be_signed = certificate.first().and_then(|part| part.to_der().ok()).ok_or(MALFORMED)?;
    let fields = parts(&to_be_signed)?;
    // An explicit version comes first, and is missing in version 1.
    let has_version = fields.first().is_some_and(|field| field.tag() != Tag::Integer);
    let key = fields.get(if has_version { 6 } else { 5 }).ok_or(MALFORMED)?;
    key.to_der().map_err(|_| MALFORMED)
}

fn spki(der: &[u8]) -> Result<SubjectPublicKeyInfoRef<'_>, CryptoError> {
    SubjectPublicKeyInfoRef::from_der(der).map_err(|_| MALFORMED)
}

fn pkcs8(der: &[u8]) -> Result<PrivateKeyInfoRef<'_>, CryptoError> {
    PrivateKeyInfoRef::from_der(der).map_err(|_| MALFORMED)
}

fn private_key_info(algorithm: AlgorithmIdentifierRef<'_>, key: &[u8]) -> pkcs8::der::Result<Vec<u8>> {
    PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(key)?).to_der()
}

/// The private key of Ed25519 or X25519.
fn pair(kind: Use, secret: &[u8; 32]) -> Vec<u8> {
    [*secret, kind.public_of(secret)].concat()
}

fn rsa_public(n: &[u8], e: &[u8]) -> pkcs8::der::Result<Vec<u8>> {
    RsaPublicKeyRef { modulus: UintRef::new(n)?, public_exponent: UintRef::new(e)? }.to_der()
}

fn rsa_private(members: &[&[u8]]) -> Option<Vec<u8>> {
    let &[n, e, d, p, q, dp, dq, qi] = members else { return None };
    let number = |bytes| UintRef::new(bytes).ok();
    let key = RsaPrivateKey {
        modulus: number(n)?,
        public_exponent: number(e)?,
        private_exponent: number(d)?,
        prime1: number(p)?,
        prime2: number(q)?,
        exponent1: number(dp)?,
        exponent2: number(dq)?,
        coefficient: number(qi)?,
        other_prime_infos: None,
    };
    key.to_der().ok()
}

/// Encodes base64url.
pub fn to_base64_url(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// The uncompressed point of two coordinates.
fn joined(curve: EcCurve, x: &[u8], y: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let mut point = vec![4];
    point.extend(padded(x, curve.size())?);
    point.extend(padded(y, curve.size())?);
    Ok(point)
}

/// Some issuers leave out leading zeros.
fn padded(number: &[u8], size: usize) -> Result<Vec<u8>, CryptoError> {
    let zeros = size.checked_sub(number.len()).ok_or(MALFORMED)?;
    let mut bytes = vec![0; zeros];
    bytes.extend_from_slice(number);
    Ok(bytes)
}

/// Decodes base64url. Takes both alphabets and padding, as Node does. The decoder's time does not depend on the text.
pub fn from_base64_url(text: &str) -> Result<Vec<u8>, CryptoError> {
    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    Base64UrlUnpadded::decode_vec(&text).map_err(|_| CryptoError::data("a member of the JSON Web Key is not base64url"))
}
