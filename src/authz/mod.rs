//! Authorization: evaluates the active policy for each request, caches decisions and applies revocations.

pub(crate) mod active;
pub mod authorizer;
pub mod cache;
pub(crate) mod evaluate;
pub(crate) mod generation;
pub(crate) mod in_flight;
pub(crate) mod observer;
pub mod revocation_list;
pub(crate) mod validate;
