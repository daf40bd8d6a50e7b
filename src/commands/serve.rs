//! `tidegate serve`, and the parts of a start that `dev` and `check` share.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use toml::Table;

use crate::artifact::policy_store::PolicyStore;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::authz::authorizer::Authorizer;
use crate::channel::hub::Hub;
use crate::commands::sockets::Inherited;
use crate::commands::{ServeFlags, manager};
use crate::config::operations::ShadowConfig;
use crate::config::{Config, ConfigError, ConfigRead, PolicyMode, StoreConfig};
use crate::fleet::local_cache::LocalCache;
use crate::fleet::node::{Fleet, NodeConfig};
use crate::rollout::observers::Observers;
use crate::rollout::reload::{LoadFn, Reloader};
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::ActivationError;
use crate::server;
use crate::server::App;
use crate::server::playground::Playground;
use crate::shadow::shadow_policy::ShadowSampling;
use crate::store::Store;
use crate::store::memory::{MemoryStore, system_clock};
use crate::store::redis::RedisStore;
use crate::telemetry;
use crate::telemetry::log::Log;
use crate::util::fingerprint::FileSnapshot;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;

/// The example policy, compiled from `guest-examples/rust-role-based`.
pub const EXAMPLE: &[u8] = include_bytes!("../../guest-examples/rust-role-based/policy.wasm");

/// What is written of the last decisions may take so long.
const LAST_LINES: Duration = Duration::from_secs(2);

pub fn run(flags: &ServeFlags) -> anyhow::Result<()> {
    let (file, layer) = (flags.config.clone(), flags.layer()?);
    let load = move || Config::read(Table::new(), file.as_deref(), layer.clone());
    start(Start::new(load)?, None, |address, _| {
        println!("tidegate {} listening on http://{address}", env!("CARGO_PKG_VERSION"));
        Ok(())
    })
}

/// What a gateway starts with, and where that came from.
pub struct Start {
    /// The configuration.
    pub config: Config,
    files: FileSnapshot,
    load: LoadFn,
}

impl Start {
    /// Reads the configuration, and will read it again in the same way.
    pub fn new(load: impl Fn() -> ConfigRead + Send + Sync + 'static) -> Result<Self, ConfigError> {
        let ConfigRead { config, files } = load();
        Ok(Self { config: config?, files, load: Arc::new(load) })
    }
}

/// Starts a gateway and serves until a signal. `greet` is called when it listens.
pub fn start(
    given: Start,
    playground: Option<Playground>,
    greet: impl FnOnce(SocketAddr, &Arc<App>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Start { config, files, load } = given;
    let inherited = Inherited::take()?;
    let (log, _guard) = telemetry::log::init(&config.live.log_filter, config.log_format)?;
    crate::commands::use_ring();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let reload = reload_signal()?;
        if let Some(cache_dir) = &config.cache_dir {
            PolicyStore::warn_of_obsolete_directories(cache_dir);
        }
        let copy = local_copy(&config)?;
        let kept = copy.as_ref().is_some_and(|copy| matches!(copy.active_record(), Ok(Some(_))));
        let store = open_store(&config.store, kept).await?;
        let signatures = signatures(&config)?;
        let observers = Observers::new(config.limits.shadow);
        observers.audit.write(config.live.decisions.clone())?;
        let authorizer = Arc::new(open_gate(&config, Arc::clone(&store))?.observed_by(observers.list()));
        let hub = Hub::start(Arc::clone(&store), config.stream.hub.clone());
        let app = Arc::new(App::new(config, hub, authorizer, observers, playground, signatures));
        begin(&app).await?;
        let listeners = inherited.listen(&app.config).await?;
        let address = listeners.data.socket.local_addr()?;
        let control = listeners.control.socket.local_addr()?;
        join_fleet(&app, address, copy).await;
        let follow =
            Reloader::new(app.rollout.clone(), store, Arc::clone(&app.config), app.options.clone(), files, load);
        tokio::spawn(follow.run(reload));
        propose(&app);
        log_as_configured(&app, log);
        let signal = stop_signal()?;
        greet(address, &app)?;
        println!("control on http://{control}");
        manager::ready();
        server::run(listeners, Arc::clone(&app), signal).await;
        if let Some(fleet) = app.fleet.get() {
            fleet.leave().await;
        }
        app.audit.flush(LAST_LINES);
        Ok(())
    })
}

/// The first policy takes force.
async fn begin(app: &App) -> anyhow::Result<()> {
    match &app.config.door {
        PolicyMode::Policy(_) | PolicyMode::Example => {
            let config = &app.config;
            let begun = app.rollout.activate_first(PolicySource::of(config), EXAMPLE).await;
            begun.map_err(|refused| first_refused(&app.config, &refused))?;
        }
        PolicyMode::AllowAll => tracing::warn!("--allow-all: everybody may read every channel"),
        // Nobody is let in before it is here.
        PolicyMode::Fleet => {}
    }
    Ok(())
}

