//! Policy artifacts: a component with its test cases, identified by digest and attested by signature.

pub mod bundle;
pub mod digest;
pub mod policy_store;
pub mod sequence_ledger;
pub mod signature;
