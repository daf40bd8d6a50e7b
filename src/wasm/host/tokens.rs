//! `tidegate:policy/tokens`: JSON Web Tokens, which the host verifies.

use tokio::time::Instant;

use crate::tokens::jwks::KeyFetch;
use crate::tokens::{TokenError, Verdict};
use crate::wasm::host::tidegate::policy::tokens::{Error, Host};
use crate::wasm::host::{NO_REQUEST, State};
use crate::wasm::host_trace::{HostAnswer, HostCall, NOT_RECORDED};

/// The error that stops an instance whose decision needs keys that are being fetched, so that it holds no permit while it waits.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the decision waits for the keys of a token profile")]
pub struct KeysPending(pub KeyFetch);

/// What a decision may do while keys are missing.
#[derive(Clone, Copy, Debug)]
pub struct KeyWait {
    /// The decision may wait until then, which leaves some of its time to evaluate.
    pub until: Instant,
    /// Whether the instance may be stopped, and the decision start again on a new one.
    pub may_restart: bool,
}

impl State {
    async fn verify_token(&mut self, profile: Option<&str>, token: &str) -> wasmtime::Result<Result<String, Error>> {
        let Some(key_wait) = self.key_wait else {
            return Ok(Err(Error::Unavailable(NO_REQUEST.into())));
        };
        let call = || match profile {
            Some(profile) => HostCall::VerifyWith(profile.to_owned(), token.to_owned()),
            None => HostCall::Verify(token.to_owned()),
        };
        if let Some(recorded) = &self.env.recorded_calls {
            return Ok(from_answer(recorded.answer(&call())));
        }
        let verified = self.verify_with_keys(key_wait, profile, token).await?;
        if let Some(trace) = &mut self.trace {
            trace.record(call(), to_answer(&verified));
        }
        Ok(verified)
    }

    async fn verify_with_keys(
        &mut self,
        key_wait: KeyWait,
        profile: Option<&str>,
        token: &str,
    ) -> wasmtime::Result<Result<String, Error>> {
        loop {
            let (tokens, now) = (&self.env.tokens, (self.env.clock)());
            let verdict = match profile {
                Some(profile) => tokens.verify_with(profile, token, now),
                None => tokens.verify(token, now),
            };
            let fetch = match verdict {
                Verdict::Valid(claims) => return Ok(Ok(claims)),
                Verdict::Invalid(error) => return Ok(Err(error.into())),
                Verdict::Pending(fetch) => fetch,
            };
            // A policy that has sent requests is not restarted, because it would send them twice.
            if key_wait.may_restart && !self.has_sent_requests() && Instant::now() < key_wait.until {
                return Err(KeysPending(fetch).into());
            }
            if !fetch.until(key_wait.until).await {
                return Ok(Err(Error::Unavailable("the keys were not fetched in time".into())));
            }
        }
    }
}

fn to_answer(verified: &Result<String, Error>) -> HostAnswer {
    match verified {
        Ok(claims) => HostAnswer::Claims(claims.clone()),
        Err(Error::Malformed) => HostAnswer::Malformed,
        Err(Error::Untrusted) => HostAnswer::Untrusted,
        Err(Error::Expired) => HostAnswer::Expired,
        Err(Error::Claims(reason)) => HostAnswer::WrongClaims(reason.clone()),
        Err(Error::Unavailable(reason)) => HostAnswer::Unavailable(reason.clone()),
    }
}

/// An answer of another type counts as not recorded.
fn from_answer(answer: Option<HostAnswer>) -> Result<String, Error> {
    match answer {
        Some(HostAnswer::Claims(claims)) => Ok(claims),
        Some(HostAnswer::Malformed) => Err(Error::Malformed),
        Some(HostAnswer::Untrusted) => Err(Error::Untrusted),
        Some(HostAnswer::Expired) => Err(Error::Expired),
        Some(HostAnswer::WrongClaims(reason)) => Err(Error::Claims(reason)),
        Some(HostAnswer::Unavailable(reason)) => Err(Error::Unavailable(reason)),
        _ => Err(Error::Unavailable(NOT_RECORDED.into())),
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::Malformed,
            TokenError::Untrusted => Self::Untrusted,
            TokenError::Expired => Self::Expired,
            TokenError::Claims(reason) => Self::Claims(reason),
            TokenError::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl Host for State {
    async fn verify(&mut self, token: String) -> wasmtime::Result<Result<String, Error>> {
        self.verify_token(None, &token).await
    }

    async fn verify_with(&mut self, profile: String, token: String) -> wasmtime::Result<Result<String, Error>> {
        self.verify_token(Some(&profile), &token).await
    }
}
