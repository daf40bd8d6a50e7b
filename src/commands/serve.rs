//! `tidegate serve`, and the start of a gateway, from the configuration to the end of the last stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use toml::Table;

use crate::channel::hub::Hub;
use crate::commands::listeners::InheritedSockets;
use crate::commands::{ServeFlags, logging, startup, systemd};
use crate::config::{Config, ConfigError, ConfigRead};
use crate::rollout::observers::Observers;
use crate::rollout::reload::{LoadFn, Reloader};
use crate::server;
use crate::server::app::App;
use crate::server::data::playground::Playground;
use crate::telemetry::metrics::Metrics;
use crate::util::fingerprint::FileSnapshot;

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
    files: FileSnapshot,
    load: LoadFn,
}

impl Start {
    /// Reads the configuration. A reload calls `load` again.
    pub fn new(load: impl Fn() -> ConfigRead + Send + Sync + 'static) -> Result<Self, ConfigError> {
        let ConfigRead { config, files } = load();
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
    crate::commands::use_ring();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let reload = reload_signal()?;
        let sockets = inherited.bind(&config)?;
        let address = sockets.data_address()?;
        let node = startup::node_name(&config, &sockets)?;
        let copy = startup::open_local_copy(&config, &node)?;
        let kept = copy.as_ref().is_some_and(|copy| matches!(copy.pointer(), Ok(Some(_))));
        let metrics = Arc::new(Metrics::new());
        let store = startup::open_store(&config.store, kept, Arc::clone(&metrics)).await?;
        let signatures = startup::signatures(&config, &node)?;
        let observers = Observers::new(config.limits.shadow_concurrency);
        observers.audit.configure(config.live.decisions.clone())?;
        let authorizer = startup::create_authorizer(&config, Arc::clone(&store), Arc::clone(&metrics))?
            .with_observers(observers.list());
        let authorizer = Arc::new(authorizer);
        let hub = Hub::start(Arc::clone(&store), config.stream.hub.clone(), metrics);
        let app = Arc::new(App::new(config, node, hub, authorizer, observers, playground, signatures));
        startup::activate_first_policy(&app).await?;
        let listeners = sockets.listen()?;
        let control = listeners.control.socket.local_addr()?;
        startup::join_fleet(&app, address, copy).await;
        let follow =
            Reloader::new(app.rollout.clone(), store, Arc::clone(&app.config), app.options.clone(), files, load);
        tokio::spawn(follow.run(reload));
        startup::follow_shadow_policy(&app);
        startup::follow_log_filter(&app, log);
        let signal = stop_signal()?;
        greet(address, &app)?;
        println!("control on http://{control}");
        systemd::notify_ready();
        server::run(listeners, Arc::clone(&app), signal).await;
        if let Some(fleet) = app.fleet.get() {
            fleet.leave().await;
        }
        app.audit.flush(FLUSH_TIMEOUT);
        Ok(())
    })
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
