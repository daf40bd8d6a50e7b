//! Reads and checks the token profiles of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Value;
use url::Url;

use crate::egress::origin::EgressOrigin;
use crate::egress::{Egress, EgressLimits};
use crate::tokens::jwks::{JwksSource, JwksTiming};
use crate::tokens::key::KeySet;
use crate::tokens::{Algorithm, Audience, KeySource, Profile};
use crate::util::files;

/// RFC 7518 requires HMAC secrets of at least this length for HS256. Shorter ones can be guessed from one token.
const MIN_SECRET_BYTES: usize = 32;
pub const MAX_KEY_FILE_BYTES: u64 = 1 << 20;
/// The response of a JWKS URL, which usually has some kilobytes.
const MAX_JWKS_BYTES: usize = 512 << 10;
/// Longer than `policy.timeout`: a slow response fails the decisions that wait for it, but serves later ones.
const JWKS_TIMEOUT: Duration = Duration::from_secs(10);
const ALGORITHMS: &str = "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";
const PUBLIC_KEY_ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// `[policy.tokens.<profile>]`, as written in the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WrittenProfile {
    /// `None` for any issuer.
    pub issuer: Option<String>,
    /// One or more, or `*` for any.
    #[serde(deserialize_with = "one_or_more")]
    pub audience: Vec<String>,
    /// How far the clocks of issuer and gateway may differ.
    #[serde(with = "crate::util::duration")]
    pub leeway: Duration,
    /// Whether tokens must have an `exp`.
    pub require_exp: bool,
    /// Allowed algorithms; by default all that the keys can be used for.
    #[serde(deserialize_with = "one_or_more")]
    pub algorithms: Vec<String>,
    /// A secret that the issuer shares with the gateway.
    pub secret: Option<Hidden>,
    pub secret_encoding: SecretEncoding,
    /// A PEM file of public keys or certificates.
    pub pem: Option<PathBuf>,
    /// A file with a JWKS.
    pub jwks: Option<PathBuf>,
    /// The URL of a JWKS.
    pub jwks_url: Option<String>,
    /// Whether `jwks_url` may resolve to a private address, and be `http`.
    pub allow_private: bool,
    /// The minimum age of keys before they are fetched again.
    #[serde(with = "crate::util::duration")]
    pub min_age: Duration,
    /// The maximum age of keys before they are fetched again.
    #[serde(with = "crate::util::duration")]
    pub max_age: Duration,
    /// How long stale keys are used while fetching fails.
    #[serde(with = "crate::util::duration")]
    pub stale_if_error: Duration,
}

impl Default for WrittenProfile {
    fn default() -> Self {
        let JwksTiming { min_age, max_age, stale_if_error, .. } = JwksTiming::default();
        Self {
            issuer: None,
            audience: Vec::new(),
            leeway: Duration::from_secs(60),
            require_exp: true,
            algorithms: Vec::new(),
            secret: None,
            secret_encoding: SecretEncoding::Text,
            pem: None,
            jwks: None,
            jwks_url: None,
            allow_private: false,
            min_age,
            max_age,
            stale_if_error,
        }
    }
}

/// A value that `Debug` does not show. It is any TOML value, because the error for a wrong type would show it as well.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(Value);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Hidden {
    /// The value, if it is a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.0.as_str()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretEncoding {
    /// The secret's bytes are the UTF-8 text.
    Text,
    /// Base64 of either alphabet.
    Base64,
}

#[derive(Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct ProfileError {
    /// The configuration key.
    pub key: String,
    pub reason: String,
}

fn invalid(key: &str, reason: impl std::fmt::Display) -> ProfileError {
    ProfileError { key: key.into(), reason: reason.to_string() }
}

