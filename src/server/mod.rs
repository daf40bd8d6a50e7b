//! The server: two ports, their connections, and the end.

mod accept_queue;
mod access;
mod app;
mod body;
mod connection;
mod control;
pub(crate) mod data;
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

use connection::{Port, Side};
use respond::Response;

pub use app::App;
pub use data::playground::Playground;

/// A node that starts serves when it knows what the fleet said, or so long after, if the store is away.
const HEARING: Duration = Duration::from_millis(500);

/// A socket that a server gets from outside.
pub struct Listener {
    /// It listens.
    pub socket: TcpListener,
    /// It belongs to somebody who keeps it open for a successor.
    pub inherited: bool,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self { socket, inherited: false }
    }
}

/// The sockets that a server gets from outside.
pub struct Listeners {
    /// For clients.
    pub data: Listener,
    /// For operators.
    pub control: Listener,
}

/// Serves until `shutdown`, then lets the streams go, spread over the configured time.
pub async fn run(listeners: Listeners, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let hearing = tokio::spawn(Arc::clone(&app.commands).run());
    // Who connects waits meanwhile; else it might have to come back at once, when it is known what was said before.
    let _ = tokio::time::timeout(HEARING, app.commands.known()).await;
    let inherited = listeners.data.inherited;
    let data = Port::open(listeners.data, Side::Data, &app);
    let control = Port::open(listeners.control, Side::Control, &app);
    let rotating = tokio::spawn(rotate(Arc::clone(&app)));
    shutdown.await;
    shutdown::leave(&app, data, control, inherited).await;
    rotating.abort();
    hearing.abort();
}

/// After each swap, streams that an older version let in are asked to come back; and those that were to stay, or to come back later, when the
/// time for that is another.
async fn rotate(app: Arc<App>) {
    let (mut swaps, mut options) = (app.gate.swaps(), app.options.subscribe());
    let mut within = options.borrow_and_update().rotate_within;
    loop {
        tokio::select! {
            Ok(()) = swaps.changed() => {}
            Ok(()) = options.changed() => {
                let now = options.borrow_and_update().rotate_within;
                if std::mem::replace(&mut within, now) == now {
                    continue;
                }
            }
            else => return,
        }
        let version = *swaps.borrow_and_update();
        let Some(within) = within else { continue };
        let streams = app.streams.rotate(version, within);
        if streams > 0 {
            tracing::info!(streams, version, ?within, "rotating");
        }
    }
}

async fn answer(app: Arc<App>, request: Request<Incoming>, peer: SocketAddr, side: Side) -> Response {
    if head_size(&request) > app.config.max_head {
        return respond::head_too_large(app.config.max_head);
    }
    if side == Side::Control {
        return control::answer(&app, request).await;
    }
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut response = data::answer(&app, request, peer).await;
    // Whoever comes back shall come back to a balancer, not on this connection.
    if is_http1 && app.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The bytes of a request's line and headers, about as they were sent.
fn head_size<B>(request: &Request<B>) -> usize {
    let line = request.uri().path_and_query().map_or(0, |p| p.as_str().len()) + request.method().as_str().len();
    request.headers().iter().fold(line, |sum, (name, value)| sum + name.as_str().len() + value.len() + 4)
}
