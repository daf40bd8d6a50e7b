//! `tidegate serve`: starts a gateway, serves until a signal, and drains. `startup` has the steps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use toml::Table;

use crate::commands::listeners::InheritedSockets;
use crate::commands::logging::LogHandle;
use crate::commands::{ServeFlags, logging, startup};
use crate::config::{Config, ConfigError, ConfigRead};
use crate::rollout::reload::LoadFn;
use crate::server;
use crate::server::app::{App, Playground};
use crate::util::fingerprint::FileSnapshot;
use crate::util::scheduling;

/// Limit for writing the last lines of the decision log at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

pub fn run(flags: &ServeFlags) -> anyhow::Result<()> {
    let (file, layer) = (flags.config.clone(), flags.layer()?);
    let load = move || Config::read(Table::new(), file.as_deref(), layer.clone());
    let start = Start::new(load)?;
    start.config.check_cache_dir()?;
    self::start(start, None, |address, _| {
        println!("tidegate {} listening on http://{address}", env!("CARGO_PKG_VERSION"));
        Ok(())
    })
}

/// The configuration of a start, and how to read it again.
pub struct Start {
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

/// Starts a gateway and serves until a signal. `on_listening` is called once it listens.
pub fn start(
    start: Start,
    playground: Option<Playground>,
    on_listening: impl FnOnce(SocketAddr, &Arc<App>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let inherited = InheritedSockets::take()?;
    let (log, _guard) = logging::init(&start.config.live.log_filter, start.config.log_format)?;
    start.config.log_warnings();
    crate::commands::use_ring();
    // Inherited by the threads that serve connections, and by the one that interrupts policies.
    scheduling::shorten_slice();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(serve(start, inherited, playground, log, on_listening))
}

async fn serve(
    start: Start,
    inherited: InheritedSockets,
    playground: Option<Playground>,
    log: LogHandle,
    on_listening: impl FnOnce(SocketAddr, &Arc<App>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Start { config, files, load } = start;
    startup::raise_descriptor_limit(&config);
    // From here on SIGHUP does not end the process.
    let reload = reload_signal()?;
    let sockets = inherited.bind(&config)?;
    let address = sockets.data_address()?;
    let (app, local_cache) = startup::compose(config, &sockets, playground).await?;
    startup::activate_first_policy(&app).await?;

    let listeners = sockets.listen()?;
    let control = listeners.control.socket.local_addr()?;
    startup::join_fleet(&app, address, local_cache).await;
    startup::follow_configuration(&app, files, load, reload);
    startup::follow_shadow_policy(&app);
    startup::follow_log_filter(&app, log);

    let stop = stop_signal()?;
    on_listening(address, &app)?;
    println!("control on http://{control}");
    notify_service_manager(NotifyState::Ready);
    server::run(listeners, Arc::clone(&app), stop).await;

    if let Some(fleet) = app.fleet.get() {
        fleet.leave().await;
    }
    app.audit.flush(FLUSH_TIMEOUT);
    Ok(())
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
        notify_service_manager(NotifyState::Stopping);
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::warn!("second signal: exiting without waiting for streams");
            std::process::exit(1);
        });
    })
}

/// Notifies a service manager (`Type=notify` of systemd), where `NOTIFY_SOCKET` names one.
fn notify_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify the service manager (NOTIFY_SOCKET)");
    }
}
