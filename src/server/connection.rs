//! One listening port and its connections: accepts until it is closed, and knows when the last connection has ended.

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

use crate::server::app::App;
use crate::server::respond::Response;
use crate::server::{Listener, accept_queue, answer};
use crate::stream::registry::AbortSignal;
use crate::telemetry::metrics::Metrics;

/// Time that a client has to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Read buffer beyond the largest head that is allowed, so that a slightly larger head is answered with an error message.
const EXTRA_READ_BUFFER_BYTES: usize = 32 << 10;
/// Time that a connection without a request has to send one after the port was closed: a connection that was accepted gets an answer.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed `accept`, most often for lack of file descriptors: other connections have to close first.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Which of the two ports a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Streams, for clients.
    Data,
    /// Operations, for operators and emitters.
    Control,
}

/// Starts to accept connections. Sending `true` closes the port: it accepts no more connections, and open ones complete their responses
/// and close, HTTP/1.1 after the current response, HTTP/2 (`GOAWAY`) after all of them. The accept loop and every connection hold a
/// receiver, so the channel is closed when the last connection has ended.
pub fn open_port(listener: Listener, kind: PortKind, app: &Arc<App>) -> watch::Sender<bool> {
    let (closing, receiver) = watch::channel(false);
    tokio::spawn(accept(listener, kind, Arc::clone(app), receiver));
    closing
}

async fn accept(listener: Listener, kind: PortKind, app: Arc<App>, closing: watch::Receiver<bool>) {
    let Listener { socket: listener, inherited } = listener;
    let mut port_closes = closing.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => serve(socket, peer, kind, &app, closing.clone()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                }
            },
            () = wait_closing(&mut port_closes) => break,
        }
    }
    // Connections that wait in an inherited socket belong to the process that takes over.
    if !inherited {
        accept_queue::close(listener, |socket, peer| serve(socket, peer, kind, &app, closing.clone())).await;
    }
}

/// Waits until the port closes, or is dropped.
async fn wait_closing(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

tokio::task_local! {
    /// The abort signal of one HTTP/2 stream.
    static STREAM_ABORT: AbortSignal;
}

/// Runs each HTTP/2 stream of a connection with an abort signal of its own: a proxy sends the streams of many clients over one connection,
/// and aborting one slow client must not end the others.
#[derive(Clone)]
struct PerStreamExecutor(Arc<Metrics>);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for PerStreamExecutor {
    fn execute(&self, exchange: F) {
        let abort = AbortSignal::default();
        let metrics = Arc::clone(&self.0);
        tokio::spawn(STREAM_ABORT.scope(abort.clone(), async move {
            tokio::select! {
                _ = exchange => {}
                // Dropping the exchange resets its HTTP/2 stream.
                () = abort.requested() => {
                    metrics.slow_client_disconnects.inc();
                    tracing::debug!("aborted an HTTP/2 stream: its client does not read");
                }
            }
        }));
    }
}

fn serve(socket: TcpStream, peer: SocketAddr, kind: PortKind, app: &Arc<App>, mut closing: watch::Receiver<bool>) {
    // Frames are small and must be sent at once. A socket that refuses the option works too.
    let _ = socket.set_nodelay(true);
    let max_head = app.config.max_header_size;
    let mut builder = Builder::new(PerStreamExecutor(Arc::clone(&app.metrics)));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(max_head + EXTRA_READ_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_send_buf_size(max_head)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let (app, metrics) = (Arc::clone(app), Arc::clone(&app.metrics));
    let (abort, requested) = (AbortSignal::default(), Arc::new(Notify::new()));
    let (connection_abort, on_request) = (abort.clone(), Arc::clone(&requested));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let app = Arc::clone(&app);
        let connection_abort = connection_abort.clone();
        on_request.notify_one();
        // Boxed, because hyper reserves memory for this future until the connection closes: a pointer instead of the whole future.
        Box::pin(async move {
            request.extensions_mut().insert(STREAM_ABORT.try_with(AbortSignal::clone).unwrap_or(connection_abort));
            Ok::<Response, Infallible>(answer(app, request, peer, kind).await)
        })
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service).into_owned();
    let counted = metrics.connection(if kind == PortKind::Data { "data" } else { "control" });
    tokio::spawn(async move {
        let _counted = counted;
        let mut connection = std::pin::pin!(connection);
        // The receiver is held until the task ends: the shutdown waits for it.
        let close = async {
            wait_closing(&mut closing).await;
            // hyper's graceful shutdown closes a connection without a request and does not read data in flight.
            let _ = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, requested.notified()).await;
        };
        let served = async {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = close => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        };
        tokio::select! {
            // Clients may disconnect at any time: not worth more than a debug line.
            ended = served => if let Err(error) = ended {
                tracing::debug!(%peer, %error, "connection ended with an error");
            },
            () = abort.requested() => {
                metrics.slow_client_disconnects.inc();
                tracing::debug!(%peer, "aborted a connection: its client does not read");
            }
        }
    });
}
