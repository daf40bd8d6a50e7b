//! The configuration as it is written: every option, its name, its type and its default.

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

use crate::policy::tokens::WrittenProfile;
use crate::store::fleet_keys::FleetName;
use crate::store::memory::Seed;

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
    /// All of it.
    Raw {
        /// Where clients connect.
        listen: String = "127.0.0.1:8080".into(),
        /// Where operators connect: an address, or a table with `listen` and `token`.
        #[serde(deserialize_with = "text_or_table")]
        control: Control = Control::default(),
        /// Where the events live.
        store: String = "redis://127.0.0.1:6379".into(),
        /// A PEM file of certificates to trust for `rediss://`, in place of the system's.
        store_ca: Option<PathBuf> = None,
        /// Connecting to the store, and each of its answers.
        #[serde(with = "crate::times")]
        store_timeout: Duration = Duration::from_secs(2),
        /// Wait at start until the store answers.
        wait_for_store: bool = false,
        /// Compiled policies, and toolchains of `policy build`; by default a folder of the user's own.
        cache_dir: Option<PathBuf> = None,
        /// Let everybody in, without a policy.
        allow_all: bool = false,
        /// The door: a path, or a table.
        #[serde(deserialize_with = "text_or_table")]
        policy: Policy = Policy::default(),
        /// The streams.
        stream: Stream = Stream::default(),
        /// Which keys may be channels.
        channels: Channels = Channels::default(),
        /// Which web pages may read.
        cors: Cors = Cors::default(),
        /// Clients that are refused.
        reject: Reject = Reject::default(),
        /// The REST protocol of the npm package's server half.
        redis_rest: RedisRest = RedisRest::default(),
        /// What is written down of decisions.
        decisions: Decisions = Decisions::default(),
        /// Nodes on one store.
        fleet: Fleet = Fleet::default(),
        /// The embedded store.
        memory: Memory = Memory::default(),
        /// The server.
        server: Server = Server::default(),
        /// The end.
        drain: Drain = Drain::default(),
        /// The log.
        log: Log = Log::default(),
    }
}

section! {
    /// `[control]`
    Control {
        /// Where operators connect.
        listen: String = "127.0.0.1:9090".into(),
        /// The bearer token that they need; anything but loopback has to have one.
        token: Option<String> = None,
    }
}

section! {
    /// `[policy]`
    Policy {
        /// The component.
        file: Option<PathBuf> = None,
        /// Where the policy comes from: `file`, or `fleet` for the one that was pushed to the store.
        source: Source = Source::File,
        /// What it has to decide before it takes force; by default `<name>.cases.toml` beside `<name>.wasm`, if there is one.
        cases: Option<PathBuf> = None,
        /// PEM files of ed25519 public keys, one of which a policy has to be signed with.
        trusted_keys: Vec<PathBuf> = Vec::new(),
        /// Take policies from the store that nobody signed: whoever may write there decides who may read.
        unsigned_fleet: bool = false,
        /// Streams that an older policy let in are asked to come back, spread over this time; `off` lets them stay.
        rotate_within: OrOff = OrOff(Some(Duration::from_secs(60))),
        /// A candidate that is asked beside the policy in force.
        shadow: Shadow = Shadow::default(),
        /// CPU time of one decision.
        #[serde(with = "crate::times")]
        cpu: Duration = Duration::from_millis(100),
        /// One decision by the clock on the wall.
        #[serde(with = "crate::times")]
        timeout: Duration = Duration::from_secs(2),
        /// Memories and tables of one instance.
        memory: ByteSize = ByteSize::mib(64),
        /// Decisions at once.
        concurrency: usize = 256,
        /// Instances that are made ahead, for policies that take long to start.
        prepared: usize = 8,
        /// A decision waits so long for a free instance.
        #[serde(with = "crate::times")]
        queue_timeout: Duration = Duration::from_secs(1),
        /// Compiling a component: the largest that was seen takes 10 s of two idle cores, a busy machine may take several times that.
        #[serde(with = "crate::times")]
        compile_timeout: Duration = Duration::from_secs(120),
        /// Headers and body of an answer.
        max_answer: ByteSize = ByteSize::mib(1),
        /// Answers that are given again; 0 keeps none.
        cache: ByteSize = ByteSize::mib(16),
        /// The longest time that one is given again.
        #[serde(with = "crate::times")]
        cache_max_age: Duration = Duration::from_secs(300),
        /// What may be looked up.
        lookup: Lookup = Lookup::default(),
        /// What the policy may ask for by name.
        settings: BTreeMap<String, Value> = BTreeMap::new(),
        /// Look-ups of one decision.
        max_lookups: u32 = 64,
        /// Lines that policies may write to the log in a second, all decisions together.
        log_rate: u32 = 100,
        /// Whose tokens the policy may have checked.
        tokens: BTreeMap<String, WrittenProfile> = BTreeMap::new(),
        /// Where the policy may send requests.
        egress: Egress = Egress::default(),
    }
}

