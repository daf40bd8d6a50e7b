//! The settings that the operator gives a policy, some of which are secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use wasmtime_wasi_config::WasiConfigVariables;

/// The values of `[policy.settings]`. `Debug` shows only names, because any value may be a secret.
#[derive(Clone, Default)]
pub struct Settings(Arc<Values>);

#[derive(Default)]
struct Values {
    named: BTreeMap<String, Secret>,
    /// A copy for `wasi:config/store`, which needs its own type.
    variables: WasiConfigVariables,
}

impl Settings {
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.named.get(name).map(Secret::reveal)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.named.keys().map(String::as_str)
    }

    /// The values for `wasi:config/store`.
    #[must_use]
    pub fn variables(&self) -> &WasiConfigVariables {
        &self.0.variables
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Settings {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(values: I) -> Self {
        let mut settings = Values::default();
        for (name, value) in values {
            let (name, value) = (name.into(), value.into());
            settings.variables.insert(name.clone(), value.clone());
            settings.named.insert(name, Secret::new(value));
        }
        Self(Arc::new(settings))
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.0.named == other.0.named
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0.named).finish()
    }
}

/// A string that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_values() {
        let settings: Settings = [("audience", "app"), ("key", "hunter2")].into_iter().collect();
        assert_eq!(format!("{settings:?}"), r#"{"audience": …, "key": …}"#);
        assert_eq!(settings.get("key"), Some("hunter2"));
        assert_eq!(settings.get("Key"), None);
        assert_eq!(settings.names().collect::<Vec<_>>(), ["audience", "key"]);
    }
}
