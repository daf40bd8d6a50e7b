//! The difference between two configurations: which options take effect together with the policy, which by themselves, and which need
//! a restart.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use toml::{Table, Value};

use crate::config::policy::PolicyMode;
use crate::config::reloadable::LiveOptions;
use crate::config::schema::{OPTIONS, Raw, Reload, SchemaOption};
use crate::config::{Config, ConfigError, interpolation, invalid};
use crate::policy::Limits;
use crate::store::EventStore;
use crate::tokens::profile::{MAX_KEY_FILE_BYTES, ProfileOptions};
use crate::util::files;
use crate::wasm::host::PolicyContext;

/// The option with the bearer token of the control port.
const TOKEN: &str = "control.token";

/// All options as written, with references to secrets but not the secrets. `Debug` shows nothing.
#[derive(Clone, PartialEq)]
pub struct ConfigSnapshot {
    options: Value,
    /// A digest of each token profile and the secrets and files that it refers to.
    profiles: BTreeMap<String, [u8; 32]>,
    /// A digest of each file of public keys.
    keys: Vec<[u8; 32]>,
}

impl std::fmt::Debug for ConfigSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl ConfigSnapshot {
    /// Captures the options. This reads files before the configuration uses them, so that a change in between is a difference the next
    /// time.
    pub fn of(raw: &Raw) -> Result<Self, ConfigError> {
        let options = Value::try_from(raw).map_err(|error| invalid("cannot be serialized", error))?;
        // A file that cannot be read, or is too large, is an error of the option that names it.
        let contents = |path: &PathBuf| files::read(path, MAX_KEY_FILE_BYTES).ok();
        let profile = |(name, profile): (&String, &_)| {
            let ProfileOptions { secret, pem, jwks, .. } = profile;
            let mut digest = Sha256::new();
            digest.update(Table::try_from(profile).map(|table| table.to_string()).unwrap_or_default());
            let secret = secret.as_ref().and_then(|secret| interpolation::resolve(secret.reveal()).ok());
            let files = [pem, jwks].map(|path| path.as_ref().and_then(contents));
            for part in files.into_iter().chain([secret.map(String::into_bytes)]) {
                // The length separates the parts, so that different parts never have the same digest.
                digest.update(part.as_ref().map_or(0, Vec::len).to_be_bytes());
                digest.update(part.unwrap_or_default());
            }
            (name.clone(), digest.finalize().into())
        };
        let key = |path: &PathBuf| Sha256::digest(contents(path).unwrap_or_default()).into();
        Ok(Self {
            options,
            profiles: raw.policy.tokens.iter().map(profile).collect(),
            keys: raw.policy.trusted_keys.iter().map(key).collect(),
        })
    }

    fn get(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.options, |value, key| value.as_table()?.get(key))
    }

    fn is_same(&self, other: &Self, option: &SchemaOption) -> bool {
        let same_keys = option.reload != Reload::TrustedKeys || self.keys == other.keys;
        same_keys && self.get(&option.path) == other.get(&option.path)
    }

    /// Whether all options of a class are the same.
    fn is_same_class(&self, other: &Self, class: Reload) -> bool {
        OPTIONS.iter().filter(|option| option.reload == class).all(|option| self.is_same(other, option))
    }
}

impl Config {
    /// Whether both have the same policy environment.
    pub fn has_same_policy_env(&self, other: &Self) -> bool {
        self.settings == other.settings
            && self.snapshot.profiles == other.snapshot.profiles
            && self.snapshot.is_same_class(&other.snapshot, Reload::PolicyEnv)
    }

