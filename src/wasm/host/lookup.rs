//! `tidegate:policy/lookup`: reads from the store, of keys with the prefixes that the operator allows.

use std::sync::Arc;

use crate::store::StoreError;
use crate::wasm::host::tidegate::policy::lookup::{Error, Host};
use crate::wasm::host::{NO_REQUEST, State};
use crate::wasm::host_trace::{HostAnswer, HostCall, NOT_RECORDED, Octets};

/// Bytes of a key, field or member. A request's head is not larger by default, so no policy needs longer ones.
const MAX_KEY_BYTES: usize = 64 << 10;

impl State {
    /// Looks up a part of a key, or replays that. `answer` reads the store when it is polled.
    async fn look_up(
        &mut self,
        key: &str,
        part: &str,
        call: impl FnOnce() -> HostCall,
        answer: impl Future<Output = Result<HostAnswer, StoreError>>,
    ) -> HostAnswer {
        if let Some(recorded) = &self.env.recorded_calls {
            // Whether the key was allowed is part of the recording, so the prefixes are not checked.
            if !self.has_request() {
                return HostAnswer::Unavailable(NO_REQUEST.into());
            }
            let answer = recorded.answer(&call());
            if answer != HostAnswer::Denied {
                self.decision.lookups = self.decision.lookups.saturating_add(1);
            }
            return answer;
        }
        let answer = self.look_up_in_store(key, part, answer).await;
        if let Some(trace) = &mut self.decision.trace {
            trace.record(call(), answer.clone());
        }
        answer
    }

    async fn look_up_in_store(
        &mut self,
        key: &str,
        part: &str,
        answer: impl Future<Output = Result<HostAnswer, StoreError>>,
    ) -> HostAnswer {
        let allowed = self.env.lookup_prefixes.iter().any(|prefix| key.starts_with(&**prefix));
        if !allowed || key.len().max(part.len()) > MAX_KEY_BYTES {
            return HostAnswer::Denied;
        }
        if !self.has_request() {
            return HostAnswer::Unavailable(NO_REQUEST.into());
        }
        self.decision.lookups = self.decision.lookups.saturating_add(1);
        if self.decision.lookups > self.env.max_lookups {
            return HostAnswer::Unavailable("the decision has used up its look-ups".into());
        }
        match tokio::time::timeout(self.env.lookup_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                // Within the policy's log rate, because a policy can cause this error as often as it likes.
                if self.env.log_rate.allows() {
                    tracing::warn!(policy = %self.digest, request = %self.decision.request_id, %error, "a look-up of the policy failed");
                }
                HostAnswer::Unavailable(match error {
                    StoreError::WrongType => "the key holds another type of value".into(),
                    _ => "the store does not answer".into(),
                })
            }
            Err(_) => HostAnswer::Unavailable("the store did not answer in time".into()),
        }
    }
}

/// The error of a look-up that has no result. A recorded answer of another type counts as not recorded.
fn to_error(answer: HostAnswer) -> Error {
    match answer {
        HostAnswer::Denied => Error::Denied,
        HostAnswer::Unavailable(reason) => Error::Unavailable(reason),
        _ => Error::Unavailable(NOT_RECORDED.into()),
    }
}

fn to_value(answer: HostAnswer) -> Result<Option<Vec<u8>>, Error> {
    match answer {
        HostAnswer::Value(value) => Ok(value.map(|Octets(bytes)| bytes)),
        other => Err(to_error(other)),
    }
}

impl Host for State {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, Error> {
        let env = Arc::clone(&self.env);
        let answer = async { Ok(HostAnswer::Value(env.store.get(&key).await?.map(Octets))) };
        to_value(self.look_up(&key, "", || HostCall::Get(key.clone()), answer).await)
    }

    async fn hash_get(&mut self, key: String, field: String) -> Result<Option<Vec<u8>>, Error> {
        let env = Arc::clone(&self.env);
        let call = || HostCall::HashGet(key.clone(), field.clone());
        let answer = async { Ok(HostAnswer::Value(env.store.hash_get(&key, &field).await?.map(Octets))) };
        to_value(self.look_up(&key, &field, call, answer).await)
    }

    async fn set_contains(&mut self, key: String, member: String) -> Result<bool, Error> {
        let env = Arc::clone(&self.env);
        let call = || HostCall::SetContains(key.clone(), member.clone());
        let answer = async { Ok(HostAnswer::Contains(env.store.set_contains(&key, &member).await?)) };
        match self.look_up(&key, &member, call, answer).await {
            HostAnswer::Contains(contains) => Ok(contains),
            other => Err(to_error(other)),
        }
    }
}
