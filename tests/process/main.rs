//! Tests with real processes: the binary, Debian's `redis-server`, sockets and signals.
//!
//! Quick by default; `TIDEGATE_SOAK=full` runs the long tests, such as [`soak`] and [`stalled`], at their full size. `TIDEGATE_BIN` selects
//! another binary than the one that cargo built, and `REDIS_SERVER` another Redis than that of the `PATH`.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken expectation is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests read files that they or the repository wrote")]

#[path = "../common/guests.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the other functions")]
mod guests;

mod cache_dir;
mod client;
mod control_port;
mod emitter;
mod event_source;
mod link_cuts;
mod memory;
mod processes;
mod redis_cluster;
mod redis_sentinel;
mod redis_server;

mod c;
mod cluster;
mod commands;
mod compilation;
mod connections;
mod dev;
mod documents;
mod drain;
mod emit_retries;
mod fairness;
mod fifos;
mod fleet;
mod fleet_cluster;
mod fleet_faults;
mod fleet_shadow;
mod fleet_trust;
mod fleet_write_back;
mod forged_records;
mod go;
mod hostile_components;
mod isolation;
mod least_rights;
mod memory_in_transit;
mod memory_terms;
mod node_names;
mod notifications;
mod no_master;
mod packages;
mod partition;
mod policies;
mod projects;
mod python;
mod python_packages;
mod recording;
mod referenced_files;
mod reloadable_options;
mod repeated_activations;
mod revocation;
mod rollback_after_restart;
mod rolling_restart;
mod rollout;
mod rotation;
mod rust_policies;
mod sentinel;
mod shadow;
mod signatures;
mod soak;
mod socket_activation;
mod spare_modules;
mod stalled;
mod store_losses;
mod store_replies;
mod startup_failures;
mod stores;
mod tls;
mod tokens;
mod toolchains;
mod two_fleets;
mod typescript;
mod warnings;
