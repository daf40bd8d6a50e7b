//! Merges flags, environment and file into one validated [`Config`]. Errors name the option and a valid value.

pub(crate) mod channels;
pub(crate) mod cors;
pub(crate) mod diff;
pub(crate) mod interpolation;
pub(crate) mod language;
pub(crate) mod mistake;
pub(crate) mod policy;
pub(crate) mod reloadable;
pub(crate) mod schema;
pub mod server;
pub(crate) mod sources;
pub(crate) mod stream;
pub(crate) mod validate;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use ipnet::IpNet;
use toml::Table;

use crate::artifact::policy_store::{NodeRecords, PolicyStore};
use crate::artifact::signature::key::TrustedKeys;
use crate::config::diff::ConfigSnapshot;
use crate::config::policy::{PolicyMode, RolloutConfig};
use crate::config::reloadable::LiveOptions;
use crate::config::schema::{LogFormat, Raw, Source};
use crate::config::server::ServerConfig;
use crate::config::stream::StreamConfig;
use crate::config::validate::{check_fence, check_positive, check_size, parse_address};
use crate::egress::Egress;
use crate::policy::Limits;
use crate::policy::settings::Settings;
use crate::store::EventStore;
use crate::store::fleet_keys::{FleetKeys, FleetName};
use crate::store::memory::Seed;
use crate::store::options::{OptionMistake, StoreOptions};
use crate::store::url::StoreUrl;
use crate::tokens::Tokens;
use crate::util::files;
use crate::util::fingerprint::FileSnapshot;
use crate::util::hidden::Hidden;
use crate::wasm::host::PolicyEnv;

/// Maximum size of a configuration file; one with seeds may be large.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// An invalid configuration: where, why, and what would be valid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn invalid(key: &str, what: impl std::fmt::Display) -> ConfigError {
    ConfigError(format!("configuration: {key}: {what}"))
}

/// The result of reading the configuration.
#[derive(Debug)]
pub struct ConfigRead {
    /// The configuration, or why it is invalid.
    pub config: Result<Config, ConfigError>,
    /// The files that it was read from, as they were before the read: its own, whether it exists or not, then those that it refers to.
    pub files: FileSnapshot,
}

/// The validated configuration.
#[derive(Debug)]
pub struct Config {
    /// Listen address for clients.
    pub listen: SocketAddr,
    /// Listen address for operators.
    pub control: SocketAddr,
    pub store: StoreConfig,
    /// Directory for data that can be recreated, such as compiled policies.
    pub cache_dir: Option<PathBuf>,
    /// Which policy decides.
    pub policy_mode: PolicyMode,
    pub limits: Limits,
    /// Prefixes of the keys that policies may look up.
    pub lookup_prefixes: Vec<String>,
    /// Settings that policies can read.
    pub settings: Settings,
    /// Token profiles that policies can use.
    pub tokens: Tokens,
    /// Outbound HTTP of policies.
    pub egress: Arc<Egress>,
    pub stream: StreamConfig,
    /// Networks of proxies whose forwarding headers are trusted, none of mapped addresses.
    pub trusted_proxies: Vec<IpNet>,
    /// Maximum bytes of a request's line and headers.
    pub max_header_size: usize,
    /// Bounds of connections.
    pub server: ServerConfig,
    /// Bytes for the bodies of requests and the answers of `/redis`.
    pub body_memory: usize,
    pub rollout: RolloutConfig,
    /// The keys of this node's fleet in the store.
    pub fleet_keys: FleetKeys,
    /// This node's name, if one is configured.
    pub node_name: Option<String>,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Options that change without a restart.
    pub live: Arc<LiveOptions>,
    /// Secrets that can be guessed: the option, and what would be right. Logged at the start and at each reload.
    pub warnings: Vec<String>,
    /// All options as they were written, for comparison with a later configuration.
    pub snapshot: ConfigSnapshot,
}

/// The connection to the store.
#[derive(Debug)]
pub struct StoreConfig {
    pub options: StoreOptions,
    /// Whether startup waits until the store replies.
    pub wait: bool,
    /// Maximum bytes of a `memory:` store.
    pub memory_max_size: usize,
    /// Initial keys of a `memory:` store.
    pub seed: HashMap<String, Seed>,
}

