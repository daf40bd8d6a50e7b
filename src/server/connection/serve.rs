//! Serves one connection with hyper, and ends it when it is time.

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::server::answer;
use crate::server::app::App;
use crate::server::connection::activity::Activity;
use crate::server::connection::deadline::EndCause;
use crate::server::connection::exchange::{Exchange, StreamControl};
use crate::server::connection::handover::{Handover, TakenStream};
use crate::server::connection::io::CountedSocket;
use crate::server::connection::limits::{ConnectionPermit, EXTRA_READ_BUFFER_BYTES};
use crate::server::connection::wait_closing;
use crate::stream::registry::AbortSignal;
use crate::stream::writer::SocketStream;
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
    closing: watch::Receiver<bool>,
) {
    // On Linux the listener passes it on.
    #[cfg(not(target_os = "linux"))]
    let _ = socket.set_nodelay(true);
    let activity = Activity::new(&permit);
    let metrics = Arc::clone(&app.metrics);
    let counted = metrics.connection(activity.limits().kind.as_str());
    let abort = AbortSignal::default();
    let requests = Requests {
        app: Arc::clone(app),
        activity: Arc::clone(&activity),
        peer,
        abort: abort.clone(),
        handover: Arc::default(),
        closing: closing.clone(),
    };
    // Boxed, so that a stream does not keep the memory for it.
    let requests = Box::pin(requests.serve(socket));
    tokio::spawn(async move {
        // Dropped in reverse order: the socket is closed before another connection takes its room.
        let _permit = permit;
        let _counted = counted;
        // Held until the task ends: the shutdown waits for it.
        let _closing = closing;
        let served = async move {
            let closed = CloseGuard(activity);
            let Some((socket, stream, ignored)) = requests.await else { return };
            let TakenStream { events, framing, exchange, .. } = stream;
            let ended = SocketStream::new(socket, framing, events, ignored).run().await;
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a stream's connection ended");
            }
            // Before the exchange ends, which would wait for the next request otherwise.
            drop(closed);
            drop(exchange);
        };
        tokio::select! {
            () = served => {}
            () = abort.requested() => {
                metrics.slow_client_disconnects.inc();
                tracing::debug!(%peer, "aborted a connection: its client does not read");
            }
        }
    });
}

/// A stream that a connection's task continues, with its socket and the number of bytes that arrived after the request.
type Handed = (TcpStream, TakenStream, usize);

/// What hyper needs to serve the requests of a connection.
struct Requests {
    app: Arc<App>,
    activity: Arc<Activity>,
    peer: SocketAddr,
    abort: AbortSignal,
    handover: Arc<Handover>,
    closing: watch::Receiver<bool>,
}

impl Requests {
    /// Serves requests until the connection ends, or until one of HTTP/1 is answered with a stream.
    async fn serve(self, socket: TcpStream) -> Option<Handed> {
        let (peer, activity) = (self.peer, Arc::clone(&self.activity));
        tokio::select! {
            served = self.serve_with_hyper(socket) => match served {
                Ok(handed) => return handed,
                // Clients may disconnect at any time: not worth more than a debug line.
                Err(error) => tracing::debug!(%peer, error, "connection ended with an error"),
            },
            cause = activity.end().passed() => {
                activity.limits().ended(cause);
                tracing::debug!(%peer, cause = cause.as_str(), "ended a connection");
            }
        }
        None
    }

    async fn serve_with_hyper(self, socket: TcpStream) -> Result<Option<Handed>, Box<dyn Error + Send + Sync>> {
        let Self { app, activity, peer, abort: connection_abort, handover, mut closing } = self;
        let kind = activity.limits().kind;
        let requested = Arc::new(Notify::new());
        let mut socket = CountedSocket::new(socket, Arc::clone(&activity), Arc::clone(&handover));
        let first_request = Arc::clone(&requested);
        let close = async move {
            wait_closing(&mut closing).await;
            // hyper's graceful shutdown closes a connection without a request and does not read data in flight.
            let _ = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, first_request.notified()).await;
        };
        let mut close = std::pin::pin!(close);
        let is_http2 = tokio::select! {
            is_http2 = socket.speaks_http2() => is_http2?,
            () = &mut close => return Ok(None),
        };
        let max_head = app.config.max_header_size;
        let executor = PerStreamExecutor { activity: Arc::clone(&activity), metrics: Arc::clone(&app.metrics) };
        let on_answer = Arc::clone(&handover);
        let service = service_fn(move |request: Request<Incoming>| {
            let (app, handover) = (Arc::clone(&app), Arc::clone(&on_answer));
            let connection_abort = connection_abort.clone();
            let exchange = Exchange::begin(&activity, request.version());
            requested.notify_one();
            // Boxed, because hyper reserves memory for this future until the connection closes: a pointer instead of the whole future.
            Box::pin(async move {
                let stream = STREAM.try_with(Arc::clone).ok();
                let abort = stream.as_ref().map_or(connection_abort, |stream| stream.abort.clone());
                if let Some(stream) = stream {
                    exchange.set_stream(stream);
                }
                let response = answer(app, request, peer, kind, abort).await;
                // An error resets the HTTP/2 stream, or closes the HTTP/1.1 connection.
                exchange.respond(response, &handover).map_err(|cause| std::io::Error::other(cause.as_str()))
            })
        });
        if is_http2 {
            let mut connection =
                std::pin::pin!(http2(executor, max_head).serve_connection(TokioIo::new(socket), service));
            tokio::select! {
                ended = connection.as_mut() => ended?,
                () = close => {
                    connection.as_mut().graceful_shutdown();
                    connection.await?;
                }
            }
            return Ok(None);
        }
        let mut connection = http1(max_head).serve_connection(TokioIo::new(socket), service);
        let mut is_closing = false;
        let stream = poll_fn(|cx| {
            if !is_closing && close.as_mut().poll(cx).is_ready() {
                is_closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
                Poll::Pending => handover.take().map_or(Poll::Pending, |stream| Poll::Ready(Ok(Some(stream)))),
            }
        });
        let Some(stream) = stream.await? else { return Ok(None) };
        let parts = connection.into_parts();
        let (socket, unread) = parts.io.into_inner().into_parts();
        Ok(Some((socket, stream, parts.read_buf.len() + unread.len())))
    }
}

fn http1(max_head: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The activity has the timeouts of heads and idle connections, in both protocols alike.
    builder.header_read_timeout(None).max_buf_size(max_head + EXTRA_READ_BUFFER_BYTES);
    builder
}

fn http2(executor: PerStreamExecutor, max_head: usize) -> http2::Builder<PerStreamExecutor> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_HTTP2_EXCHANGES)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_send_buf_size(max_head)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    builder
}
