//! The server: two ports, their connections, and the end.

mod control;
mod cors;
mod data;
mod hold;
mod playground;
mod redis_rest;
pub(crate) mod request;
mod respond;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use crate::channel::hub::Hub;
use crate::config::Config;
use crate::policy::gate::Gate;
use crate::rollout::Rollout;
use crate::stream::StreamContext;
use crate::stream::registry::{Cut, Streams};
use crate::stream::replay::ReplayBudget;
use hold::Hold;
use respond::Response;

pub use playground::Playground;

/// A client has so long for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection's buffer holds a whole head, and this: so that a head that is somewhat too large gets an answer with words.
const BUFFER: usize = 32 << 10;
/// After the streams were told to go: for what is still being written.
const GRACE: Duration = Duration::from_secs(2);
/// Requests that may wait for a decision (`reject.hold`), as a part of the streams that there may be.
const HELD: usize = 10;

/// Everything that a request may need.
pub struct App {
    /// What was configured.
    pub config: Config,
    /// The channels.
    pub hub: Hub,
    /// The door.
    pub gate: Arc<Gate>,
    /// The way of policies into force.
    pub rollout: Rollout,
    /// The streams.
    pub streams: Streams,
    /// The page of `tidegate dev`.
    pub playground: Option<Playground>,
    hold: Hold,
    replays: Arc<ReplayBudget>,
    draining: AtomicBool,
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(config: Config, hub: Hub, gate: Arc<Gate>, playground: Option<Playground>) -> Self {
        Self {
            streams: Streams::new(config.stream.max_streams),
            hold: Hold::new(config.reject_hold, config.stream.max_streams.div_ceil(HELD), gate.swaps()),
            replays: Arc::new(ReplayBudget::new(config.stream.replay_memory)),
            draining: AtomicBool::new(false),
            rollout: Rollout::new(Arc::clone(&gate)),
            config,
            hub,
            gate,
            playground,
        }
    }

    fn stream_context(&self) -> StreamContext {
        StreamContext { hub: self.hub.clone(), replays: Arc::clone(&self.replays), ping: self.config.stream.ping }
    }

    /// How many requests wait for a decision (`reject.hold`).
    #[must_use]
    pub fn held(&self) -> usize {
        self.hold.count()
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// The sockets that a server gets from outside.
pub struct Listeners {
    /// For clients.
    pub data: TcpListener,
    /// For operators.
    pub control: TcpListener,
}

/// Serves until `shutdown`, then lets the streams go, spread over the configured time.
pub async fn run(listeners: Listeners, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let graceful = Arc::new(GracefulShutdown::new());
    let data = tokio::spawn(accept(listeners.data, Arc::clone(&app), Port::Data, Arc::clone(&graceful)));
    let control = tokio::spawn(accept(listeners.control, Arc::clone(&app), Port::Control, Arc::clone(&graceful)));
    let rotating = tokio::spawn(rotate(Arc::clone(&app)));
    shutdown.await;
    rotating.abort();
    app.draining.store(true, Ordering::Relaxed);
    app.hold.close();
    tracing::info!(streams = app.streams.count(), over = ?app.config.drain, "draining");
    // The listener closes: a refused connection is tried again by browsers without a word, a 503 is not.
    data.abort();
    if tokio::time::timeout(app.config.drain + GRACE, app.streams.drain(app.config.drain)).await.is_err() {
        tracing::warn!(streams = app.streams.count(), "some clients did not read to the end of their streams");
    }
    control.abort();
    let (_, _) = (data.await, control.await);
    if let Some(graceful) = Arc::into_inner(graceful) {
        // What is not done by then is cut.
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    }
    tracing::info!("drained");
}

/// After each swap, streams that an older version let in are asked to come back.
async fn rotate(app: Arc<App>) {
    let Some(within) = app.config.rollout.rotate_within else { return };
    let mut swaps = app.gate.swaps();
    while swaps.changed().await.is_ok() {
        let version = *swaps.borrow_and_update();
        let streams = app.streams.rotate(version, within);
        if streams > 0 {
            tracing::info!(streams, version, ?within, "rotating");
        }
    }
}

#[derive(Clone, Copy)]
enum Port {
    Data,
    Control,
}

async fn accept(listener: TcpListener, app: Arc<App>, port: Port, graceful: Arc<GracefulShutdown>) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => serve(socket, peer, &app, port, &graceful),
            Err(error) => {
                // Out of file descriptors, most often: others have to close first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn serve(socket: TcpStream, peer: SocketAddr, app: &Arc<App>, port: Port, graceful: &GracefulShutdown) {
    // Small frames are to leave at once. A socket that refuses the option works too.
    let _ = socket.set_nodelay(true);
    let max_head = app.config.max_head;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(max_head + BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_send_buf_size(max_head)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let app = Arc::clone(app);
    let cut = Cut::default();
    let for_streams = cut.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let app = Arc::clone(&app);
        request.extensions_mut().insert(for_streams.clone());
        async move { Ok::<Response, Infallible>(answer(app, request, peer, port).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        tokio::select! {
            // A client that went away in the middle is nothing to tell of.
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended");
            },
            () = cut.wanted() => tracing::debug!(%peer, "a connection was cut: its client did not read to the end"),
        }
    });
}

async fn answer(app: Arc<App>, request: Request<Incoming>, peer: SocketAddr, port: Port) -> Response {
    if request::head_size(&request) > app.config.max_head {
        return respond::head_too_large(app.config.max_head);
    }
    match port {
        Port::Data => data::answer(&app, request, peer).await,
        Port::Control => control::answer(&app, request).await,
    }
}
