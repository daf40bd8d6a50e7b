//! Random identifiers.

/// A random identifier of 16 hexadecimal digits (64 bits): for requests, pushes and revocations, which must differ but need not be secret.
pub fn random_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}