/// Checks a profile and reads its files; URLs are not fetched. `key` is its configuration key, for errors; `resolve` replaces references
/// in a secret.
pub fn profile(
    key: &str,
    raw: &WrittenProfile,
    resolve: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Profile, ProfileError> {
    let error = |reason: &str| invalid(key, reason);
    let sources = [raw.secret.is_some(), raw.pem.is_some(), raw.jwks.is_some(), raw.jwks_url.is_some()];
    if sources.iter().filter(|is_set| **is_set).count() != 1 {
        return Err(error("expected exactly one of secret, pem, jwks and jwks-url"));
    }
    if raw.secret.is_none() && raw.secret_encoding != SecretEncoding::Text {
        return Err(error("secret-encoding is only allowed with secret"));
    }
    if raw.issuer.as_ref().is_some_and(String::is_empty) || raw.audience.iter().any(String::is_empty) {
        return Err(error("the issuer or an audience is empty"));
    }
    let (keys, possible) = key_source(key, raw, resolve)?;
    let algorithms = algorithms(key, raw, &possible)?;
    let audience = match raw.audience.iter().any(|name| name == "*") {
        true if raw.audience.len() > 1 => return Err(error("audience: \"*\" means any audience and must stand alone")),
        true => Audience::Any,
        false => Audience::Of(raw.audience.clone()),
    };
    let leeway = u32::try_from(raw.leeway.as_secs()).ok().filter(|seconds| *seconds <= 600);
    Ok(Profile {
        issuer: raw.issuer.clone(),
        audience,
        leeway: leeway.ok_or_else(|| error("leeway: expected 0s to 10m"))?,
        require_exp: raw.require_exp,
        algorithms,
        keys,
    })
}

/// The keys of a profile, and the algorithms that they can be used for.
fn key_source(
    key: &str,
    raw: &WrittenProfile,
    resolve: &dyn Fn(&str) -> Result<String, String>,
) -> Result<(KeySource, Vec<Algorithm>), ProfileError> {
    if let Some(Hidden(value)) = &raw.secret {
        let key = format!("{key}.secret");
        let text = value
            .as_str()
            .ok_or_else(|| invalid(&key, format!("a {} where a string is expected", value.type_str())))?;
        let secret = resolve(text).map_err(|reason| invalid(&key, reason))?;
        let bytes = match raw.secret_encoding {
            SecretEncoding::Text => secret.into_bytes(),
            SecretEncoding::Base64 => base64(&secret).ok_or_else(|| invalid(&key, "not base64"))?,
        };
        if bytes.is_empty() {
            return Err(invalid(&key, "the secret is empty"));
        }
        if bytes.len() < MIN_SECRET_BYTES {
            tracing::warn!(%key, "a secret shorter than {MIN_SECRET_BYTES} bytes can be guessed from one token; generate one with `openssl rand -base64 32`");
        }
        return Ok(fixed(KeySet::from_secret(&bytes)));
    }
    if let Some(path) = &raw.pem {
        let key = format!("{key}.pem");
        let text = String::from_utf8(read_file(&key, path)?).map_err(|_| file_error(&key, path, "not text"))?;
        return Ok(fixed(KeySet::from_pem(&text).map_err(|error| file_error(&key, path, error))?));
    }
    if let Some(path) = &raw.jwks {
        let key = format!("{key}.jwks");
        let keys = KeySet::from_jwks(&read_file(&key, path)?, true).map_err(|error| file_error(&key, path, error))?;
        return Ok(fixed(keys));
    }
    let url = raw.jwks_url.as_deref().unwrap_or_default();
    let jwks = jwks_source(&format!("{key}.jwks-url"), url, raw)?;
    let possible = PUBLIC_KEY_ALGORITHMS.iter().filter_map(|name| name.parse().ok()).collect();
    Ok((KeySource::Jwks(Arc::new(jwks)), possible))
}

fn fixed(keys: KeySet) -> (KeySource, Vec<Algorithm>) {
    let possible = keys.algorithms();
    (KeySource::Fixed(keys), possible)
}

fn jwks_source(key: &str, text: &str, raw: &WrittenProfile) -> Result<JwksSource, ProfileError> {
    let example = "expected a URL such as https://auth.example/.well-known/jwks.json";
    let url = Url::parse(text).map_err(|_| invalid(key, format!("not a URL: {example}")))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(invalid(key, format!("has a user or a fragment: {example}")));
    }
    if url.scheme() == "http" && !raw.allow_private {
        return Err(invalid(
            key,
            "with http, an attacker on the network could replace the keys: use https, or set allow-private = true for a service in your own network",
        ));
    }
    let origin = EgressOrigin::of(&url, raw.allow_private).map_err(|error| invalid(key, error))?;
    let uri = url.as_str().parse().map_err(|_| invalid(key, format!("not the URL of a server: {example}")))?;
    let timing = JwksTiming {
        min_age: raw.min_age,
        max_age: raw.max_age,
        stale_if_error: raw.stale_if_error,
        ..JwksTiming::default()
    };
    if timing.min_age < Duration::from_secs(1) || timing.min_age > timing.max_age {
        return Err(invalid(key, "min-age: expected at least 1s and at most max-age"));
    }
    let limits = EgressLimits { timeout: JWKS_TIMEOUT, max_response_size: MAX_JWKS_BYTES, concurrency: 1 };
    Ok(JwksSource::new(uri, Arc::new(Egress::new(vec![origin], limits)), timing))
}

/// Checks the configured algorithms against those that the keys can be used for, which are the default.
fn algorithms(key: &str, raw: &WrittenProfile, possible: &[Algorithm]) -> Result<Vec<Algorithm>, ProfileError> {
    let key = format!("{key}.algorithms");
    if raw.algorithms.is_empty() {
        return Ok(possible.to_vec());
    }
    let parse = |name: &String| {
        let algorithm = name.parse().map_err(|_| invalid(&key, format!("{name:?}: expected {ALGORITHMS}")))?;
        if possible.contains(&algorithm) {
            return Ok(algorithm);
        }
        let possible: Vec<String> = possible.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        Err(invalid(&key, format!("{name:?} does not fit the profile's keys, which are for {}", possible.join(", "))))
    };
    raw.algorithms.iter().map(parse).collect()
}

/// Decodes either alphabet, with padding or without.
fn base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text.trim()).ok();
    decode(&alphabet::STANDARD).or_else(|| decode(&alphabet::URL_SAFE))
}

fn file_error(key: &str, path: &Path, reason: impl std::fmt::Display) -> ProfileError {
    invalid(key, format!("{}: {reason}", path.display()))
}

fn read_file(key: &str, path: &Path) -> Result<Vec<u8>, ProfileError> {
    files::read(path, MAX_KEY_FILE_BYTES).map_err(|error| file_error(key, path, format!("cannot be read: {error}")))
}

/// Reads a list, or a single string as a list of one.
fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a string or a list of strings")]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(match OneOrMore::deserialize(from)? {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(list) => list,
    })
}
