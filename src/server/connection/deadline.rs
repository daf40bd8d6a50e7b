//! When a connection, or one exchange of an HTTP/2 connection, has to end.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Why the gateway ended a connection, or one exchange of an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// No complete head of a request arrived in time.
    HeadTimeout,
    /// There was no request for too long.
    IdleTimeout,
    /// The client did not read a response in time.
    ResponseTimeout,
    /// It had no request in progress, and its room was needed.
    Replaced,
    /// The memory for heads and responses was used up, or its client had its share.
    Memory,
}

impl EndCause {
    pub const ALL: [Self; 5] =
        [Self::HeadTimeout, Self::IdleTimeout, Self::ResponseTimeout, Self::Replaced, Self::Memory];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::Replaced => "replaced",
            Self::Memory => "memory",
        }
    }
}

/// A time that moves while a task waits for it.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Mutex<Option<(Instant, EndCause)>>,
    /// Wakes the waiting task when the time becomes earlier; it notices a later one by itself.
    changed: Notify,
}

impl Deadline {
    /// The end comes after this time, instead of the one that was set before.
    pub fn set(&self, time: Duration, cause: EndCause) {
        let new = Instant::now() + time;
        let old = self.at.lock().replace((new, cause));
        if old.is_none_or(|(old, _)| new < old) {
            self.changed.notify_one();
        }
    }

    /// There is no end for now.
    pub fn clear(&self) {
        *self.at.lock() = None;
    }

    /// Waits until the time has passed, and returns the cause. One task may wait.
    pub async fn passed(&self) -> EndCause {
        loop {
            let next = *self.at.lock();
            match next {
                Some((at, cause)) if at <= Instant::now() => return cause,
                Some((at, _)) => drop(timeout_at(at, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadline_moves_while_a_task_waits() {
        let (deadline, start) = (Deadline::default(), Instant::now());
        let seconds = Duration::from_secs;
        let moves = async {
            tokio::time::sleep(seconds(1)).await;
            deadline.set(seconds(5), EndCause::HeadTimeout);
            tokio::time::sleep(seconds(1)).await;
            deadline.clear();
            tokio::time::sleep(seconds(10)).await;
            deadline.set(seconds(18), EndCause::IdleTimeout);
            tokio::task::yield_now().await;
            deadline.set(seconds(8), EndCause::ResponseTimeout);
        };
        let (cause, ()) = tokio::join!(deadline.passed(), moves);
        assert_eq!((cause, Instant::now()), (EndCause::ResponseTimeout, start + seconds(20)));
    }
}
