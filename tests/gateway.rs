//! The second ring.
#[path = "common/guests.rs"]
mod guests;
#[test]
fn x() { assert!(guests::component("allow").len() > 8); }
