//! Policies as files: a component and its test cases, identified by digests and attested by a signature.

pub mod bundle;
pub mod digest;
pub mod policy_store;
pub mod sequence_ledger;
pub mod signature;
