//! `tidegate:policy/tokens`: JSON Web Tokens, checked by the host.

use tokio::time::Instant;

use crate::tokens::jwks::KeyFetch;
use crate::tokens::{TokenError, Verdict};
use crate::wasm::host::State;
use crate::wasm::host::tidegate::policy::tokens::{Error, Host};
use crate::wasm::host_trace::{HostAnswer, HostCall, NOT_RECORDED};

/// Stops an instance whose decision needs keys that are being fetched. It holds its place only while it can do something.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the decision waits for the keys of a token profile")]
pub struct AwaitKeys(pub KeyFetch);

/// What a decision may do when keys are missing.
#[derive(Clone, Copy, Debug)]
pub struct KeyWait {
    /// It may wait until then, which leaves some of its time to decide.
    pub until: Instant,
    /// Whether it may be stopped, and begun anew.
    pub restart: bool,
}

impl State {
    async fn check(&mut self, profile: Option<&str>, token: &str) -> wasmtime::Result<Result<String, Error>> {
        let Some(patience) = self.patience else {
            return Ok(Err(Error::Unavailable("there is no request yet".into())));
        };
        let call = || match profile {
            Some(profile) => HostCall::VerifyWith(profile.to_owned(), token.to_owned()),
            None => HostCall::Verify(token.to_owned()),
        };
        if let Some(recorded) = &self.env.recorded {
            return Ok(from_answer(recorded.answer(&call())));
        }
        let checked = self.check_now(patience, profile, token).await?;
        if let Some(trace) = &mut self.trace {
            trace.note(call(), to_answer(&checked));
        }
        Ok(checked)
    }

    async fn check_now(
        &mut self,
        patience: KeyWait,
        profile: Option<&str>,
        token: &str,
    ) -> wasmtime::Result<Result<String, Error>> {
        loop {
            let (tokens, now) = (&self.env.tokens, (self.env.clock)());
            let verdict = match profile {
                Some(profile) => tokens.verify_with(profile, token, now),
                None => tokens.verify(token, now),
            };
            let wait = match verdict {
                Verdict::Holds(claims) => return Ok(Ok(claims)),
                Verdict::Fails(error) => return Ok(Err(error.into())),
                Verdict::Wait(wait) => wait,
            };
            // What went out would go out twice.
            if patience.restart && !self.has_sent() && Instant::now() < patience.until {
                return Err(AwaitKeys(wait).into());
            }
            if !wait.until(patience.until).await {
                return Ok(Err(Error::Unavailable("the keys did not come in time".into())));
            }
        }
    }
}

fn to_answer(checked: &Result<String, Error>) -> HostAnswer {
    match checked {
        Ok(claims) => HostAnswer::Claims(claims.clone()),
        Err(Error::Malformed) => HostAnswer::Malformed,
        Err(Error::Untrusted) => HostAnswer::Untrusted,
        Err(Error::Expired) => HostAnswer::Expired,
        Err(Error::Claims(why)) => HostAnswer::WrongClaims(why.clone()),
        Err(Error::Unavailable(why)) => HostAnswer::Unavailable(why.clone()),
    }
}

/// An answer to something else is none.
fn from_answer(answer: Option<HostAnswer>) -> Result<String, Error> {
    match answer {
        Some(HostAnswer::Claims(claims)) => Ok(claims),
        Some(HostAnswer::Malformed) => Err(Error::Malformed),
        Some(HostAnswer::Untrusted) => Err(Error::Untrusted),
        Some(HostAnswer::Expired) => Err(Error::Expired),
        Some(HostAnswer::WrongClaims(why)) => Err(Error::Claims(why)),
        Some(HostAnswer::Unavailable(why)) => Err(Error::Unavailable(why)),
        _ => Err(Error::Unavailable(NOT_RECORDED.into())),
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::Malformed,
            TokenError::Untrusted => Self::Untrusted,
            TokenError::Expired => Self::Expired,
            TokenError::Claims(why) => Self::Claims(why),
            TokenError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl Host for State {
    async fn verify(&mut self, token: String) -> wasmtime::Result<Result<String, Error>> {
        self.check(None, &token).await
    }

    async fn verify_with(&mut self, profile: String, token: String) -> wasmtime::Result<Result<String, Error>> {
        self.check(Some(&profile), &token).await
    }
}