impl Config {
    /// Merges all sources and validates the result. `base` has the command's own defaults, `flags` the command line. Without a
    /// path, `tidegate.toml` in the working directory is read, if it exists.
    pub fn load(base: Table, path: Option<&Path>, flags: Table) -> Result<Self, ConfigError> {
        Self::read(base, path, flags).config
    }

    /// Like [`load`](Self::load), with the files to watch for changes.
    pub fn read(base: Table, path: Option<&Path>, flags: Table) -> ConfigRead {
        let (file, must_exist) = Self::locate(path);
        let mut files = FileSnapshot::take(vec![file.clone()]);
        let raw = Self::merge_sources(base, Some(&*file).filter(|file| must_exist || file.exists()), flags);
        let config = raw.and_then(|raw| {
            files.add(sources::list_referenced_files(&raw));
            Self::validate(raw)
        });
        ConfigRead { config, files }
    }

    fn merge_sources(base: Table, file: Option<&Path>, flags: Table) -> Result<Raw, ConfigError> {
        let mut table = base;
        if let Some(path) = file {
            sources::merge(&mut table, Self::read_file(path)?);
        }
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        sources::merge(&mut table, sources::parse_environment(variables)?);
        sources::merge(&mut table, flags);
        mistake::deserialize(table).map_err(|mistake| ConfigError(format!("configuration: {mistake}")))
    }

    fn read_file(path: &Path) -> Result<Table, ConfigError> {
        if path.as_os_str().is_empty() {
            return Err(ConfigError(
                "the path of the configuration file is empty: correct --config or TIDEGATE_CONFIG".into(),
            ));
        }
        let text = files::read_text(path, MAX_FILE_BYTES)
            .map_err(|error| ConfigError(format!("configuration file {}: cannot be read: {error}", path.display())))?;
        sources::parse_file(path, &text)
    }

    /// The path of the configuration file, and whether it was named and so must exist.
    fn locate(flag: Option<&Path>) -> (PathBuf, bool) {
        let named = flag.map(Path::to_path_buf).or_else(|| std::env::var_os("TIDEGATE_CONFIG").map(PathBuf::from));
        let is_named = named.is_some();
        (named.unwrap_or_else(|| "tidegate.toml".into()), is_named)
    }

