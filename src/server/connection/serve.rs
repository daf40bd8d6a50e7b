//! Serves one connection with hyper, and ends it when it is time.

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

use crate::server::answer;
use crate::server::app::App;
use crate::server::connection::activity::Activity;
use crate::server::connection::deadline::EndCause;
use crate::server::connection::exchange::{Exchange, StreamControl};
use crate::server::connection::io::CountedSocket;
use crate::server::connection::limits::{ConnectionPermit, EXTRA_READ_BUFFER_BYTES};
use crate::server::connection::wait_closing;
use crate::stream::registry::AbortSignal;
use crate::telemetry::metrics::Metrics;

/// Time that a connection without a request has to send one after the port was closed: a connection that was accepted gets an answer.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Exchanges of one HTTP/2 connection at once, the least that RFC 9113 recommends.
const MAX_HTTP2_EXCHANGES: u32 = 100;
/// Bytes of request bodies that an HTTP/2 connection receives before a handler reads them, the default of RFC 9113.
const HTTP2_WINDOW_BYTES: u32 = 65_535;

tokio::task_local! {
    /// The control of the HTTP/2 stream that a task serves.
    static STREAM: Arc<StreamControl>;
}

/// Runs each HTTP/2 stream of a connection with a control of its own: a proxy sends the streams of many clients over one connection, and
/// aborting one slow client must not end the others.
#[derive(Clone)]
struct PerStreamExecutor {
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for PerStreamExecutor {
    fn execute(&self, exchange: F) {
        let stream = Arc::new(StreamControl::default());
        let Self { activity, metrics } = self.clone();
        tokio::spawn(STREAM.scope(Arc::clone(&stream), async move {
            // Dropping the exchange resets its HTTP/2 stream.
            let cause = tokio::select! {
                _ = exchange => return,
                () = stream.abort.requested() => {
                    metrics.slow_client_disconnects.inc();
                    tracing::debug!("aborted an HTTP/2 stream: its client does not read");
                    EndCause::ResponseTimeout
                }
                cause = stream.end.passed() => {
                    activity.limits().ended(cause);
                    tracing::debug!(cause = cause.as_str(), "ended an HTTP/2 stream");
                    cause
                }
            };
            // What the socket does not take stays with the connection, so that the connection ends.
            let time = activity.limits().config.response_timeout;
            if tokio::time::timeout(time, stream.ended.notified()).await.is_err() {
                activity.end().set(Duration::ZERO, cause);
            }
        }));
    }
}

/// Tells the activity that the connection has ended, even by a panic.
struct CloseGuard(Arc<Activity>);

impl Drop for CloseGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Serves a connection until it ends.
pub fn spawn(
    socket: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
    app: &Arc<App>,
    mut closing: watch::Receiver<bool>,
) {
    // Frames are small and must be sent at once. A socket that refuses the option works too.
    let _ = socket.set_nodelay(true);
    let activity = Activity::new(&permit);
    let (app, metrics) = (Arc::clone(app), Arc::clone(&app.metrics));
    let kind = activity.limits().kind;
    let executor = PerStreamExecutor { activity: Arc::clone(&activity), metrics: Arc::clone(&metrics) };
    let builder = builder(executor, app.config.max_header_size);
    let (abort, requested) = (AbortSignal::default(), Arc::new(Notify::new()));
    let (connection_abort, on_request) = (abort.clone(), Arc::clone(&requested));
    let exchanges = Arc::clone(&activity);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let app = Arc::clone(&app);
        let connection_abort = connection_abort.clone();
        let exchange = Exchange::begin(&exchanges, request.version());
        on_request.notify_one();
        // Boxed, because hyper reserves memory for this future until the connection closes: a pointer instead of the whole future.
        Box::pin(async move {
            let stream = STREAM.try_with(Arc::clone).ok();
            let abort = stream.as_ref().map_or(connection_abort, |stream| stream.abort.clone());
            if let Some(stream) = stream {
                exchange.set_stream(stream);
            }
            request.extensions_mut().insert(abort);
            let response = answer(app, request, peer, kind).await;
            // An error resets the HTTP/2 stream, or closes the HTTP/1.1 connection.
            exchange.respond(response).map_err(|cause| std::io::Error::other(cause.as_str()))
        })
    });
    let socket = TokioIo::new(CountedSocket::new(socket, Arc::clone(&activity)));
    let connection = builder.serve_connection(socket, service).into_owned();
    let counted = metrics.connection(kind.as_str());
    tokio::spawn(async move {
        // Dropped in reverse order: the socket is closed before another connection takes its room.
        let _permit = permit;
        let _counted = counted;
        let _closed = CloseGuard(Arc::clone(&activity));
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
            cause = activity.end().passed() => {
                activity.limits().ended(cause);
                tracing::debug!(%peer, cause = cause.as_str(), "ended a connection");
            }
        }
    });
}

fn builder(executor: PerStreamExecutor, max_head: usize) -> Builder<PerStreamExecutor> {
    let mut builder = Builder::new(executor);
    // The activity has the timeouts of heads and idle connections, in both protocols alike.
    builder.http1().header_read_timeout(None).max_buf_size(max_head + EXTRA_READ_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_HTTP2_EXCHANGES)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_send_buf_size(max_head)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    builder
}
