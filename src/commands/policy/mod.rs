//! `tidegate policy`: commands for authors and for operators of policies.

mod bench;
mod build;
mod component_args;
mod fleet;
mod inspect;
mod keygen;
mod language;
mod new;
mod push;
mod replay;
mod rollback;
mod shadow;
mod sign;
mod signing;
mod status;
mod test;
mod types;

use clap::Subcommand;

use crate::commands::block_on;

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Create a policy project
    New(new::NewArgs),
    /// Print the TypeScript declarations of `@tidegate/policy`, for the editor of an app
    ///
    /// In a file of the app, such as tidegate-policy.d.ts, they make an editor complete and check the imports of `@tidegate/policy`
    /// without a package. Projects of `policy new` have them.
    Types,
    /// Compile a policy's source into a component
    Build(build::BuildArgs),
    /// Show what a component is, what it imports, and whether the gateway can load it
    Inspect(inspect::InspectArgs),
    /// Run test cases against a component and compare its decisions
    Test(test::TestArgs),
    /// Measure the cost of a decision
    Bench(bench::BenchArgs),
    /// Generate a key pair for signing policies
    Keygen(keygen::KeygenArgs),
    /// Sign a component and its test cases
    Sign(sign::SignArgs),
    /// Replay recorded decisions against a component and report differences
    ///
    /// Exits with 0 if every decision has the same outcome, and with 1 if the outcome of one changes (allow, reject or error) or if no
    /// decision could be compared. The component sees the recorded time, look-ups and token checks. A look-up that was not recorded is
    /// unavailable, and no HTTP request is sent; a decision that needs either is counted as not comparable. Settings come from
    /// --config.
    Replay(replay::ReplayArgs),
    /// Activate a policy on all nodes, or on none
    Push(push::PushArgs),
    /// List the pushed policies
    List(status::StatusArgs),
    /// Roll back to the previous policy
    Rollback(rollback::RollbackArgs),
    /// Show the nodes and the active policy of each
    Status(status::StatusArgs),
    /// Evaluate a shadow policy in addition to the active one, or show its results
    Shadow(shadow::ShadowArgs),
    /// Activate the shadow policy
    Promote(shadow::PromoteArgs),
}

pub fn run(command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::New(args) => new::run(&args),
        PolicyCommand::Types => types::run(),
        PolicyCommand::Build(args) => build::run(&args),
        PolicyCommand::Inspect(args) => inspect::run(&args),
        PolicyCommand::Test(args) => test::run(&args),
        PolicyCommand::Bench(args) => bench::run(&args),
        PolicyCommand::Keygen(args) => keygen::run(&args),
        PolicyCommand::Sign(args) => sign::run(&args),
        PolicyCommand::Replay(args) => replay::run(&args),
        PolicyCommand::Push(args) => block_on(push::run(&args)),
        PolicyCommand::List(args) => block_on(status::list(&args)),
        PolicyCommand::Rollback(args) => block_on(rollback::run(&args)),
        PolicyCommand::Status(args) => block_on(status::run(&args)),
        PolicyCommand::Shadow(args) => block_on(shadow::run(&args)),
        PolicyCommand::Promote(args) => block_on(shadow::promote(&args)),
    }
}
