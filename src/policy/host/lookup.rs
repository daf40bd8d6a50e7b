//! `tidegate:policy/lookup`: reads in the store, within the prefixes that the operator allowed.

use std::sync::Arc;

use super::State;
use super::tidegate::policy::lookup::{Error, Host};
use crate::store::StoreError;

/// A longer key, field or member is one that no operator allowed: a request's head is not larger by default.
const LONGEST: usize = 64 << 10;

impl State {
    async fn look_up<T>(
        &mut self,
        key: &str,
        part: &str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        let allowed = self.surroundings.prefixes.iter().any(|prefix| key.starts_with(&**prefix));
        if !allowed || key.len().max(part.len()) > LONGEST {
            return Err(Error::Denied);
        }
        if !self.has_request() {
            return Err(Error::Unavailable("there is no request yet".into()));
        }
        self.lookups = self.lookups.saturating_add(1);
        if self.lookups > self.surroundings.max_lookups {
            return Err(Error::Unavailable("the decision has had its look-ups".into()));
        }
        match tokio::time::timeout(self.surroundings.lookup_timeout, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                // A policy can bring that about as often as it likes.
                if self.surroundings.log.admits() {
                    tracing::warn!(policy = %self.digest, request = %self.request_id, %error, "a look-up failed");
                }
                Err(Error::Unavailable(match error {
                    StoreError::WrongType => "the key holds another type of value".into(),
                    _ => "the store does not answer".into(),
                }))
            }
            Err(_) => Err(Error::Unavailable("the store did not answer in time".into())),
        }
    }
}

impl Host for State {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, Error> {
        let surroundings = Arc::clone(&self.surroundings);
        self.look_up(&key, "", surroundings.store.get(&key)).await
    }

    async fn hash_get(&mut self, key: String, field: String) -> Result<Option<Vec<u8>>, Error> {
        let surroundings = Arc::clone(&self.surroundings);
        self.look_up(&key, &field, surroundings.store.hash_get(&key, &field)).await
    }

    async fn set_contains(&mut self, key: String, member: String) -> Result<bool, Error> {
        let surroundings = Arc::clone(&self.surroundings);
        self.look_up(&key, &member, surroundings.store.set_contains(&key, &member)).await
    }
}
