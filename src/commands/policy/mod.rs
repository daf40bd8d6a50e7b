//! `tidegate policy`: what authors of policies do.

mod bench;
mod build;
mod inspect;
mod new;
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
}

pub fn run(command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::New(args) => new::run(&args),
        PolicyCommand::Build(args) => build::run(&args),
        PolicyCommand::Inspect(args) => inspect::run(&args),
        PolicyCommand::Test(args) => test::run(&args),
        PolicyCommand::Bench(args) => bench::run(&args),
    }
}
