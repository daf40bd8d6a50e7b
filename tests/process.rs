//! The third ring of tests: real processes. The real binary, Debian's `redis-server`, sockets and signals.
//!
//! Quick by default; `TIDEGATE_SOAK=full` runs [`soak`] and [`stalled`] in the size that the README speaks of. `TIDEGATE_BIN` names
//! another binary than the one that cargo built, `REDIS_SERVER` another Redis than that of the `PATH`.

#![allow(clippy::expect_used, clippy::panic, reason = "what is not as expected is a failed test")]

#[path = "common/guests.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod guests;

#[path = "process/children.rs"]
mod children;
#[path = "process/client.rs"]
mod client;
#[path = "process/control_port.rs"]
mod control_port;
#[path = "process/emitter.rs"]
mod emitter;
#[path = "process/redis_server.rs"]
mod redis_server;
#[path = "process/source.rs"]
mod source;

#[path = "process/bombs.rs"]
mod bombs;
#[path = "process/candidate.rs"]
mod candidate;
#[path = "process/commands.rs"]
mod commands;
#[path = "process/compile.rs"]
mod compile;
#[path = "process/doorbells.rs"]
mod doorbells;
#[path = "process/drain.rs"]
mod drain;
#[path = "process/fleet.rs"]
mod fleet;
#[path = "process/fleet_candidate.rs"]
mod fleet_candidate;
#[path = "process/fleet_faults.rs"]
mod fleet_faults;
#[path = "process/fleet_trust.rs"]
mod fleet_trust;
#[path = "process/live.rs"]
mod live;
#[path = "process/neighbours.rs"]
mod neighbours;
#[path = "process/node_names.rs"]
mod node_names;
#[path = "process/policies.rs"]
mod policies;
#[path = "process/projects.rs"]
mod projects;
#[path = "process/python.rs"]
mod python;
#[path = "process/recording.rs"]
mod recording;
#[path = "process/referred.rs"]
mod referred;
#[path = "process/refusal.rs"]
mod refusal;
#[path = "process/revoke.rs"]
mod revoke;
#[path = "process/rolling.rs"]
mod rolling;
#[path = "process/rollout.rs"]
mod rollout;
#[path = "process/rotation.rs"]
mod rotation;
#[path = "process/signatures.rs"]
mod signatures;
#[path = "process/soak.rs"]
mod soak;
#[path = "process/sockets.rs"]
mod sockets;
#[path = "process/stalled.rs"]
mod stalled;
#[path = "process/stores.rs"]
mod stores;
#[path = "process/swaps.rs"]
mod swaps;
#[path = "process/tls.rs"]
mod tls;
#[path = "process/tokens.rs"]
mod tokens;
#[path = "process/two_fleets.rs"]
mod two_fleets;
#[path = "process/way_back.rs"]
mod way_back;
