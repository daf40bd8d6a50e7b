//! `tidegate policy`: what authors of policies do, and what operators do with them.

mod bench;
mod build;
mod fleet;
mod inspect;
mod keygen;
mod list;
mod new;
mod push;
mod replay;
mod rollback;
mod shadow;
mod sign;
mod status;
mod subject;
mod test;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Write a new policy's project
    New(new::NewArgs),
    /// Compile a policy's source into a component
    Build(build::BuildArgs),
    /// Show what a component is, what it needs, and whether the gateway would take it
    Inspect(inspect::InspectArgs),
    /// Ask a component a table of requests, and compare its decisions
    Test(test::TestArgs),
    /// Measure what a decision costs
    Bench(bench::BenchArgs),
    /// Make a pair of keys to sign policies with
    Keygen(keygen::KeygenArgs),
    /// Sign a component and its cases
    Sign(sign::SignArgs),
    /// Ask a component what was recorded, and show where it decides otherwise
    ///
    /// Exits with 0 if no decision flips, and with 1 if one does: from allow to reject, from reject to allow, to an error or from
    /// one. The component meets the world as it was: the same time, the same answers of the store and about tokens. What was not
    /// asked then is unavailable now, and no request goes out; a decision that wanted such a thing is counted as one that cannot
    /// be compared. Settings are those of --config.
    Replay(replay::ReplayArgs),
    /// Put a policy in force on every node, or on none
    Push(push::PushArgs),
    /// Show what was in force
    List(list::ListArgs),
    /// Put in force again what was before
    Rollback(rollback::RollbackArgs),
    /// Show every node, and what is in force there
    Status(status::StatusArgs),
    /// Have a running gateway ask a candidate beside the policy in force, or tell what came of it
    Shadow(shadow::ShadowArgs),
    /// Put a running gateway's candidate in force
    Promote(shadow::PromoteArgs),
}

pub fn run(command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::New(args) => new::run(&args),
        PolicyCommand::Build(args) => build::run(&args),
        PolicyCommand::Inspect(args) => inspect::run(&args),
        PolicyCommand::Test(args) => test::run(&args),
        PolicyCommand::Bench(args) => bench::run(&args),
        PolicyCommand::Keygen(args) => keygen::run(&args),
        PolicyCommand::Sign(args) => sign::run(&args),
        PolicyCommand::Replay(args) => replay::run(&args),
        PolicyCommand::Push(args) => push::run(&args),
        PolicyCommand::List(args) => list::run(&args),
        PolicyCommand::Rollback(args) => rollback::run(&args),
        PolicyCommand::Status(args) => status::run(&args),
        PolicyCommand::Shadow(args) => shadow::run(&args),
        PolicyCommand::Promote(args) => shadow::promote(&args),
    }
}

/// Prints an answer. Whoever reads only its beginning, as `head` does, is no failure. What others wrote moves no cursor.
fn say(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    let plain: String = text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect();
    match std::io::stdout().write_all(plain.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(anyhow::Error::from(error).context("printing")),
        _ => Ok(()),
    }
}
