//! Hashes, and HMAC over them.

use ctutils::CtEq;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest;

use super::CryptoError;

/// A hash function. The standard's interface has no MD5 and no SHA-224, Node's has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Runs an expression with the type of one of these hash functions; the arms at the end are for the others.
macro_rules! with_hash_of {
    ($hash:expr, $digest:ident => $body:expr, [$($name:ident = $kind:ty),+] $($others:tt)*) => {
        match $hash {
            $($crate::crypto::hash::Hash::$name => {
                type $digest = $kind;
                $body
            })+
            $($others)*
        }
    };
}

/// Runs an expression with the type of a hash function.
macro_rules! with_hash {
    ($hash:expr, $digest:ident => $body:expr) => {
        $crate::crypto::hash::with_hash_of!($hash, $digest => $body, [
            Md5 = md5::Md5, Sha224 = sha2::Sha224,
            Sha1 = sha1::Sha1, Sha256 = sha2::Sha256, Sha384 = sha2::Sha384, Sha512 = sha2::Sha512
        ])
    };
}

/// Runs an expression with the type of a hash function of the standard; with any other, the function returns an error. What the larger
/// algorithms compile to for hashes that are never used with them would be a third of their size.
macro_rules! with_standard_hash {
    ($hash:expr, $digest:ident => $body:expr) => {
        $crate::crypto::hash::with_hash_of!($hash, $digest => $body, [
            Sha1 = sha1::Sha1, Sha256 = sha2::Sha256, Sha384 = sha2::Sha384, Sha512 = sha2::Sha512
        ] $crate::crypto::hash::Hash::Md5 | $crate::crypto::hash::Hash::Sha224 => {
            return Err($crate::crypto::CryptoError::not_supported("this hash is not available for the algorithm"));
        })
    };
}
pub(super) use {with_hash, with_hash_of, with_standard_hash};

impl Hash {
    /// The hash of the standard's name.
    pub fn find(name: &str) -> Result<Self, CryptoError> {
        match name {
            "MD5" => Ok(Self::Md5),
            "SHA-1" => Ok(Self::Sha1),
            "SHA-224" => Ok(Self::Sha224),
            "SHA-256" => Ok(Self::Sha256),
            "SHA-384" => Ok(Self::Sha384),
            "SHA-512" => Ok(Self::Sha512),
            _ => Err(CryptoError::not_supported("Unrecognized algorithm name")),
        }
    }

    /// The length of a digest in bytes.
    pub fn size(self) -> usize {
        with_hash!(self, D => <D as Digest>::output_size())
    }

    /// The digest of the data.
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        with_hash!(self, D => D::digest(data).to_vec())
    }

    /// The HMAC of the data with a key of any length.
    pub fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        with_hash!(self, D => match <Hmac<D> as KeyInit>::new_from_slice(key) {
            Ok(mac) => mac.chain_update(data).finalize().into_bytes().to_vec(),
            Err(_) => unreachable!("HMAC accepts keys of every length"),
        })
    }
}

/// Compares in a time that depends on the lengths only.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.ct_eq(right).into()
}
