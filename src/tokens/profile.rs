//! Profiles as the operator writes them, and what is wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Value;
use url::Url;

use crate::egress::origin::Origin;
use crate::egress::{Egress, EgressLimits};
use crate::tokens::jwks::{JwksSource, JwksTiming};
use crate::tokens::key::KeySet;
use crate::tokens::{Algorithm, Audience, Profile, Source};
use crate::util::files;

/// An HMAC secret is as hard to guess as it is long: RFC 7518 wants this much for the least of them.
const SECRET: usize = 32;
/// A larger file has no keys.
pub const MAX_KEY_FILE_BYTES: u64 = 1 << 20;
/// A JWKS is some kilobytes.
const MAX_JWKS: usize = 512 << 10;
/// A decision that waits for keys has `policy.timeout`; who comes after it is served by a slow answer too.
const JWKS_TIMEOUT: Duration = Duration::from_secs(10);
const ALGORITHMS: &str =
    "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA are known";
const PUBLIC: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// `[policy.tokens.<profile>]`, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WrittenProfile {
    /// Who issues them.
    pub issuer: Option<String>,
    /// For whom they are: one or more, or `*`.
    #[serde(deserialize_with = "one_or_more")]
    pub audience: Vec<String>,
    /// What clocks may differ.
    #[serde(with = "crate::util::duration")]
    pub leeway: Duration,
    /// Whether they have to end.
    pub require_exp: bool,
    /// What they may be signed with; by default what the keys are for.
    #[serde(deserialize_with = "one_or_more")]
    pub algorithms: Vec<String>,
    /// The key: a secret,
    pub secret: Option<Hidden>,
    /// as it is written.
    pub secret_encoding: SecretEncoding,
    /// Or public keys or certificates in a PEM file.
    pub pem: Option<PathBuf>,
    /// Or a JWKS in a file.
    pub jwks: Option<PathBuf>,
    /// Or a JWKS behind a URL,
    pub jwks_url: Option<String>,
    /// whose address may be this network's own,
    pub allow_private: bool,
    /// fetched again after this at the earliest,
    #[serde(with = "crate::util::duration")]
    pub min_age: Duration,
    /// after this at the latest,
    #[serde(with = "crate::util::duration")]
    pub max_age: Duration,
    /// and good for so long more while that fails.
    #[serde(with = "crate::util::duration")]
    pub stale: Duration,
}

impl Default for WrittenProfile {
    fn default() -> Self {
        let JwksTiming { min_age, max_age, stale, .. } = JwksTiming::default();
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
            stale,
        }
    }
}

/// A value that `Debug` does not show. It may be of a type that is wrong: an error of the TOML reader would show it too.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(Value);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Hidden {
    /// The text as it was written, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.0.as_str()
    }
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretEncoding {
    /// Its own bytes.
    Text,
    /// Base64, of either alphabet.
    Base64,
}

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {what}")]
pub struct ProfileError {
    /// Where.
    pub key: String,
    /// What, and what would be right.
    pub what: String,
}

fn wrong(key: &str, what: impl std::fmt::Display) -> ProfileError {
    ProfileError { key: key.into(), what: what.to_string() }
}

