//! Reads and checks the token profiles of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::AlgorithmFamily;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use crate::egress::origin::EgressOrigin;
use crate::egress::{Egress, EgressLimits};
use crate::tokens::jwks::{JwksSource, JwksTiming};
use crate::tokens::key::{KeySet, TokenKeyError};
use crate::tokens::{Algorithm, Audience, KeySource, Profile};
use crate::util::duration::HumanDuration;
use crate::util::files;
use crate::util::hidden::Hidden;

/// The minimum length of an HMAC secret for HS256 according to RFC 7518. A shorter one can be guessed from one token.
const MIN_SECRET_BYTES: usize = 32;
/// Maximum size of a file with keys; a JWKS is the largest.
pub const MAX_KEY_FILE_BYTES: u64 = 1 << 20;
/// Maximum size of the response of a JWKS URL, which usually has some kilobytes.
const MAX_JWKS_BYTES: usize = 512 << 10;
/// Longer than `policy.timeout`: a slow response is too late for the decisions that wait for it, but serves later ones.
const JWKS_TIMEOUT: Duration = Duration::from_secs(10);
const ALGORITHMS: &str = "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";

/// `[policy.tokens.<profile>]`, before validation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProfileOptions {
    /// `None` for any issuer.
    pub issuer: Option<String>,
    /// One or more, or `*` for any.
    #[serde(deserialize_with = "one_or_more")]
    pub audience: Vec<String>,
    /// How far the clocks of issuer and gateway may differ.
    pub leeway: HumanDuration,
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
    pub jwks_url: Option<Hidden>,
    /// Whether `jwks_url` may resolve to a private address, and be `http`.
    pub allow_private: bool,
    /// The minimum age of keys before they are fetched again.
    pub min_age: HumanDuration,
    /// The maximum age of keys before they are fetched again.
    pub max_age: HumanDuration,
    /// How long stale keys are used while fetching fails.
    pub stale_if_error: HumanDuration,
}

