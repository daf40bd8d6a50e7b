//! The `tidegate` program.

use std::process::ExitCode;

use clap::Parser;
use tidegate::commands::Cli;
use tidegate::config::ConfigError;

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
