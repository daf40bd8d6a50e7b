//! The settings that the operator gives a policy.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use wasmtime_wasi_config::WasiConfigVariables;

/// The values of `[policy.settings]`. `Debug` shows only names, because any value may be a secret.
#[derive(Clone, Default)]
pub struct Settings(Arc<Values>);

#[derive(Default)]
struct Values {
    named: BTreeMap<String, String>,
    /// A copy for `wasi:config/store`, which needs its own type.
    variables: WasiConfigVariables,
}

impl Settings {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.named.get(name).map(String::as_str)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.named.keys().map(String::as_str)
    }

    /// The values for `wasi:config/store`.
    pub fn variables(&self) -> &WasiConfigVariables {
        &self.0.variables
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Settings {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(values: I) -> Self {
        let named: BTreeMap<_, _> = values.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let variables = named.clone().into_iter().collect();
        Self(Arc::new(Values { named, variables }))
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.0.named == other.0.named
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.names().map(|name| (name, format_args!("…")))).finish()
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
