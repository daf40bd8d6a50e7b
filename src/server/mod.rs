//! The server: the data port, the control port, and their life cycle until the graceful shutdown: report not ready, keep serving for
//! `drain.delay`, stop accepting connections, then close streams spread over `drain.duration`.

mod access;
mod api_error;
pub mod app;
mod body;
mod body_budget;
mod connection;
mod control;
pub mod data;
pub(crate) mod host;
mod recent_rejections;
mod respond;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Version};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::server::api_error::ApiError;
use crate::server::app::{App, Phase};
use crate::server::connection::limits::PortKind;
use crate::server::respond::Response;
use crate::stream::registry::AbortSignal;

/// A node opens its ports once it has processed the fleet's commands; without the store, after this time.
const COMMAND_SYNC_TIMEOUT: Duration = Duration::from_millis(500);

/// Time for data that is still being written after all streams have been asked to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A listening socket.
pub struct Listener {
    /// Bound by the caller, so that a test passes port 0.
    pub socket: TcpListener,
    /// Whether a service manager owns the socket and leaves it open for the next process.
    pub inherited: bool,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self { socket, inherited: false }
    }
}

/// The sockets of both ports.
pub struct Listeners {
    /// For clients.
    pub data: Listener,
    /// For operators.
    pub control: Listener,
}

/// Serves until `shutdown` completes, then drains.
pub async fn run(listeners: Listeners, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let commands = tokio::spawn(Arc::clone(&app.commands).run());
    // Connections wait in the accept queue meanwhile: a stream that opens before the commands are known may have to reconnect at once.
    let _ = timeout(COMMAND_SYNC_TIMEOUT, app.commands.wait_synced()).await;
    let inherited = listeners.data.inherited;
    let data = connection::open_port(listeners.data, PortKind::Data, &app);
    let control = connection::open_port(listeners.control, PortKind::Control, &app);
    let rotation = tokio::spawn(rotate(Arc::clone(&app)));
    shutdown.await;
    drain(&app, data, control, inherited).await;
    rotation.abort();
    commands.abort();
}

/// Shuts the node down. With inherited listeners there is no delay: the service manager leaves them open, so that new connections wait there
/// for the next process and no load balancer has to be warned.
async fn drain(app: &App, data: watch::Sender<bool>, control: watch::Sender<bool>, inherited: bool) {
    let live = app.live();
    let (delay, duration) = (if inherited { Duration::ZERO } else { live.drain_delay }, live.drain_duration);
    app.phase.send_replace(Phase::NotReady);
    if !delay.is_zero() {
        tracing::info!(?delay, "shutting down: reporting not ready, serving until drain.delay is over");
        tokio::time::sleep(delay).await;
    }
    app.phase.send_replace(Phase::Draining);
    tracing::info!(streams = app.streams.count(), ?duration, "draining");
    // Delayed requests are decided now.
    app.rejection_delay.close();
    // Browsers retry a refused connection, and give up after a 503: so the port closes instead of answering 503.
    data.send_replace(true);
    if timeout(duration + CLOSE_TIMEOUT, app.streams.drain(duration)).await.is_err() {
        tracing::warn!(
            streams = app.streams.count(),
            "drain timed out; aborting the streams of clients that do not read"
        );
    }
    let _ = timeout(CLOSE_TIMEOUT, data.closed()).await;
    control.send_replace(true);
    // Requests that are not answered by then are aborted when the process ends.
    let _ = timeout(CLOSE_TIMEOUT, control.closed()).await;
    tracing::info!("drained");
}

/// Rotates streams after each activation: those that an earlier generation admitted are closed within the rotation window, so that their
/// clients re-authorize. A changed window applies to them, too.
async fn rotate(app: Arc<App>) {
    let (mut activations, mut options) = (app.authorizer.generations(), app.options.subscribe());
    let mut window = options.borrow_and_update().rotation_window;
    loop {
        tokio::select! {
            Ok(()) = activations.changed() => {}
            Ok(()) = options.changed() => {
                let now = options.borrow_and_update().rotation_window;
                if std::mem::replace(&mut window, now) == now {
                    continue;
                }
            }
            else => return,
        }
        let generation = *activations.borrow_and_update();
        let Some(window) = window else { continue };
        let streams = app.streams.rotate(generation, window);
        if streams > 0 {
            tracing::info!(streams, generation, ?window, "rotating streams");
        }
    }
}

/// Answers a request. `abort` is for a stream: it ends the connection, or the HTTP/2 stream.
async fn answer(
    app: Arc<App>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    kind: PortKind,
    abort: AbortSignal,
) -> Response {
    if head_size(&request) > app.config.max_header_size {
        return ApiError::HeaderTooLarge { max_bytes: app.config.max_header_size }.into_response();
    }
    if let Err(error) = host::normalize_host(&mut request) {
        return ApiError::from(error).into_response();
    }
    if kind == PortKind::Control {
        return control::answer(&app, request).await.unwrap_or_else(ApiError::into_response);
    }
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut response = data::answer(&app, request, peer, abort).await.unwrap_or_else(ApiError::into_response);
    // The client shall reconnect through a load balancer, and not reuse this connection.
    if is_http1 && app.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Approximate size of a request's line and headers on the wire, in bytes.
fn head_size<B>(request: &Request<B>) -> usize {
    let line = request.uri().path_and_query().map_or(0, |p| p.as_str().len()) + request.method().as_str().len();
    request.headers().iter().fold(line, |sum, (name, value)| sum + name.as_str().len() + value.len() + 4)
}
