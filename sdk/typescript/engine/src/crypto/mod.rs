//! Cryptography, without JavaScript types.
