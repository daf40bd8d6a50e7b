//! The schema of `tidegate.toml`: the name, type and default of every option.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::audit::mask::MaskedField;
use crate::store::fleet_keys::FleetName;
use crate::store::memory::Seed;
use crate::tokens::profile::ProfileOptions;
use crate::util::duration::HumanDuration;
use crate::util::hidden::Hidden;

/// When a change of an option takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At the next start.
    Restart,
    /// As soon as the configuration is read.
    Live,
    /// When the policy has passed the activation pipeline with the new environment.
    PolicyEnv,
    /// When the policy in the file has passed the activation pipeline.
    PolicyFile,
    /// Like [`PolicyFile`](Self::PolicyFile) for a policy in a file, like [`Restart`](Self::Restart) for a fleet's policy.
    TrustedKeys,
}

/// An option that is not a table.
#[derive(Debug)]
pub struct SchemaOption {
    /// Its path in `tidegate.toml`, such as `policy.lookup.prefixes`.
    pub path: String,
    /// When a change takes effect.
    pub reload: Reload,
    /// The attributes of its field, of which those of the form `doc = "…"` are its documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test writes the table of options in docs/configuration.md"))]
    pub attributes: &'static [&'static str],
}

/// All options, in the order of the schema.
pub static OPTIONS: LazyLock<Vec<SchemaOption>> = LazyLock::new(|| {
    let mut options = Vec::new();
    Raw::list_options("", &mut options);
    options
});

