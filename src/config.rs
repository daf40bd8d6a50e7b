//! Flags, environment and file become one checked [`Config`]; whatever is wrong is said with the key and the remedy.

pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod cors;
pub(crate) mod layers;
pub(crate) mod live;
pub(crate) mod operations;
pub(crate) mod policy;
pub(crate) mod raw;
pub(crate) mod reference;
pub(crate) mod refers;

use crate::config::live::Live;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;
use ipnet::IpNet;
use toml::Table;

use crate::artifact::policy_store::{NodeRecords, PolicyStore};
use crate::channel::hub::HubSettings;
use crate::config::changes::WrittenConfig;
use crate::config::check::{address, count, positive, size, stream_path, up_to};
use crate::config::operations::RolloutConfig;
use crate::config::raw::{LogFormat, Raw, Source};
use crate::egress::Egress;
use crate::policy::Limits;
use crate::policy::settings::Settings;
use crate::store::Store;
use crate::store::memory::Seed;
use crate::store::url::StoreUrl;
use crate::tokens::Tokens;
use crate::util::fingerprint::FileSnapshot;
use crate::wasm::host::PolicyEnv;

/// What is wrong with the configuration, where, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn wrong(key: &str, what: impl std::fmt::Display) -> ConfigError {
    ConfigError(format!("configuration: {key}: {what}"))
}

/// A configuration that was read.
#[derive(Debug)]
pub struct ConfigRead {
    /// What it says, or what is wrong with it.
    pub config: Result<Config, ConfigError>,
    /// Where it was read: its file, whether there is one or not, and then those that it refers to; as they were before.
    pub files: FileSnapshot,
}

/// Everything that was decided before the start.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub control: SocketAddr,
    /// Where the events live.
    pub store: StoreConfig,
    /// Where things are kept that can be made again.
    pub cache_dir: Option<PathBuf>,
    /// The door.
    pub door: PolicyMode,
    /// The bounds of decisions.
    pub limits: Limits,
    /// Keys that policies may look up begin with one of these.
    pub lookup_prefixes: Vec<String>,
    /// What policies may ask for by name.
    pub settings: Settings,
    /// Whose tokens they may have checked.
    pub tokens: Tokens,
    /// Where they may send requests.
    pub egress: Arc<Egress>,
    /// The streams.
    pub stream: StreamConfig,
    /// Proxies that are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of a request's head.
    pub max_head: usize,
    /// Where the policy comes from.
    pub rollout: RolloutConfig,
    /// This node's name, if it was given one.
    pub node: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What may change without a restart.
    pub live: Arc<Live>,
    /// All of it, as it was written.
    pub written: WrittenConfig,
}

/// Where the events live.
#[derive(Debug)]
pub struct StoreConfig {
    /// Its URL.
    pub url: StoreUrl,
    /// Roots to trust.
    pub ca: Option<PathBuf>,
    /// Connecting, and each answer.
    pub timeout: Duration,
    /// Wait for it at start.
    pub wait: bool,
    /// Bytes of `memory:`.
    pub memory: usize,
    /// Keys of `memory:`.
    pub seed: HashMap<String, Seed>,
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyMode {
    /// The component in this file.
    Policy(PathBuf),
    /// The example policy within the program.
    Example,
    /// What was pushed to the store.
    Fleet,
    /// Nobody: everybody is let in.
    AllowAll,
}

/// How streams behave.
#[derive(Debug)]
pub struct StreamConfig {
    /// The path, less a `/*`.
    pub path: String,
    /// Any path below counts too.
    pub below: bool,
    /// A silent stream says something this often.
    pub ping: Duration,
    /// Channels of one stream.
    pub max_channels: usize,
    /// Streams at once.
    pub max_streams: usize,
    /// Bytes for replays.
    pub replay_memory: usize,
    /// The channels' own.
    pub hub: HubSettings,
}

impl StreamConfig {
    /// Whether a path is that of the streams.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&*self.path) {
            Some("") => true,
            Some(rest) => self.below && rest.starts_with('/'),
            None => false,
        }
    }
}

/// Which keys may be channels.
#[derive(Clone, Debug)]
pub struct ChannelRules {
    allow: GlobSet,
    deny: GlobSet,
}

impl ChannelRules {
    /// Whether a key may be a channel, where the policy in force may look up keys that begin with these.
    #[must_use]
    pub fn permit(&self, name: &str, lookup_prefixes: &[String]) -> bool {
        let looked_up = || lookup_prefixes.iter().any(|prefix| name.starts_with(&**prefix));
        let reserved = name.starts_with("tidegate:") || looked_up();
        !reserved && self.allow.is_match(name) && !self.deny.is_match(name)
    }
}

