//! Keys from a JWKS URL. One task fetches them, before they become stale and when a token names an unknown key, so that any number of
//! decisions causes one fetch.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use http_cache_semantics::CachePolicy;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::egress::{self, Egress, RequestTimeouts};
use crate::tokens::key::KeySet;
use crate::util::backoff::Backoff;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct JwksTiming {
    /// Keys are fresh for at least this long, whatever the response's cache headers say.
    pub min_age: Duration,
    /// Keys are fresh for at most this long.
    pub max_age: Duration,
    /// Stale keys are used for this long while fetching fails.
    pub stale_if_error: Duration,
    /// The minimum time between a fetch and one that an unknown key id causes. Until then such an id is unknown; none is remembered, so that
    /// a guess does not delay the key that is published afterwards.
    pub cooldown: Duration,
    /// The delay after a failed fetch; doubled after each further failure, up to [`MAX_RETRY_DELAY`].
    pub retry_delay: Duration,
}

impl Default for JwksTiming {
    fn default() -> Self {
        Self {
            min_age: Duration::from_secs(5 * 60),
            max_age: Duration::from_secs(60 * 60),
            stale_if_error: Duration::from_secs(60 * 60),
            cooldown: Duration::from_secs(10),
            retry_delay: Duration::from_secs(1),
        }
    }
}

const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

pub struct JwksSource {
    pub(super) shared: Arc<JwksShared>,
    /// The task that fetches, once started; `None` if it could not be started.
    fetcher: OnceLock<Option<JoinSet<()>>>,
}

pub(super) struct JwksShared {
    uri: http::Uri,
    egress: Arc<Egress>,
    timing: JwksTiming,
    state: Mutex<JwksState>,
    /// Counts completed fetches, so that decisions can wait for the next one.
    completed_fetches: watch::Sender<u64>,
    /// Wakes the fetcher when a token names an unknown key.
    unknown_key_seen: Notify,
}

#[derive(Default)]
struct JwksState {
    keys: Option<KeyCache>,
    is_fetching: bool,
    last_fetch_ended: Option<Instant>,
    /// Whether the last fetch failed.
    is_failing: bool,
}

struct KeyCache {
    keys: Arc<KeySet>,
    /// The end of the stale period.
    usable_until: Instant,
}

/// The keys for a token.
pub(super) enum Keys {
    Available(Arc<KeySet>),
    Pending(KeyFetch),
    Unavailable,
}

/// A fetch in progress.
#[derive(Clone, Debug)]
pub struct KeyFetch(watch::Receiver<u64>);

impl KeyFetch {
    /// Waits until the fetch has succeeded or failed, or the deadline; returns whether it has.
    pub async fn until(mut self, deadline: Instant) -> bool {
        timeout_at(deadline, self.0.changed()).await.is_ok()
    }
}

impl JwksSource {
    pub fn new(uri: http::Uri, egress: Arc<Egress>, timing: JwksTiming) -> Self {
        let shared = JwksShared {
            uri,
            egress,
            timing,
            state: Mutex::default(),
            completed_fetches: watch::Sender::new(0),
            unknown_key_seen: Notify::new(),
        };
        Self { shared: Arc::new(shared), fetcher: OnceLock::new() }
    }

    /// Starts the task that fetches, unless it runs already.
    pub fn start(&self) {
        self.fetcher.get_or_init(|| {
            self.shared.state().is_fetching = true;
            let task = egress::spawn(run_fetcher(Arc::clone(&self.shared)));
            if let Err(error) = &task {
                tracing::error!(%error, "cannot start the task that fetches the keys of token profiles");
                self.shared.state().is_fetching = false;
            }
            task.ok()
        });
    }