    /// The options that differ from those of a running gateway and that it reads only at startup.
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let (live_keys, retains_token) = (self.takes_keys_from(running), self.retains_token_of(running));
        let is_read_at_start = |option: &SchemaOption| match option.reload {
            Reload::Restart => true,
            Reload::TrustedKeys => !live_keys,
            Reload::Live => option.path == TOKEN && retains_token,
            Reload::PolicyEnv | Reload::PolicyFile => false,
        };
        let changed =
            |option: &&SchemaOption| is_read_at_start(option) && !self.snapshot.is_same(&running.snapshot, option);
        OPTIONS.iter().filter(changed).map(|option| &*option.path).collect()
    }

    /// Whether a running gateway takes over the trusted keys: a policy in a file is verified again. Whether signatures are required at
    /// all is decided at startup.
    pub fn takes_keys_from(&self, running: &Self) -> bool {
        // Compares the files as written: a gateway keeps its keys when all of them are removed from the configuration.
        let wanted = !self.snapshot.keys.is_empty() && !running.snapshot.keys.is_empty();
        wanted && self.policy_mode != PolicyMode::Fleet && running.policy_mode != PolicyMode::Fleet
    }

    /// Whether a removed token stays required: a gateway that started with one may listen on an address that others can reach.
    fn retains_token_of(&self, running: &Self) -> bool {
        self.live.control_token.is_none() && running.live.control_token.is_some()
    }

    /// The live options, in a gateway that was started with `running`.
    pub fn live_in(&self, running: &Self, now: &LiveOptions) -> Arc<LiveOptions> {
        if !self.retains_token_of(running) {
            return Arc::clone(&self.live);
        }
        Arc::new(LiveOptions { control_token: now.control_token.clone(), ..LiveOptions::clone(&self.live) })
    }

    /// Takes over fetched keys and open connections of an earlier configuration, where their options are unchanged.
    pub fn keep_from(&mut self, before: &Self) {
        let same = |name: &str| self.snapshot.profiles.get(name) == before.snapshot.profiles.get(name);
        self.tokens = self.tokens.reusing(&before.tokens, same);
        if self.snapshot.is_same_class(&before.snapshot, Reload::TrustedKeys) {
            self.rollout.trust = Arc::clone(&before.rollout.trust);
        }
        let mut egress = OPTIONS.iter().filter(|option| option.path.starts_with("policy.egress."));
        if egress.all(|option| self.snapshot.is_same(&before.snapshot, option)) {
            self.egress = Arc::clone(&before.egress);
        }
    }

    /// The policy environment and limits, in a gateway whose engine was created for `running`.
    pub fn context(&self, store: Arc<dyn EventStore>, running: &Limits) -> PolicyContext {
        let limits = Limits {
            max_memory: running.max_memory,
            pool_resident: running.pool_resident,
            concurrency: running.concurrency,
            shadow_concurrency: running.shadow_concurrency,
            prewarmed_instances: running.prewarmed_instances,
            queue_timeout: running.queue_timeout,
            compile_timeout: running.compile_timeout,
            ..self.limits.clone()
        };
        PolicyContext { env: Arc::new(self.env(store)), limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str) -> Config {
        let raw = toml::from_str(&format!("allow-all = true\n{toml}")).expect("toml");
        Config::validate(raw).expect("valid")
    }

    #[test]
    fn options_that_are_compared_by_path_exist() {
        // A misspelled option would be equal in all configurations.
        for path in
            [TOKEN, "policy.egress.hosts", "policy.trusted-keys", "policy.file", "policy.cpu-time", "log.filter"]
        {
            assert!(OPTIONS.iter().any(|option| option.path == path), "{path}");
        }
        let classes: Vec<_> = OPTIONS.iter().map(|option| option.reload).collect();
        let count = |class| classes.iter().filter(|reload| **reload == class).count();
        assert_eq!((count(Reload::TrustedKeys), count(Reload::PolicyFile)), (1, 2));
    }

    #[test]
    fn control_token_can_be_added_and_changed_but_not_removed() {
        let (none, one, two) = (load(""), load("control.token = 'one'"), load("control.token = 'two'"));
        for (new, started, now, expect, restart) in [
            (&one, &none, &none, Some("one"), &[][..]),
            (&none, &none, &one, None, &[]),
            (&two, &one, &one, Some("two"), &[]),
            (&none, &one, &two, Some("two"), &[TOKEN]),
        ] {
            assert_eq!(new.live_in(started, &now.live).control_token, expect.map(Into::into));
            assert_eq!(new.needs_restart(started), restart);
        }
    }

    #[test]
    fn difference_names_the_options_that_need_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "one").expect("a file");
        let base = format!(
            "[policy]\nsettings.key = '${{file:{0}}}'\ntokens.app = {{ secret = '${{file:{0}}}' }}\negress.hosts = ['https://a.example']",
            secret.display()
        );
        let running = load(&base);
        let check = |toml: &str, same: bool, restart: &[&str]| {
            let new = load(toml);
            assert_eq!(new.has_same_policy_env(&running), same, "{toml}");
            assert_eq!(new.needs_restart(&running), restart, "{toml}");
        };
        check(&base, true, &[]);
        check(&format!("{base}\ncpu-time = '50ms'"), false, &[]);
        check(&format!("{base}\nlookup.prefixes = ['a:']"), false, &[]);
        check(
            &format!("{base}\nmax-memory = '32MiB'\nrotation-window = 'off'\nqueue-timeout = '3s'"),
            true,
            &["policy.max-memory", "policy.queue-timeout"],
        );
        check(
            &format!("listen = '127.0.0.1:1'\ncontrol.listen = '127.0.0.1:2'\n{base}"),
            true,
            &["listen", "control.listen"],
        );
        check("", false, &[]);
        std::fs::write(&secret, "two").expect("a file");
        check(&base, false, &[]);
    }

    #[test]
    fn unchanged_token_profiles_and_egress_are_reused() {
        let jwks = "jwks-url = 'https://a.example/keys'";
        let one = load(&format!(
            "[policy]\ntokens.a = {{ {jwks} }}\ntokens.b = {{ {jwks} }}\negress.hosts = ['https://a.example']"
        ));
        let mut two = load(&format!(
            "[policy]\ncpu-time = '1ms'\ntokens.a = {{ {jwks} }}\ntokens.b = {{ {jwks}, issuer = 'b' }}\negress.hosts = ['https://a.example']"
        ));
        two.keep_from(&one);
        assert!(two.tokens.shares_profile(&one.tokens, "a") && !two.tokens.shares_profile(&one.tokens, "b"));
        assert!(Arc::ptr_eq(&one.egress, &two.egress));
        let mut three = load("[policy]\negress.hosts = ['https://b.example']");
        three.keep_from(&two);
        assert!(!Arc::ptr_eq(&three.egress, &two.egress));
    }
}