impl Config {
    /// Lays the layers over one another and checks the whole. `base` are defaults of the command's own, `flags` what was
    /// typed. Without a path, `tidegate.toml` in the working directory is read if there is one.
    pub fn load(base: Table, path: Option<&Path>, flags: Table) -> Result<Self, ConfigError> {
        Self::read(base, path, flags).config
    }

    /// The same, for those who follow the files that it is read from.
    #[must_use]
    pub fn read(base: Table, path: Option<&Path>, flags: Table) -> ConfigRead {
        let (file, is_named) = Self::path(path);
        let mut files = FileSnapshot::take(vec![file.clone()]);
        let raw = Self::raw(base, Some(&*file).filter(|file| is_named || file.exists()), flags);
        let config = raw.and_then(|raw| {
            files.add(refers::files(&raw));
            Self::check(raw)
        });
        ConfigRead { config, files }
    }

    fn raw(base: Table, file: Option<&Path>, flags: Table) -> Result<Raw, ConfigError> {
        let mut table = base;
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError(format!("{}: cannot be read: {error}", path.display())))?;
            layers::merge(&mut table, layers::file(path, &text)?);
        }
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        layers::merge(&mut table, layers::environment(variables)?);
        layers::merge(&mut table, flags);
        table.try_into::<Raw>().map_err(|error| ConfigError(format!("configuration: {}", error.message())))
    }

    /// Where the configuration lies, and whether it was named and so has to be there.
    fn path(flag: Option<&Path>) -> (PathBuf, bool) {
        let named = flag.map(Path::to_path_buf).or_else(|| std::env::var_os("TIDEGATE_CONFIG").map(PathBuf::from));
        let is_named = named.is_some();
        (named.unwrap_or_else(|| "tidegate.toml".into()), is_named)
    }

    /// Checks what was written.
    pub fn check(raw: Raw) -> Result<Self, ConfigError> {
        let written = WrittenConfig::of(&raw)?;
        let listen = address("listen", &raw.listen)?;
        let control = address("control", &raw.control.listen)?;
        if !control.ip().is_loopback() && raw.control.token.is_none() {
            let what = format!("{control} is not a loopback address, so control.token has to be set");
            return Err(wrong("control", what));
        }
        let live = Live::check(&raw)?;
        let url: StoreUrl = raw.store.parse().map_err(|error| wrong("store", error))?;
        if !raw.memory.seed.is_empty() && !matches!(url, StoreUrl::Memory) {
            return Err(wrong("memory.seed", "it fills a memory: store only; store is another"));
        }
        let limits = policy::limits(&raw.policy)?;
        let rollout = operations::rollout(&raw.policy)?;
        let door = match rollout.source {
            Source::File => door(raw.allow_all, raw.policy.file)?,
            Source::Fleet => fleet(&raw.policy, raw.allow_all, &url)?,
        };
        let prefixes = raw.policy.lookup.prefixes;
        if prefixes.iter().any(String::is_empty) {
            return Err(wrong(
                "policy.lookup.prefixes",
                "an empty prefix would open every key; name what keys begin with",
            ));
        }
        let ping = raw.stream.ping;
        if !(Duration::from_secs(1)..=Duration::from_secs(70)).contains(&ping) {
            let what = "from 1s to 70s: the stock client gives up after 75 s of silence";
            return Err(wrong("stream.ping", format!("{}: it is {what}", humantime::format_duration(ping))));
        }
        let (path, below) = stream_path(&raw.stream.path)?;
        let max_event = size("stream.max-event", raw.stream.max_event, 1 << 10, 256 << 20)?;
        let stream = StreamConfig {
            path,
            below,
            ping,
            max_channels: count("stream.max-channels", raw.stream.max_channels, 1_000)?,
            max_streams: count("stream.max-streams", raw.stream.max_streams, 10_000_000)?,
            replay_memory: size("stream.replay-memory", raw.stream.replay_memory, 1 << 20, 1 << 40)?,
            hub: HubSettings {
                log_memory: size("stream.log-memory", raw.stream.log_memory, 0, 1 << 40)?,
                position_check: positive("stream.position-check", raw.stream.position_check)?,
                max_event,
                linger: Duration::from_secs(30),
            },
        };
        let cache_dir = raw.cache_dir.or_else(cache_dir);
        if door == PolicyMode::Fleet && cache_dir.is_none() {
            let what = "a node of a fleet keeps the policy there, and how far sequence numbers went; name a folder";
            return Err(wrong("cache-dir", what));
        }
        Ok(Self {
            listen,
            control,
            store: StoreConfig {
                url,
                ca: raw.store_ca,
                timeout: positive("store-timeout", raw.store_timeout)?,
                wait: raw.wait_for_store,
                memory: size("memory.limit", raw.memory.limit, 1 << 16, 1 << 40)?,
                seed: raw.memory.seed,
            },
            cache_dir,
            door,
            limits,
            lookup_prefixes: prefixes,
            settings: policy::settings(&raw.policy.settings)?,
            tokens: policy::tokens(&raw.policy.tokens)?,
            egress: Arc::new(policy::egress(&raw.policy.egress)?),
            stream,
            trusted_proxies: raw.server.trusted_proxies,
            max_head: size("server.max-head", raw.server.max_head, 32 << 10, 1 << 20)?,
            rollout,
            node: raw.fleet.node.map(operations::node).transpose()?,
            log_format: raw.log.format,
            live: Arc::new(live),
            written,
        })
    }

    /// What the policy may see, on this store.
    #[must_use]
    pub fn env(&self, store: Arc<dyn Store>) -> PolicyEnv {
        PolicyEnv {
            prefixes: self.lookup_prefixes.clone(),
            settings: self.settings.clone(),
            tokens: self.tokens.clone(),
            egress: Arc::clone(&self.egress),
            ..PolicyEnv::new(store, &self.limits)
        }
    }

    /// What this node is called: its name, or the machine's with the address where clients connect.
    #[must_use]
    pub fn node_at(&self, listen: SocketAddr) -> String {
        self.node.clone().unwrap_or_else(|| operations::default_node(listen))
    }

    /// The node's records below `cache-dir`; none without one.
    #[must_use]
    pub fn node_records(&self) -> Option<NodeRecords> {
        let store = PolicyStore::new(self.cache_dir.as_deref()?);
        Some(store.node(&self.node_at(self.listen)))
    }

    /// Whether a client's address is a trusted proxy's.
    #[must_use]
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}

