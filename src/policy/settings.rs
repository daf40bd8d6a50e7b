//! What the operator gives a policy and nobody else: its settings, some of which are secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use wasmtime_wasi_config::WasiConfigVariables;

/// The values of `[policy.settings]`. `Debug` shows their names alone, for any of them may be a secret.
#[derive(Clone, Default)]
pub struct Settings(Arc<Values>);

#[derive(Default)]
struct Values {
    named: BTreeMap<String, Secret>,
    /// The same for `wasi:config/store`.
    variables: WasiConfigVariables,
}

impl Settings {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.named.get(name).map(Secret::reveal)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.named.keys().map(String::as_str)
    }

    /// The values as `wasi:config/store` gives them.
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

/// A text that no log and no error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
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
    fn values_are_never_shown() {
        let settings: Settings = [("audience", "app"), ("key", "hunter2")].into_iter().collect();
        assert_eq!(format!("{settings:?}"), r#"{"audience": …, "key": …}"#);
        assert_eq!(settings.get("key"), Some("hunter2"));
        assert_eq!(settings.get("Key"), None);
        assert_eq!(settings.names().collect::<Vec<_>>(), ["audience", "key"]);
    }
}