section! {
    /// `[policy.shadow]`
    Shadow {
        /// The candidate's component.
        file: Option<PathBuf> = None,
        /// The share of requests that it is asked about, from 0 to 1.
        share: f64 = 0.1,
        /// Decisions of the candidate at once; more are not asked.
        concurrency: usize = 4,
    }
}

section! {
    /// `[decisions]`
    Decisions {
        /// A line of JSON for each decision: `stdout`, or a file.
        log: Option<String> = None,
        /// Fields of it whose values are masked: `subject`, `channels`, `reason`.
        mask: Vec<String> = Vec::new(),
        /// A file for whole requests and what was looked up for them, to be replayed. It has credentials in it.
        record: Option<PathBuf> = None,
        /// The share of requests that are recorded, from 0 to 1.
        record_share: f64 = 0.01,
        /// The recording ends when it has so much.
        record_limit: ByteSize = ByteSize::mib(256),
    }
}

section! {
    /// `[fleet]`
    Fleet {
        /// The fleet's name, part of its keys in the store: fleets with different names on one store share nothing.
        name: String = FleetName::default().to_string(),
        /// This node's name, unlike any other's; by default that of the machine with the data port's address.
        node: Option<String> = None,
    }
}

/// Where the policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A file of this machine.
    File,
    /// What was pushed to the store.
    Fleet,
}

/// A time, or `off`.
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
        /// Scheme, host and port; a table says more.
        hosts: Vec<Host> = Vec::new(),
        /// A request, to the last byte of its response.
        #[serde(with = "crate::times")]
        timeout: Duration = Duration::from_secs(1),
        /// A response's body.
        max_response: ByteSize = ByteSize::mib(1),
        /// Requests of one decision.
        max_requests: u32 = 8,
    }
}

/// Where requests may go.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "a URL, or a table with url and allow-private")]
pub enum Host {
    /// `scheme://host[:port]`
    Url(String),
    /// The same with what it needs.
    Table(HostTable),
}

section! {
    /// One host of `policy.egress.hosts`.
    HostTable {
        /// `scheme://host[:port]`
        url: String = String::new(),
        /// Whether its address may be this network's own.
        allow_private: bool = false,
    }
}

section! {
    /// `[policy.lookup]`
    Lookup {
        /// Keys that may be looked up begin with one of these, and are never channels.
        prefixes: Vec<String> = Vec::new(),
        /// One look-up.
        #[serde(with = "crate::times")]
        timeout: Duration = Duration::from_secs(1),
    }
}

section! {
    /// `[stream]`
    Stream {
        /// The path of the streams; a `/*` at its end takes any path below it.
        path: String = "/api/realtime".into(),
        /// A silent stream says something this often; the stock client gives up after 75 s.
        #[serde(with = "crate::times")]
        ping: Duration = Duration::from_secs(25),
        /// A larger event is a gap.
        max_event: ByteSize = ByteSize::mib(8),
        /// Channels of one stream.
        max_channels: usize = 100,
        /// Streams at once.
        max_streams: usize = 20_000,
        /// Recent events of all channels.
        log_memory: ByteSize = ByteSize::mib(128),
        /// Replays of all streams.
        replay_memory: ByteSize = ByteSize::mib(32),
        /// A quiet channel's position is checked about this often.
        #[serde(with = "crate::times")]
        position_check: Duration = Duration::from_secs(5),
    }
}

section! {
    /// `[channels]`
    Channels {
        /// Patterns of names that may be channels.
        allow: Vec<String> = vec!["*".into()],
        /// Patterns of names that may not; these win.
        deny: Vec<String> = Vec::new(),
    }
}

section! {
    /// `[cors]`
    Cors {
        /// Origins that may read, `*` for all; `http://localhost:*` for every port of a host.
        origins: Vec<String> = vec!["*".into()],
        /// Whether they may send cookies.
        credentials: bool = false,
    }
}

