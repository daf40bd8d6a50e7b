//! `tidegate serve`, and the parts of a start that `dev` and `check` use too.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use toml::Table;

use super::listeners::InheritedSockets;
use super::logging::{self, LogHandle};
use super::{ServeFlags, systemd};
use crate::channel::hub::Hub;
use crate::config::operations::ShadowConfig;
use crate::config::{Config, ConfigError, Door, Read, StoreConfig};
use crate::fleet::{Fleet, Join, LocalCopy};
use crate::policy::compile::Compiler;
use crate::policy::component::Policy;
use crate::policy::gate::Gate;
use crate::policy::shadow::Share;
use crate::policy::signature::Signatures;
use crate::rollout::{Files, Follow, Load, Memory, Refused};
use crate::server::{self, App, Playground};
use crate::stamp::Seen;
use crate::store::Store;
use crate::store::memory::{MemoryStore, system_clock};
use crate::store::redis::RedisStore;

/// The example policy, built from `guest-examples/rust-role-based`.
pub const EXAMPLE: &[u8] = include_bytes!("../../guest-examples/rust-role-based/policy.wasm");

/// Limit for writing the last lines of the decision log at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

pub fn run(flags: &ServeFlags) -> anyhow::Result<()> {
    let (file, layer) = (flags.config.clone(), flags.layer()?);
    let load = move || Config::read(Table::new(), file.as_deref(), layer.clone());
    start(Start::new(load)?, None, |address, _| {
        println!("tidegate {} listening on http://{address}", env!("CARGO_PKG_VERSION"));
        Ok(())
    })
}

/// The configuration of a start, and how to read it again.
pub struct Start {
    /// The configuration.
    pub config: Config,
    files: Seen,
    load: Load,
}

impl Start {
    /// Reads the configuration. A reload calls `load` again.
    pub fn new(load: impl Fn() -> Read + Send + Sync + 'static) -> Result<Self, ConfigError> {
        let Read { config, files } = load();
        Ok(Self { config: config?, files, load: Arc::new(load) })
    }
}

/// Starts a gateway and serves until a signal. `greet` is called once it listens.
pub fn start(
    given: Start,
    playground: Option<Playground>,
    greet: impl FnOnce(SocketAddr, &Arc<App>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Start { config, files, load } = given;
    let inherited = InheritedSockets::take()?;
    let (log, _guard) = logging::init(&config.live.log_filter, config.log_format)?;
    super::use_ring();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let reload = reload_signal()?;
        let sockets = inherited.bind(&config)?;
        let address = sockets.data_address()?;
        let node = config.node_at(address);
        if config.node.is_none() && sockets.has_ephemeral_data_port() && config.rollout.trust.is_wanted() {
            tracing::warn!(
                node,
                "listen has port 0, so this node has another name after a restart and forgets the greatest sequence that it activated: \
                 set fleet.node"
            );
        }
        let copy = local_copy(&config, &node)?;
        let kept = copy.as_ref().is_some_and(|copy| matches!(copy.pointer(), Ok(Some(_))));
        let store = open_store(&config.store, kept).await?;
        let signatures = signatures(&config, &node)?;
        let gate = Arc::new(open_gate(&config, Arc::clone(&store))?);
        gate.beside().write(config.live.decisions.clone())?;
        let hub = Hub::start(Arc::clone(&store), config.stream.hub.clone());
        let app = Arc::new(App::new(config, node, hub, gate, playground, signatures));
        begin(&app).await?;
        let listeners = sockets.listen()?;
        let control = listeners.control.socket.local_addr()?;
        join_fleet(&app, address, copy).await;
        let follow = Follow::new(app.rollout.clone(), store, Arc::clone(&app.config), app.options.clone(), files, load);
        tokio::spawn(follow.run(reload));
        propose(&app);
        log_as_configured(&app, log);
        let signal = stop_signal()?;
        greet(address, &app)?;
        println!("control on http://{control}");
        systemd::notify_ready();
        server::run(listeners, Arc::clone(&app), signal).await;
        if let Some(fleet) = app.fleet.get() {
            fleet.leave().await;
        }
        app.gate.beside().flush(FLUSH_TIMEOUT);
        Ok(())
    })
}

/// Activates the first policy.
async fn begin(app: &App) -> anyhow::Result<()> {
    match &app.config.door {
        Door::Policy(_) | Door::Example => {
            let config = &app.config;
            let memory = |folder: &PathBuf| Memory::below(folder, app.node());
            let begun = app.rollout.begin(Files::of(config), EXAMPLE, config.cache_dir.as_ref().map(memory)).await;
            begun.map_err(|refused| first_refused(&app.config, &refused))?;
        }
        Door::AllowAll => tracing::warn!("--allow-all: every client may read every channel"),
        // All requests are refused until the fleet's policy is active.
        Door::Fleet => {}
    }
    Ok(())
}

