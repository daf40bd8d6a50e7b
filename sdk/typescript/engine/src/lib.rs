//! The JavaScript runtime of Tidegate's TypeScript policies.

pub mod bindings;
pub mod crypto;
pub mod engine;
pub mod web;
