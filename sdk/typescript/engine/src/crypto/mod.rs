//! The cryptography of `crypto.subtle`, and of the substitutes for Node's `crypto`: functions of bytes, without types of QuickJS.
//!
//! A key is the bytes of [`keys`]: PKCS #1 for RSA, otherwise a private scalar or seed and the public key. Nothing here keeps state, so
//! no key outlives its `CryptoKey`, and a snapshot contains none.

pub mod aes;
mod ec;
mod error;
pub mod hash;
pub mod kdf;
pub mod keys;
mod okp;
mod random;
mod rsa;
pub mod signature;

pub use error::{Cause, CryptoError};
pub use random::Random;
pub use rsa::oaep;
