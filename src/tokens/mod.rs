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

use crate::tokens::claims::ClaimRules;
use crate::tokens::jwks::{JwksSource, KeyFetch, Keys};
use crate::tokens::jwt::Token;
use crate::tokens::key::KeySet;

/// Why a token is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    Malformed,
    /// No key of the profile verifies the signature with an allowed algorithm.
    Untrusted,
    Expired,
    /// Which claim is invalid.
    Claims(String),
    /// Why there is no key.
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

impl From<TokenError> for Verdict {
    fn from(error: TokenError) -> Self {
        Self::Invalid(error)
    }
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
}

/// The profiles, by name.
#[derive(Clone, Default)]
pub struct Tokens(Arc<BTreeMap<String, Arc<Verifier>>>);

/// A profile, prepared for verification.
struct Verifier {
    rules: ClaimRules,
    algorithms: Vec<Algorithm>,
    keys: KeySource,
}

impl FromIterator<(String, Profile)> for Tokens {
    fn from_iter<I: IntoIterator<Item = (String, Profile)>>(profiles: I) -> Self {
        let verifier = |(name, profile): (String, Profile)| {
            let Profile { issuer, audience, leeway, require_exp, algorithms, keys } = profile;
            let rules = ClaimRules { issuer, audience, leeway: f64::from(leeway), require_exp };
            (name, Arc::new(Verifier { rules, algorithms, keys }))
        };
        Self(Arc::new(profiles.into_iter().map(verifier).collect()))
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

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// These profiles, with unchanged ones taken from `previous`, because those have fetched their keys already.
    #[must_use]
    pub fn reusing(&self, previous: &Self, is_unchanged: impl Fn(&str) -> bool) -> Self {
        let reuse = |(name, profile): (&String, &Arc<Verifier>)| {
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
    #[must_use]
    pub fn verify(&self, token: &str, now: u64) -> Verdict {
        if self.0.is_empty() {
            return TokenError::Unavailable("no token profile is configured".into()).into();
        }
        let token = match Token::parse(token) {
            Ok(token) => token,
            Err(error) => return error.into(),
        };
        match self.profile_of_issuer(token.claims.get("iss").and_then(Value::as_str)) {
            Ok(profile) => profile.verify(&token, now),
            Err(reason) => TokenError::Claims(reason.into()).into(),
        }
    }

    /// Verifies a token against a profile.
    #[must_use]
    pub fn verify_with(&self, profile: &str, token: &str, now: u64) -> Verdict {
        let Some(profile) = self.0.get(profile) else {
            return TokenError::Unavailable("no token profile has this name".into()).into();
        };
        match Token::parse(token) {
            Ok(token) => profile.verify(&token, now),
            Err(error) => error.into(),
        }
    }

    fn profile_of_issuer(&self, issuer: Option<&str>) -> Result<&Verifier, &'static str> {
        let profiles_with = |issuer: Option<&str>| {
            let mut found = self.0.values().filter(move |profile| profile.rules.issuer.as_deref() == issuer);
            (found.next(), found.next())
        };
        let own = issuer.map_or((None, None), |issuer| profiles_with(Some(issuer)));
        match (own, profiles_with(None)) {
            ((Some(profile), None), _) | ((None, _), (Some(profile), None)) => Ok(profile),
            ((Some(_), Some(_)), _) => Err("several profiles have this issuer: the policy has to name a profile"),
            ((None, _), (None, _)) => Err("no profile has this issuer"),
            ((None, _), (Some(_), Some(_))) => {
                Err("no profile has this issuer, and several have none: the policy has to name a profile")
            }
        }
    }
}

impl Verifier {
    fn verify(&self, token: &Token<'_>, now: u64) -> Verdict {
        let algorithm = token.header.alg.parse().ok().filter(|algorithm| self.algorithms.contains(algorithm));
        let Some(algorithm) = algorithm.filter(|_| token.header.crit.is_none()) else {
            return TokenError::Untrusted.into();
        };
        let fetched;
        let keys = match &self.keys {
            KeySource::Fixed(keys) => keys,
            KeySource::Jwks(jwks) => match jwks.keys(token.header.kid.as_deref()) {
                Keys::Available(keys) => {
                    fetched = keys;
                    &*fetched
                }
                Keys::Pending(fetch) => return Verdict::Pending(fetch),
                Keys::Unavailable => {
                    return TokenError::Unavailable("the keys cannot be fetched from the JWKS URL".into()).into();
                }
            },
        };
        if !keys.verify(token, algorithm) {
            return TokenError::Untrusted.into();
        }
        match self.rules.check(&token.claims, now) {
            Ok(()) => Verdict::Valid(token.claims_json.clone()),
            Err(error) => error.into(),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