    pub fn validate(raw: Raw) -> Result<Self, ConfigError> {
        let snapshot = ConfigSnapshot::of(&raw)?;
        let listen = parse_address("listen", &raw.listen)?;
        let control = parse_address("control.listen", &raw.control.listen)?;
        if share_port(listen, control) {
            let what =
                format!("{control} is the data port's address (listen) as well: give the control port one of its own");
            return Err(invalid("control.listen", what));
        }
        if !control.ip().is_loopback() && raw.control.token.is_none() {
            let what = format!("{control} is not a loopback address: set control.token");
            return Err(invalid("control.listen", what));
        }
        policy::check_lookup(&raw.policy.lookup)?;
        let live = LiveOptions::validate(&raw)?;
        let url: StoreUrl = raw.store.reveal().parse().map_err(|error| invalid("store", error))?;
        check_memory_store(&raw.memory_store, &url)?;
        let options = StoreOptions {
            ca: raw.store_ca,
            certificate: raw.store_cert,
            key: raw.store_key,
            sentinel_user: raw.store_sentinel_user,
            sentinel_password: raw.store_sentinel_password.as_ref().map(resolve_sentinel_password).transpose()?,
            ..StoreOptions::new(url.clone(), check_positive("store-timeout", raw.store_timeout.0)?)
        };
        options.validate().map_err(|OptionMistake { option, problem }| invalid(option, problem))?;
        let limits = policy::check_limits(&raw.policy)?;
        let trust = TrustedKeys::load(&raw.policy.trusted_keys);
        let rollout = RolloutConfig {
            cases: raw.policy.cases.clone(),
            trust: Arc::new(trust.map_err(|error| invalid("policy.trusted-keys", error))?),
        };
        let policy_mode = match raw.policy.source {
            Source::File if raw.policy.allow_unsigned => {
                let what = "acts only with policy.source = \"fleet\": a policy in a file must be signed if policy.trusted-keys is set, and \
                            need not otherwise; remove it";
                return Err(invalid("policy.allow-unsigned", what));
            }
            Source::File => policy::choose_local_mode(raw.allow_all, raw.policy.file)?,
            Source::Fleet => policy::check_fleet_mode(&raw.policy, raw.allow_all, &url)?,
        };
        let prefixes = raw.policy.lookup.prefixes;
        if raw.policy.cases.is_some() && matches!(policy_mode, PolicyMode::Fleet | PolicyMode::AllowAll) {
            let what = "the test cases are those of policy.file, which is not set: remove the option; a push has its own (--cases)";
            return Err(invalid("policy.cases", what));
        }
        let stream = stream::check_stream(&raw.stream, check_fence(raw.fleet.fence.0)?)?;
        let tokens = policy::load_tokens(&raw.policy.tokens)?;
        let warnings = validate::short_tokens(live.control_token.as_ref(), &live.rest_tokens)
            .chain(tokens.warnings().map(str::to_owned))
            .collect();
        let body_memory = check_body_memory(raw.server.body_memory, &stream)?;
        let cache_dir = raw.cache_dir.or_else(cache_dir);
        if policy_mode == PolicyMode::Fleet && cache_dir.is_none() {
            let what = "a fleet node stores its policy and the last sequence number there: name a directory";
            return Err(invalid("cache-dir", what));
        }
        Ok(Self {
            listen,
            control,
            store: StoreConfig {
                options,
                wait: raw.wait_for_store,
                memory_max_size: check_size("memory-store.max-size", raw.memory_store.max_size, 1 << 16, 1 << 40)?,
                seed: raw.memory_store.seed,
            },
            cache_dir,
            policy_mode,
            lookup_prefixes: prefixes,
            settings: policy::resolve_settings(&raw.policy.settings)?,
            tokens,
            egress: Arc::new(policy::build_egress(&raw.policy.egress)?),
            stream,
            server: server::check_server(&raw.server, &limits)?,
            limits,
            trusted_proxies: validate::canonical_networks("server.trusted-proxies", &raw.server.trusted_proxies)?,
            max_header_size: check_size("server.max-header-size", raw.server.max_header_size, 32 << 10, 1 << 20)?,
            body_memory,
            rollout,
            fleet_keys: FleetKeys::new(&validate::parse_fleet_name(&raw.fleet.name)?),
            node_name: raw.fleet.node_name.map(validate::check_node_name).transpose()?,
            log_format: raw.log.format,
            live: Arc::new(live),
            warnings,
            snapshot,
        })
    }

    /// The environment of policies, with this store.
    pub fn env(&self, store: Arc<dyn EventStore>) -> PolicyEnv {
        PolicyEnv {
            lookup_prefixes: self.lookup_prefixes.clone(),
            settings: self.settings.clone(),
            tokens: self.tokens.clone(),
            egress: Arc::clone(&self.egress),
            ..PolicyEnv::new(store, &self.limits)
        }
    }

    /// Checks that no other user can change what `cache-dir` contains: machine code, policies to roll back to, the last sequence.
    pub fn check_cache_dir(&self) -> Result<(), ConfigError> {
        let fault = self.cache_dir.as_deref().and_then(|cache_dir| PolicyStore::new(cache_dir).fault());
        fault.map_or(Ok(()), |fault| Err(invalid("cache-dir", fault)))
    }

    /// This node's name: the configured one, or the host name with the address of the data port.
    pub fn node_at(&self, listen: SocketAddr) -> String {
        self.node_name.clone().unwrap_or_else(|| validate::build_node_name(listen))
    }

    /// The records of the node of this name below `cache-dir`; `None` without a `cache-dir`.
    pub fn node_records(&self, node: &str) -> Option<NodeRecords> {
        self.cache_dir.as_deref().map(|cache_dir| PolicyStore::new(cache_dir).node(node))
    }

