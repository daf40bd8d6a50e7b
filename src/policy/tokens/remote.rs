//! Keys behind a URL. One task fetches them, before they grow old and when somebody asks for one that is not there; so there is
//! never more than one fetch, whoever asks.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use http_cache_semantics::CachePolicy;
use moka::sync::Cache;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::KeySet;
use crate::egress::{self, Egress, Patience};

/// Ids that are known not to be there.
const UNKNOWN: u64 = 1024;
/// Ids that one fetch is to bring; more are not remembered.
const SOUGHT: usize = 256;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Keys are good for so long at least, whatever the response says of itself.
    pub min_age: Duration,
    /// And for so long at most.
    pub max_age: Duration,
    /// After that they serve for so long while they cannot be fetched anew.
    pub stale_if_error: Duration,
    /// An unknown key's id causes a fetch this often at most.
    pub cooldown: Duration,
    /// One that was not found is not looked for again before this.
    pub unknown: Duration,
    /// After a failure; doubled after each further one, up to half a minute.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            min_age: Duration::from_secs(5 * 60),
            max_age: Duration::from_secs(60 * 60),
            stale_if_error: Duration::from_secs(60 * 60),
            cooldown: Duration::from_secs(10),
            unknown: Duration::from_secs(60),
            retry: Duration::from_secs(1),
        }
    }
}

/// The longest time between two tries.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Keys behind a URL.
pub struct Remote {
    shared: Arc<Shared>,
    /// The task that fetches, once it has begun; none if there is no thread for it.
    keeper: OnceLock<Option<egress::Task<()>>>,
}

struct Shared {
    uri: http::Uri,
    egress: Arc<Egress>,
    timing: Timing,
    state: Mutex<State>,
    /// How many fetches have come to their end.
    fetches: watch::Sender<u64>,
    /// Somebody asks for a key that is not there.
    wanted: Notify,
    unknown: Cache<String, ()>,
}

#[derive(Default)]
struct State {
    keys: Option<Held>,
    fetching: bool,
    /// The end of the last fetch.
    last: Option<Instant>,
    /// Fetches that failed since the last one that did not.
    failures: u32,
    /// What the fetch that is under way is to bring.
    sought: Vec<String>,
}

struct Held {
    keys: Arc<KeySet>,
    /// After this they are nobody's keys any more.
    until: Instant,
}

/// What there is for a token.
pub(super) enum Keys {
    Here(Arc<KeySet>),
    Wait(Wait),
    Unavailable,
}

/// The fetch that is under way.
#[derive(Clone, Debug)]
pub struct Wait(watch::Receiver<u64>);

impl Wait {
    /// Waits until the fetch has come to an end, good or bad, or the time is over. Says whether it has.
    pub async fn until(mut self, deadline: Instant) -> bool {
        timeout_at(deadline, self.0.changed()).await.is_ok()
    }
}

impl Remote {
    /// Keys behind a URL, not fetched yet.
    #[must_use]
    pub fn new(uri: http::Uri, egress: Arc<Egress>, timing: Timing) -> Self {
        let shared = Shared {
            uri,
            egress,
            timing,
            state: Mutex::default(),
            fetches: watch::Sender::new(0),
            wanted: Notify::new(),
            unknown: Cache::builder().max_capacity(UNKNOWN).time_to_live(timing.unknown).build(),
        };
        Self { shared: Arc::new(shared), keeper: OnceLock::new() }
    }

    /// Begins to fetch, if that has not begun yet.
    pub fn start(&self) {
        self.keeper.get_or_init(|| {
            self.shared.state().fetching = true;
            let task = egress::spawn(keep(Arc::clone(&self.shared)));
            if let Err(error) = &task {
                tracing::error!(%error, "the keys of token profiles cannot be fetched");
                self.shared.state().fetching = false;
            }
            task.ok()
        });
    }

