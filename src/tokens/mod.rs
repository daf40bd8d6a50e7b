//! Verifies JSON Web Tokens against the operator's profiles. A profile binds an issuer and an audience to keys, and each key to its
//! algorithms; nothing in the token decides how it is verified.

pub(crate) mod claims;
pub(crate) mod jwks;
pub(crate) mod jwt;
pub(crate) mod key;
pub(crate) mod profile;

#[cfg(test)]
mod tests;

pub use jsonwebtoken::Algorithm;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::tokens::jwks::{JwksSource, KeyFetch, Keys};
use crate::tokens::jwt::Token;
use crate::tokens::key::KeySet;

/// Why a token is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    Malformed,
    /// No key of the profile verifies the signature with an allowed algorithm.
    Untrusted,
    Expired,
    /// A claim does not match the profile; which one and why.
    Claims(String),
    /// There is no profile or no key; why.
    Unavailable(String),
}

/// The result of verifying a token.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The claims, as JSON.
    Valid(String),
    Invalid(TokenError),
    /// The keys are being fetched: verify again afterwards.
    Pending(KeyFetch),
}

/// The audience that tokens must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// One of these; if empty, tokens must not name an audience.
    Of(Vec<String>),
    Any,
}

pub enum KeySource {
    Fixed(KeySet),
    Jwks(Arc<JwksSource>),
}

/// A profile of the operator.
pub struct Profile {
    /// The issuer of the tokens; `None` for any.
    pub issuer: Option<String>,
    pub audience: Audience,
    /// Seconds that the clocks of issuer and gateway may differ.
    pub leeway: u32,
    /// Whether tokens must have an `exp`.
    pub require_exp: bool,
    /// The allowed algorithms, a subset of those of the keys.
    pub algorithms: Vec<Algorithm>,
    pub keys: KeySource,
    /// What an operator should change, though the profile is valid.
    pub warning: Option<String>,
}

/// The profiles, by name.
#[derive(Clone, Default)]
pub struct Tokens(Arc<BTreeMap<String, Arc<Profile>>>);

impl FromIterator<(String, Profile)> for Tokens {
    fn from_iter<I: IntoIterator<Item = (String, Profile)>>(profiles: I) -> Self {
        Self(Arc::new(profiles.into_iter().map(|(name, profile)| (name, Arc::new(profile))).collect()))
    }
}

impl Tokens {
    /// Starts to fetch keys, so that decisions need not wait for them.
    pub fn start(&self) {
        for profile in self.0.values() {
            if let KeySource::Jwks(jwks) = &profile.keys {
                jwks.start();
            }
        }
    }

    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter_map(|profile| profile.warning.as_deref())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// These profiles, with unchanged ones taken from `previous`, because those have fetched their keys already.
    pub fn reusing(&self, previous: &Self, is_unchanged: impl Fn(&str) -> bool) -> Self {
        let reuse = |(name, profile): (&String, &Arc<Profile>)| {
            let reused = previous.0.get(name).filter(|_| is_unchanged(name)).unwrap_or(profile);
            (name.clone(), Arc::clone(reused))
        };
        Self(Arc::new(self.0.iter().map(reuse).collect()))
    }

    #[cfg(test)]
    pub(crate) fn shares_profile(&self, other: &Self, name: &str) -> bool {
        matches!((self.0.get(name), other.0.get(name)), (Some(one), Some(two)) if Arc::ptr_eq(one, two))
    }

    /// Verifies a token against the profile of its issuer, or else the only profile without an issuer. `now` is in ms since the Unix epoch.
    pub fn verify(&self, token: &str, now: u64) -> Verdict {
        self.verify_by_issuer(token, now).unwrap_or_else(Verdict::Invalid)
    }

    fn verify_by_issuer(&self, token: &str, now: u64) -> Result<Verdict, TokenError> {
        if self.0.is_empty() {
            return Err(TokenError::Unavailable("no token profile is configured".into()));
        }
        let token = Token::parse(token)?;
        self.profile_of_issuer(token.claims.get("iss").and_then(Value::as_str))?.verify(&token, now)
    }

    /// Verifies a token against the profile of this name. `now` is in ms since the Unix epoch.
    pub fn verify_with(&self, profile: &str, token: &str, now: u64) -> Verdict {
        let profile =
            self.0.get(profile).ok_or_else(|| TokenError::Unavailable("no token profile has this name".into()));
        let verdict = profile.and_then(|profile| profile.verify(&Token::parse(token)?, now));
        verdict.unwrap_or_else(Verdict::Invalid)
    }

    fn profile_of_issuer(&self, issuer: Option<&str>) -> Result<&Profile, TokenError> {
        let profiles_with = |issuer: Option<&str>| {
            let mut found = self.0.values().filter(move |profile| profile.issuer.as_deref() == issuer);
            (found.next(), found.next())
        };
        let own = issuer.map_or((None, None), |issuer| profiles_with(Some(issuer)));
        let reason = match (own, profiles_with(None)) {
            ((Some(profile), None), _) | ((None, _), (Some(profile), None)) => return Ok(profile),
            ((Some(_), Some(_)), _) => "several profiles have this issuer: the policy has to name a profile",
            ((None, _), (None, _)) => "no profile has this issuer",
            ((None, _), (Some(_), Some(_))) => {
                "no profile has this issuer, and several have none: the policy has to name a profile"
            }
        };
        Err(TokenError::Claims(reason.into()))
    }
}

impl Profile {
    fn verify(&self, token: &Token<'_>, now: u64) -> Result<Verdict, TokenError> {
        let algorithm = token.header.alg.parse().ok().filter(|algorithm| self.algorithms.contains(algorithm));
        let algorithm = algorithm.filter(|_| !token.header.has_crit).ok_or(TokenError::Untrusted)?;
        let is_authentic = match &self.keys {
            KeySource::Fixed(keys) => keys.verify(token, algorithm),
            KeySource::Jwks(jwks) => match jwks.keys(token.header.kid.as_deref()) {
                Keys::Available(keys) => keys.verify(token, algorithm),
                Keys::Pending(fetch) => return Ok(Verdict::Pending(fetch)),
                Keys::Unavailable => {
                    return Err(TokenError::Unavailable("the keys cannot be fetched from the JWKS URL".into()));
                }
            },
        };
        if !is_authentic {
            return Err(TokenError::Untrusted);
        }
        self.check_claims(&token.claims, now)?;
        Ok(Verdict::Valid(token.claims_json.clone()))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
