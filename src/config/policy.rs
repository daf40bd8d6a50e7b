//! The bounds of decisions, what a policy may see and where it may reach.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use toml::Value;
use url::Url;

use super::raw;
use super::{ConfigError, count, positive, reference, size, up_to, wrong};
use crate::egress::{Bounds, Egress, Origin};
use crate::policy::tokens::{Algorithm, Audience, KeySet, Profile, Remote, Source, Timing, Tokens};
use crate::policy::{Limits, Settings};

/// An HMAC secret is as hard to guess as it is long: RFC 7518 wants this much for the least of them.
const SECRET: usize = 32;
/// A larger file has no keys.
const MAX_KEY_FILE: u64 = 1 << 20;
/// A JWKS is some kilobytes.
const MAX_JWKS: usize = 512 << 10;
/// A policy that has to wait for keys has `policy.timeout`, but those who come after it are served by a slow answer too.
const JWKS_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of all decisions at once.
const REQUESTS: usize = 256;
const ALGORITHMS: &str =
    "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA are known";

/// Checks `[policy]`, as far as it is numbers.
pub fn limits(raw: &raw::Policy) -> Result<Limits, ConfigError> {
    Ok(Limits {
        cpu: positive("policy.cpu", raw.cpu)?,
        timeout: positive("policy.timeout", raw.timeout)?,
        memory: size("policy.memory", raw.memory, 1 << 20, 4 << 30)?,
        concurrency: count("policy.concurrency", raw.concurrency, 10_000)?,
        prepared: up_to("policy.prepared", raw.prepared, 1_000)?,
        queue_timeout: raw.queue_timeout,
        answer: size("policy.max-answer", raw.max_answer, 1 << 10, 64 << 20)?,
        lookup_timeout: positive("policy.lookup.timeout", raw.lookup.timeout)?,
        lookups: raw.max_lookups,
        requests: raw.egress.max_requests,
        log_rate: raw.log_rate,
        compile_timeout: positive("policy.compile-timeout", raw.compile_timeout)?,
        cache: size("policy.cache", raw.cache, 0, 1 << 40)?,
        cache_max_age: raw.cache_max_age,
    })
}

/// The settings, with what they refer to.
pub fn settings(raw: &BTreeMap<String, Value>) -> Result<Settings, ConfigError> {
    let named =
        |(name, value): (&String, &Value)| Ok((name.clone(), secret(&format!("policy.settings.{name}"), value)?));
    raw.iter().map(named).collect()
}

/// A text that may refer to where it stands. Whatever is wrong with it, it is not shown.
fn secret(key: &str, value: &Value) -> Result<String, ConfigError> {
    let text =
        value.as_str().ok_or_else(|| wrong(key, format!("a {} where a string is expected", value.type_str())))?;
    reference::resolve(text).map_err(|error| wrong(key, error))
}

/// The hosts that policies may send requests to.
pub fn egress(raw: &raw::Egress) -> Result<Egress, ConfigError> {
    let origin = |host: &raw::Host| {
        let (url, private) = match host {
            raw::Host::Url(url) => (url, false),
            raw::Host::Table(table) => (&table.url, table.allow_private),
        };
        Origin::parse(url, private).map_err(|error| wrong("policy.egress.hosts", format!("{url:?}: {error}")))
    };
    let origins = raw.hosts.iter().map(origin).collect::<Result<_, _>>()?;
    let bounds = Bounds {
        timeout: positive("policy.egress.timeout", raw.timeout)?,
        response: size("policy.egress.max-response", raw.max_response, 1 << 10, 64 << 20)?,
        concurrency: REQUESTS,
    };
    Ok(Egress::new(origins, bounds))
}

/// The token profiles. Files are read, URLs are not fetched.
pub fn tokens(raw: &BTreeMap<String, raw::TokenProfile>) -> Result<Tokens, ConfigError> {
    raw.iter().map(|(name, raw)| Ok((name.clone(), profile(&format!("policy.tokens.{name}"), raw)?))).collect()
}

fn profile(key: &str, raw: &raw::TokenProfile) -> Result<Profile, ConfigError> {
    let say = |what: &str| wrong(key, what);
    let named = [raw.secret.is_some(), raw.pem.is_some(), raw.jwks.is_some(), raw.jwks_url.is_some()];
    if named.iter().filter(|there| **there).count() != 1 {
        return Err(say("it has exactly one of secret, pem, jwks and jwks-url"));
    }
    if raw.secret.is_none() && raw.secret_encoding != raw::SecretEncoding::Text {
        return Err(say("secret-encoding is for a secret"));
    }
    if raw.issuer.as_ref().is_some_and(String::is_empty) || raw.audience.iter().any(String::is_empty) {
        return Err(say("an issuer or an audience that is empty"));
    }
    let (source, possible) = source(key, raw)?;
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
fn source(key: &str, raw: &raw::TokenProfile) -> Result<(Source, Vec<Algorithm>), ConfigError> {
    if let Some(value) = &raw.secret {
        let key = format!("{key}.secret");
        let secret = secret(&key, value)?;
        let bytes = match raw.secret_encoding {
            raw::SecretEncoding::Text => secret.into_bytes(),
            raw::SecretEncoding::Base64 => base64(&secret).ok_or_else(|| wrong(&key, "it is not base64"))?,
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
    Ok((Source::Remote(Arc::new(remote)), public))
}

const PUBLIC: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

fn fixed(keys: KeySet) -> (Source, Vec<Algorithm>) {
    let possible = keys.algorithms();
    (Source::Fixed(keys), possible)
}

fn remote(key: &str, text: &str, raw: &raw::TokenProfile) -> Result<Remote, ConfigError> {
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
    let timing = Timing { min_age: raw.min_age, max_age: raw.max_age, stale: raw.stale, ..Timing::default() };
    if timing.min_age < Duration::from_secs(1) || timing.min_age > timing.max_age {
        return Err(wrong(key, "min-age is at least 1s, and at most max-age"));
    }
    let bounds = Bounds { timeout: JWKS_TIMEOUT, response: MAX_JWKS, concurrency: 1 };
    Ok(Remote::new(uri, Arc::new(Egress::new(vec![origin], bounds)), timing))
}

/// What was written, held against what the keys are for; nothing written means all of that.
fn algorithms(key: &str, raw: &raw::TokenProfile, possible: &[Algorithm]) -> Result<Vec<Algorithm>, ConfigError> {
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

fn in_file(key: &str, path: &Path, what: impl std::fmt::Display) -> ConfigError {
    wrong(key, format!("{}: {what}", path.display()))
}

fn file(key: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let bytes = std::fs::metadata(path).and_then(|data| match data.len() {
        0..=MAX_KEY_FILE => std::fs::read(path),
        _ => Err(std::io::Error::other("it has more than 1 MiB")),
    });
    bytes.map_err(|error| in_file(key, path, format!("cannot be read: {error}")))
}