    pub(super) fn keys(&self, kid: Option<&str>) -> Keys {
        self.start();
        let shared = &self.shared;
        let now = Instant::now();
        let mut state = shared.state();
        let held = state.keys.as_ref().filter(|held| now < held.until).map(|held| Arc::clone(&held.keys));
        let Some(keys) = held else {
            // After a failure nobody waits: the task tries again by itself.
            return if state.fetching && state.failures == 0 { shared.wait() } else { Keys::Unavailable };
        };
        let Some(kid) = kid.filter(|kid| !keys.knows(kid)) else { return Keys::Here(keys) };
        if shared.unknown.contains_key(kid) {
            return Keys::Here(keys);
        }
        if state.failures > 0 {
            // The key may be there where nobody answers.
            return Keys::Unavailable;
        }
        if !state.fetching {
            if state.last.is_some_and(|last| now < last + shared.timing.cooldown) {
                return Keys::Here(keys);
            }
            state.fetching = true;
            shared.wanted.notify_one();
        }
        if state.sought.len() < SOUGHT {
            state.sought.push(kid.to_owned());
        }
        shared.wait()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called under the lock, so that the end of the fetch comes after.
    fn wait(&self) -> Keys {
        Keys::Wait(Wait(self.fetches.subscribe()))
    }

    /// Fetches the keys, and says for how long they are good.
    async fn fetch(&self) -> anyhow::Result<(KeySet, Duration)> {
        let request = Request::get(self.uri.clone()).header("accept", "application/json, application/jwk-set+json");
        let request = request.body(())?;
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let sent = Request::from_parts(request.clone().into_parts().0, body);
        let response = self.egress.send(sent, Patience::default()).await?;
        anyhow::ensure!(
            response.status() == StatusCode::OK,
            "it answers {}, which is not 200 (redirects are not followed)",
            response.status().as_u16()
        );
        let (parts, body) = response.into_parts();
        let now = SystemTime::now();
        let fresh = CachePolicy::new(&request, &http::Response::from_parts(parts, ())).time_to_live(now);
        let keys = KeySet::jwks(&body.collect().await?.to_bytes(), false)?;
        Ok((keys, fresh.clamp(self.timing.min_age, self.timing.max_age)))
    }

    /// Takes what came of a fetch; says when the next one is due.
    fn took(&self, fetched: anyhow::Result<(KeySet, Duration)>) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        state.fetching = false;
        state.last = Some(now);
        // Less its query, in which some services want a key.
        let url = format!("{}{}", self.uri.authority().map_or("", http::uri::Authority::as_str), self.uri.path());
        let sought = std::mem::take(&mut state.sought);
        let due = match fetched {
            Ok((keys, fresh)) => {
                for kid in sought.into_iter().filter(|kid| !keys.knows(kid)) {
                    self.unknown.insert(kid, ());
                }
                if std::mem::take(&mut state.failures) > 0 {
                    tracing::info!(%url, "the keys can be fetched again");
                }
                state.keys = Some(Held { keys: Arc::new(keys), until: now + fresh + self.timing.stale_if_error });
                // Before they grow old, so that nobody waits.
                now + fresh.mul_f64(0.8)
            }
            Err(error) => {
                let serving = state.keys.as_ref().is_some_and(|held| now < held.until);
                let error = format!("{error:#}");
                tracing::warn!(%url, %error, serving_old_keys = serving, "the keys of a token profile cannot be fetched");
                let wait = self.timing.retry.saturating_mul(1 << state.failures.min(8)).min(MAX_RETRY);
                state.failures += 1;
                now + wait
            }
        };
        self.fetches.send_modify(|fetches| *fetches += 1);
        due
    }
}

async fn keep(shared: Arc<Shared>) {
    loop {
        let due = shared.took(shared.fetch().await);
        tokio::select! {
            () = sleep_until(due) => {}
            () = shared.wanted.notified() => {}
        }
        shared.state().fetching = true;
    }
}

#[cfg(test)]
impl Remote {
    /// Fetches once, and says for how long the keys are good.
    pub async fn fresh(&self) -> Duration {
        self.shared.fetch().await.expect("keys").1
    }
}
