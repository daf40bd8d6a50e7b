//! The `tidegate` program.

use std::process::ExitCode;

use tidegate::commands::Cli;
use tidegate::config::ConfigError;

/// Thousands of streams allocate and free buffers of all sizes. jemalloc returns the freed memory to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match tidegate::commands::run(Cli::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tidegate::commands::print_error(&error);
            // clap exits with 2 for invalid flags, too.
            let usage = error.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}
