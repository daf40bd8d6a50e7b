//! The command line, a file a command.

mod check;
mod dev;
mod emit;
mod http_client;
mod manager;
mod policy;
mod revoke;
mod serve;
mod sockets;
mod sse;
mod tail;
mod target;

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use toml::{Table, Value};

use crate::config::layers::{merge, option};

/// A self-hosted realtime gateway: it streams channels from Redis to browsers as server-sent events, and asks a WebAssembly
/// policy, for each request, who may read which channels.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: embedded store, an example policy, and a page to watch it in
    Dev(dev::DevArgs),
    /// Serve streams from a Redis
    Serve(ServeFlags),
    /// Check configuration and policy without starting
    Check(check::CheckArgs),
    /// Write, build, test and measure policies; sign them, and put them in force
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Emit an event into a channel
    Emit(emit::EmitArgs),
    /// Take the right to read away, on all nodes
    Revoke(revoke::RevokeArgs),
    /// Follow channels of a gateway and print their events as JSON lines
    Tail(tail::TailArgs),
    /// The gateway's own: standard input's component to standard output's machine code
    #[command(name = crate::wasm::compile::COMPILE_COMMAND, hide = true)]
    Compile,
}

/// The options that every start of the gateway takes; the configuration file has more.
#[derive(Debug, Default, Args)]
pub struct ServeFlags {
    /// Read options from this file [default: tidegate.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take clients at this address [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Take operators at this address [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS")]
    control: Option<String>,
    /// Where the events live: redis://, rediss://, redis+unix:// or memory:
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The WebAssembly component that decides
    #[arg(long, value_name = "FILE", conflicts_with = "allow_all")]
    policy: Option<PathBuf>,
    /// Let everybody read everything, without a policy
    #[arg(long)]
    allow_all: bool,
    /// Wait for the store at start, rather than fail
    #[arg(long)]
    wait_for_store: bool,
    /// Take policies from the store that nobody signed (where policy.source is fleet)
    #[arg(long)]
    unsigned_fleet: bool,
}

impl ServeFlags {
    /// What was typed, as a layer of the configuration.
    fn layer(&self) -> anyhow::Result<Table> {
        let mut layer = Table::new();
        let mut set = |path: &str, value: Value| merge(&mut layer, option(path, value));
        for (path, text) in [("listen", &self.listen), ("control.listen", &self.control), ("store", &self.store)] {
            if let Some(text) = text {
                set(path, text.clone().into());
            }
        }
        if let Some(path) = &self.policy {
            set("policy.file", path.to_str().context("--policy: the path is not Unicode")?.into());
        }
        for (path, flag) in [
            ("allow-all", self.allow_all),
            ("wait-for-store", self.wait_for_store),
            ("policy.unsigned-fleet", self.unsigned_fleet),
        ] {
            if flag {
                set(path, true.into());
            }
        }
        Ok(layer)
    }
}

/// Runs the command that was typed.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(flags) => serve::run(&flags),
        Command::Dev(args) => dev::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Policy(command) => policy::run(command),
        Command::Emit(args) => emit::run(args),
        Command::Revoke(args) => revoke::run(&args),
        Command::Tail(args) => tail::run(args),
        Command::Compile => crate::wasm::compile::run_child(),
    }
}

/// Makes ring the provider of all TLS in this process. It is the only one compiled in; an error says that it is set already.
fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A time for people, of ms since 1970. What somebody wrote into a store need not be one, and then stays a number.
fn time(ms: u64) -> String {
    /// The last one of the year 9999: none behind it can be written.
    const LAST: u64 = 253_402_300_799_999;
    if ms > LAST {
        return ms.to_string();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// A runtime for a command that is a client.
fn client_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

#[cfg(test)]
mod tests;
