//! The bounds of decisions, what a policy may see and where it may reach.

use std::collections::BTreeMap;

use toml::Value;

use super::raw;
use super::{ConfigError, count, positive, reference, size, up_to, wrong};
use crate::policy::{Limits, Settings};

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