/// The candidate of the configuration is loaded beside the start, and when the configuration names another: what is wrong with it is told,
/// and is no reason not to serve.
fn propose(app: &Arc<App>) {
    let (app, mut options) = (Arc::clone(app), app.options.subscribe());
    tokio::spawn(async move {
        let (mut before, mut asked) = (ShadowConfig::default(), None);
        loop {
            let now = options.borrow_and_update().shadow.clone();
            if now != before {
                if let Some(file) = now.file.clone() {
                    let share = ShadowSampling { share: now.share, concurrency: app.config.limits.shadow };
                    match app.rollout.start_shadow_file(file, share).await {
                        Ok(candidate) => asked = Some(candidate),
                        // What was refused is in the log.
                        Err(_) => tracing::error!("policy.shadow.file: it is not asked"),
                    }
                } else if let Some(candidate) = asked.take() {
                    app.rollout.stop_shadow(&candidate);
                }
                before = now;
            }
            if options.changed().await.is_err() {
                return;
            }
        }
    });
}

/// What is logged is what the configuration says.
fn log_as_configured(app: &App, log: Log) {
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

/// What a start says that has no policy.
pub fn first_refused(config: &Config, refused: &ActivationError) -> anyhow::Error {
    let which = match &config.door {
        PolicyMode::Policy(path) => format!("policy {}", path.display()),
        _ => "the example policy".into(),
    };
    anyhow::anyhow!("{which}: {}", refused.why)
}

/// One message a `SIGHUP`.
fn reload_signal() -> anyhow::Result<mpsc::Receiver<()>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // A full channel says it already.
            let _ = sender.try_send(());
        }
    });
    Ok(receiver)
}

/// Ends with the first `SIGTERM` or `SIGINT`; the second one ends the process.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        manager::stopping();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::warn!("a second signal: not waiting for the streams");
            std::process::exit(1);
        });
    })
}

/// Where a node whose policy is the fleet's keeps it.
fn local_copy(config: &Config) -> anyhow::Result<Option<LocalCache>> {
    let Some(records) = config.node_records().filter(|_| config.door == PolicyMode::Fleet) else { return Ok(None) };
    Ok(Some(LocalCache::open(records).context("cache-dir: the fleet's policy cannot be kept there")?))
}

/// A node on a store that others may use too gives word of itself; one whose policy is the fleet's puts that in force.
async fn join_fleet(app: &Arc<App>, address: SocketAddr, copy: Option<LocalCache>) {
    let Some(store) = app.hub.store().fleet() else { return };
    let (authorizer, rollout) = (Arc::clone(&app.authorizer), app.rollout.clone());
    let fleet = Fleet::new(NodeConfig {
        store,
        authorizer,
        rollout,
        name: app.config.node_at(address),
        address,
        copy,
        concurrency: app.config.limits.shadow,
    });
    if fleet.follows() {
        fleet.first().await;
    }
    fleet.greet().await;
    fleet.start(&app.hub);
    // There is one start.
    let _ = app.fleet.set(fleet);
}

/// Opens the store; a Redis has to answer, or is waited for, unless the node can do without for now.
async fn open_store(config: &StoreConfig, may_be_away: bool) -> anyhow::Result<Arc<dyn Store>> {
    let Some(client) = config.url.client(config.ca.as_deref())? else {
        return Ok(Arc::new(MemoryStore::new(config.memory, config.seed.clone(), system_clock())));
    };
    let store = RedisStore::new(client, config.timeout)?;
    let mut told = false;
    while let Err(error) = store.check().await {
        let away = matches!(error, crate::store::StoreError::Unavailable(_));
        if away && may_be_away {
            tracing::warn!(store = %config.url, %error, "starting without the store");
            break;
        }
        if !(config.wait && away) {
            let remedy = if away { " (start it, or give --wait-for-store)" } else { "" };
            return Err(anyhow::Error::new(error).context(format!("store {}{remedy}", config.url)));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(store = %config.url, %error, "waiting for the store");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(Arc::new(store))
}

/// Who may sign policies, and how far this node saw sequence numbers go.
pub fn signatures(config: &Config) -> anyhow::Result<SignaturePolicy> {
    let records = config.node_records();
    if records.is_none() && config.rollout.trust.is_wanted() {
        tracing::warn!("without a cache-dir, a restart forgets how far the sequence numbers of policies went");
    }
    Ok(SignaturePolicy::open(&config.rollout.trust, records)?)
}

/// Makes the door. Unless everybody is let in, nobody is before a policy is in force.
pub fn open_gate(config: &Config, store: Arc<dyn Store>) -> anyhow::Result<Authorizer> {
    let env = config.env(store);
    let limits = config.limits.clone();
    if config.door == PolicyMode::AllowAll {
        return Ok(Authorizer::open_to_all(env, limits));
    }
    let compiler = Compiler::new(&limits, config.cache_dir.as_deref())?;
    Ok(Authorizer::new(compiler, env, limits))
}

/// Loads a policy; errors name the file.
pub fn load(compiler: &Compiler, path: &Path) -> anyhow::Result<Policy> {
    Policy::load(compiler, path).with_context(|| format!("policy {}", path.display()))
}