/// Checks a profile. `key` is its name for errors; `resolve` reads a secret that stands elsewhere. Files are read, URLs are not
/// fetched.
pub fn profile(
    key: &str,
    raw: &WrittenProfile,
    resolve: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Profile, ProfileError> {
    let say = |what: &str| wrong(key, what);
    let named = [raw.secret.is_some(), raw.pem.is_some(), raw.jwks.is_some(), raw.jwks_url.is_some()];
    if named.iter().filter(|there| **there).count() != 1 {
        return Err(say("it has exactly one of secret, pem, jwks and jwks-url"));
    }
    if raw.secret.is_none() && raw.secret_encoding != SecretEncoding::Text {
        return Err(say("secret-encoding is for a secret"));
    }
    if raw.issuer.as_ref().is_some_and(String::is_empty) || raw.audience.iter().any(String::is_empty) {
        return Err(say("an issuer or an audience that is empty"));
    }
    let (source, possible) = source(key, raw, resolve)?;
    let algorithms = algorithms(key, raw, &possible)?;
    let audience = match raw.audience.iter().any(|name| name == "*") {
        true if raw.audience.len() > 1 => return Err(say("audience: \"*\" is any audience, and stands alone")),
        true => Audience::Any,
        false => Audience::Of(raw.audience.clone()),
    };
    let leeway = u32::try_from(raw.leeway.as_secs()).ok().filter(|seconds| *seconds <= 600);
    Ok(Profile {
        issuer: raw.issuer.clone(),
        audience,
        leeway: leeway.ok_or_else(|| say("leeway: it is from 0s to 10m"))?,
        require_exp: raw.require_exp,
        algorithms,
        source,
    })
}

/// The keys of a profile, and what they could be used for.
fn source(
    key: &str,
    raw: &WrittenProfile,
    resolve: &dyn Fn(&str) -> Result<String, String>,
) -> Result<(Source, Vec<Algorithm>), ProfileError> {
    if let Some(Hidden(value)) = &raw.secret {
        let key = format!("{key}.secret");
        let text =
            value.as_str().ok_or_else(|| wrong(&key, format!("a {} where a string is expected", value.type_str())))?;
        let secret = resolve(text).map_err(|what| wrong(&key, what))?;
        let bytes = match raw.secret_encoding {
            SecretEncoding::Text => secret.into_bytes(),
            SecretEncoding::Base64 => base64(&secret).ok_or_else(|| wrong(&key, "it is not base64"))?,
        };
        if bytes.is_empty() {
            return Err(wrong(&key, "it is empty"));
        }
        if bytes.len() < SECRET {
            tracing::warn!(%key, "a secret of less than {SECRET} bytes can be guessed from one token (openssl rand -base64 32)");
        }
        return Ok(fixed(KeySet::secret(&bytes)));
    }
    if let Some(path) = &raw.pem {
        let key = format!("{key}.pem");
        let text = String::from_utf8(file(&key, path)?).map_err(|_| in_file(&key, path, "it is not text"))?;
        return Ok(fixed(KeySet::pem(&text).map_err(|error| in_file(&key, path, error))?));
    }
    if let Some(path) = &raw.jwks {
        let key = format!("{key}.jwks");
        let keys = KeySet::jwks(&file(&key, path)?, true).map_err(|error| in_file(&key, path, error))?;
        return Ok(fixed(keys));
    }
    let url = raw.jwks_url.as_deref().unwrap_or_default();
    let remote = remote(&format!("{key}.jwks-url"), url, raw)?;
    let public = PUBLIC.iter().filter_map(|name| name.parse().ok()).collect();
    Ok((Source::Jwks(Arc::new(remote)), public))
}

fn fixed(keys: KeySet) -> (Source, Vec<Algorithm>) {
    let possible = keys.algorithms();
    (Source::Fixed(keys), possible)
}

fn remote(key: &str, text: &str, raw: &WrittenProfile) -> Result<JwksSource, ProfileError> {
    let like = "one is written as https://auth.example/.well-known/jwks.json";
    let url = Url::parse(text).map_err(|_| wrong(key, format!("it is no URL; {like}")))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(wrong(key, format!("it has a user or a fragment; {like}")));
    }
    if url.scheme() == "http" && !raw.allow_private {
        return Err(wrong(
            key,
            "whoever is on the way of http could give keys of their own: write https, or allow-private = true for a service in your own network",
        ));
    }
    let origin = Origin::of(&url, raw.allow_private).map_err(|error| wrong(key, error))?;
    let uri = url.as_str().parse().map_err(|_| wrong(key, format!("it is no URL of a server; {like}")))?;
    let timing = JwksTiming { min_age: raw.min_age, max_age: raw.max_age, stale: raw.stale, ..JwksTiming::default() };
    if timing.min_age < Duration::from_secs(1) || timing.min_age > timing.max_age {
        return Err(wrong(key, "min-age is at least 1s, and at most max-age"));
    }
    let bounds = EgressLimits { timeout: JWKS_TIMEOUT, response: MAX_JWKS, concurrency: 1 };
    Ok(JwksSource::new(uri, Arc::new(Egress::new(vec![origin], bounds)), timing))
}

/// What was written, held against what the keys are for; nothing written means all of that.
fn algorithms(key: &str, raw: &WrittenProfile, possible: &[Algorithm]) -> Result<Vec<Algorithm>, ProfileError> {
    let key = format!("{key}.algorithms");
    if raw.algorithms.is_empty() {
        return Ok(possible.to_vec());
    }
    let parse = |name: &String| {
        let algorithm = name.parse().map_err(|_| wrong(&key, format!("{name:?}: {ALGORITHMS}")))?;
        if possible.contains(&algorithm) {
            return Ok(algorithm);
        }
        let possible: Vec<String> = possible.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        Err(wrong(&key, format!("{name:?} is not for this profile's keys, which are for {}", possible.join(", "))))
    };
    raw.algorithms.iter().map(parse).collect()
}

/// Either alphabet, with padding or without.
fn base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let read = |alphabet| GeneralPurpose::new(alphabet, config).decode(text.trim()).ok();
    read(&alphabet::STANDARD).or_else(|| read(&alphabet::URL_SAFE))
}

fn in_file(key: &str, path: &Path, what: impl std::fmt::Display) -> ProfileError {
    wrong(key, format!("{}: {what}", path.display()))
}

fn file(key: &str, path: &Path) -> Result<Vec<u8>, ProfileError> {
    files::read(path, MAX_KEY_FILE_BYTES).map_err(|error| in_file(key, path, format!("cannot be read: {error}")))
}

/// A list, or its only member.
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