/// Loads the shadow policy of the configuration, at the start and whenever the configuration names another one. A shadow policy that
/// cannot be loaded is logged, and the gateway serves without it.
fn propose(app: &Arc<App>) {
    let (app, mut options) = (Arc::clone(app), app.options.subscribe());
    tokio::spawn(async move {
        let (mut before, mut asked) = (ShadowConfig::default(), None);
        loop {
            let now = options.borrow_and_update().shadow.clone();
            if now != before {
                if let Some(file) = now.file.clone() {
                    let share = Share { share: now.share, concurrency: app.config.limits.shadow };
                    match app.rollout.propose_file(file, share).await {
                        Ok(candidate) => asked = Some(candidate),
                        // The reason is logged where the stage failed.
                        Err(_) => tracing::error!("policy.shadow.file: the shadow policy is not evaluated"),
                    }
                } else if let Some(candidate) = asked.take() {
                    app.rollout.ended(&candidate);
                }
                before = now;
            }
            if options.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Follows changes of `log.filter`.
fn log_as_configured(app: &App, log: LogHandle) {
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
pub fn first_refused(config: &Config, refused: &Refused) -> anyhow::Error {
    let which = match &config.door {
        Door::Policy(path) => format!("policy {}", path.display()),
        _ => "the example policy".into(),
    };
    anyhow::anyhow!("{which}: {}", refused.why)
}

/// Receives one message per `SIGHUP`.
fn reload_signal() -> anyhow::Result<mpsc::Receiver<()>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // A message that waits in the channel stands for this signal too.
            let _ = sender.try_send(());
        }
    });
    Ok(receiver)
}

/// Completes with the first `SIGTERM` or `SIGINT`; the second one ends the process.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        systemd::notify_stopping();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::warn!("second signal: exiting without waiting for streams");
            std::process::exit(1);
        });
    })
}

/// Opens the folder in which a node keeps the fleet's policy.
fn local_copy(config: &Config, node: &str) -> anyhow::Result<Option<LocalCopy>> {
    let Some(folder) = config.cache_dir.as_ref().filter(|_| config.door == Door::Fleet) else { return Ok(None) };
    let copy = LocalCopy::open(folder, node);
    Ok(Some(copy.with_context(|| format!("cache-dir {}: cannot store the fleet's policy there", folder.display()))?))
}

/// Starts the heartbeat of a node on a shared store, and activates the fleet's policy if that is the policy's source.
async fn join_fleet(app: &Arc<App>, address: SocketAddr, copy: Option<LocalCopy>) {
    let Some(store) = app.hub.store().fleet(app.commands.keys()) else { return };
    let (gate, rollout) = (Arc::clone(&app.gate), app.rollout.clone());
    let fleet = Fleet::new(Join {
        store,
        gate,
        rollout,
        name: app.node().to_owned(),
        address,
        copy,
        concurrency: app.config.limits.shadow,
    });
    if fleet.follows() {
        fleet.first().await;
    }
    fleet.greet().await;
    fleet.start(&app.hub);
    // It is set once, here.
    let _ = app.fleet.set(fleet);
}

/// Opens the store. A Redis has to answer; with `wait-for-store` the start waits for it, and a node with a stored policy starts without.
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
            let remedy = if away { ": start it, or set --wait-for-store" } else { "" };
            return Err(anyhow::Error::new(error).context(format!("store {}{remedy}", config.url)));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(store = %config.url, %error, "waiting for the store");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(Arc::new(store))
}

/// The trusted keys, and the greatest sequence that this node activated.
pub fn signatures(config: &Config, node: &str) -> anyhow::Result<Signatures> {
    let name = format!("{node}.json");
    let file = config.cache_dir.as_ref().map(|folder| folder.join("sequence").join(name));
    if file.is_none() && config.rollout.trust.is_wanted() {
        tracing::warn!("without cache-dir this node forgets the greatest sequence that it activated when it restarts");
    }
    Ok(Signatures::open(&config.rollout.trust, file.as_deref())?)
}

/// Creates the authorizer. Without `allow-all` it refuses every request until a policy is active.
pub fn open_gate(config: &Config, store: Arc<dyn Store>) -> anyhow::Result<Gate> {
    let surroundings = config.surroundings(store);
    let limits = config.limits.clone();
    if config.door == Door::AllowAll {
        return Ok(Gate::open_to_all(surroundings, limits));
    }
    let compiler = Compiler::new(&limits, config.cache_dir.as_deref())?;
    Ok(Gate::new(compiler, surroundings, limits))
}

/// Loads a policy; errors name the file.
pub fn load(compiler: &Compiler, path: &Path) -> anyhow::Result<Policy> {
    Policy::load(compiler, path).with_context(|| format!("policy {}", path.display()))
}
