//! The schema of `tidegate.toml`: the name, type and default of every option.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use toml::Value;

use crate::store::fleet_keys::FleetName;
use crate::store::memory::Seed;
use crate::tokens::profile::WrittenProfile;

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// `tidegate.toml`, before validation.
    Raw {
        /// Listen address for clients.
        listen: String = "127.0.0.1:8080".into(),
        /// The control port.
        #[serde(deserialize_with = "control_table")]
        control: Control = Control::default(),
        /// Store URL: `redis://`, `rediss://`, `redis+unix://` or `memory:`.
        store: String = "redis://127.0.0.1:6379".into(),
        /// PEM file of CA certificates to trust for `rediss://`, instead of the system's.
        store_ca: Option<PathBuf> = None,
        /// Timeout for connecting to the store and for each reply.
        #[serde(with = "crate::util::duration")]
        store_timeout: Duration = Duration::from_secs(2),
        /// Wait at startup until the store answers, instead of failing.
        wait_for_store: bool = false,
        /// Directory for compiled policies, rollback history and the toolchains of `policy build`. Default: in the user's cache directory.
        cache_dir: Option<PathBuf> = None,
        /// Admit every request, without a policy.
        allow_all: bool = false,
        /// The policy and its limits.
        #[serde(deserialize_with = "policy_table")]
        policy: Policy = Policy::default(),
        /// Event streams.
        stream: Stream = Stream::default(),
        /// Which keys may be channels.
        channels: Channels = Channels::default(),
        /// Which web pages may read streams.
        cors: Cors = Cors::default(),
        /// Throttling of rejected clients.
        reject: Reject = Reject::default(),
        /// The REST protocol that the server half of the npm package speaks.
        redis_rest: RedisRest = RedisRest::default(),
        /// The decision log and the recording.
        decisions: Decisions = Decisions::default(),
        /// The nodes that share a store.
        fleet: Fleet = Fleet::default(),
        /// The embedded store, `memory:`.
        memory_store: MemoryStore = MemoryStore::default(),
        /// The HTTP server.
        server: Server = Server::default(),
        /// Graceful shutdown.
        drain: Drain = Drain::default(),
        /// The log.
        log: Log = Log::default(),
    }
}

section! {
    /// `[control]`
    Control {
        /// Listen address for operators.
        listen: String = "127.0.0.1:7080".into(),
        /// Bearer token of the control port; required unless `listen` is a loopback address.
        token: Option<String> = None,
    }
}

section! {
    /// `[policy]`
    Policy {
        /// The policy component.
        file: Option<PathBuf> = None,
        /// Where the policy comes from: `file`, or `fleet` for the policy that was pushed to the store.
        source: Source = Source::File,
        /// Test cases that a policy must pass before it is activated. Default: `<name>.cases.toml` next to `<name>.wasm`, if it exists.
        cases: Option<PathBuf> = None,
        /// PEM files of Ed25519 public keys; a policy must be signed by one of them.
        trusted_keys: Vec<PathBuf> = Vec::new(),
        /// Accept unsigned policies from the store: anyone who can write to the store can then replace the policy.
        allow_unsigned: bool = false,
        /// After an activation, streams that an older policy admitted are closed, spread over this time; `off` keeps them open.
        rotation_window: OrOff = OrOff(Some(Duration::from_secs(60))),
        /// A shadow policy, evaluated without effect.
        shadow: Shadow = Shadow::default(),
        /// CPU time limit of one decision.
        #[serde(with = "crate::util::duration")]
        cpu_time: Duration = Duration::from_millis(100),
        /// Wall-clock limit of one decision.
        #[serde(with = "crate::util::duration")]
        timeout: Duration = Duration::from_secs(2),
        /// Memory limit of one instance: all its linear memories and tables.
        max_memory: ByteSize = ByteSize::mib(64),
        /// Maximum number of concurrent decisions.
        concurrency: usize = 256,
        /// Number of instances that are started in advance, for policies that take long to start.
        prewarmed_instances: usize = 8,
        /// How long a decision waits for a free instance.
        #[serde(with = "crate::util::duration")]
        queue_timeout: Duration = Duration::from_secs(1),
        /// Time limit for compiling a component. The largest one measured takes 10 s on two idle cores; a busy machine may need several times that.
        #[serde(with = "crate::util::duration")]
        compile_timeout: Duration = Duration::from_secs(120),
        /// Maximum size of the headers and body of a policy's response.
        max_response_size: ByteSize = ByteSize::mib(1),
        /// Size of the decision cache; 0 disables it.
        cache_size: ByteSize = ByteSize::mib(16),
        /// Maximum time for which a decision is reused.
        #[serde(with = "crate::util::duration")]
        cache_max_age: Duration = Duration::from_secs(300),
        /// Look-ups in the store.
        lookup: Lookup = Lookup::default(),
        /// Names and values that the policy can read.
        settings: BTreeMap<String, Value> = BTreeMap::new(),
        /// Lines per second that policies may write to the log, over all decisions.
        log_rate: u32 = 100,
        /// Token profiles: issuers whose tokens the policy can have verified.
        tokens: BTreeMap<String, WrittenProfile> = BTreeMap::new(),
        /// Outbound HTTP requests of the policy.
        egress: Egress = Egress::default(),
    }
}

