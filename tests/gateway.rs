//! The second ring of tests: the server in process, over a store whose link can be cut. No browser, no Redis, no file but the
//! policies.

#![allow(clippy::expect_used, clippy::panic, reason = "what is not as expected is a failed test")]

#[path = "common/guests.rs"]
mod guests;

#[path = "gateway/client.rs"]
mod client;
#[path = "gateway/harness.rs"]
mod harness;
#[path = "gateway/linked.rs"]
mod linked;
#[path = "gateway/origin.rs"]
mod origin;

#[path = "gateway/bulk.rs"]
mod bulk;
#[path = "gateway/control.rs"]
mod control;
#[path = "gateway/decisions.rs"]
mod decisions;
#[path = "gateway/drain.rs"]
mod drain;
#[path = "gateway/egress.rs"]
mod egress;
#[path = "gateway/gaps.rs"]
mod gaps;
#[path = "gateway/grants.rs"]
mod grants;
#[path = "gateway/hostile.rs"]
mod hostile;
#[path = "gateway/http.rs"]
mod http;
#[path = "gateway/http2.rs"]
mod http2;
#[path = "gateway/imports.rs"]
mod imports;
#[path = "gateway/kept.rs"]
mod kept;
#[path = "gateway/metrics.rs"]
mod metrics;
#[path = "gateway/opening.rs"]
mod opening;
#[path = "gateway/order.rs"]
mod order;
#[path = "gateway/outage.rs"]
mod outage;
#[path = "gateway/places.rs"]
mod places;
#[path = "gateway/policy.rs"]
mod policy;
#[path = "gateway/rest.rs"]
mod rest;
#[path = "gateway/resume.rs"]
mod resume;
#[path = "gateway/revoke.rs"]
mod revoke;
#[path = "gateway/role_based.rs"]
mod role_based;
#[path = "gateway/rollout.rs"]
mod rollout;
#[path = "gateway/shadow.rs"]
mod shadow;
#[path = "gateway/status.rs"]
mod status;
#[path = "gateway/storm.rs"]
mod storm;
#[path = "gateway/swap.rs"]
mod swap;
#[path = "gateway/tokens.rs"]
mod tokens;
