//! Checks of the command stream for pages that do not show its last id themselves, because it is on another master than their channel.
//!
//! At most one check is in flight, and one serves all pages that arrived before it was sent.

use tokio::sync::watch;

/// The checks of one command stream.
#[derive(Default)]
pub(super) struct CommandChecks(watch::Sender<CheckState>);

/// Checks are numbered from one.
#[derive(Default)]
struct CheckState {
    /// The last check that a page waits for.
    requested: u64,
    /// The last check that was sent.
    sent: u64,
    /// The last check whose answer counts.
    answered: u64,
    /// A task sends checks. It looks at `requested` before it ends.
    has_task: bool,
}

impl CommandChecks {
    /// Waits for the answer to a check that is sent after this call. `start` starts the task that sends checks.
    pub async fn wait(&self, start: impl FnOnce()) {
        // Subscribed first: the task ends when no page waits.
        let mut state = self.0.subscribe();
        let (number, starts_task) = self.request();
        if starts_task {
            start();
        }
        // An error means that the sender was dropped, but `self` owns it.
        let _ = state.wait_for(|state| state.answered >= number).await;
    }

    /// Requests a check that is sent after this call. Returns its number, and whether the caller has to start the task.
    fn request(&self) -> (u64, bool) {
        let mut result = (0, false);
        self.0.send_modify(|state| {
            let next = state.sent + 1;
            state.requested = state.requested.max(next);
            result = (next, !std::mem::replace(&mut state.has_task, true));
        });
        result
    }

    /// The number of the check to send now; `None` if the task ends, because no page waits for one.
    pub fn begin(&self) -> Option<u64> {
        let mut begun = None;
        let has_waiters = self.0.receiver_count() > 0;
        self.0.send_if_modified(|state| {
            state.has_task = has_waiters && state.requested > state.answered;
            if state.has_task {
                state.sent += 1;
                begun = Some(state.sent);
            }
            // Pages wait for answers only.
            false
        });
        begun
    }

    pub fn answered(&self, check: u64) {
        self.0.send_modify(|state| state.answered = check);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_serves_only_those_who_asked_before_it_was_sent() {
        let checks = CommandChecks::default();
        let _waiter = checks.0.subscribe();
        assert_eq!((checks.request(), checks.request()), ((1, true), (1, false)));
        assert_eq!(checks.begin(), Some(1));
        assert_eq!(checks.request(), (2, false), "the first one was sent already");
        checks.answered(1);
        assert_eq!(checks.begin(), Some(2));
        // Without an answer it is sent again, under another number that serves the same.
        assert_eq!(checks.begin(), Some(3));
        checks.answered(3);
        assert_eq!((checks.begin(), checks.request()), (None, (4, true)));
    }

    #[test]
    fn no_check_is_sent_when_no_page_waits() {
        let checks = CommandChecks::default();
        let waiter = checks.0.subscribe();
        assert_eq!(checks.request(), (1, true));
        drop(waiter);
        assert_eq!((checks.begin(), checks.request()), (None, (1, true)));
    }
}
