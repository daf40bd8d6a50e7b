//! The parts of a start: store, authorizer, first policy, fleet, and what follows the configuration while the gateway runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;

use crate::artifact::policy_store::PolicyStore;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::authz::authorizer::Authorizer;
use crate::channel::hub::Hub;
use crate::commands::listeners::BoundSockets;
use crate::commands::logging::LogHandle;
use crate::config::policy::{PolicyMode, ShadowConfig};
use crate::config::{Config, ConfigError, StoreConfig};
use crate::fleet::heartbeat::NodeContext;
use crate::fleet::local_cache::LocalCache;
use crate::fleet::node::Fleet;
use crate::rollout::Observers;
use crate::rollout::reload::{LoadFn, Reloader};
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::ActivationError;
use crate::server::app::{App, Playground};
use crate::shadow::shadow_policy::ShadowSampling;
use crate::store::EventStore;
use crate::store::fleet_keys::FleetKeys;
use crate::store::memory::MemoryStore;
use crate::store::options::StoreOptions;
use crate::store::redis::RedisStore;
use crate::telemetry::metrics::Metrics;
use crate::util::clock::system_clock;
use crate::util::descriptors;
use crate::util::fingerprint::FileSnapshot;
use crate::util::id::random_id;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;

/// The example policy, built from `guest-examples/rust-role-based`.
pub const EXAMPLE: &[u8] = include_bytes!("../../guest-examples/rust-role-based/policy.wasm");

/// Raises the limit on file descriptors as far as it goes, and says how many connections that allows.
pub fn raise_descriptor_limit(config: &Config) {
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!(%error, "cannot raise the limit on file descriptors to its hard limit");
    }
    let (descriptors, max_streams) = (descriptors::limit(), config.stream.max_streams);
    let connections = config.server.connection_limit(max_streams, descriptors);
    tracing::info!(connections, descriptors, "the most connections of the data port");
    if let Some(warning) = config.server.connection_warning(max_streams, descriptors) {
        tracing::warn!("{warning}");
    }
}

/// Opens the store, the authorizer and the decision log, and composes of them the state that the gateway's handlers share. No policy is
/// active yet. The cache of the fleet's policy is returned if that is the policy's source.
pub async fn compose(
    config: Config,
    sockets: &BoundSockets,
    playground: Option<Playground>,
) -> anyhow::Result<(Arc<App>, Option<LocalCache>)> {
    let node = node_name(&config, sockets)?;
    if let Some(cache_dir) = &config.cache_dir {
        PolicyStore::warn_of_obsolete_directories(cache_dir);
    }
    let records = config.node_records(&node).filter(|_| config.policy_mode == PolicyMode::Fleet);
    let local_cache =
        records.map(LocalCache::open).transpose().context("cache-dir: cannot store the fleet's policy there")?;
    let has_cached_policy = local_cache.as_ref().is_some_and(|cache| matches!(cache.active_record(), Ok(Some(_))));
    let metrics = Arc::new(Metrics::new());
    let store = open_store(&config.store, &config.fleet_keys, has_cached_policy, Arc::clone(&metrics)).await?;
    let signatures = open_signature_policy(&config, &node)?;
    let observers = Observers::new(config.limits.shadow_concurrency);
    observers.audit.configure(config.live.decisions.clone())?;
    let authorizer =
        open_authorizer(&config, Arc::clone(&store), Arc::clone(&metrics))?.with_observers(observers.list());
    let hub = Hub::start(store, config.stream.hub.clone(), metrics);
    let app = App::new(config, node, hub, Arc::new(authorizer), observers, playground, signatures);
    Ok((Arc::new(app), local_cache))
}

/// This node's name, in the fleet and for its files below `cache-dir`.
fn node_name(config: &Config, sockets: &BoundSockets) -> anyhow::Result<String> {
    let node = config.node_at(sockets.data_address()?);
    if config.node_name.is_none() && sockets.has_ephemeral_data_port() && config.rollout.trust.require_signatures() {
        tracing::warn!(
            node,
            "listen has port 0, so this node has another name after a restart and forgets the greatest sequence that it activated: \
             set fleet.node-name"
        );
    }
    Ok(node)
}

pub async fn activate_first_policy(app: &App) -> anyhow::Result<()> {
    match &app.config.policy_mode {
        PolicyMode::File(_) | PolicyMode::Example => {
            let activated = app.rollout.activate_first(PolicySource::of(&app.config), EXAMPLE).await;
            activated.map_err(|error| describe_first_failure(&app.config, &error))?;
        }
        PolicyMode::AllowAll => tracing::warn!("--allow-all: every client may read every channel"),
        // All requests are refused until the fleet's policy is active.
        PolicyMode::Fleet => {}
    }
    Ok(())
}