/// Where things are kept that can be made again, unless the configuration says otherwise: `TIDEGATE_CACHE_DIR`, else
/// `tidegate` in the user's cache; none where the user has none.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = || Some(folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?.join("tidegate"));
    folder(&layers::variable("cache-dir")).or_else(own)
}

/// The name of the example policy, in place of a path.
pub const EXAMPLE: &str = "example:rust-role-based";

fn door(allow_all: bool, file: Option<PathBuf>) -> Result<PolicyMode, ConfigError> {
    match (allow_all, file) {
        (true, None) => Ok(PolicyMode::AllowAll),
        (false, Some(file)) if file.ends_with(EXAMPLE) => Ok(PolicyMode::Example),
        (false, Some(file)) => Ok(PolicyMode::Policy(file)),
        (true, Some(file)) if file.ends_with(EXAMPLE) => Ok(PolicyMode::AllowAll),
        (true, Some(_)) => Err(wrong("allow-all", "there is a policy too; which one it shall be has to be written")),
        (false, None) => Err(wrong(
            "policy",
            "there is none, so nobody could be let in: give --policy policy.wasm (policy.file, TIDEGATE_POLICY), \
             or write --allow-all",
        )),
    }
}

fn fleet(raw: &raw::Policy, allow_all: bool, store: &StoreUrl) -> Result<PolicyMode, ConfigError> {
    if allow_all {
        return Err(wrong(
            "allow-all",
            "the policy comes from the fleet (policy.source); which one it shall be has to be written",
        ));
    }
    if raw.file.as_ref().is_some_and(|file| !file.ends_with(EXAMPLE)) {
        return Err(wrong(
            "policy.file",
            "the policy comes from the fleet (policy.source = \"fleet\"): push it with `tidegate policy push`",
        ));
    }
    if matches!(store, StoreUrl::Memory) {
        return Err(wrong("policy.source", "a fleet has its policy in a Redis, and store is memory:"));
    }
    if raw.trusted_keys.is_empty() && !raw.unsigned_fleet {
        let what = "a fleet takes signed policies only, since whoever may write to the store could else write the policy: \
                    name public keys (`tidegate policy keygen` makes a pair), or write --unsigned-fleet (policy.unsigned-fleet)";
        return Err(wrong("policy.trusted-keys", what));
    }
    if !raw.trusted_keys.is_empty() && raw.unsigned_fleet {
        let what = "there are policy.trusted-keys too, and with those every policy has to be signed; which one it shall be has to be written";
        return Err(wrong("policy.unsigned-fleet", what));
    }
    Ok(PolicyMode::Fleet)
}

#[cfg(test)]
mod tests;