    /// Logs the warnings.
    pub fn log_warnings(&self) {
        for warning in &self.warnings {
            tracing::warn!("configuration: {warning}");
        }
    }

    /// Whether a peer's address is a trusted proxy's.
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        // On an IPv6 socket an IPv4 peer has a mapped address.
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}

/// Replaces references to secrets.
pub fn resolve_sentinel_password(password: &Hidden) -> Result<Hidden, ConfigError> {
    let resolved = interpolation::resolve(password.reveal());
    resolved.map(Hidden::from).map_err(|error| invalid("store-sentinel-password", error))
}

/// Options of the embedded store need it.
fn check_memory_store(raw: &schema::MemoryStore, url: &StoreUrl) -> Result<(), ConfigError> {
    let is_sized = raw.max_size != schema::MemoryStore::default().max_size;
    let set = [("memory-store.seed", !raw.seed.is_empty()), ("memory-store.max-size", is_sized)];
    match set.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) if !matches!(url, StoreUrl::Memory) => {
            let what =
                "the store is not memory:, and no other store has this option: remove it, or set `store` to memory:";
            Err(invalid(key, what))
        }
        _ => Ok(()),
    }
}

/// Whether a second socket cannot listen because the first one does.
fn share_port(one: SocketAddr, other: SocketAddr) -> bool {
    let (is_any, is_same) = (one.ip().is_unspecified() || other.ip().is_unspecified(), one.ip() == other.ip());
    one.port() != 0 && one.port() == other.port() && (is_same || (is_any && one.is_ipv4() == other.is_ipv4()))
}

/// A body of `/redis` has up to twice `stream.max-event-size`, and needs six times its size.
fn check_body_memory(size: ByteSize, stream: &StreamConfig) -> Result<usize, ConfigError> {
    let least = (stream.hub.max_event_size as u64) * 12 + (1 << 20);
    if size.as_u64() < least {
        let what = format!("{size}: must be at least {} for events of stream.max-event-size", ByteSize(least));
        return Err(invalid("server.body-memory", what));
    }
    validate::check_size("server.body-memory", size, 0, 1 << 40)
}

/// The name of the fleet for a command that needs no other option of the configuration: `TIDEGATE_FLEET_NAME`, else `fleet.name` in the
/// configuration file, else the default. A file that exists but is not valid is an error, because it may name another fleet.
pub fn fleet_name() -> Result<FleetName, ConfigError> {
    let name = option_for_command("fleet", "name")?;
    let name = name.as_ref().and_then(toml::Value::as_str);
    name.map_or_else(|| Ok(FleetName::default()), validate::parse_fleet_name)
}

/// The trusted keys for a command that needs no other option of the configuration: `TIDEGATE_POLICY_TRUSTED_KEYS`, else
/// `policy.trusted-keys` in the configuration file, else none.
pub fn trusted_keys() -> Result<Vec<PathBuf>, ConfigError> {
    let keys = option_for_command("policy", "trusted-keys")?;
    keys.map_or_else(|| Ok(Vec::new()), |keys| keys.try_into().map_err(|error| invalid("policy.trusted-keys", error)))
}

/// An option of the environment or of the configuration file, if that exists.
fn option_for_command(table: &str, name: &str) -> Result<Option<toml::Value>, ConfigError> {
    let (file, is_named) = Config::locate(None);
    let mut config = if is_named || file.exists() { Config::read_file(&file)? } else { Table::new() };
    let variable = sources::variable_name(&format!("{table}.{name}"));
    let value = std::env::var_os(&variable).map(|value| (variable, value));
    sources::merge(&mut config, sources::parse_environment(value.into_iter())?);
    Ok(config.get(table).and_then(|table| table.get(name)).cloned())
}

/// The default directory for data that can be recreated: `TIDEGATE_CACHE_DIR`, else `tidegate` in the user's cache directory; none if the
/// user has none.
pub fn cache_dir() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = || Some(folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?.join("tidegate"));
    folder(&sources::variable_name("cache-dir")).or_else(own)
}

#[cfg(test)]
mod tests;
