//! `tidegate:policy/tokens`: JSON Web Tokens, checked by the host.

use super::State;
use super::tidegate::policy::tokens::{Error, Host};

impl Host for State {
    fn verify(&mut self, _: String) -> Result<String, Error> {
        Err(Error::Unavailable("no token profile is configured".into()))
    }

    fn verify_with(&mut self, _: String, _: String) -> Result<String, Error> {
        Err(Error::Unavailable("no token profile is configured".into()))
    }
}
