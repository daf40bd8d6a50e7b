//! JSON Web Tokens, checked against the operator's profiles: each binds an issuer and an audience to keys of its own, and each key
//! to its algorithms. A token is never asked how it wants to be checked.

pub(crate) mod claims;
pub(crate) mod jwks;
pub(crate) mod jwt;
pub(crate) mod key;
pub(crate) mod profile;

#[cfg(test)]
mod tests;

pub use jsonwebtoken::Algorithm;

use crate::tokens::jwks::JwksSource;
use crate::tokens::jwks::KeyFetch;
use crate::tokens::key::KeySet;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::tokens::claims::Rules;
use crate::tokens::jwks::Keys;
use crate::tokens::jwt::Token;

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is no token.
    Malformed,
    /// The signature, the algorithm or the key does not hold.
    Untrusted,
    /// Its time is over.
    Expired,
    /// A claim does not hold.
    Claims(String),
    /// No key can be had.
    Unavailable(String),
}

/// What came of looking at a token.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It holds: its claims, as JSON.
    Holds(String),
    /// It does not.
    Fails(TokenError),
    /// Its keys are being fetched. Ask again when that is done.
    Wait(KeyFetch),
}

impl From<TokenError> for Verdict {
    fn from(error: TokenError) -> Self {
        Self::Fails(error)
    }
}

/// For whom tokens have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// One of these. None: only tokens that name no audience.
    Of(Vec<String>),
    /// Anybody.
    Any,
}

/// Where a profile's keys come from.
pub enum Source {
    /// They are here.
    Fixed(KeySet),
    /// They are fetched.
    Jwks(Arc<JwksSource>),
}

/// One of the operator's profiles.
pub struct Profile {
    /// Who issues the tokens; none for anybody who has the keys.
    pub issuer: Option<String>,
    /// For whom they have to be.
    pub audience: Audience,
    /// Seconds that clocks may differ.
    pub leeway: u32,
    /// Whether a token has to have an end.
    pub require_exp: bool,
    /// What they may be signed with, of what the keys are for.
    pub algorithms: Vec<Algorithm>,
    /// The keys.
    pub source: Source,
}

/// All profiles, by name.
#[derive(Clone, Default)]
pub struct Tokens(Arc<BTreeMap<String, Arc<Checked>>>);

struct Checked {
    rules: Rules,
    algorithms: Vec<Algorithm>,
    source: Source,
}

impl FromIterator<(String, Profile)> for Tokens {
    fn from_iter<I: IntoIterator<Item = (String, Profile)>>(profiles: I) -> Self {
        let check = |(name, profile): (String, Profile)| {
            let Profile { issuer, audience, leeway, require_exp, algorithms, source } = profile;
            let rules = Rules { issuer, audience, leeway: f64::from(leeway), require_exp };
            (name, Arc::new(Checked { rules, algorithms, source }))
        };
        Self(Arc::new(profiles.into_iter().map(check).collect()))
    }
}

impl Tokens {
    /// Begins to fetch what has to be fetched, so that no decision has to wait for it.
    pub fn start(&self) {
        for profile in self.0.values() {
            if let Source::Jwks(remote) = &profile.source {
                remote.start();
            }
        }
    }

    /// The profiles' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same with the profiles of these names as they were before, with the keys that they have fetched.
    #[must_use]
    pub fn keeping(&self, before: &Self, is_same: impl Fn(&str) -> bool) -> Self {
        let keep = |(name, profile): (&String, &Arc<Checked>)| {
            let kept = before.0.get(name).filter(|_| is_same(name)).unwrap_or(profile);
            (name.clone(), Arc::clone(kept))
        };
        Self(Arc::new(self.0.iter().map(keep).collect()))
    }

    #[cfg(test)]
    pub(crate) fn shares(&self, other: &Self, name: &str) -> bool {
        matches!((self.0.get(name), other.0.get(name)), (Some(one), Some(two)) if Arc::ptr_eq(one, two))
    }

    /// Checks a token for the profile of its issuer, or for the only profile without an issuer. `now` is ms since 1970.
    #[must_use]
    pub fn verify(&self, token: &str, now: u64) -> Verdict {
        if self.0.is_empty() {
            return TokenError::Unavailable("no token profile is configured".into()).into();
        }
        let token = match Token::parse(token) {
            Ok(token) => token,
            Err(error) => return error.into(),
        };
        match self.of_issuer(token.claims.get("iss").and_then(Value::as_str)) {
            Ok(profile) => profile.verify(&token, now),
            Err(why) => TokenError::Claims(why.into()).into(),
        }
    }

    /// Checks a token for one profile.
    #[must_use]
    pub fn verify_with(&self, profile: &str, token: &str, now: u64) -> Verdict {
        let Some(profile) = self.0.get(profile) else {
            return TokenError::Unavailable("there is no token profile of this name".into()).into();
        };
        match Token::parse(token) {
            Ok(token) => profile.verify(&token, now),
            Err(error) => error.into(),
        }
    }

    fn of_issuer(&self, issuer: Option<&str>) -> Result<&Checked, &'static str> {
        let with = |issuer: Option<&str>| {
            let mut found = self.0.values().filter(move |profile| profile.rules.issuer.as_deref() == issuer);
            (found.next(), found.next())
        };
        let own = issuer.map_or((None, None), |issuer| with(Some(issuer)));
        match (own, with(None)) {
            ((Some(profile), None), _) | ((None, _), (Some(profile), None)) => Ok(profile),
            ((Some(_), Some(_)), _) => Err("several profiles have this iss: one has to be named"),
            ((None, _), (None, _)) => Err("iss is no profile's issuer"),
            ((None, _), (Some(_), Some(_))) => {
                Err("iss is no profile's issuer, and several profiles have none: one has to be named")
            }
        }
    }
}

impl Checked {
    fn verify(&self, token: &Token<'_>, now: u64) -> Verdict {
        let algorithm = token.header.alg.parse().ok().filter(|algorithm| self.algorithms.contains(algorithm));
        let Some(algorithm) = algorithm.filter(|_| token.header.crit.is_none()) else {
            return TokenError::Untrusted.into();
        };
        let fetched;
        let keys = match &self.source {
            Source::Fixed(keys) => keys,
            Source::Jwks(remote) => match remote.keys(token.header.kid.as_deref()) {
                Keys::Here(keys) => {
                    fetched = keys;
                    &*fetched
                }
                Keys::Wait(wait) => return Verdict::Wait(wait),
                Keys::Unavailable => return TokenError::Unavailable("the JWKS URL does not answer".into()).into(),
            },
        };
        if !keys.verify(token, algorithm) {
            return TokenError::Untrusted.into();
        }
        match self.rules.check(&token.claims, now) {
            Ok(()) => Verdict::Holds(token.text.clone()),
            Err(error) => error.into(),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