section! {
    /// `[reject]`
    Reject {
        /// A client that was refused and asks again at once waits so long before it is decided anew.
        #[serde(with = "crate::times")]
        hold: Duration = Duration::ZERO,
    }
}

section! {
    /// `[redis-rest]`
    RedisRest {
        /// Bearer tokens that may emit; without one there is no `/redis`.
        tokens: Vec<String> = Vec::new(),
    }
}

section! {
    /// `[memory]`
    Memory {
        /// The embedded store holds so much; then the oldest entries go.
        limit: ByteSize = ByteSize::mib(64),
        /// Keys for look-ups: a string, a list (a set) or a table (a hash).
        seed: HashMap<String, Seed> = HashMap::new(),
    }
}

section! {
    /// `[server]`
    Server {
        /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count.
        trusted_proxies: Vec<IpNet> = Vec::new(),
        /// A request's head: line and headers.
        max_head: ByteSize = ByteSize::kib(64),
    }
}

section! {
    /// `[drain]`
    Drain {
        /// Behind the signal to stop a node serves on for so long, not ready any more, so that balancers can turn away.
        #[serde(with = "crate::times")]
        delay: Duration = Duration::from_secs(5),
        /// Then streams are told to come back, spread over this time.
        #[serde(with = "crate::times")]
        time: Duration = Duration::from_secs(5),
    }
}

section! {
    /// `[log]`
    Log {
        /// `text` or `json`.
        format: LogFormat = LogFormat::Text,
        /// What is logged, as `tracing` filters say it.
        filter: String = "info".into(),
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A table that may be written as its most important string.
trait FromText: Default {
    fn from_text(text: &str) -> Self;
}

impl FromText for Control {
    fn from_text(text: &str) -> Self {
        Self { listen: text.into(), ..Self::default() }
    }
}

impl FromText for Policy {
    fn from_text(text: &str) -> Self {
        Self { file: Some(text.into()), ..Self::default() }
    }
}

fn text_or_table<'de, T: FromText + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    struct TextOrTable<T>(PhantomData<T>);

    impl<'de, T: FromText + Deserialize<'de>> Visitor<'de> for TextOrTable<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a table")
        }

        fn visit_str<E>(self, text: &str) -> Result<T, E> {
            Ok(T::from_text(text))
        }

        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    from.deserialize_any(TextOrTable(PhantomData))
}

/// The path of every option that is not a table, as it stands in `tidegate.toml`; the environment says the same in capitals.
pub const OPTIONS: [&str; 69] = [
    "listen",
    "control",
    "control.listen",
    "control.token",
    "store",
    "store-ca",
    "store-timeout",
    "wait-for-store",
    "cache-dir",
    "allow-all",
    "policy",
    "policy.file",
    "policy.source",
    "policy.cases",
    "policy.trusted-keys",
    "policy.unsigned-fleet",
    "policy.rotate-within",
    "policy.shadow.file",
    "policy.shadow.share",
    "policy.shadow.concurrency",
    "policy.cpu",
    "policy.timeout",
    "policy.memory",
    "policy.concurrency",
    "policy.prepared",
    "policy.queue-timeout",
    "policy.compile-timeout",
    "policy.max-answer",
    "policy.cache",
    "policy.cache-max-age",
    "policy.lookup.prefixes",
    "policy.lookup.timeout",
    "policy.settings",
    "policy.max-lookups",
    "policy.log-rate",
    "policy.tokens",
    "policy.egress.hosts",
    "policy.egress.timeout",
    "policy.egress.max-response",
    "policy.egress.max-requests",
    "stream.path",
    "stream.ping",
    "stream.max-event",
    "stream.max-channels",
    "stream.max-streams",
    "stream.log-memory",
    "stream.replay-memory",
    "stream.position-check",
    "channels.allow",
    "channels.deny",
    "cors.origins",
    "cors.credentials",
    "reject.hold",
    "redis-rest.tokens",
    "decisions.log",
    "decisions.mask",
    "decisions.record",
    "decisions.record-share",
    "decisions.record-limit",
    "fleet.name",
    "fleet.node",
    "memory.limit",
    "memory.seed",
    "server.trusted-proxies",
    "server.max-head",
    "drain.delay",
    "drain.time",
    "log.format",
    "log.filter",
];
