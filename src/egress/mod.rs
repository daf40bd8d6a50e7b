//! The one way out for policies: to the hosts that the operator named, at addresses that are not this network's own unless the
//! operator said so, within bounds of time and size. No proxies, no redirects.

pub(crate) mod address;
pub(crate) mod body;
pub(crate) mod connect;
pub(crate) mod origin;

#[cfg(test)]
mod tests;

use crate::egress::body::Response;
use crate::egress::connect::Resolve;
use crate::egress::connect::SystemResolver;
use crate::egress::origin::Origin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::combinators::UnsyncBoxBody;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::egress::connect::Connector;

/// A request's body.
pub type RequestBody = UnsyncBoxBody<Bytes, EgressError>;

/// Idle connections to one origin.
const IDLE: usize = 8;
/// An idle connection is kept so long: less than servers keep theirs, so that few requests meet one that is just being closed.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Names that are resolved at once, which takes a thread each.
const NAMES: usize = 16;
/// A response's head.
const HEAD: usize = 64 << 10;
/// Header fields of a response.
const FIELDS: usize = 100;

/// Threads of its own: a decision may run where there is no network (`slow_lane`), and handshakes are not to take time from
/// streams. An error is kept: then nothing goes out.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(2).max_blocking_threads(NAMES).thread_name("egress").enable_all().build()
});

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// Not an origin that the operator named.
    #[error("the operator allows no such host")]
    Denied,
    /// A method that makes a tunnel, or echoes credentials.
    #[error("CONNECT and TRACE are not allowed")]
    Method,
    /// Its address is not one for this host.
    #[error("the host's address is private, link-local or reserved")]
    Prohibited,
    /// The name does not resolve.
    #[error("the name cannot be resolved: {0}")]
    Resolve(String),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// No secure connection.
    #[error("TLS: {0}")]
    Tls(String),
    /// Too slow.
    #[error("it took too long")]
    Timeout,
    /// Too many at once.
    #[error("too many requests are under way")]
    Busy,
    /// The response's body is too large.
    #[error("the response is too large")]
    TooLarge,
    /// The request's body is too large.
    #[error("the request is too large")]
    RequestTooLarge,
    /// The connection broke, or what came over it is not HTTP.
    #[error("the connection failed: {0}")]
    Http(String),
}

impl From<hyper::Error> for EgressError {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error.to_string())
    }
}

/// The bounds of a client.
#[derive(Clone, Debug)]
pub struct EgressLimits {
    /// A request, to the last byte of its response.
    pub timeout: Duration,
    /// Bytes of a response's body.
    pub response: usize,
    /// Requests at once.
    pub concurrency: usize,
}

/// What one request asks for beside the bounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestDeadline {
    /// Until the response's head.
    pub head: Option<Duration>,
    /// Between two pieces of its body.
    pub silence: Option<Duration>,
}

/// A client of some origins. Two clients share no connection.
pub struct Egress {
    connector: Connector,
    client: OnceLock<Result<HttpClient, EgressError>>,
    bounds: EgressLimits,
    places: Arc<Semaphore>,
}

type HttpClient = Client<HttpsConnector<Connector>, RequestBody>;

impl Egress {
    /// A client of these origins; without any, everything is denied.
    #[must_use]
    pub fn new(origins: Vec<Origin>, bounds: EgressLimits) -> Self {
        Self::with_resolver(origins, bounds, Arc::new(SystemResolver))
    }

    /// The same, with names resolved by somebody else.
    #[must_use]
    pub fn with_resolver(origins: Vec<Origin>, bounds: EgressLimits, resolver: Arc<dyn Resolve>) -> Self {
        let connector = Connector { origins: origins.into(), resolver, timeout: bounds.timeout };
        let places = Arc::new(Semaphore::new(bounds.concurrency));
        Self { connector, client: OnceLock::new(), bounds, places }
    }

    /// Whether a request may go to this URI, as far as that can be told without its address.
    #[must_use]
    pub fn allows(&self, uri: &http::Uri) -> bool {
        self.connector.origins.iter().any(|origin| origin.matches(uri))
    }

    /// Sends a request. It may be awaited on any runtime, and is given up when it is dropped.
    pub fn send(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        patience: RequestDeadline,
    ) -> impl Future<Output = Result<http::Response<Response>, EgressError>> + Send + 'static {
        let egress = Arc::clone(self);
        async move { run(async move { egress.exchange(request, patience).await }).await? }
    }

    async fn exchange(
        &self,
        request: Request<RequestBody>,
        patience: RequestDeadline,
    ) -> Result<http::Response<Response>, EgressError> {
        if !self.allows(request.uri()) {
            return Err(EgressError::Denied);
        }
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(EgressError::Method);
        }
        let start = Instant::now();
        let end = start + self.bounds.timeout;
        let head = patience.head.map_or(end, |time| end.min(start + time));
        let place = timeout_at(head, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|_| EgressError::Busy)?.map_err(|_| EgressError::Busy)?;
        let client = self.client.get_or_init(|| client(&self.connector)).as_ref().map_err(Clone::clone)?;
        let response = match timeout_at(head, client.request(request)).await {
            Ok(response) => response.map_err(|error| cause(&error))?,
            Err(_) => return Err(EgressError::Timeout),
        };
        let (parts, body) = response.into_parts();
        if http_body::Body::size_hint(&body).lower() > self.bounds.response as u64 {
            return Err(EgressError::TooLarge);
        }
        Ok(http::Response::from_parts(parts, Response::new(body, self.bounds.response, end, patience.silence, place)))
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&*self.connector.origins).finish()
    }
}

/// Runs a future where there is a network, and gives it up when it is no longer awaited.
pub async fn run<F>(future: F) -> Result<F::Output, EgressError>
where
    F: Future<Output: Send> + Send + 'static,
{
    spawn(future)?.await.ok_or_else(|| EgressError::Connect("the request's task ended".into()))
}

/// Starts a task where there is a network; it ends with its handle.
pub fn spawn<F>(future: F) -> Result<Task<F::Output>, EgressError>
where
    F: Future<Output: Send> + Send + 'static,
{
    let runtime = RUNTIME.as_ref().map_err(|error| EgressError::Connect(format!("no threads: {error}")))?;
    Ok(Task(runtime.spawn(future)))
}

/// A task that ends when this is dropped.
pub struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The system's roots are read when the first request goes out: most gateways never send one.
fn client(connector: &Connector) -> Result<HttpClient, EgressError> {
    let tls = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| EgressError::Tls(error.to_string()))
    };
    let tls = match tls()?.with_native_roots() {
        Ok(config) => config.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "the system has no certificates to trust: no https request of a policy can succeed");
            tls()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector.clone());
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE)
        .http1_max_buf_size(HEAD)
        .http1_max_headers(FIELDS)
        .build(https))
}

/// The cause that is told, from within what the layers wrapped around it.
fn cause(error: &hyper_util::client::legacy::Error) -> EgressError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut words = error.to_string();
    while let Some(inner) = next {
        if let Some(own) = inner.downcast_ref::<EgressError>() {
            return own.clone();
        }
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return EgressError::Tls(tls.to_string());
        }
        words = inner.to_string();
        // What an I/O error wraps is not its source; that would be the source of what it wraps.
        next = match inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => inner.source(),
        };
    }
    EgressError::Http(words)
}
