//! Checks the requirements of a policy (`[requires]` in its test cases) against the configuration.

use crate::policytest::Requirements;
use crate::wasm::host::PolicyEnv;

/// The requirements that the configuration does not meet, each with the option that would meet it.
pub fn missing(requires: &Requirements, env: &PolicyEnv) -> Vec<String> {
    let mut missing = Vec::new();
    for name in &requires.settings {
        if env.settings.get(name).is_none() {
            missing.push(format!("the setting {name:?}, which is not set (policy.settings.{name})"));
        }
    }
    for name in &requires.tokens {
        if !env.tokens.names().any(|known| known == name) {
            missing.push(format!("the token profile {name:?}, which is not configured (policy.tokens.{name})"));
        }
    }
    for prefix in &requires.lookup {
        if !env.lookup_prefixes.iter().any(|allowed| prefix.starts_with(&**allowed)) {
            missing.push(format!("to look up {prefix:?}, which is not allowed (policy.lookup.prefixes)"));
        }
    }
    for url in &requires.egress {
        if !url.parse().is_ok_and(|uri| env.egress.allows(&uri)) {
            missing.push(format!("to send requests to {url}, which is not allowed (policy.egress.hosts)"));
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::store::memory::MemoryStore;
    use crate::util::clock::system_clock;

    #[test]
    fn missing_requirements_are_named_with_their_options() {
        let toml = r#"
            allow-all = true
            [policy]
            settings.audience = "app"
            tokens.app.secret = "0123456789abcdef0123456789abcdef"
            lookup.prefixes = ["session:"]
            egress.hosts = ["https://auth.example"]
        "#;
        let config = Config::validate(toml::from_str(toml).expect("toml")).expect("valid");
        let store = Arc::new(MemoryStore::new(1 << 16, std::collections::HashMap::new(), system_clock()));
        let env = config.env(store);
        let check = |requires: &str, expect: &[&str]| {
            let found = missing(&toml::from_str(requires).expect("toml"), &env);
            assert_eq!(found.len(), expect.len(), "{requires}: {found:?}");
            for (found, expect) in found.iter().zip(expect) {
                assert!(found.contains(expect), "{requires}: {found}");
            }
        };
        check("", &[]);
        check("settings = ['audience']\ntokens = ['app']\nlookup = ['session:', 'session:x']", &[]);
        check("egress = ['https://auth.example', 'https://auth.example:443/']", &[]);
        check("settings = ['pepper', 'salt']", &["policy.settings.pepper", "policy.settings.salt"]);
        check("tokens = ['web']", &["policy.tokens.web"]);
        check("lookup = ['sess', 'team:']", &["policy.lookup.prefixes", "\"team:\""]);
        check("egress = ['http://auth.example']", &["policy.egress.hosts"]);
    }
}
