//! One port: it takes connections until it is told to leave, and knows when the last of them is gone.

use crate::telemetry::metrics::metrics;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::server::respond::Response;
use crate::server::{App, Listener, answer, backlog};
use crate::stream::registry::AbortSignal;

/// A client has so long for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection's buffer holds a whole head, and this: so that a head that is somewhat too large gets an answer with words.
const BUFFER: usize = 32 << 10;
/// A connection that was made just before the port left may ask for something so long: whoever was taken in is answered.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Who a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Clients.
    Data,
    /// Operators.
    Control,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Control => "control",
        }
    }
}

/// A port that serves.
pub struct Port {
    /// Those who accept and every connection hold a receiver, so that this end knows when they are gone.
    leaving: watch::Sender<bool>,
}

impl Port {
    /// Serves from now on.
    pub fn open(listener: Listener, side: Side, app: &Arc<App>) -> Self {
        let (leaving, told) = watch::channel(false);
        tokio::spawn(accept(listener, side, Arc::clone(app), told));
        Self { leaving }
    }

    /// Takes no new connections. Those that there are get their answers to the end and close: HTTP/1.1 behind the response that is
    /// under way, HTTP/2 (`GOAWAY`) behind all of them.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Waits until all connections are gone.
    pub async fn gone(&self) {
        self.leaving.closed().await;
    }
}

async fn accept(listener: Listener, side: Side, app: Arc<App>, leaving: watch::Receiver<bool>) {
    let Listener { socket: listener, inherited } = listener;
    let mut told = leaving.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => serve(socket, peer, side, &app, leaving.clone()),
                Err(error) => {
                    // Out of file descriptors, most often: others have to close first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = is_told(&mut told) => break,
        }
    }
    // What waits in an inherited socket is for the successor.
    if !inherited {
        backlog::close(listener, |socket, peer| serve(socket, peer, side, &app, leaving.clone())).await;
    }
}

/// Waits until the port leaves. One that was dropped has left too.
async fn is_told(leaving: &mut watch::Receiver<bool>) {
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

tokio::task_local! {
    /// The end of one exchange of HTTP/2.
    static OWN: AbortSignal;
}

/// Runs what HTTP/2 has on one connection. Each exchange has an end of its own: a proxy sends those of many clients on one connection, and
/// one of them that does not read is nothing to the others.
#[derive(Clone, Copy)]
struct Apart;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Apart {
    fn execute(&self, exchange: F) {
        let cut = AbortSignal::default();
        tokio::spawn(OWN.scope(cut.clone(), async move {
            tokio::select! {
                _ = exchange => {}
                // What is dropped here is reset.
                () = cut.requested() => {
                    metrics().connection_cut();
                    tracing::debug!("an exchange of HTTP/2 was cut: its client did not read to the end");
                }
            }
        }));
    }
}

fn serve(socket: TcpStream, peer: SocketAddr, side: Side, app: &Arc<App>, leaving: watch::Receiver<bool>) {
    // Small frames are to leave at once. A socket that refuses the option works too.
    let _ = socket.set_nodelay(true);
    let max_head = app.config.max_head;
    let mut builder = Builder::new(Apart);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(max_head + BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_send_buf_size(max_head)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let app = Arc::clone(app);
    let (cut, asked) = (AbortSignal::default(), Arc::new(Notify::new()));
    let (for_streams, asks) = (cut.clone(), Arc::clone(&asked));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let app = Arc::clone(&app);
        let of_connection = for_streams.clone();
        asks.notify_one();
        // hyper keeps the room of this future as long as the connection, which is as long as its stream: of a pointer, then.
        Box::pin(async move {
            request.extensions_mut().insert(OWN.try_with(AbortSignal::clone).unwrap_or(of_connection));
            Ok::<Response, Infallible>(answer(app, request, peer, side).await)
        })
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service).into_owned();
    let counted = metrics().connection(side.name());
    tokio::spawn(async move {
        let _counted = counted;
        let mut connection = std::pin::pin!(connection);
        let mut told = leaving.clone();
        let served = async {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = is_told(&mut told) => {}
            }
            // hyper closes a connection that has not asked for anything without reading what is on its way.
            tokio::select! {
                ended = connection.as_mut() => return ended,
                _ = tokio::time::timeout(FIRST_REQUEST, asked.notified()) => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        };
        tokio::select! {
            // A client that went away in the middle is nothing to tell of.
            ended = served => if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended");
            },
            () = cut.requested() => {
                metrics().connection_cut();
                tracing::debug!(%peer, "a connection was cut: its client did not read to the end");
            }
        }
        // Only now is this connection gone.
        drop(leaving);
    });
}
