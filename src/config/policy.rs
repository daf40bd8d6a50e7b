//! Validates `[policy]`: where the policy comes from, its limits and its environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::artifact::signature::key::TrustedKeys;
use crate::config::schema;
use crate::config::validate::{check_positive, check_range, check_size};
use crate::config::{ConfigError, interpolation, invalid};
use crate::egress::origin::EgressOrigin;
use crate::egress::{Egress, EgressLimits};
use crate::policy::Limits;
use crate::policy::key_prefix::check_prefix;
use crate::policy::settings::Settings;
use crate::store::url::StoreUrl;
use crate::tokens::Tokens;
use crate::tokens::profile::{self, ProfileOptions, ResolveFn};
use crate::util::hidden::Hidden;

/// Maximum concurrent outbound requests of all decisions.
const MAX_CONCURRENT_REQUESTS: usize = 256;

/// The name of the example policy, instead of a path.
pub const EXAMPLE: &str = "example:rust-role-based";

/// Which policy decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyMode {
    File(PathBuf),
    /// The example policy that is built into the program.
    Example,
    /// The policy that was pushed to the store.
    Fleet,
    /// No policy: every request is allowed.
    AllowAll,
}

/// What a policy must pass before its activation.
#[derive(Clone, Debug)]
pub struct RolloutConfig {
    /// Test cases to pass before activation; `None` for the file next to the component.
    pub cases: Option<PathBuf>,
    /// Trusted public keys; if there is one, policies must be signed.
    pub trust: Arc<TrustedKeys>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShadowConfig {
    /// Its component, if the configuration names one.
    pub file: Option<PathBuf>,
    /// Share of clients for which it is evaluated, from 0 to 1.
    pub share: f64,
}

/// Bytes that a memory of 32-bit addresses has at most.
const MAX_MEMORY: u64 = 4 << 30;

/// Validates the limits of `[policy]`.
pub fn check_limits(raw: &schema::Policy) -> Result<Limits, ConfigError> {
    let max_memory = check_size("policy.max-memory", raw.max_memory, 1 << 20, MAX_MEMORY)?;
    Ok(Limits {
        cpu_time: check_positive("policy.cpu-time", raw.cpu_time.0)?,
        timeout: check_positive("policy.timeout", raw.timeout.0)?,
        max_memory,
        // The default may be more than a smaller `policy.max-memory`, which is no mistake.
        pool_resident: check_size("policy.pool-resident", raw.pool_resident, 0, MAX_MEMORY)?,
        concurrency: check_range("policy.concurrency", raw.concurrency, 1, 10_000)?,
        prewarmed_instances: check_range("policy.prewarmed-instances", raw.prewarmed_instances, 0, 1_000)?,
        queue_timeout: raw.queue_timeout.0,
        max_response_size: check_size("policy.max-response-size", raw.max_response_size, 1 << 10, 64 << 20)?,
        lookup_timeout: check_positive("policy.lookup.timeout", raw.lookup.timeout.0)?,
        max_lookups: raw.lookup.max_lookups,
        max_requests: raw.egress.max_requests,
        log_rate: raw.log_rate,
        shadow_concurrency: check_range("policy.shadow.concurrency", raw.shadow.concurrency, 1, 1_000)?,
        compile_timeout: check_positive("policy.compile-timeout", raw.compile_timeout.0)?,
        cache_size: check_size("policy.cache-size", raw.cache_size, 0, 1 << 40)?,
        cache_max_age: raw.cache_max_age.0,
    })
}

/// The settings, with references to secrets resolved. Errors never contain a value.
pub fn resolve_settings(raw: &BTreeMap<String, Hidden>) -> Result<Settings, ConfigError> {
    let resolve = |(name, value): (&String, &Hidden)| {
        let key = format!("policy.settings.{name}");
        let resolved = interpolation::resolve(value.reveal()).map_err(|error| invalid(&key, error))?;
        Ok((name.clone(), resolved))
    };
    raw.iter().map(resolve).collect()
}

/// The origins that policies may send requests to.
pub fn build_egress(raw: &schema::Egress) -> Result<Egress, ConfigError> {
    let mut origins: Vec<EgressOrigin> = Vec::with_capacity(raw.hosts.len());
    for (n, host) in raw.hosts.iter().enumerate() {
        let (url, private) = match host {
            schema::Host::Url(url) => (url, false),
            schema::Host::Table(table) => (&table.url, table.allow_private),
        };
        let key = format!("policy.egress.hosts[{n}]");
        let origin = EgressOrigin::parse(url.reveal(), private).and_then(|origin| {
            origin.check_reachable()?;
            Ok(origin)
        });
        let origin = origin.map_err(|error| invalid(&key, error))?;
        if let Some(other) = origins.iter().position(|other| other.is_same(&origin)) {
            return Err(invalid(
                &key,
                format!("the same origin as policy.egress.hosts[{other}]: remove one of the two"),
            ));
        }
        origins.push(origin);
    }
    if raw.max_requests == 0 && !origins.is_empty() {
        let what = "with 0 the policy can send no request to policy.egress.hosts: raise it, or remove the hosts";
        return Err(invalid("policy.egress.max-requests", what));
    }
    let limits = EgressLimits {
        timeout: check_positive("policy.egress.timeout", raw.timeout.0)?,
        max_response_size: check_size("policy.egress.max-response-size", raw.max_response_size, 1 << 10, 64 << 20)?,
        concurrency: MAX_CONCURRENT_REQUESTS,
    };
    Ok(Egress::new(origins, limits))
}

/// Validates the prefixes of the keys that policies may look up.
pub fn check_lookup(raw: &schema::Lookup) -> Result<(), ConfigError> {
    let prefixes = &raw.prefixes;
    for (n, prefix) in prefixes.iter().enumerate() {
        let key = |n: usize| format!("policy.lookup.prefixes[{n}]");
        check_prefix(prefix).map_err(|error| invalid(&key(n), error))?;
        // Of two equal ones, the later is reported.
        let covers =
            |(m, other): (usize, &String)| prefix.starts_with(&**other) && (other != prefix || m < n) && m != n;
        if let Some(other) = prefixes.iter().enumerate().position(covers) {
            return Err(invalid(&key(n), format!("{} covers these keys as well: remove one of the two", key(other))));
        }
    }
    if raw.max_lookups == 0 && !prefixes.is_empty() {
        let what = "with 0 the policy can look up no key of policy.lookup.prefixes: raise it, or remove the prefixes";
        return Err(invalid("policy.lookup.max-lookups", what));
    }
    Ok(())
}

/// The token profiles. Reads files, but fetches no URLs.
pub fn load_tokens(raw: &BTreeMap<String, ProfileOptions>) -> Result<Tokens, ConfigError> {
    let resolve: ResolveFn = |text| interpolation::resolve(text).map_err(|error| error.to_string());
    let check = |(name, raw): (&String, &ProfileOptions)| {
        let profile = profile::validate(&format!("policy.tokens.{name}"), raw, resolve);
        Ok((name.clone(), profile.map_err(|error| invalid(&error.key, error.reason))?))
    };
    raw.iter().map(check).collect()
}

/// The policy of a gateway without a fleet.
pub fn choose_local_mode(allow_all: bool, file: Option<PathBuf>) -> Result<PolicyMode, ConfigError> {
    match (allow_all, file) {
        (true, None) => Ok(PolicyMode::AllowAll),
        (false, Some(file)) if file.ends_with(EXAMPLE) => Ok(PolicyMode::Example),
        (false, Some(file)) => Ok(PolicyMode::File(file)),
        (true, Some(file)) if file.ends_with(EXAMPLE) => Ok(PolicyMode::AllowAll),
        (true, Some(_)) => Err(invalid("allow-all", "policy.file is set as well: remove one of the two")),
        (false, None) => Err(invalid(
            "policy.file",
            "no policy is set, so no request could be allowed: give --policy policy.wasm (policy.file, \
             TIDEGATE_POLICY_FILE), or --allow-all",
        )),
    }
}

/// The policy of a fleet node.
pub fn check_fleet_mode(raw: &schema::Policy, allow_all: bool, store: &StoreUrl) -> Result<PolicyMode, ConfigError> {
    if allow_all {
        return Err(invalid(
            "allow-all",
            "the policy comes from the fleet (policy.source = \"fleet\"): remove one of the two",
        ));
    }
    if raw.file.as_ref().is_some_and(|file| !file.ends_with(EXAMPLE)) {
        return Err(invalid(
            "policy.file",
            "the policy comes from the fleet (policy.source = \"fleet\"): push it with `tidegate policy push`",
        ));
    }
    if matches!(store, StoreUrl::Memory) {
        return Err(invalid("policy.source", "a fleet needs a Redis for its policy, and `store` is memory:"));
    }
    if raw.trusted_keys.is_empty() && !raw.allow_unsigned {
        let what = "a fleet accepts only signed policies, because anyone who can write to the store could replace the policy: \
                    name public keys (`tidegate policy keygen` creates a pair), or set --allow-unsigned (policy.allow-unsigned)";
        return Err(invalid("policy.trusted-keys", what));
    }
    if !raw.trusted_keys.is_empty() && raw.allow_unsigned {
        let what = "policy.trusted-keys is set as well, and then every policy must be signed: remove one of the two";
        return Err(invalid("policy.allow-unsigned", what));
    }
    Ok(PolicyMode::Fleet)
}
