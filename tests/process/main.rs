//! The third ring of tests: real processes. The real binary, Debian's `redis-server`, sockets and signals.
//!
//! Quick by default; `TIDEGATE_SOAK=full` runs [`soak`] and [`stalled`] in the size that the README speaks of. `TIDEGATE_BIN` names
//! another binary than the one that cargo built, `REDIS_SERVER` another Redis than that of the `PATH`.

#![allow(clippy::expect_used, clippy::panic, reason = "what is not as expected is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests read files that they or the repository wrote")]

#[path = "../common/guests.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod guests;

mod children;
mod client;
mod control_port;
mod emitter;
mod redis_server;
mod source;

mod bombs;
mod candidate;
mod commands;
mod compile;
mod doorbells;
mod drain;
mod fleet;
mod fleet_candidate;
mod fleet_faults;
mod fleet_trust;
mod live;
mod neighbours;
mod node_names;
mod policies;
mod projects;
mod python;
mod recording;
mod referred;
mod refusal;
mod revoke;
mod rolling;
mod rollout;
mod rotation;
mod signatures;
mod soak;
mod sockets;
mod stalled;
mod stores;
mod swaps;
mod tls;
mod tokens;
mod two_fleets;
mod way_back;
