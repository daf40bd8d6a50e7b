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

/// Runs an expression with the type of a hash function.
macro_rules! with_hash {
    ($hash:expr, $digest:ident => $body:expr) => {
        match $hash {
            $crate::crypto::hash::Hash::Md5 => {
                type $digest = md5::Md5;
                $body
            }
            $crate::crypto::hash::Hash::Sha224 => {
                type $digest = sha2::Sha224;
                $body
            }
            $crate::crypto::hash::Hash::Sha1 => {
                type $digest = sha1::Sha1;
                $body
            }
            $crate::crypto::hash::Hash::Sha256 => {
                type $digest = sha2::Sha256;
                $body
            }
            $crate::crypto::hash::Hash::Sha384 => {
                type $digest = sha2::Sha384;
                $body
            }
            $crate::crypto::hash::Hash::Sha512 => {
                type $digest = sha2::Sha512;
                $body
            }
        }
    };
}

/// Runs an expression with the type of a hash function of the standard; with any other, the function returns an error. What the larger
/// algorithms compile to for hashes that are never used with them would be a third of their size.
macro_rules! with_standard_hash {
    ($hash:expr, $digest:ident => $body:expr) => {
        match $hash {
            $crate::crypto::hash::Hash::Md5 | $crate::crypto::hash::Hash::Sha224 => {
                return Err($crate::crypto::CryptoError::not_supported("this hash is not available for the algorithm"));
            }
            $crate::crypto::hash::Hash::Sha1 => {
                type $digest = sha1::Sha1;
                $body
            }
            $crate::crypto::hash::Hash::Sha256 => {
                type $digest = sha2::Sha256;
                $body
            }
            $crate::crypto::hash::Hash::Sha384 => {
                type $digest = sha2::Sha384;
                $body
            }
            $crate::crypto::hash::Hash::Sha512 => {
                type $digest = sha2::Sha512;
                $body
            }
        }
    };
}
pub(super) use {with_hash, with_standard_hash};

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
