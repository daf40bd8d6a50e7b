//! `reject.delay`: a client that was rejected and retries at once waits before the policy is evaluated again.
//!
//! The stock client retries every second, without end, and has no timeout while it connects: a browser tab that is signed out costs one
//! decision per delay, and an idle connection in between.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::authz::cache::key::without_positions;
use crate::policy::{Outcome, Request};

/// A retry later than this after the rejection is not delayed.
const RETRY_WINDOW: Duration = Duration::from_secs(10);
/// Rejected clients that are remembered for each permit: most rejected clients never retry.
const REMEMBERED_PER_PERMIT: usize = 8;

/// Delays the retries of rejected clients.
pub struct RejectionDelay {
    /// Limits how many requests wait at once.
    permits: Semaphore,
    max_delayed: usize,
    rejected: Mutex<RejectedClients>,
    hasher: RandomState,
    /// The generation of the active policy: a rejection by an earlier one says nothing about this one.
    generation: watch::Receiver<u64>,
    closed: watch::Sender<bool>,
}

/// Recently rejected clients, by a hash. A hash collision delays a client without reason; it never admits one.
struct RejectedClients {
    young: HashMap<ClientKey, Instant>,
    /// The clients that were young before `since`.
    old: HashMap<ClientKey, Instant>,
    since: Instant,
}

/// Identifies a client's retry: the same credentials, channels and address, under the same generation of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    hash: u64,
    generation: u64,
}

impl RejectionDelay {
    /// Delays at most `permits` requests at once.
    pub fn new(permits: usize, generation: watch::Receiver<u64>) -> Self {
        let (young, old, since) = (HashMap::new(), HashMap::new(), Instant::now());
        let max_delayed = permits.min(Semaphore::MAX_PERMITS);
        Self {
            permits: Semaphore::new(max_delayed),
            max_delayed,
            rejected: Mutex::new(RejectedClients { young, old, since }),
            hasher: RandomState::new(),
            generation,
            closed: watch::Sender::new(false),
        }
    }

    /// The key of the client that sent this request; `None` if `reject.delay` is 0, and if nothing identifies the client: neither an address
    /// nor credentials. Other credentials are another client.
    pub fn client_key(&self, delay: Duration, request: &Request) -> Option<ClientKey> {
        let is_unidentifiable = || request.client_address.is_none() && !has_credentials(&request.headers);
        if delay.is_zero() || is_unidentifiable() {
            return None;
        }
        let mut hasher = self.hasher.build_hasher();
        let mut add = |part: &[u8]| {
            hasher.write_usize(part.len());
            hasher.write(part);
        };
        add(request.client_address_text().as_bytes());
        add(request.authority.as_bytes());
        let (path, query) = request.path_with_query.split_once('?').unwrap_or((&request.path_with_query, ""));
        add(path.as_bytes());
        for parameter in without_positions(query) {
            add(parameter.as_bytes());
        }
        for name in [COOKIE, AUTHORIZATION] {
            add(name.as_str().as_bytes());
            request.headers.get_all(name).iter().for_each(|value| add(value.as_bytes()));
        }
        Some(ClientKey { hash: hasher.finish(), generation: *self.generation.borrow() })
    }

    /// How many requests wait.
    pub fn delayed(&self) -> usize {
        self.max_delayed - self.permits.available_permits()
    }

    /// Waits for `delay` if this client was rejected recently and a permit is free; a new policy or the shutdown ends the wait.
    pub async fn wait(&self, delay: Duration, client: Option<ClientKey>) {
        let Some(client) = client.filter(|client| self.rejected.lock().contains(*client)) else { return };
        let Ok(_permit) = self.permits.try_acquire() else { return };
        let (mut closed, mut generation) = (self.closed.subscribe(), self.generation.clone());
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            // A dropped sender activates no more policies, and there is nothing left to serve.
            _ = generation.wait_for(|generation| *generation != client.generation) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    /// Remembers the client if the policy rejected it.
    pub fn record(&self, client: Option<ClientKey>, outcome: &Outcome) {
        // Only client errors are delayed: a redirection or a page is an answer, and a server error may be over in a second.
        if let (Some(client), Outcome::Rejected(rejection)) = (client, outcome)
            && rejection.status.is_client_error()
        {
            self.rejected.lock().add(client, self.max_delayed.saturating_mul(REMEMBERED_PER_PERMIT));
        }
    }

    /// Ends all delays, for good.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }
}

fn has_credentials(headers: &HeaderMap) -> bool {
    headers.contains_key(COOKIE) || headers.contains_key(AUTHORIZATION)
}

impl RejectedClients {
    fn expire(&mut self) {
        let now = Instant::now();
        if now - self.since >= RETRY_WINDOW {
            let old = std::mem::take(&mut self.young);
            self.old = if now - self.since >= 2 * RETRY_WINDOW { HashMap::new() } else { old };
            self.since = now;
        }
    }

    fn contains(&mut self, client: ClientKey) -> bool {
        self.expire();
        let at = self.young.get(&client).or_else(|| self.old.get(&client));
        at.is_some_and(|at| at.elapsed() < RETRY_WINDOW)
    }

    fn add(&mut self, client: ClientKey, max: usize) {
        self.expire();
        // Beyond the limit new clients are not remembered, and so not delayed.
        if self.young.len() < max || self.young.contains_key(&client) {
            self.young.insert(client, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