/// Declares a table of options. Each field has a type, a default and a [`Reload`] class, or `Table` if it is a table of options itself.
/// The comment of an option is its row in `docs/configuration.md`, so that links are relative to `docs`; `Flag: …` and `Default: …` at its
/// end are columns of the table.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr => $reload:ident,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $name {
            fn list_options(prefix: &str, options: &mut Vec<SchemaOption>) {
                $(list_option!(
                    $reload,
                    $type,
                    format!("{prefix}{}", stringify!($field).replace('_', "-")),
                    &[$(stringify!($field_doc)),*],
                    options
                );)*
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

macro_rules! list_option {
    (Table, $type:ty, $path:expr, $attributes:expr, $options:ident) => {
        <$type>::list_options(&($path + "."), $options)
    };
    ($reload:ident, $type:ty, $path:expr, $attributes:expr, $options:ident) => {
        $options.push(SchemaOption { path: $path, reload: Reload::$reload, attributes: $attributes })
    };
}

section! {
    /// `tidegate.toml`, before validation.
    Raw {
        /// Listen address for clients (the data port). Flag: `--listen`.
        listen: String = "127.0.0.1:8080".into() => Restart,
        /// The control port.
        control: Control = Control::default() => Table,
        /// Store URL: `redis://user:password@host:port/database`, `redis-cluster://user:password@host1:port,host2:port`,
        /// `redis-sentinel://user:password@host1:port,host2:port/master-name/database`; over TLS `rediss://…`, `rediss-cluster://…`,
        /// `rediss-sentinel://…`; `redis+unix:///path.sock?db=0&user=u&pass=p`, `memory:`. Databases of one Redis do not separate
        /// environments: see [Redis](operations/redis.md). Flag: `--store`.
        store: Hidden = "redis://127.0.0.1:6379".into() => Restart,
        /// PEM file of CA certificates to trust for TLS to the store, instead of the system's. The file is followed.
        store_ca: Option<PathBuf> = None => Restart,
        /// PEM file of the client certificate for TLS to the store, with its chain; see [Certificates](#certificates-for-the-store).
        store_cert: Option<PathBuf> = None => Restart,
        /// PEM file of the private key of `store-cert`, without a passphrase.
        store_key: Option<PathBuf> = None => Restart,
        /// User for the sentinels of `redis-sentinel://`; user and password in the URL are those of the master and its replicas.
        store_sentinel_user: Option<String> = None => Restart,
        /// Password for the sentinels, or a [reference](#secrets) to it. Without one, nothing is sent to authenticate there.
        store_sentinel_password: Option<Hidden> = None => Restart,
        /// Timeout for connecting to the store and for each reply.
        store_timeout: HumanDuration = HumanDuration::from_secs(2) => Restart,
        /// Wait at startup until the store answers, instead of failing. Flag: `--wait-for-store`.
        wait_for_store: bool = false => Restart,
        /// Directory of the policy store: compiled policies (a restart need not compile them again), recent policies to roll back to, the
        /// fleet's policy and the last sequence. Gateways of one user may share it; keep it across restarts. It also has the
        /// toolchains of `policy build`. Default: `tidegate` in `$XDG_CACHE_HOME`, else in `~/.cache`.
        cache_dir: Option<PathBuf> = None => Restart,
        /// Admit every request to every channel, without a policy. Flag: `--allow-all`.
        allow_all: bool = false => Restart,
        /// The policy and its limits.
        policy: Policy = Policy::default() => Table,
        /// Event streams.
        stream: Stream = Stream::default() => Table,
        /// Which keys may be channels.
        channels: Channels = Channels::default() => Table,
        /// Which web pages may read streams.
        cors: Cors = Cors::default() => Table,
        /// Throttling of rejected clients.
        reject: Reject = Reject::default() => Table,
        /// The REST protocol that the server half of the npm package speaks.
        redis_rest: RedisRest = RedisRest::default() => Table,
        /// The decision log and the recording.
        decisions: Decisions = Decisions::default() => Table,
        /// The nodes that share a store.
        fleet: Fleet = Fleet::default() => Table,
        /// The embedded store, `memory:`.
        memory_store: MemoryStore = MemoryStore::default() => Table,
        /// The HTTP server.
        server: Server = Server::default() => Table,
        /// Graceful shutdown.
        drain: Drain = Drain::default() => Table,
        /// The log.
        log: Log = Log::default() => Table,
    }
}

section! {
    /// `[control]`
    Control {
        /// Listen address for operators (the control port). Flag: `--control`.
        listen: String = "127.0.0.1:7080".into() => Restart,
        /// Bearer token of the control port; required unless the address is a loopback address.
        token: Option<Hidden> = None => Live,
    }
}

section! {
    /// `[policy]`
    Policy {
        /// The policy component. The file is [watched](operations/activation.md#by-the-policys-file): a new component is activated when it
        /// has passed all stages. Flag: `--policy`.
        file: Option<PathBuf> = None => PolicyFile,
        /// Where the policy comes from: `file`, or `fleet` for the policy that was pushed to the store; see [Fleets](operations/fleet.md).
        source: Source = Source::File => Restart,
        /// Test cases that a policy must pass before it is activated, and what it [requires](policies/testing.md#requirements). Default:
        /// `<name>.cases.toml` next to `<name>.wasm`, if the file exists.
        cases: Option<PathBuf> = None => PolicyFile,
        /// PEM files of Ed25519 public keys. If at least one is set, a policy must be signed by one of them; if none is set, a policy must
        /// not be signed; see [Signatures](operations/signatures.md).
        trusted_keys: Vec<PathBuf> = Vec::new() => TrustedKeys,
        /// With the source `fleet`, accept unsigned policies from the store: anyone who can write to the store can then replace the
        /// policy. Flag: `--allow-unsigned`.
        allow_unsigned: bool = false => Restart,
        /// After an activation, streams that an older policy admitted are closed, spread over this time, so that their clients reconnect
        /// and are authorized again; `0s` closes all at once, `off` keeps them open; see [Rotation](operations/revocation.md#rotation).
        rotation_window: OrOff = OrOff(Some(Duration::from_secs(60))) => Live,
        /// A shadow policy, evaluated without effect.
        shadow: Shadow = Shadow::default() => Table,
        /// CPU time limit of one decision.
        cpu_time: HumanDuration = HumanDuration(Duration::from_millis(100)) => PolicyEnv,
        /// Wall-clock limit of one decision, including look-ups.
        timeout: HumanDuration = HumanDuration::from_secs(2) => PolicyEnv,
        /// Memory limit of one instance: all its linear memories and tables, and the objects that it makes in the host.
        max_memory: ByteSize = ByteSize::mib(64) => Restart,
        /// Bytes of each memory of an instance that stay resident for the next instance; of more than `policy.max-memory`, that. More makes policies
        /// faster that touch more, and takes memory while the gateway is idle; see [Memory](#memory).
        pool_resident: ByteSize = ByteSize::mib(4) => Restart,
        /// Maximum number of concurrent decisions.
        concurrency: usize = 256 => Restart,
        /// Number of instances that are started in advance, for policies that take longer than 100 µs to start and prepare;
        /// each instance is used once.
        prewarmed_instances: usize = 8 => Restart,
        /// How long a decision waits for a free instance; then the response is 503. Clients are served in turns, so a long wait is that of a
        /// client with many requests.
        queue_timeout: HumanDuration = HumanDuration::from_secs(5) => Restart,
        /// Time limit for compiling a component, in a separate process that may use at most 3 GiB of memory.
        compile_timeout: HumanDuration = HumanDuration::from_secs(120) => Restart,
        /// Maximum size of the headers and body of a policy's response.
        max_response_size: ByteSize = ByteSize::mib(1) => PolicyEnv,
        /// Size of the decision cache, for decisions that the policy marked as cacheable (`answer.cache-for`); `0` disables it.
        cache_size: ByteSize = ByteSize::mib(16) => PolicyEnv,
        /// Maximum time for which a decision is reused, whatever the policy allows.
        cache_max_age: HumanDuration = HumanDuration::from_secs(300) => PolicyEnv,
        /// Look-ups in the store.
        lookup: Lookup = Lookup::default() => Table,
        /// Names and values that the policy can read, as `settings` and as `wasi:config/store`; see [below](#secrets).
        settings: BTreeMap<String, Hidden> = BTreeMap::new() => PolicyEnv,
        /// Lines per second that the policy may write to the log, over all decisions (with bursts of five seconds' worth, and 8 KiB per
        /// decision); further lines are dropped and counted.
        log_rate: u32 = 100 => PolicyEnv,
        /// Issuers whose tokens the policy can have verified; see [below](#tokens).
        tokens: BTreeMap<String, ProfileOptions> = BTreeMap::new() => PolicyEnv,
        /// Outbound HTTP requests of the policy.
        egress: Egress = Egress::default() => Table,
    }
}

section! {
    /// `[policy.shadow]`
    Shadow {
        /// A shadow policy, evaluated next to the active policy without effect; see [Shadow
        /// policy](operations/shadow-and-replay.md#shadow-policy).
        file: Option<PathBuf> = None => Live,
        /// Share of clients for which the shadow policy is evaluated, from 0 to 1.
        share: f64 = 0.1 => Live,
        /// Maximum number of concurrent shadow decisions; further ones are dropped.
        concurrency: usize = 4 => Restart,
    }
}

section! {
    /// `[decisions]`
    Decisions {
        /// Destination of the decision log, one line of JSON per decision: `stdout`, or a file; see [Decision
        /// log](operations/shadow-and-replay.md#decision-log).
        log: Option<String> = None => Live,
        /// Fields of the decision log to mask: `subject`, `channels`, `reason`.
        masked_fields: Vec<MaskedField> = Vec::new() => Live,
        /// The recording of whole requests, for replay.
        recording: Recording = Recording::default() => Table,
    }
}

section! {
    /// `[decisions.recording]`
    Recording {
        /// File that records whole requests **with their credentials**, for replay; see
        /// [Recordings](operations/shadow-and-replay.md#recordings).
        file: Option<PathBuf> = None => Live,
        /// Share of decisions to record, from 0 to 1.
        share: f64 = 0.01 => Live,
        /// Maximum size of the recording; it stops there.
        max_size: ByteSize = ByteSize::mib(256) => Live,
    }
}

section! {
    /// `[fleet]`
    Fleet {
        /// Name of the fleet, part of all its keys in the store: 1 to 64 letters, digits and `-_.`; see [Several
        /// fleets](operations/fleet.md#several-fleets-on-one-redis). Flag: `--fleet`.
        name: String = FleetName::default().to_string() => Restart,
        /// Name of this node, in the fleet and for its files below `cache-dir`; unique on the store and below `cache-dir`: up to 64
        /// letters, digits and `-._:[]`. Default: the host name and the bound address.
        node_name: Option<String> = None => Restart,
        /// How long a node delivers events after its last proof that it reads from the store's current master: at least 1s. It proves that
        /// every second, with a Sentinel or a Cluster; one server needs no proof.
        fence: HumanDuration = HumanDuration::from_secs(5) => Restart,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrOff(pub Option<Duration>);

impl TryFrom<String> for OrOff {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let invalid = |_| "expected off, or a duration such as 250ms, 25s or 2m".to_owned();
        Ok(Self(if text == "off" { None } else { Some(humantime::parse_duration(&text).map_err(invalid)?) }))
    }
}

impl From<OrOff> for String {
    fn from(value: OrOff) -> Self {
        value.0.map_or_else(|| "off".into(), |time| humantime::format_duration(time).to_string())
    }
}

section! {
    /// `[policy.egress]`
    Egress {
        /// Origins that the policy may send HTTP requests to; see [below](#outbound-requests).
        hosts: Vec<Host> = Vec::new() => PolicyEnv,
        /// Time limit of one request, until the last byte of its response.
        timeout: HumanDuration = HumanDuration::from_secs(1) => PolicyEnv,
        /// Maximum size of a response body.
        max_response_size: ByteSize = ByteSize::mib(1) => PolicyEnv,
        /// Maximum number of requests of one decision; one more is an error (kind `limit`), and the client is not admitted.
        max_requests: u32 = 8 => PolicyEnv,
    }
}

/// An origin that the policy may send requests to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a URL, or a table with url and allow-private")]
pub enum Host {
    /// `scheme://host[:port]`
    Url(Hidden),
    /// A URL with options.
    Table(HostTable),
}

/// An entry of `policy.egress.hosts` with options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostTable {
    /// `scheme://host[:port]`
    pub url: Hidden,
    /// Whether the host may resolve to a private or loopback address.
    #[serde(default)]
    pub allow_private: bool,
}

section! {
    /// `[policy.lookup]`
    Lookup {
        /// Prefixes of the keys that a policy may look up, such as `session:`, without a `*`; such keys are never channels.
        prefixes: Vec<String> = Vec::new() => PolicyEnv,
        /// Maximum number of look-ups of one decision; one more is an error (kind `limit`), and the client is not admitted.
        max_lookups: u32 = 64 => PolicyEnv,
        /// Time limit of one look-up.
        timeout: HumanDuration = HumanDuration::from_secs(1) => PolicyEnv,
    }
}

section! {
    /// `[stream]`
    Stream {
        /// Path of the streams; with `/*` at the end, every path below it as well.
        path: String = "/api/realtime".into() => Restart,
        /// How often an idle stream sends a ping (the stock client gives up after 75 s of silence): from `1s` to `70s`.
        ping_interval: HumanDuration = HumanDuration::from_secs(25) => Restart,
        /// Maximum size of an event; a larger one becomes a `gap`.
        max_event_size: ByteSize = ByteSize::mib(8) => Restart,
        /// Maximum number of channels of one stream.
        max_channels_per_stream: usize = 100 => Restart,
        /// Maximum number of open streams on this node; the next request gets a 503.
        max_streams: usize = 20_000 => Restart,
        /// Memory for the channels that are open, or were open in the last 30 s, without their events: 4 KiB and the name for each. A stream
        /// whose channels do not fit gets a 503.
        channel_memory: ByteSize = ByteSize::mib(256) => Restart,
        /// Memory for the event buffers: recent events of all channels, shared by their streams.
        buffer_memory: ByteSize = ByteSize::mib(128) => Restart,
        /// Memory for replays from the store: streams that resume from an old position or read slowly.
        replay_memory: ByteSize = ByteSize::mib(32) => Restart,
        /// How often the gateway checks a quiet channel for entries whose notification was lost.
        reconcile_interval: HumanDuration = HumanDuration::from_secs(5) => Restart,
        /// Deliver entries that were trimmed before they were read from their notifications; `false`: report them as a `gap`. Nothing proves
        /// that a notification is genuine; see [Notifications](protocol.md#notifications).
        fill_holes: bool = true => Restart,
    }
}

section! {
    /// `[channels]`
    Channels {
        /// Patterns (`*`, `?`, `[a-z]`, `{a,b}`) of names that may be channels; see [below](#channel-patterns). `?` and `[…]` match one
        /// character, of any language.
        allow: Vec<String> = vec!["*".into()] => Live,
        /// Patterns of names that may not be channels; they take precedence over `allow`. Names that begin with `tidegate:` are never
        /// channels.
        deny: Vec<String> = Vec::new() => Live,
    }
}

section! {
    /// `[cors]`
    Cors {
        /// Origins of web pages that may read streams, as browsers send them (`https://app.example`, without a `/` at the end);
        /// `http://localhost:*` stands for any port of a host, `*` for all origins.
        origins: Vec<String> = vec!["*".into()] => Live,
        /// Whether these pages may send cookies; requires named origins.
        credentials: bool = false => Live,
        /// Request headers that these pages may send in addition to `authorization`, `cache-control`, `content-type` and `last-event-id`,
        /// or `*` for any; see [below](#cross-origin-pages). Default: `*` with named origins, else none.
        headers: Option<Vec<String>> = None => Live,
    }
}

section! {
    /// `[reject]`
    Reject {
        /// Delay for a client that was rejected (4xx) and repeats the request within 10 s; see [below](#throttling-rejected-clients).
        delay: HumanDuration = HumanDuration(Duration::ZERO) => Live,
    }
}

section! {
    /// `[redis-rest]`
    RedisRest {
        /// Bearer tokens for `/redis`; without one, `/redis` does not exist.
        tokens: Vec<Hidden> = Vec::new() => Live,
    }
}

section! {
    /// `[memory-store]`
    MemoryStore {
        /// Size of the `memory:` store; when it is full, the oldest entries are deleted.
        max_size: ByteSize = ByteSize::mib(64) => Restart,
        /// Initial keys of the `memory:` store, for look-ups: a string, a list (a set) or a table (a hash).
        seed: HashMap<String, Seed> = HashMap::new() => Restart,
    }
}

section! {
    /// `[server]`
    Server {
        /// Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` headers are trusted; see
        /// [Client addresses](operations/deployment.md#client-addresses).
        trusted_proxies: Vec<IpNet> = Vec::new() => Restart,
        /// Maximum size of a request's line and headers.
        max_header_size: ByteSize = ByteSize::kib(64) => Restart,
        /// Maximum number of connections of the data port; see [below](#connections). Default: 1,000 more than twice
        /// `stream.max-streams`, as far as the limit on file descriptors allows.
        max_connections: Option<usize> = None => Restart,
        /// Time from a connection, or from the first byte of a further HTTP/1.1 request, to a complete request line and headers.
        head_timeout: HumanDuration = HumanDuration::from_secs(10) => Restart,
        /// How long an HTTP/1.1 connection may stay open between two requests.
        idle_timeout: HumanDuration = HumanDuration::from_secs(10) => Restart,
        /// How long an HTTP/2 connection may stay open without a request in progress.
        http2_idle_timeout: HumanDuration = HumanDuration::from_secs(60) => Restart,
        /// Time for a client to read a response that is not a stream, with one more second for each 64 KiB.
        response_timeout: HumanDuration = HumanDuration::from_secs(10) => Restart,
        /// Memory of the data port for heads over 8 KiB that are still arriving, and for responses other than streams that are not yet
        /// written; at least twice `policy.max-response-size`.
        connection_memory: ByteSize = ByteSize::mib(64) => Restart,
        /// Memory for requests and answers of `/redis`, for `POST /v1/emit` and for uploads of policies; see [below](#memory). At least
        /// 12 times `stream.max-event-size` and 1 MiB.
        body_memory: ByteSize = ByteSize::mib(128) => Restart,
    }
}

section! {
    /// `[drain]`
    Drain {
        /// After `SIGTERM`, how long the node keeps serving while it reports not ready, so that load balancers can react.
        delay: HumanDuration = HumanDuration::from_secs(5) => Live,
        /// Then the data port closes and streams are closed, spread over this time, so that their clients reconnect; see
        /// [Shutdown](operations/shutdown.md).
        duration: HumanDuration = HumanDuration::from_secs(5) => Live,
    }
}

section! {
    /// `[log]`
    Log {
        /// `text` or `json`.
        format: LogFormat = LogFormat::Text => Restart,
        /// Log filter, for example `warn,tidegate=debug`.
        filter: String = "info".into() => Live,
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
