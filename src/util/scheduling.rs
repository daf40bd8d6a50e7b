//! How the system shares a processor among the threads of the gateway.
//!
//! Priorities alone are not enough on Linux: a thread that wakes up waits until the running one has used its time slice, also if that one
//! has a lower priority. A shorter slice is an earlier deadline, for which the running thread is interrupted.

/// Lets the current thread run soon after it wakes up. The threads that it starts inherit this. Where the system has no such slices (Linux
/// before 6.12, other systems) or forbids it, nothing changes.
pub fn shorten_slice() {
    #[cfg(target_os = "linux")]
    let _ = linux::set_slice(linux::SHORT_SLICE);
}

/// Lowers the priority of the current thread, and lets it be interrupted. Where the system forbids it, the priority stays.
pub fn lower_priority(niceness: i32) {
    #[cfg(target_os = "linux")]
    let _ = linux::set_slice(std::time::Duration::ZERO);
    let _ = rustix::process::nice(niceness);
}

/// Lets sleeps of the current thread end in time. By default they end up to 50 µs late on Linux; where it is forbidden, it stays so.
pub fn end_sleeps_in_time() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::time::Duration;

    /// For threads that serve connections: the shortest slice that Linux has. The default was 1.4 ms on two processors.
    pub(super) const SHORT_SLICE: Duration = Duration::from_micros(100);

    /// Sets the time slice of the current thread; zero is the default of the system.
    pub(super) fn set_slice(slice: Duration) -> io::Result<()> {
        let mut attributes = attributes()?;
        // The field has another meaning for real-time policies.
        if attributes.sched_policy != libc::SCHED_OTHER.cast_unsigned() {
            return Ok(());
        }
        attributes.sched_runtime = u64::try_from(slice.as_nanos()).map_err(io::Error::other)?;
        // SAFETY: the kernel reads as many bytes as `size` says, which are those of the structure.
        #[expect(unsafe_code, reason = "no library has a safe function for time slices")]
        let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        succeeded(result)
    }

    /// The scheduling attributes of the current thread.
    pub(super) fn attributes() -> io::Result<libc::sched_attr> {
        const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
        let mut attributes = libc::sched_attr {
            size: SIZE,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the kernel writes at most `SIZE` bytes, which are those of the structure.
        #[expect(unsafe_code, reason = "no library has a safe function for time slices")]
        let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
        succeeded(result).map(|()| attributes)
    }

    fn succeeded(result: libc::c_long) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::Duration;

    use super::linux::{SHORT_SLICE, attributes};
    use super::*;

    /// What the kernel says of the current thread: its niceness, and its slice if the kernel has slices (0 in older ones).
    fn current() -> (i32, Duration) {
        let attributes = attributes().expect("the attributes of this thread");
        (attributes.sched_nice, Duration::from_nanos(attributes.sched_runtime))
    }

    #[test]
    fn slice_of_a_thread_is_inherited_until_its_priority_is_lowered() {
        let check = || {
            let (niceness, default) = current();
            shorten_slice();
            let short = if default.is_zero() { Duration::ZERO } else { SHORT_SLICE };
            assert_eq!(current(), (niceness, short));
            let lowered = std::thread::spawn(move || {
                assert_eq!(current(), (niceness, short), "a new thread is like the one that started it");
                lower_priority(3);
                current()
            });
            assert_eq!(lowered.join().expect("no panic"), ((niceness + 3).min(19), default));
            assert_eq!(current(), (niceness, short), "other threads stay as they are");
        };
        std::thread::spawn(check).join().expect("no panic");
    }
}
