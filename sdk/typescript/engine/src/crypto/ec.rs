//! ECDSA and ECDH on the curves of NIST. A public key is an uncompressed point; a private key is the scalar and the point.

use ecdsa::hazmat::{sign_prehashed_rfc6979, verify_prehashed};
use ecdsa::{DigestAlgorithm, EcdsaCurve, Signature, SignatureSize};
use elliptic_curve::array::ArraySize;
use elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize, Generate, PublicKey, SecretKey, ecdh};

use super::{CryptoError, Random};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcCurve {
    P256,
    P384,
    P521,
}

/// Runs an expression with the type of a curve.
macro_rules! with_curve {
    ($curve:expr, $type:ident => $body:expr) => {
        match $curve {
            EcCurve::P256 => {
                type $type = p256::NistP256;
                $body
            }
            EcCurve::P384 => {
                type $type = p384::NistP384;
                $body
            }
            EcCurve::P521 => {
                type $type = p521::NistP521;
                $body
            }
        }
    };
}

const NO_POINT: CryptoError = CryptoError::data("the public key is no point of the curve");
const NO_SCALAR: CryptoError = CryptoError::data("the private key is no scalar of the curve");

impl EcCurve {
    /// The length of a coordinate and of a scalar in bytes.
    pub(super) const fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// A point in any encoding of SEC 1, uncompressed. It is on the curve, and not the point at infinity.
    pub(super) fn point(self, bytes: &[u8]) -> Result<Vec<u8>, CryptoError> {
        with_curve!(self, C => point::<C>(bytes))
    }

    /// The private key of a scalar, with its point.
    pub(super) fn private(self, scalar: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if scalar.len() != self.size() {
            return Err(NO_SCALAR);
        }
        with_curve!(self, C => private::<C>(scalar))
    }

    pub(super) fn generate(self, random: &mut Random) -> Result<Vec<u8>, CryptoError> {
        with_curve!(self, C => generate::<C>(random))
    }

    /// The signature of a digest, as two numbers of fixed length.
    pub(super) fn sign(self, private: &[u8], digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let scalar = private.get(..self.size()).ok_or(NO_SCALAR)?;
        with_curve!(self, C => sign::<C>(scalar, digest))
    }

    pub(super) fn verify(self, public: &[u8], digest: &[u8], signature: &[u8]) -> bool {
        with_curve!(self, C => verify::<C>(public, digest, signature))
    }

    /// The x coordinate of the shared point.
    pub(super) fn agree(self, private: &[u8], public: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let scalar = private.get(..self.size()).ok_or(NO_SCALAR)?;
        with_curve!(self, C => agree::<C>(scalar, public))
    }
}

fn point<C>(bytes: &[u8]) -> Result<Vec<u8>, CryptoError>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let point = PublicKey::<C>::from_sec1_bytes(bytes).map_err(|_| NO_POINT)?;
    Ok(point.as_affine().to_sec1_point(false).as_bytes().to_vec())
}

fn private<C>(scalar: &[u8]) -> Result<Vec<u8>, CryptoError>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    Ok(encoded(&SecretKey::<C>::from_slice(scalar).map_err(|_| NO_SCALAR)?))
}

fn generate<C>(random: &mut Random) -> Result<Vec<u8>, CryptoError>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let Ok(secret) = SecretKey::<C>::try_generate_from_rng(random);
    Ok(encoded(&secret))
}

fn encoded<C>(secret: &SecretKey<C>) -> Vec<u8>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let mut key = secret.to_bytes().to_vec();
    key.extend_from_slice(secret.public_key().as_affine().to_sec1_point(false).as_bytes());
    key
}

/// Deterministic by RFC 6979: a signature needs no randomness, and a repeated or biased nonce cannot reveal the key.
fn sign<C>(scalar: &[u8], digest: &[u8]) -> Result<Vec<u8>, CryptoError>
where
    C: CurveArithmetic + EcdsaCurve + DigestAlgorithm,
    SignatureSize<C>: ArraySize,
{
    let secret = SecretKey::<C>::from_slice(scalar).map_err(|_| NO_SCALAR)?.to_nonzero_scalar();
    let (signature, _) = sign_prehashed_rfc6979::<C, C::Digest>(&secret, digest, &[]);
    Ok(signature.to_bytes().to_vec())
}

fn verify<C>(public: &[u8], digest: &[u8], signature: &[u8]) -> bool
where
    C: CurveArithmetic + EcdsaCurve,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
    SignatureSize<C>: ArraySize,
{
    let (Ok(public), Ok(signature)) = (PublicKey::<C>::from_sec1_bytes(public), Signature::<C>::from_slice(signature))
    else {
        return false;
    };
    verify_prehashed(&public.to_projective(), digest, &signature).is_ok()
}

fn agree<C>(scalar: &[u8], public: &[u8]) -> Result<Vec<u8>, CryptoError>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let secret = SecretKey::<C>::from_slice(scalar).map_err(|_| NO_SCALAR)?;
    let public = PublicKey::<C>::from_sec1_bytes(public).map_err(|_| NO_POINT)?;
    Ok(ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine()).raw_secret_bytes().to_vec())
}
