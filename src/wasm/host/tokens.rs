//! `tidegate:policy/tokens`: JSON Web Tokens, which the host verifies.

use tokio::time::Instant;

use crate::tokens::jwks::KeyFetch;
use crate::tokens::{TokenError, Verdict};
use crate::wasm::host::tidegate::policy::tokens::{Error, Host};
use crate::wasm::host::{EvaluationParams, NO_REQUEST, State};
use crate::wasm::host_trace::{HostAnswer, HostCall, NOT_RECORDED};

/// The error that stops an instance whose decision needs keys that are being fetched, so that it holds no permit while it waits.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the decision waits for the keys of a token profile")]
pub struct KeysPending(pub KeyFetch);

impl State {
    async fn verify_token(&mut self, profile: Option<&str>, token: &str) -> wasmtime::Result<Result<String, Error>> {
        let Some(params) = self.decision.params else {
            return Ok(Err(Error::Unavailable(NO_REQUEST.into())));
        };
        let call = || match profile {
            Some(profile) => HostCall::VerifyWith(profile.to_owned(), token.to_owned()),
            None => HostCall::Verify(token.to_owned()),
        };
        if let Some(recorded) = &self.env.recorded_calls {
            return Ok(to_result(recorded.answer(&call())));
        }
        let answer = self.verify_with_keys(params, profile, token).await?;
        if let Some(trace) = &mut self.decision.trace {
            trace.record(call(), answer.clone());
        }
        Ok(to_result(answer))
    }

    async fn verify_with_keys(
        &mut self,
        params: EvaluationParams,
        profile: Option<&str>,
        token: &str,
    ) -> wasmtime::Result<HostAnswer> {
        loop {
            let (tokens, now) = (&self.env.tokens, (self.env.clock)());
            let verdict = match profile {
                Some(profile) => tokens.verify_with(profile, token, now),
                None => tokens.verify(token, now),
            };
            let fetch = match verdict {
                Verdict::Valid(claims) => return Ok(HostAnswer::Claims(claims)),
                Verdict::Invalid(error) => return Ok(error.into()),
                Verdict::Pending(fetch) => fetch,
            };
            // A policy that has sent requests is not restarted, because it would send them twice.
            if params.may_restart && self.sent_requests() == 0 && Instant::now() < params.keys_until {
                return Err(KeysPending(fetch).into());
            }
            if !fetch.until(params.keys_until).await {
                return Ok(HostAnswer::Unavailable("the keys were not fetched in time".into()));
            }
        }
    }
}

/// An answer of another type counts as not recorded.
fn to_result(answer: HostAnswer) -> Result<String, Error> {
    Err(match answer {
        HostAnswer::Claims(claims) => return Ok(claims),
        HostAnswer::Malformed => Error::Malformed,
        HostAnswer::Untrusted => Error::Untrusted,
        HostAnswer::Expired => Error::Expired,
        HostAnswer::WrongClaims(reason) => Error::Claims(reason),
        HostAnswer::Unavailable(reason) => Error::Unavailable(reason),
        _ => Error::Unavailable(NOT_RECORDED.into()),
    })
}

impl From<TokenError> for HostAnswer {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::Malformed,
            TokenError::Untrusted => Self::Untrusted,
            TokenError::Expired => Self::Expired,
            TokenError::Claims(reason) => Self::WrongClaims(reason),
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
