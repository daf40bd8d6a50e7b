//! The command line, one file per command. `policy list` and `policy promote` are with `policy status` and `policy shadow`.

mod check;
mod control_client;
mod dev;
mod emit;
mod listeners;
mod logging;
mod policy;
mod revoke;
mod serve;
mod sse;
mod startup;
mod tail;

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use serde_json::Value;
use toml::Table;

use crate::config::sources::{merge, single_option};
use crate::store::memory::MemoryStore;
use crate::util::clock::system_clock;
use crate::util::printable::{printable_json, printable_lines};

/// A self-hosted realtime gateway: it streams channels from Redis to browsers as server-sent events. A WebAssembly policy decides, for
/// each request, which channels the client may read.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway for development: in-memory store, example policy, and a playground page
    Dev(dev::DevArgs),
    /// Run a gateway on a Redis
    Serve(ServeFlags),
    /// Check the configuration and the policy without starting a gateway
    Check(check::CheckArgs),
    /// Write, build, test, measure, sign and deploy policies
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Emit an event to a channel
    Emit(emit::EmitArgs),
    /// Revoke access and close matching streams on all nodes
    Revoke(revoke::RevokeArgs),
    /// Follow channels of a gateway and print their events as JSON lines
    Tail(tail::TailArgs),
    /// Internal: compiles the component on standard input to machine code on standard output
    #[command(name = crate::wasm::compile::COMPILE_COMMAND, hide = true)]
    Compile,
}

/// The options of every command that starts a gateway; the configuration file has more. They are serialized under their names there.
#[derive(Debug, Default, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServeFlags {
    /// Configuration file [default: tidegate.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Listen address for clients [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Listen address for the control port [default: 127.0.0.1:7080]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(rename = "control.listen")]
    control: Option<String>,
    /// Store URL: redis://, redis-cluster://, redis-sentinel:// (with TLS rediss…), redis+unix:// or memory:
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Name of the fleet on the store: 1 to 64 letters, digits and -_. [default: default]
    #[arg(long, value_name = "NAME")]
    #[serde(rename = "fleet.name")]
    fleet: Option<String>,
    /// WebAssembly component of the policy
    #[arg(long, value_name = "FILE", conflicts_with = "allow_all")]
    #[serde(rename = "policy.file")]
    policy: Option<PathBuf>,
    /// Allow every client to read every channel, without a policy
    #[arg(long)]
    allow_all: bool,
    /// Wait for the store at start instead of failing
    #[arg(long)]
    wait_for_store: bool,
    /// Accept unsigned policies from the store (with policy.source = "fleet")
    #[arg(long)]
    #[serde(rename = "policy.allow-unsigned")]
    allow_unsigned: bool,
}

impl ServeFlags {
    /// The flags, as a layer of the configuration.
    fn layer(&self) -> anyhow::Result<Table> {
        let flags = Table::try_from(self).context("--policy: the path is not Unicode")?;
        let mut layer = Table::new();
        // A flag that is not set does not override the other sources.
        for (path, value) in flags.into_iter().filter(|(_, value)| value.as_bool() != Some(false)) {
            merge(&mut layer, single_option(&path, value));
        }
        Ok(layer)
    }
}

impl Cli {
    /// Reads the command line. A mistake in it ends the process, without showing the value of an argument: it may be a secret.
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| hide_values(error).exit())
    }
}

fn hide_values(mut error: clap::Error) -> clap::Error {
    let is_name = |text: &str| text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    // The names of arguments of this program are shown with the names of their values: `--store <URL>`.
    let is_known = |text: &str| text.starts_with(['-', '<']) && text.contains('<') && !text.contains([':', '@']);
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        let hidden = match error.get(kind) {
            // An empty value is one that is missing.
            Some(ContextValue::String(text)) if kind == ContextKind::InvalidValue => !text.is_empty(),
            Some(ContextValue::String(text)) => !is_name(text) && !is_known(text),
            _ => false,
        };
        if hidden {
            error.insert(kind, ContextValue::String("…".into()));
        }
    }
    error
}

pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(flags) => serve::run(&flags),
        Command::Dev(args) => dev::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Policy(command) => policy::run(command),
        Command::Emit(args) => block_on(emit::run(&args)),
        Command::Revoke(args) => block_on(revoke::run(&args)),
        Command::Tail(args) => block_on(tail::run(&args)),
        Command::Compile => crate::wasm::compile::run_child(),
    }
}

/// Makes ring the TLS provider of this process. An error says that it already is: no other one is compiled in.
fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// One line for each count that is not 0, with its meaning.
fn count_lines(counts: impl IntoIterator<Item = (u64, impl Display)>) -> String {
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    counts.map(|(count, meaning)| format!("{count:>10} {meaning}\n")).collect()
}

/// Formats ms since 1970 for people. A number from a store that is beyond the year 9999 stays a number.
fn time(ms: u64) -> String {
    /// The last ms of the year 9999, the greatest that RFC 3339 can express.
    const LAST: u64 = 253_402_300_799_999;
    if ms > LAST {
        return ms.to_string();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// Prints lines. Some of their text comes from others, so a text that may have line feeds has to be made [`printable`] before it becomes a
/// part of a line. A reader that closes early, as `head` does, is not an error.
///
/// [`printable`]: crate::util::printable::printable
fn print_text(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(printable_lines(text).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// Prints a result as a line of JSON, or as text.
fn print(as_json: bool, json: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    if as_json { print_json(json) } else { print_text(&text()) }
}

/// Prints a line of JSON.
fn print_json(json: &Value) -> anyhow::Result<()> {
    print_text(&format!("{}\n", printable_json(&json.to_string())))
}

/// Prints the error with which the program ends.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("tidegate: {}", printable_lines(&format!("{error:#}")));
}

/// Prints a remark that is not part of the result.
fn print_warning(text: &str) {
    eprintln!("tidegate: {}", printable_lines(text));
}

/// A store without data, for decisions whose look-ups are answered by something else.
fn empty_store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(1 << 16, HashMap::new(), system_clock()))
}

/// Runs a command that is not a gateway, on this thread.
fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(command)
}

#[cfg(test)]
mod tests;
