//! The limit on the file descriptors of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Assumed if the system sets no limit.
const UNLIMITED: usize = 1 << 20;

/// Where the hard limit is not a limit of the kernel, as on macOS.
const FALLBACK: u64 = 10_240;

/// How many file descriptors this process may have open.
pub fn limit() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(UNLIMITED)
}

/// Raises the soft limit to the hard one. The soft limit is kept low by default for programs that use `select`. Processes that this one
/// starts inherit it.
pub fn raise_limit() -> std::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let set = |current| setrlimit(Resource::Nofile, Rlimit { current, maximum });
    Ok(set(maximum).or_else(|_| set(Some(maximum.map_or(FALLBACK, |maximum| maximum.min(FALLBACK)))))?)
}
