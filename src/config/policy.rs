//! Validates the limits of decisions and the policy environment.

use crate::tokens::profile::profile;
use std::collections::BTreeMap;

use toml::Value;

use crate::config::raw;
use crate::config::{ConfigError, count, positive, reference, size, up_to, wrong};
use crate::egress::origin::EgressOrigin;
use crate::egress::{Egress, EgressLimits};
use crate::policy::Limits;
use crate::policy::settings::Settings;
use crate::tokens::Tokens;
use crate::tokens::profile::WrittenProfile;

/// Concurrent outbound requests of all decisions.
const MAX_CONCURRENT_REQUESTS: usize = 256;

/// Validates the limits of `[policy]`.
pub fn limits(raw: &raw::Policy) -> Result<Limits, ConfigError> {
    Ok(Limits {
        cpu_time: positive("policy.cpu-time", raw.cpu_time)?,
        timeout: positive("policy.timeout", raw.timeout)?,
        max_memory: size("policy.max-memory", raw.max_memory, 1 << 20, 4 << 30)?,
        concurrency: count("policy.concurrency", raw.concurrency, 10_000)?,
        prewarmed_instances: up_to("policy.prewarmed-instances", raw.prewarmed_instances, 1_000)?,
        queue_timeout: raw.queue_timeout,
        max_response_size: size("policy.max-response-size", raw.max_response_size, 1 << 10, 64 << 20)?,
        lookup_timeout: positive("policy.lookup.timeout", raw.lookup.timeout)?,
        max_lookups: raw.lookup.max_lookups,
        max_requests: raw.egress.max_requests,
        log_rate: raw.log_rate,
        shadow_concurrency: count("policy.shadow.concurrency", raw.shadow.concurrency, 1_000)?,
        compile_timeout: positive("policy.compile-timeout", raw.compile_timeout)?,
        cache_size: size("policy.cache-size", raw.cache_size, 0, 1 << 40)?,
        cache_max_age: raw.cache_max_age,
    })
}

/// The settings, with references to secrets resolved.
pub fn settings(raw: &BTreeMap<String, Value>) -> Result<Settings, ConfigError> {
    let named =
        |(name, value): (&String, &Value)| Ok((name.clone(), secret(&format!("policy.settings.{name}"), value)?));
    raw.iter().map(named).collect()
}

/// Resolves a value that may refer to a secret. Errors never contain the value.
fn secret(key: &str, value: &Value) -> Result<String, ConfigError> {
    let text =
        value.as_str().ok_or_else(|| wrong(key, format!("a {} where a string is expected", value.type_str())))?;
    reference::resolve(text).map_err(|error| wrong(key, error))
}

/// The origins that policies may send requests to.
pub fn egress(raw: &raw::Egress) -> Result<Egress, ConfigError> {
    let origin = |host: &raw::Host| {
        let (url, private) = match host {
            raw::Host::Url(url) => (url, false),
            raw::Host::Table(table) => (&table.url, table.allow_private),
        };
        EgressOrigin::parse(url, private).map_err(|error| wrong("policy.egress.hosts", format!("{url:?}: {error}")))
    };
    let origins = raw.hosts.iter().map(origin).collect::<Result<_, _>>()?;
    let bounds = EgressLimits {
        timeout: positive("policy.egress.timeout", raw.timeout)?,
        max_response_size: size("policy.egress.max-response-size", raw.max_response_size, 1 << 10, 64 << 20)?,
        concurrency: MAX_CONCURRENT_REQUESTS,
    };
    Ok(Egress::new(origins, bounds))
}

/// The token profiles. Reads files, but fetches no URLs.
pub fn tokens(raw: &BTreeMap<String, WrittenProfile>) -> Result<Tokens, ConfigError> {
    let resolve = |text: &str| reference::resolve(text).map_err(|error| error.to_string());
    let check = |(name, raw): (&String, &WrittenProfile)| {
        let profile = profile(&format!("policy.tokens.{name}"), raw, &resolve);
        Ok((name.clone(), profile.map_err(|error| wrong(&error.key, error.reason))?))
    };
    raw.iter().map(check).collect()
}
