//! Outbound HTTP requests of policies and JWKS fetches: to origins that the operator allows, at public addresses unless the operator
//! allows private ones, with limits of time and size. Proxies are not used, redirects not followed.

pub(crate) mod address;
pub(crate) mod body;
pub(crate) mod connect;
pub(crate) mod origin;

#[cfg(test)]
mod tests;

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
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::egress::body::ResponseBody;
use crate::egress::connect::{Connector, Resolve, SystemResolver};
use crate::egress::origin::EgressOrigin;

pub type RequestBody = UnsyncBoxBody<Bytes, EgressError>;

/// Maximum idle connections per origin.
const MAX_IDLE_CONNECTIONS: usize = 8;
/// Shorter than the timeouts of common servers, so that few requests meet a connection that its server is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Each resolution blocks a thread.
const MAX_CONCURRENT_RESOLUTIONS: usize = 16;
const MAX_RESPONSE_HEAD_BYTES: usize = 64 << 10;
const MAX_RESPONSE_HEADERS: usize = 100;

/// A separate runtime, because a decision may run in the low-priority pool, which has no I/O driver, and because TLS handshakes must not
/// delay streams. An error is kept: every request then fails with it.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(MAX_CONCURRENT_RESOLUTIONS)
        .thread_name("egress")
        .enable_all()
        .build()
});

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    #[error("the origin is not allowed: policy.egress.hosts does not list it")]
    Denied,
    /// CONNECT makes a tunnel, and TRACE echoes credentials.
    #[error("the methods CONNECT and TRACE are not allowed")]
    Method,
    #[error("the host has no allowed address: its addresses are private, link-local or reserved")]
    Prohibited,
    #[error("cannot resolve the host name: {0}")]
    Resolve(String),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("the request timed out")]
    Timeout,
    #[error("too many requests are in progress")]
    Busy,
    #[error("the response body is too large")]
    TooLarge,
    #[error("the request body is too large")]
    RequestTooLarge,
    #[error("the connection failed: {0}")]
    Http(String),
}

/// The limits of a client.
#[derive(Clone, Debug)]
pub struct EgressLimits {
    /// The timeout of a request, until the last byte of its response.
    pub timeout: Duration,
    /// Maximum bytes of a response's body.
    pub max_response_size: usize,
    /// Maximum concurrent requests.
    pub concurrency: usize,
}

/// Timeouts that one request sets in addition to the client's limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestTimeouts {
    /// Until the response's head.
    pub head: Option<Duration>,
    /// Between two frames of the response's body.
    pub between_frames: Option<Duration>,
}

/// A client of some origins. Two clients share no connection.
pub struct Egress {
    connector: Connector,
    /// Created by the first request.
    client: OnceLock<Result<HttpClient, EgressError>>,
    limits: EgressLimits,
    /// One permit per concurrent request.
    permits: Arc<Semaphore>,
}

type HttpClient = Client<HttpsConnector<Connector>, RequestBody>;

impl Egress {
    /// A client that may send requests to these origins only.
    pub fn new(origins: Vec<EgressOrigin>, limits: EgressLimits) -> Self {
        Self::with_resolver(origins, limits, Arc::new(SystemResolver))
    }

    pub fn with_resolver(origins: Vec<EgressOrigin>, limits: EgressLimits, resolver: Arc<dyn Resolve>) -> Self {
        let connector = Connector { origins: origins.into(), resolver, timeout: limits.timeout };
        let permits = Arc::new(Semaphore::new(limits.concurrency));
        Self { connector, client: OnceLock::new(), limits, permits }
    }

    /// Whether the origin of a URI is allowed. Its addresses are checked when it is connected to.
    pub fn allows(&self, uri: &http::Uri) -> bool {
        self.connector.origins.iter().any(|origin| origin.matches(uri))
    }

    /// Whether any origin is allowed.
    pub fn has_origins(&self) -> bool {
        !self.connector.origins.is_empty()
    }

    /// Sends a request. The future may run on any runtime; dropping it aborts the request.
    pub fn send(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        timeouts: RequestTimeouts,
    ) -> impl Future<Output = Result<http::Response<ResponseBody>, EgressError>> + Send + 'static {
        let egress = Arc::clone(self);
        async move {
            let mut task = spawn(async move { egress.exchange(request, timeouts).await })?;
            let result = task.join_next().await.and_then(Result::ok);
            result.unwrap_or_else(|| Err(EgressError::Connect("the task of the request was aborted".into())))
        }
    }

    async fn exchange(
        &self,
        request: Request<RequestBody>,
        timeouts: RequestTimeouts,
    ) -> Result<http::Response<ResponseBody>, EgressError> {
        if !self.allows(request.uri()) {
            return Err(EgressError::Denied);
        }
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(EgressError::Method);
        }
        let start = Instant::now();
        let deadline = start + self.limits.timeout;
        let head_deadline = timeouts.head.map_or(deadline, |time| deadline.min(start + time));
        let permit = timeout_at(head_deadline, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| EgressError::Busy)?.map_err(|_| EgressError::Busy)?;
        let client = self.client.get_or_init(|| client(&self.connector)).as_ref().map_err(Clone::clone)?;
        let response = match timeout_at(head_deadline, client.request(request)).await {
            Ok(response) => response.map_err(|error| root_cause(&error))?,
            Err(_) => return Err(EgressError::Timeout),
        };
        let (parts, body) = response.into_parts();
        if http_body::Body::size_hint(&body).lower() > self.limits.max_response_size as u64 {
            return Err(EgressError::TooLarge);
        }
        let body = ResponseBody::new(body, self.limits.max_response_size, deadline, timeouts.between_frames, permit);
        Ok(http::Response::from_parts(parts, body))
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&*self.connector.origins).finish()
    }
}

/// Spawns a task on the egress runtime. It is aborted when the set is dropped.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<JoinSet<T>, EgressError> {
    let runtime =
        RUNTIME.as_ref().map_err(|error| EgressError::Connect(format!("cannot start the egress threads: {error}")))?;
    let mut task = JoinSet::new();
    task.spawn_on(future, runtime.handle());
    Ok(task)
}

/// Reads the root certificates of the system, which is slow, so only the first request creates a client.
fn client(connector: &Connector) -> Result<HttpClient, EgressError> {
    let tls = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| EgressError::Tls(error.to_string()))
    };
    let tls = match tls()?.with_native_roots() {
        Ok(config) => config.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "cannot read the root certificates of the system: every https request of a policy will fail");
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
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .http1_max_buf_size(MAX_RESPONSE_HEAD_BYTES)
        .http1_max_headers(MAX_RESPONSE_HEADERS)
        .build(https))
}

/// The innermost error that names a cause: the HTTP client wraps errors of its connector.
fn root_cause(error: &hyper_util::client::legacy::Error) -> EgressError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut message = error.to_string();
    while let Some(inner) = next {
        if let Some(own) = inner.downcast_ref::<EgressError>() {
            return own.clone();
        }
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return EgressError::Tls(tls.to_string());
        }
        message = inner.to_string();
        // The source of an I/O error is that of the error that it wraps, which would be skipped.
        next = match inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => inner.source(),
        };
    }
    EgressError::Http(message)
}
