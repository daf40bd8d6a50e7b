//! `tidegate:policy/lookup`: reads from the store, of keys with the prefixes that the operator allows.

use std::sync::Arc;

use crate::store::StoreError;
use crate::wasm::host::tidegate::policy::lookup::{Error, Host};
use crate::wasm::host::{NO_REQUEST, State};
use crate::wasm::host_trace::{HostAnswer, HostCall, NOT_RECORDED, Octets};

/// Bytes of a key, field or member. A request's head is not larger by default, so no policy needs longer ones.
const MAX_KEY_BYTES: usize = 64 << 10;

/// A value that can be recorded and replayed.
trait LookupValue: Sized {
    fn to_answer(&self) -> HostAnswer;
    /// `None` if the answer is of another type.
    fn from_answer(answer: HostAnswer) -> Option<Self>;
}

impl LookupValue for Option<Vec<u8>> {
    fn to_answer(&self) -> HostAnswer {
        HostAnswer::Value(self.clone().map(Octets))
    }

    fn from_answer(answer: HostAnswer) -> Option<Self> {
        if let HostAnswer::Value(value) = answer { Some(value.map(|Octets(bytes)| bytes)) } else { None }
    }
}

impl LookupValue for bool {
    fn to_answer(&self) -> HostAnswer {
        HostAnswer::Contains(*self)
    }

    fn from_answer(answer: HostAnswer) -> Option<Self> {
        if let HostAnswer::Contains(contains) = answer { Some(contains) } else { None }
    }
}

impl State {
    async fn look_up<T: LookupValue>(
        &mut self,
        key: &str,
        part: &str,
        call: impl FnOnce() -> HostCall,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        if self.env.recorded_calls.is_some() {
            return self.replay_look_up(&call());
        }
        let found = self.look_up_in_store(key, part, answer).await;
        if let Some(trace) = &mut self.trace {
            let answer = match &found {
                Ok(found) => found.to_answer(),
                Err(Error::Denied) => HostAnswer::Denied,
                Err(Error::Unavailable(reason)) => HostAnswer::Unavailable(reason.clone()),
            };
            trace.record(call(), answer);
        }
        found
    }

    /// Does not check the prefixes: whether the key was allowed is part of the recording.
    fn replay_look_up<T: LookupValue>(&mut self, call: &HostCall) -> Result<T, Error> {
        if !self.has_request() {
            return Err(Error::Unavailable(NO_REQUEST.into()));
        }
        let answer = self.env.recorded_calls.as_ref().and_then(|recorded| recorded.answer(call));
        if answer == Some(HostAnswer::Denied) {
            return Err(Error::Denied);
        }
        self.lookups = self.lookups.saturating_add(1);
        let reason = match answer {
            Some(HostAnswer::Unavailable(reason)) => reason,
            Some(answer) => match T::from_answer(answer) {
                Some(found) => return Ok(found),
                None => NOT_RECORDED.into(),
            },
            None => NOT_RECORDED.into(),
        };
        Err(Error::Unavailable(reason))
    }

    async fn look_up_in_store<T>(
        &mut self,
        key: &str,
        part: &str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        let allowed = self.env.lookup_prefixes.iter().any(|prefix| key.starts_with(&**prefix));
        if !allowed || key.len().max(part.len()) > MAX_KEY_BYTES {
            return Err(Error::Denied);
        }
        if !self.has_request() {
            return Err(Error::Unavailable(NO_REQUEST.into()));
        }
        self.lookups = self.lookups.saturating_add(1);
        if self.lookups > self.env.max_lookups {
            return Err(Error::Unavailable("the decision has used up its look-ups".into()));
        }
        match tokio::time::timeout(self.env.lookup_timeout, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                // Within the policy's log rate, because a policy can cause this error as often as it likes.
                if self.env.log_rate.allows() {
                    tracing::warn!(policy = %self.digest, request = %self.request_id, %error, "a look-up of the policy failed");
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
        let env = Arc::clone(&self.env);
        self.look_up(&key, "", || HostCall::Get(key.clone()), env.store.get(&key)).await
    }

    async fn hash_get(&mut self, key: String, field: String) -> Result<Option<Vec<u8>>, Error> {
        let env = Arc::clone(&self.env);
        let call = || HostCall::HashGet(key.clone(), field.clone());
        self.look_up(&key, &field, call, env.store.hash_get(&key, &field)).await
    }

    async fn set_contains(&mut self, key: String, member: String) -> Result<bool, Error> {
        let env = Arc::clone(&self.env);
        let call = || HostCall::SetContains(key.clone(), member.clone());
        self.look_up(&key, &member, call, env.store.set_contains(&key, &member)).await
    }
}