/// Loads the shadow policy of the configuration, at the start and whenever the configuration names another one. A shadow policy that
/// cannot be loaded is logged, and the gateway serves without it.
pub fn follow_shadow_policy(app: &Arc<App>) {
    let (app, mut options) = (Arc::clone(app), app.options.subscribe());
    tokio::spawn(async move {
        let (mut before, mut shadow) = (ShadowConfig::default(), None);
        loop {
            let now = options.borrow_and_update().shadow.clone();
            if now != before {
                if let Some(file) = now.file.clone() {
                    let sampling =
                        ShadowSampling { share: now.share, concurrency: app.config.limits.shadow_concurrency };
                    match app.rollout.start_shadow_file(file, sampling).await {
                        Ok(loaded) => shadow = Some(loaded),
                        // The reason is logged where the stage failed.
                        Err(_) => tracing::error!("policy.shadow.file: the shadow policy is not evaluated"),
                    }
                } else if let Some(removed) = shadow.take() {
                    app.rollout.stop_shadow(&removed);
                }
                before = now;
            }
            if options.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Follows the files of the configuration and of the policy. A message of `reload` reads them at once.
pub fn follow_configuration(app: &App, files: FileSnapshot, load: LoadFn, reload: mpsc::Receiver<()>) {
    let (rollout, store) = (app.rollout.clone(), Arc::clone(app.hub.store()));
    let reloader = Reloader::new(rollout, store, Arc::clone(&app.config), app.options.clone(), files, load);
    tokio::spawn(reloader.run(reload));
}

/// Follows changes of `log.filter`.
pub fn follow_log_filter(app: &App, log: LogHandle) {
    // A second call changes nothing.
    let _ = app.log_lines.set(Arc::clone(&log.counters));
    let mut options = app.options.subscribe();
    let mut before = app.config.live.log_filter.clone();
    tokio::spawn(async move {
        while options.changed().await.is_ok() {
            let now = options.borrow_and_update().log_filter.clone();
            if now != before {
                log.set(&now);
                before = now;
            }
        }
    });
}

/// The error of a start whose first policy cannot be activated.
pub fn describe_first_failure(config: &Config, error: &ActivationError) -> anyhow::Error {
    let which = match &config.policy_mode {
        PolicyMode::File(path) => format!("policy {}", path.display()),
        _ => "the example policy".into(),
    };
    anyhow::anyhow!("{which}: {}", error.reason)
}

/// Joins the fleet on a shared store, and activates the fleet's policy if the fleet manages this node's.
pub async fn join_fleet(app: &Arc<App>, address: SocketAddr, local_cache: Option<LocalCache>) {
    let Some(store) = app.hub.store().fleet(app.commands.keys()) else { return };
    let node = NodeContext {
        store,
        authorizer: Arc::clone(&app.authorizer),
        rollout: app.rollout.clone(),
        name: app.node().to_owned(),
        instance: random_id(),
        address,
        local_cache,
        shadow_concurrency: app.config.limits.shadow_concurrency,
    };
    // It is set once, here.
    let _ = app.fleet.set(Fleet::join(node, &app.hub).await);
}

/// Opens the store. A Redis must answer: with `wait-for-store` the start waits until it does, and a node with a cached policy starts
/// without it.
async fn open_store(
    config: &StoreConfig,
    keys: &FleetKeys,
    may_be_unreachable: bool,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Arc<dyn EventStore>> {
    let url = &config.options.url;
    let Some(store) = open_redis(&config.options, keys, metrics)? else {
        return Ok(Arc::new(MemoryStore::new(config.memory_max_size, config.seed.clone(), system_clock())));
    };
    let mut is_warned = false;
    while let Err(error) = store.check().await {
        let unreachable = error.is_transient();
        if unreachable && may_be_unreachable {
            tracing::warn!(store = %url, %error, "starting without the store");
            break;
        }
        if !(config.wait && unreachable) {
            let remedy = if unreachable { ": start it, or set --wait-for-store" } else { "" };
            return Err(anyhow::Error::new(error).context(format!("store {url}{remedy}")));
        }
        if !std::mem::replace(&mut is_warned, true) {
            tracing::warn!(store = %url, %error, "waiting for the store");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(Arc::new(store))
}

/// A Redis; `None` for `memory:`. An invalid file of certificates is a mistake in the configuration.
pub fn open_redis(
    options: &StoreOptions,
    keys: &FleetKeys,
    metrics: Arc<Metrics>,
) -> Result<Option<RedisStore>, ConfigError> {
    let store = RedisStore::open(options, keys, metrics);
    store.map_err(|error| ConfigError(format!("configuration: {error:#}")))
}

/// The trusted keys, and the greatest sequence that this node activated.
pub fn open_signature_policy(config: &Config, node: &str) -> anyhow::Result<SignaturePolicy> {
    let records = config.node_records(node);
    if records.is_none() && config.rollout.trust.require_signatures() {
        tracing::warn!("without cache-dir this node forgets the greatest sequence that it activated when it restarts");
    }
    Ok(SignaturePolicy::open(&config.rollout.trust, records)?)
}

/// Creates the authorizer. Without `allow-all` it refuses every request until a policy is active.
pub fn open_authorizer(
    config: &Config,
    store: Arc<dyn EventStore>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Authorizer> {
    let (env, limits) = (config.env(store), config.limits.clone());
    if config.policy_mode == PolicyMode::AllowAll {
        return Ok(Authorizer::allow_all(env, limits, metrics));
    }
    let compiler = Compiler::new(&limits, config.cache_dir.as_deref())?;
    Ok(Authorizer::new(compiler, env, limits, metrics))
}

/// Loads a policy; errors name the file.
pub fn load(compiler: &Compiler, path: &Path) -> anyhow::Result<Policy> {
    Policy::load(compiler, path).with_context(|| format!("policy {}", path.display()))
}