impl Default for ProfileOptions {
    fn default() -> Self {
        let JwksTiming { min_age, max_age, stale_if_error, .. } = JwksTiming::default();
        Self {
            issuer: None,
            audience: Vec::new(),
            leeway: HumanDuration::from_secs(60),
            require_exp: true,
            algorithms: Vec::new(),
            secret: None,
            secret_encoding: SecretEncoding::Text,
            pem: None,
            jwks: None,
            jwks_url: None,
            allow_private: false,
            min_age: HumanDuration(min_age),
            max_age: HumanDuration(max_age),
            stale_if_error: HumanDuration(stale_if_error),
        }
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

/// Replaces the references in a secret; the error says why one cannot be resolved.
pub type ResolveFn = fn(&str) -> Result<String, String>;

/// Validates a profile and reads its files; URLs are not fetched. `key` is its configuration key, for errors.
pub fn validate(key: &str, raw: &ProfileOptions, resolve: ResolveFn) -> Result<Profile, ProfileError> {
    let error = |reason: &str| invalid(key, reason);
    let (keys, warning) = key_source(key, raw, resolve)?;
    if raw.secret.is_none() && raw.secret_encoding != SecretEncoding::Text {
        return Err(error("secret-encoding is only allowed with secret"));
    }
    if raw.jwks_url.is_none() {
        check_only_of_url(key, raw)?;
    }
    if raw.issuer.as_ref().into_iter().chain(&raw.audience).any(|name| name.is_empty() || name.trim() != name) {
        return Err(error("the issuer or an audience is empty, or has white space at the beginning or end"));
    }
    if raw.issuer.as_deref() == Some("*") {
        return Err(error("issuer: * would be the issuer's name: leave issuer out to accept any"));
    }
    let algorithms = algorithms(key, raw, &keys)?;
    let audience = match raw.audience.iter().any(|name| name == "*") {
        true if raw.audience.len() > 1 => return Err(error("audience: \"*\" means any audience and must stand alone")),
        true => Audience::Any,
        false => Audience::Of(raw.audience.clone()),
    };
    let is_whole = raw.leeway.0.subsec_nanos() == 0;
    let leeway = u32::try_from(raw.leeway.0.as_secs()).ok().filter(|seconds| *seconds <= 600 && is_whole);
    Ok(Profile {
        issuer: raw.issuer.clone(),
        audience,
        leeway: leeway.ok_or_else(|| error("leeway: expected whole seconds from 0s to 10m"))?,
        require_exp: raw.require_exp,
        algorithms,
        keys,
        warning,
    })
}

/// Fails if an option is set that only has an effect with `jwks-url`.
fn check_only_of_url(key: &str, raw: &ProfileOptions) -> Result<(), ProfileError> {
    let default = ProfileOptions::default();
    for (name, is_set) in [
        ("allow-private", raw.allow_private),
        ("min-age", raw.min_age != default.min_age),
        ("max-age", raw.max_age != default.max_age),
        ("stale-if-error", raw.stale_if_error != default.stale_if_error),
    ] {
        if is_set {
            return Err(invalid(
                &format!("{key}.{name}"),
                "has an effect with jwks-url only: remove it, or name the URL",
            ));
        }
    }
    Ok(())
}

/// The keys, and a warning of a secret that can be guessed.
fn key_source(
    key: &str,
    raw: &ProfileOptions,
    resolve: ResolveFn,
) -> Result<(KeySource, Option<String>), ProfileError> {
    let plain = |source| Ok((source, None));
    match (&raw.secret, &raw.pem, &raw.jwks, &raw.jwks_url) {
        (Some(secret), None, None, None) => {
            let key = format!("{key}.secret");
            let bytes = secret_bytes(&key, secret, raw.secret_encoding, resolve)?;
            let warning = (bytes.len() < MIN_SECRET_BYTES).then(|| {
                format!("{key}: a secret shorter than {MIN_SECRET_BYTES} bytes can be guessed from one token; generate one with `openssl rand -base64 32`")
            });
            Ok((KeySource::Fixed(KeySet::from_secret(&bytes)), warning))
        }
        (None, Some(path), None, None) => plain(read_keys(&format!("{key}.pem"), path, KeySet::from_pem)?),
        (None, None, Some(path), None) => {
            plain(read_keys(&format!("{key}.jwks"), path, |text| KeySet::from_jwks(text.as_bytes(), true))?)
        }
        (None, None, None, Some(url)) => {
            plain(KeySource::Jwks(Arc::new(jwks_source(&format!("{key}.jwks-url"), url.reveal(), raw)?)))
        }
        _ => Err(invalid(key, "expected exactly one of secret, pem, jwks and jwks-url")),
    }
}

fn secret_bytes(
    key: &str,
    secret: &Hidden,
    encoding: SecretEncoding,
    resolve: ResolveFn,
) -> Result<Vec<u8>, ProfileError> {
    let secret = resolve(secret.reveal()).map_err(|reason| invalid(key, reason))?;
    let bytes = match encoding {
        SecretEncoding::Text => secret.into_bytes(),
        SecretEncoding::Base64 => base64(&secret).ok_or_else(|| invalid(key, "not base64"))?,
    };
    if bytes.is_empty() {
        return Err(invalid(key, "the secret is empty"));
    }
    Ok(bytes)
}

/// Reads a file of keys.
fn read_keys(
    key: &str,
    path: &Path,
    parse: impl FnOnce(&str) -> Result<KeySet, TokenKeyError>,
) -> Result<KeySource, ProfileError> {
    let text = files::read_text(path, MAX_KEY_FILE_BYTES).map_err(|error| format!("cannot be read: {error}"));
    let keys = text.and_then(|text| parse(&text).map_err(|error| error.to_string()));
    keys.map(KeySource::Fixed).map_err(|reason| invalid(key, format!("{}: {reason}", files::display(path))))
}

fn jwks_source(key: &str, text: &str, raw: &ProfileOptions) -> Result<JwksSource, ProfileError> {
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
    origin.check_reachable().map_err(|error| invalid(key, error))?;
    let uri = url.as_str().parse().map_err(|_| invalid(key, format!("not the URL of a server: {example}")))?;
    let timing = JwksTiming {
        min_age: raw.min_age.0,
        max_age: raw.max_age.0,
        stale_if_error: raw.stale_if_error.0,
        ..JwksTiming::default()
    };
    if timing.min_age < Duration::from_secs(1) || timing.min_age > timing.max_age {
        return Err(invalid(key, "min-age: expected at least 1s and at most max-age"));
    }
    let limits = EgressLimits { timeout: JWKS_TIMEOUT, max_response_size: MAX_JWKS_BYTES, concurrency: 1 };
    Ok(JwksSource::new(uri, Arc::new(Egress::new(vec![origin], limits)), timing))
}

/// The configured algorithms, by default all that the keys can be used for.
fn algorithms(key: &str, raw: &ProfileOptions, keys: &KeySource) -> Result<Vec<Algorithm>, ProfileError> {
    let key = format!("{key}.algorithms");
    let possible = match keys {
        KeySource::Fixed(keys) => keys.algorithms(),
        KeySource::Jwks(_) => [AlgorithmFamily::Rsa, AlgorithmFamily::Ec, AlgorithmFamily::Ed]
            .iter()
            .flat_map(|family| family.algorithms().to_vec())
            .collect(),
    };
    if raw.algorithms.is_empty() {
        return Ok(possible);
    }
    let parse = |name: &String| {
        let algorithm = name.parse().map_err(|_| invalid(&key, format!("expected {ALGORITHMS}")))?;
        if possible.contains(&algorithm) {
            return Ok(algorithm);
        }
        let possible: Vec<String> = possible.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        Err(invalid(
            &key,
            format!("{algorithm:?} does not fit the profile's keys, which are for {}", possible.join(", ")),
        ))
    };
    raw.algorithms.iter().map(parse).collect()
}

/// Decodes base64 of either alphabet, with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text.trim()).ok();
    decode(&alphabet::STANDARD).or_else(|| decode(&alphabet::URL_SAFE))
}

/// Deserializes a list, or a single string as a list of one.
fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or a list of strings")]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(match OneOrMore::deserialize(from)? {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(list) => list,
    })
}