    pub(super) fn keys(&self, kid: Option<&str>) -> Keys {
        self.start();
        let shared = &self.shared;
        let now = Instant::now();
        let mut state = shared.state();
        let cached = state.keys.as_ref().filter(|cache| now < cache.usable_until).map(|cache| Arc::clone(&cache.keys));
        let Some(keys) = cached else {
            // After a failure decisions do not wait, because the next attempt may fail as well.
            return if state.is_fetching && !state.is_failing { shared.pending() } else { Keys::Unavailable };
        };
        if kid.is_none_or(|kid| keys.has_key_for(kid)) {
            return Keys::Available(keys);
        }
        if state.is_failing {
            // The key may exist, but its server cannot be reached, so the token is not untrusted.
            return Keys::Unavailable;
        }
        if !state.is_fetching {
            if state.last_fetch_ended.is_some_and(|ended| now < ended + shared.timing.cooldown) {
                return Keys::Available(keys);
            }
            state.is_fetching = true;
            shared.unknown_key_seen.notify_one();
        }
        shared.pending()
    }
}

impl JwksShared {
    /// Lets an unknown key id cause a fetch.
    #[cfg(test)]
    pub(super) fn end_cooldown(&self) {
        self.state().last_fetch_ended = None;
    }

    fn state(&self) -> MutexGuard<'_, JwksState> {
        self.state.lock()
    }

    /// The caller holds the lock of `state`, so that the fetch cannot complete before the subscription.
    fn pending(&self) -> Keys {
        Keys::Pending(KeyFetch(self.completed_fetches.subscribe()))
    }

    /// Fetches the keys; returns how long they are fresh.
    pub(super) async fn fetch(&self) -> anyhow::Result<(KeySet, Duration)> {
        let request = Request::get(self.uri.clone()).header("accept", "application/json, application/jwk-set+json");
        let request = request.body(())?;
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let sent = Request::from_parts(request.clone().into_parts().0, body);
        let response = self.egress.send(sent, RequestTimeouts::default()).await?;
        anyhow::ensure!(
            response.status() == StatusCode::OK,
            "status {}, expected 200 (redirects are not followed)",
            response.status().as_u16()
        );
        let (parts, body) = response.into_parts();
        let now = SystemTime::now();
        let fresh = CachePolicy::new(&request, &http::Response::from_parts(parts, ())).time_to_live(now);
        let keys = KeySet::from_jwks(&body.collect().await?.to_bytes(), false)?;
        Ok((keys, fresh.clamp(self.timing.min_age, self.timing.max_age)))
    }

    /// Stores the result of a fetch; returns when the next one is due.
    fn complete_fetch(&self, result: anyhow::Result<(KeySet, Duration)>, retry: &mut Backoff) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        state.is_fetching = false;
        state.last_fetch_ended = Some(now);
        // Without the query, which may contain a secret.
        let url = format!("{}{}", self.uri.authority().map_or("", Authority::as_str), self.uri.path());
        let due = match result {
            Ok((keys, fresh)) => {
                retry.reset();
                if std::mem::take(&mut state.is_failing) {
                    tracing::info!(%url, "fetching the keys of a token profile succeeds again");
                }
                state.keys =
                    Some(KeyCache { keys: Arc::new(keys), usable_until: now + fresh + self.timing.stale_if_error });
                // Before the keys become stale, so that no decision waits.
                now + fresh.mul_f64(0.8)
            }
            Err(error) => {
                let using_cached_keys = state.keys.as_ref().is_some_and(|cache| now < cache.usable_until);
                let error = format!("{error:#}");
                tracing::warn!(%url, %error, using_cached_keys, "cannot fetch the keys of a token profile");
                state.is_failing = true;
                now + retry.next_delay()
            }
        };
        self.completed_fetches.send_modify(|count| *count += 1);
        due
    }
}

async fn run_fetcher(shared: Arc<JwksShared>) {
    let mut retry = Backoff::new(shared.timing.retry_delay, MAX_RETRY_DELAY);
    loop {
        let due = shared.complete_fetch(shared.fetch().await, &mut retry);
        tokio::select! {
            () = sleep_until(due) => {}
            () = shared.unknown_key_seen.notified() => {}
        }
        shared.state().is_fetching = true;
    }
}
