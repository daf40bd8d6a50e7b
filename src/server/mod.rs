//! The server: the data port, the control port, and their life cycle.

mod accept_queue;
mod access;
mod api_error;
pub mod app;
mod body;
mod connection;
mod control;
pub mod data;
mod recent_rejections;
mod respond;
mod shutdown;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Version};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::connection::{Port, PortKind};
use crate::server::respond::Response;

/// A node opens its ports once it has processed the fleet's commands; without the store, after this time.
const COMMAND_SYNC_TIMEOUT: Duration = Duration::from_millis(500);

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
    let _ = tokio::time::timeout(COMMAND_SYNC_TIMEOUT, app.commands.wait_synced()).await;
    let inherited = listeners.data.inherited;
    let data = Port::open(listeners.data, PortKind::Data, &app);
    let control = Port::open(listeners.control, PortKind::Control, &app);
    let rotation = tokio::spawn(rotate(Arc::clone(&app)));
    shutdown.await;
    shutdown::shutdown(&app, data, control, inherited).await;
    rotation.abort();
    commands.abort();
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

async fn answer(app: Arc<App>, request: Request<Incoming>, peer: SocketAddr, kind: PortKind) -> Response {
    if head_size(&request) > app.config.max_header_size {
        return ApiError::HeaderTooLarge { max_bytes: app.config.max_header_size }.into_response();
    }
    if kind == PortKind::Control {
        return control::answer(&app, request).await;
    }
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut response = data::answer(&app, request, peer).await;
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
