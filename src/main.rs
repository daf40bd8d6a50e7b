//! The `tidegate` program.

use std::process::ExitCode;

use tidegate::commands::Cli;
use tidegate::config::ConfigError;

/// Thousands of streams allocate and free buffers of all sizes. jemalloc returns the freed memory to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A thread keeps up to 64 free blocks of a size instead of 20, where blocks are large: the buffers of 32 streams that open at the same
/// time stay with it.
#[expect(unsafe_code, reason = "jemalloc reads its options from a symbol of this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_OPTIONS: &[u8; 27] = b"tcache_nslots_small_min:64\0";

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
