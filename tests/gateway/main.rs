//! In-process tests: the server on a store whose link can be disconnected. No browser, no Redis, and no files except policies.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken expectation is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests read files that they or the repository wrote")]

#[path = "../common/guests.rs"]
mod guests;

mod client;
mod faulty_store;
mod harness;
mod origin;
mod random_history;
mod raw_http2;

mod activation;
mod activation_under_load;
mod async_policies;
mod checkpoints;
mod client_address;
mod connections;
mod control_port;
mod decision_cache;
mod decision_log;
mod drain;
mod egress;
mod evaluation_permits;
mod event_order;
mod fairness;
mod fence;
mod frames;
mod gaps;
mod grants;
mod host;
mod http1_streams;
mod http2;
mod http;
mod master_change;
mod memory_limits;
mod metrics;
mod policy;
mod policy_settings;
mod positions;
mod redis_rest;
mod resume;
mod revocation;
mod role_based;
mod rollout;
mod sandbox_limits;
mod shadow;
mod status;
mod store_outage;
mod stream_requests;
mod tokens;
mod unknown_losses;
