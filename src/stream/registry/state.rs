//! The state of the registry: which streams there are, and when each has to end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::policy::stream_selector::StreamSelector;
use crate::stream::registry::{AbortSignal, EndReason, StreamInfo};

/// The time between the request to end a stream and the abort of its connection.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// The same for a revoked stream, which must not hold access for long.
const REVOKED_CLOSE_GRACE: Duration = Duration::from_millis(250);
/// Revocations that are kept for streams whose request is still being decided. If there were more during a decision, the
/// stream counts as revoked, since the older ones cannot be checked.
pub const MAX_RECENT_REVOCATIONS: usize = 256;

#[derive(Default)]
pub struct State {
    pub last_id: u64,
    /// By id, which is the order in which they were opened.
    pub streams: BTreeMap<u64, RegisteredStream>,
    /// The next steps to end streams, by time.
    pub due: BTreeSet<(Instant, u64, Step)>,
    /// Streams of an older generation than this are rotated, spread over this time.
    pub rotation: Option<(u64, Duration)>,
    /// All streams end, also those that register from now on.
    pub draining: bool,
    /// The latest revocations, newest last.
    pub recent_revocations: VecDeque<StreamSelector>,
    /// The number of revocations ever.
    pub revocations: u64,
}

/// A stream, from the moment that its permit is taken.
pub struct RegisteredStream {
    pub signal: Arc<EndSignal>,
    /// Set once the request is decided.
    pub info: Option<Arc<StreamInfo>>,
    pub opened_at: Instant,
    pub planned_end: Option<(Instant, EndReason)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Ask the stream to end.
    End(EndReason),
    /// Abort its connection.
    Abort,
}

/// Tells one stream to end.
#[derive(Default)]
pub struct EndSignal {
    pub requested: AtomicBool,
    /// The stream must not deliver anything more.
    pub revoked: AtomicBool,
    pub waker: AtomicWaker,
    pub abort: AbortSignal,
}

impl State {
    /// Keeps a revocation for streams that register later.
    pub fn note_revocation(&mut self, selector: &StreamSelector) {
        self.revocations += 1;
        self.recent_revocations.push_back(selector.clone());
        if self.recent_revocations.len() > MAX_RECENT_REVOCATIONS {
            self.recent_revocations.pop_front();
        }
    }

    /// Plans the end of a stream, unless it ends before that anyway.
    pub fn plan_end(&mut self, id: u64, at: Instant, reason: EndReason) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.planned_end.is_some_and(|(planned, _)| planned <= at) {
            return;
        }
        if let Some((planned, reason)) = stream.planned_end.replace((at, reason)) {
            self.due.remove(&(planned, id, Step::End(reason)));
        }
        self.due.insert((at, id, Step::End(reason)));
    }

    /// Ends a stream now. The shorter grace also applies to a stream that was asked to end before and has not closed.
    pub fn revoke(&mut self, id: u64, now: Instant) {
        if let Some(stream) = self.streams.get(&id) {
            stream.signal.revoked.store(true, Ordering::Release);
        }
        self.plan_end(id, now, EndReason::Revoked);
        self.due.insert((now + REVOKED_CLOSE_GRACE, id, Step::Abort));
    }

    /// Whether a revocation after the first `since` ones matches.
    pub fn was_revoked(&self, info: &StreamInfo, since: u64) -> bool {
        let new = usize::try_from(self.revocations - since).unwrap_or(usize::MAX);
        new > self.recent_revocations.len()
            || self.recent_revocations.iter().rev().take(new).any(|selector| info.matches(selector))
    }
}
