//! The `tidegate` program.

use std::process::ExitCode;

use clap::Parser;
use tidegate::commands::Cli;
use tidegate::config::ConfigError;

/// Streams come and go by thousands, with pieces of all sizes: this one gives back what they leave.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match tidegate::commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            // As clap does it for flags.
            let usage = error.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}
