//! `tidegate:policy/lookup`: reads in the store, within the prefixes that the operator allowed.

use std::sync::Arc;

use crate::store::StoreError;
use crate::wasm::host::State;
use crate::wasm::host::tidegate::policy::lookup::{Error, Host};
use crate::wasm::host_trace::{HostAnswer, HostCall, NOT_RECORDED};
use crate::wasm::octets::Octets;

/// A longer key, field or member is one that no operator allowed: a request's head is not larger by default.
const LONGEST: usize = 64 << 10;

/// What a look-up finds, as it is written down.
trait Found: Sized {
    fn to_answer(&self) -> HostAnswer;
    /// None for the answer to something else.
    fn from_answer(answer: HostAnswer) -> Option<Self>;
}

impl Found for Option<Vec<u8>> {
    fn to_answer(&self) -> HostAnswer {
        HostAnswer::Value(self.clone().map(Octets))
    }

    fn from_answer(answer: HostAnswer) -> Option<Self> {
        if let HostAnswer::Value(value) = answer { Some(value.map(|Octets(bytes)| bytes)) } else { None }
    }
}

impl Found for bool {
    fn to_answer(&self) -> HostAnswer {
        HostAnswer::Contains(*self)
    }

    fn from_answer(answer: HostAnswer) -> Option<Self> {
        if let HostAnswer::Contains(contains) = answer { Some(contains) } else { None }
    }
}

impl State {
    async fn look_up<T: Found>(
        &mut self,
        key: &str,
        part: &str,
        call: impl FnOnce() -> HostCall,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        if self.env.recorded.is_some() {
            return self.look_up_again(&call());
        }
        let found = self.look_up_now(key, part, answer).await;
        if let Some(trace) = &mut self.trace {
            let answer = match &found {
                Ok(found) => found.to_answer(),
                Err(Error::Denied) => HostAnswer::Denied,
                Err(Error::Unavailable(why)) => HostAnswer::Unavailable(why.clone()),
            };
            trace.note(call(), answer);
        }
        found
    }

    /// Which keys are allowed is part of what was recorded.
    fn look_up_again<T: Found>(&mut self, call: &HostCall) -> Result<T, Error> {
        if !self.has_request() {
            return Err(Error::Unavailable("there is no request yet".into()));
        }
        let answer = self.env.recorded.as_ref().and_then(|recorded| recorded.answer(call));
        if answer == Some(HostAnswer::Denied) {
            return Err(Error::Denied);
        }
        self.lookups = self.lookups.saturating_add(1);
        let why = match answer {
            Some(HostAnswer::Unavailable(why)) => why,
            Some(answer) => match T::from_answer(answer) {
                Some(found) => return Ok(found),
                None => NOT_RECORDED.into(),
            },
            None => NOT_RECORDED.into(),
        };
        Err(Error::Unavailable(why))
    }

    async fn look_up_now<T>(
        &mut self,
        key: &str,
        part: &str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        let allowed = self.env.prefixes.iter().any(|prefix| key.starts_with(&**prefix));
        if !allowed || key.len().max(part.len()) > LONGEST {
            return Err(Error::Denied);
        }
        if !self.has_request() {
            return Err(Error::Unavailable("there is no request yet".into()));
        }
        self.lookups = self.lookups.saturating_add(1);
        if self.lookups > self.env.max_lookups {
            return Err(Error::Unavailable("the decision has had its look-ups".into()));
        }
        match tokio::time::timeout(self.env.lookup_timeout, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                // A policy can bring that about as often as it likes.
                if self.env.log.admits() {
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
