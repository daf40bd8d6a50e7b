//! The second ring of tests: the server in process, over a store whose link can be cut. No browser, no Redis, no file but the
//! policies.

#![allow(clippy::expect_used, clippy::panic, reason = "what is not as expected is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests read files that they or the repository wrote")]

#[path = "../common/guests.rs"]
mod guests;

mod client;
mod harness;
mod linked;
mod origin;

mod bulk;
mod control;
mod decisions;
mod drain;
mod egress;
mod gaps;
mod grants;
mod hostile;
mod http;
mod http2;
mod imports;
mod kept;
mod metrics;
mod opening;
mod order;
mod outage;
mod places;
mod policy;
mod rest;
mod resume;
mod revoke;
mod role_based;
mod rollout;
mod shadow;
mod status;
mod storm;
mod swap;
mod tokens;