section! {
    /// `[policy.shadow]`
    Shadow {
        /// The component of the shadow policy.
        file: Option<PathBuf> = None,
        /// Share of clients for which the shadow policy is evaluated, from 0 to 1.
        share: f64 = 0.1,
        /// Maximum number of concurrent shadow decisions; further ones are dropped.
        concurrency: usize = 4,
    }
}

section! {
    /// `[decisions]`
    Decisions {
        /// Destination of the decision log, one line of JSON per decision: `stdout`, or a file.
        log: Option<String> = None,
        /// Fields of the decision log to mask: `subject`, `channels`, `reason`.
        masked_fields: Vec<String> = Vec::new(),
        /// The recording of whole requests, for replay.
        recording: Recording = Recording::default(),
    }
}

section! {
    /// `[decisions.recording]`
    Recording {
        /// File for whole requests and the replies of their look-ups. It contains credentials.
        file: Option<PathBuf> = None,
        /// Share of decisions to record, from 0 to 1.
        share: f64 = 0.01,
        /// Maximum size of the recording; it stops there.
        max_size: ByteSize = ByteSize::mib(256),
    }
}

section! {
    /// `[fleet]`
    Fleet {
        /// The fleet's name, part of its keys in the store: fleets with different names on one store share nothing.
        name: String = FleetName::default().to_string(),
        /// Name of this node, unique on its store. Default: the host name and the address of the data port.
        node_name: Option<String> = None,
    }
}

/// Where the policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A local file.
    File,
    /// The store, to which it was pushed.
    Fleet,
}

/// A duration, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrOff(pub Option<Duration>);

impl Serialize for OrOff {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(time) => humantime_serde::serialize(&time, to),
            None => to.serialize_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for OrOff {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "off" {
            return Ok(Self(None));
        }
        let wrong = || D::Error::custom(format!("{text:?} is neither off nor a time, as 60s or 0s"));
        humantime::parse_duration(&text).map(|time| Self(Some(time))).map_err(|_| wrong())
    }
}

section! {
    /// `[policy.egress]`
    Egress {
        /// Origins that the policy may send requests to.
        hosts: Vec<Host> = Vec::new(),
        /// Time limit of one request, until the last byte of its response.
        #[serde(with = "crate::util::duration")]
        timeout: Duration = Duration::from_secs(1),
        /// Maximum size of a response body.
        max_response_size: ByteSize = ByteSize::mib(1),
        /// Maximum number of requests of one decision.
        max_requests: u32 = 8,
    }
}

/// An origin that the policy may send requests to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "a URL, or a table with url and allow-private")]
pub enum Host {
    /// `scheme://host[:port]`
    Url(String),
    /// A URL with options.
    Table(HostTable),
}

section! {
    /// An entry of `policy.egress.hosts` with options.
    HostTable {
        /// `scheme://host[:port]`
        url: String = String::new(),
        /// Whether the host may resolve to a private or loopback address.
        allow_private: bool = false,
    }
}

section! {
    /// `[policy.lookup]`
    Lookup {
        /// Prefixes of the keys that a policy may look up; such keys are never channels.
        prefixes: Vec<String> = Vec::new(),
        /// Maximum number of look-ups of one decision.
        max_lookups: u32 = 64,
        /// Time limit of one look-up.
        #[serde(with = "crate::util::duration")]
        timeout: Duration = Duration::from_secs(1),
    }
}

section! {
    /// `[stream]`
    Stream {
        /// Path of the streams; with `/*` at the end, every path below it as well.
        path: String = "/api/realtime".into(),
        /// How often an idle stream sends a ping; the stock client gives up after 75 s of silence.
        #[serde(with = "crate::util::duration")]
        ping_interval: Duration = Duration::from_secs(25),
        /// Maximum size of an event; a larger one becomes a gap.
        max_event_size: ByteSize = ByteSize::mib(8),
        /// Maximum number of channels of one stream.
        max_channels_per_stream: usize = 100,
        /// Maximum number of open streams.
        max_streams: usize = 20_000,
        /// Memory for the event buffers of all channels.
        buffer_memory: ByteSize = ByteSize::mib(128),
        /// Memory for the replays of all streams.
        replay_memory: ByteSize = ByteSize::mib(32),
        /// How often the gateway checks a quiet channel for entries whose notification was lost.
        #[serde(with = "crate::util::duration")]
        reconcile_interval: Duration = Duration::from_secs(5),
    }
}

section! {
    /// `[channels]`
    Channels {
        /// Patterns of names that may be channels.
        allow: Vec<String> = vec!["*".into()],
        /// Patterns of names that may not be channels; they take precedence over `allow`.
        deny: Vec<String> = Vec::new(),
    }
}

