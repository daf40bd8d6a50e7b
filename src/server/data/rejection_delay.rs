//! `reject.hold`: a client that was refused and comes back at once waits before the policy is asked again.
//!
//! The stock client tries again every second, for ever, and has no timer while it connects: so a tab that is logged out costs a
//! decision every so often, and an idle socket in between.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, COOKIE};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::policy::{Outcome, Request, without_acks};

/// Who comes back later than this after a refusal is asked about at once.
const AGAIN: Duration = Duration::from_secs(10);
/// Refusals that are remembered for each request that may wait: most refused clients never come back.
const REMEMBERED: usize = 8;

/// Those that wait.
pub struct Hold {
    places: Semaphore,
    most: usize,
    refused: Mutex<Refused>,
    remembered: usize,
    hasher: RandomState,
    /// The policy's swaps: what another one refused says nothing.
    swaps: watch::Receiver<u64>,
    closed: watch::Sender<bool>,
}

/// Who was refused of late, by a hash of who it is. A collision makes somebody wait who need not; it lets nobody in.
struct Refused {
    young: HashMap<Who, Instant>,
    /// What was young before `since`.
    old: HashMap<Who, Instant>,
    since: Instant,
}

/// Who asks for what, and of which policy: with the same credentials, for the same channels, from the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    hash: u64,
    swap: u64,
}

impl Hold {
    /// At most so many at once.
    pub fn new(places: usize, swaps: watch::Receiver<u64>) -> Self {
        let (young, old, since) = (HashMap::new(), HashMap::new(), Instant::now());
        let most = places.min(Semaphore::MAX_PERMITS);
        Self {
            places: Semaphore::new(most),
            most,
            refused: Mutex::new(Refused { young, old, since }),
            remembered: most.saturating_mul(REMEMBERED),
            hasher: RandomState::new(),
            swaps,
            closed: watch::Sender::new(false),
        }
    }

    /// Who this is, if anybody is held for any time. Whoever shows other credentials is somebody else, and waits for nothing.
    pub fn who(&self, time: Duration, request: &Request) -> Option<Who> {
        if time.is_zero() {
            return None;
        }
        let mut hasher = self.hasher.build_hasher();
        let mut add = |part: &[u8]| {
            hasher.write_usize(part.len());
            hasher.write(part);
        };
        add(request.client_address.as_bytes());
        add(request.authority.as_bytes());
        let (path, query) = request.path_with_query.split_once('?').unwrap_or((&request.path_with_query, ""));
        add(path.as_bytes());
        for parameter in without_acks(query) {
            add(parameter.as_bytes());
        }
        for name in [COOKIE, AUTHORIZATION] {
            add(name.as_str().as_bytes());
            request.headers.get_all(name).iter().for_each(|value| add(value.as_bytes()));
        }
        Some(Who { hash: hasher.finish(), swap: *self.swaps.borrow() })
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.most - self.places.available_permits()
    }

    /// Waits for so long, if this client was refused just now and there is room; then it is decided anew.
    pub async fn wait(&self, time: Duration, who: Option<Who>) {
        let Some(who) = who.filter(|who| self.refused().has(*who)) else { return };
        let Ok(_place) = self.places.try_acquire() else { return };
        let (mut closed, mut swaps) = (self.closed.subscribe(), self.swaps.clone());
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            // A sender that is gone swaps nothing any more, and nobody is left to serve.
            _ = swaps.wait_for(|swap| *swap != who.swap) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    /// Remembers what came of asking.
    pub fn decided(&self, who: Option<Who>, outcome: &Outcome) {
        let Some(who) = who else { return };
        if matches!(outcome, Outcome::Rejected(rejection) if is_refusal(rejection.status)) {
            self.refused().add(who, self.remembered);
        }
    }

    /// Nobody waits from now on.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A redirection or a page is an answer; and what the server cannot do now may be possible in a second.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error()
}

impl Refused {
    fn turn(&mut self) {
        let now = Instant::now();
        if now - self.since >= AGAIN {
            let old = std::mem::take(&mut self.young);
            self.old = if now - self.since >= 2 * AGAIN { HashMap::new() } else { old };
            self.since = now;
        }
    }

    fn has(&mut self, who: Who) -> bool {
        self.turn();
        let at = self.young.get(&who).or_else(|| self.old.get(&who));
        at.is_some_and(|at| at.elapsed() < AGAIN)
    }

    fn add(&mut self, who: Who, most: usize) {
        self.turn();
        // When there are so many, those that come now are not remembered, and not held.
        if self.young.len() < most || self.young.contains_key(&who) {
            self.young.insert(who, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
