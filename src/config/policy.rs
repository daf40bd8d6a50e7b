//! What a policy may see and where it may reach.

use std::collections::BTreeMap;

use toml::Value;

use super::{ConfigError, reference, wrong};
use crate::policy::Settings;

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