section! {
    /// `[cors]`
    Cors {
        /// Origins that may read streams, `*` for all; `http://localhost:*` stands for any port of a host.
        origins: Vec<String> = vec!["*".into()],
        /// Whether pages of these origins may send cookies.
        credentials: bool = false,
    }
}

section! {
    /// `[reject]`
    Reject {
        /// Delay for a client that was rejected and repeats the request shortly after.
        #[serde(with = "crate::util::duration")]
        delay: Duration = Duration::ZERO,
    }
}

section! {
    /// `[redis-rest]`
    RedisRest {
        /// Bearer tokens for `/redis`; without one, `/redis` does not exist.
        tokens: Vec<String> = Vec::new(),
    }
}

section! {
    /// `[memory-store]`
    MemoryStore {
        /// Size of the store; when it is full, the oldest entries are deleted.
        max_size: ByteSize = ByteSize::mib(64),
        /// Initial keys, for look-ups: a string, a list (a set) or a table (a hash).
        seed: HashMap<String, Seed> = HashMap::new(),
    }
}

section! {
    /// `[server]`
    Server {
        /// Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted.
        trusted_proxies: Vec<IpNet> = Vec::new(),
        /// Maximum size of a request's line and headers.
        max_header_size: ByteSize = ByteSize::kib(64),
    }
}

section! {
    /// `[drain]`
    Drain {
        /// How long the node keeps serving after the signal while it reports not ready, so that load balancers can react.
        #[serde(with = "crate::util::duration")]
        delay: Duration = Duration::from_secs(5),
        /// Then streams are closed, spread over this time, so that their clients reconnect.
        #[serde(with = "crate::util::duration")]
        duration: Duration = Duration::from_secs(5),
    }
}

section! {
    /// `[log]`
    Log {
        /// `text` or `json`.
        format: LogFormat = LogFormat::Text,
        /// Log filter, in the syntax of `tracing`.
        filter: String = "info".into(),
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Human-readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Tables that are easily mistaken for an option, each with the option that was meant: `policy = "x.wasm"`.
pub const MISTAKABLE: [(&str, &str); 2] = [("control", "listen"), ("policy", "file")];

/// What to write instead of a string in the place of a table.
pub fn string_for_table(table: &str, option: &str, text: &str) -> String {
    format!("`{table}` is a table: write `[{table}]` and `{option} = {text:?}`")
}

fn control_table<'de, D: Deserializer<'de>>(from: D) -> Result<Control, D::Error> {
    mistakable_table(from, MISTAKABLE[0])
}

fn policy_table<'de, D: Deserializer<'de>>(from: D) -> Result<Policy, D::Error> {
    mistakable_table(from, MISTAKABLE[1])
}

/// Reads a table. The error for a string says what to write.
fn mistakable_table<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
    names: (&'static str, &'static str),
) -> Result<T, D::Error> {
    struct TableVisitor<T>((&'static str, &'static str), PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            let (table, option) = self.0;
            Err(E::custom(string_for_table(table, option, text)))
        }

        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    from.deserialize_any(TableVisitor(names, PhantomData))
}

/// The path of every option that is not a table, as it stands in `tidegate.toml`; the environment says the same in capitals.
pub const OPTIONS: [&str; 67] = [
    "listen",
    "control.listen",
    "control.token",
    "store",
    "store-ca",
    "store-timeout",
    "wait-for-store",
    "cache-dir",
    "allow-all",
    "policy.file",
    "policy.source",
    "policy.cases",
    "policy.trusted-keys",
    "policy.allow-unsigned",
    "policy.rotation-window",
    "policy.shadow.file",
    "policy.shadow.share",
    "policy.shadow.concurrency",
    "policy.cpu-time",
    "policy.timeout",
    "policy.max-memory",
    "policy.concurrency",
    "policy.prewarmed-instances",
    "policy.queue-timeout",
    "policy.compile-timeout",
    "policy.max-response-size",
    "policy.cache-size",
    "policy.cache-max-age",
    "policy.lookup.prefixes",
    "policy.lookup.timeout",
    "policy.lookup.max-lookups",
    "policy.settings",
    "policy.log-rate",
    "policy.tokens",
    "policy.egress.hosts",
    "policy.egress.timeout",
    "policy.egress.max-response-size",
    "policy.egress.max-requests",
    "stream.path",
    "stream.ping-interval",
    "stream.max-event-size",
    "stream.max-channels-per-stream",
    "stream.max-streams",
    "stream.buffer-memory",
    "stream.replay-memory",
    "stream.reconcile-interval",
    "channels.allow",
    "channels.deny",
    "cors.origins",
    "cors.credentials",
    "reject.delay",
    "redis-rest.tokens",
    "decisions.log",
    "decisions.masked-fields",
    "decisions.recording.file",
    "decisions.recording.share",
    "decisions.recording.max-size",
    "fleet.name",
    "fleet.node-name",
    "memory-store.max-size",
    "memory-store.seed",
    "server.trusted-proxies",
    "server.max-header-size",
    "drain.delay",
    "drain.duration",
    "log.format",
    "log.filter",
];
