//! The files that a configuration refers to. They are watched like its own file, and read with it.

use std::path::PathBuf;

use toml::Value;

use crate::config::interpolation;
use crate::config::schema::Raw;

/// All referenced files, whether they exist or not.
pub fn list_files(raw: &Raw) -> Vec<PathBuf> {
    let policy = &raw.policy;
    let mut files: Vec<PathBuf> = policy.trusted_keys.clone();
    let settings = policy.settings.values().filter_map(Value::as_str);
    let secrets = policy.tokens.values().filter_map(|profile| profile.secret.as_ref()?.text());
    files.extend(settings.chain(secrets).flat_map(interpolation::list_files));
    files.extend(policy.tokens.values().flat_map(|profile| [&profile.pem, &profile.jwks]).flatten().cloned());
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referenced_files_are_listed() {
        let raw: Raw = toml::from_str(
            "[policy]
            file = 'policy.wasm'
            trusted-keys = ['one.pub.pem', 'two.pub.pem']
            settings.pepper = '${file:/run/pepper}${HOME}${file:/run/salt}'
            settings.same = '${file:/run/salt}'
            settings.none = '$${file:/run/none}'
            settings.broken = '${file:/run/none'
            [policy.tokens]
            a = { secret = '${file:secret}' }
            b = { pem = 'keys.pem' }
            c = { jwks = 'keys.json' }
            d = { jwks-url = 'https://auth.example' }",
        )
        .expect("toml");
        let expect = ["/run/pepper", "/run/salt", "keys.json", "keys.pem", "one.pub.pem", "secret", "two.pub.pem"];
        assert_eq!(list_files(&raw), expect.map(PathBuf::from));
    }
}
