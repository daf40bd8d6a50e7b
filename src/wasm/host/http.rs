//! `wasi:http/outgoing-handler`: requests to the origins that the operator allows.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http_body_util::BodyExt;
use wasmtime::component::Linker;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::egress::body::limit_request_body;
use crate::egress::{EgressError, RequestTimeouts};
use crate::wasm::host::body_drain::DrainedBody;
use crate::wasm::host::{PolicyEnv, State};

/// Bytes of a set of header fields in host memory.
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_REQUEST_BODY_BYTES: usize = 1 << 20;
/// Bytes of a request's body in transit from the guest.
const BODY_CHUNK_BYTES: usize = 64 << 10;
/// Headers that belong to a connection or to proxies, in addition to those that WASI forbids.
const FORBIDDEN_HEADERS: [&str; 3] = ["te", "trailer", "expect"];

static FORBIDDEN_HEADER_FILTER: LazyLock<ForbiddenHeaderFilter> = LazyLock::new(|| {
    Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name) || FORBIDDEN_HEADERS.contains(&name.as_str()))
});

/// The outbound requests of an instance.
pub struct Http {
    context: WasiHttpCtx,
    sender: RequestSender,
}

impl Http {
    pub fn new(env: &Arc<PolicyEnv>, digest: &Arc<str>, request_id: &str) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_HEADER_BYTES);
        let (env, digest) = (Arc::clone(env), Arc::clone(digest));
        Self { context, sender: RequestSender { env, digest, request_id: request_id.into(), sent: 0 } }
    }

    /// Starts a decision. Requests before it are denied.
    pub fn start_decision(&mut self, request_id: &str) {
        self.sender.request_id = request_id.into();
        self.sender.sent = 0;
    }

    /// Requests that the policy tried to send in this decision, denied ones included.
    pub fn sent(&self) -> u32 {
        self.sender.sent
    }
}

struct RequestSender {
    env: Arc<PolicyEnv>,
    digest: Arc<str>,
    /// Empty before the decision starts.
    request_id: String,
    sent: u32,
}

/// A response, and the future that drives its connection. The connections of `Egress` drive themselves.
type SendResult = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<()>> + Send>)>;

impl WasiHttpHooks for RequestSender {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let denied = || Box::new(async { Err(Error::HttpRequestDenied) });
        let request = request.map(DrainedBody::new);
        self.sent = self.sent.saturating_add(1);
        if self.request_id.is_empty() || self.sent > self.env.max_requests {
            return denied();
        }
        if let Some(recorded) = &self.env.recorded_calls {
            recorded.block_request();
            return denied();
        }
        let log_failure = self.failure_logger(request.uri());
        if !self.env.egress.allows(request.uri()) {
            log_failure(&EgressError::Denied);
            return denied();
        }
        let request = request.map(|body| {
            let body = body.map_err(|error| EgressError::Http(error.to_string()));
            limit_request_body(body, MAX_REQUEST_BODY_BYTES).boxed_unsync()
        });
        let sending = self.env.egress.send(request, options.map_or_else(RequestTimeouts::default, request_timeouts));
        Box::new(async move {
            match sending.await {
                Ok(response) => {
                    let response = response.map(|body| body.map_err(to_wasi).boxed_unsync());
                    Ok((response, Box::new(async { Ok(()) }) as Box<_>))
                }
                Err(error) => {
                    log_failure(&error);
                    Err(to_wasi(error))
                }
            }
        })
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&FORBIDDEN_HEADER_FILTER)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

impl RequestSender {
    /// A function that logs why the request failed. It logs the target without the path, which may be a secret.
    fn failure_logger(&self, uri: &http::Uri) -> impl Fn(&EgressError) + Send + 'static {
        let scheme = uri.scheme_str().unwrap_or_default();
        let host = uri.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        let target: String = format!("{scheme}://{host}").chars().take(300).collect();
        let (env, policy, request) = (Arc::clone(&self.env), Arc::clone(&self.digest), self.request_id.clone());
        move |error| {
            if env.log_rate.allows() {
                tracing::warn!(%policy, %request, ?target, %error, "an outbound request of the policy failed");
            }
        }
    }
}

fn request_timeouts(options: RequestOptions) -> RequestTimeouts {
    let head = match (options.connect_timeout, options.first_byte_timeout) {
        (Some(connect), Some(first)) => Some(connect.saturating_add(first)),
        (None, Some(first)) => Some(first),
        // A connect timeout alone says little: the request often reuses a connection.
        (_, None) => None,
    };
    // Zero means the shortest timeout, not none.
    let at_least_1ms = |time: Duration| time.max(Duration::from_millis(1));
    RequestTimeouts { head: head.map(at_least_1ms), between_frames: options.between_bytes_timeout.map(at_least_1ms) }
}

fn to_wasi(error: EgressError) -> Error {
    match error {
        EgressError::Denied => Error::HttpRequestDenied,
        EgressError::Method => Error::HttpRequestMethodInvalid,
        EgressError::Prohibited => Error::DestinationIpProhibited,
        EgressError::Resolve(_) => Error::DnsError { rcode: None, info_code: None },
        EgressError::Connect(_) => Error::ConnectionRefused,
        EgressError::Tls(_) => Error::TlsProtocolError,
        EgressError::Timeout => Error::HttpResponseTimeout,
        EgressError::Busy => Error::ConnectionLimitReached,
        EgressError::TooLarge => Error::HttpResponseBodySize(None),
        EgressError::RequestTooLarge => Error::HttpRequestBodySize(None),
        EgressError::Http(_) => Error::HttpProtocolError,
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let wasi = self.wasi();
        WasiHttpCtxView { hooks: &mut wasi.http.sender, table: &mut wasi.table, ctx: &mut wasi.http.context }
    }
}

/// Links `wasi:http/types` and `wasi:http/outgoing-handler`.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use http_body_util::Empty;

    use super::*;
    use crate::egress::origin::EgressOrigin;
    use crate::egress::{Egress, EgressLimits};
    use crate::policy::Limits;
    use crate::store::memory::{MemoryStore, system_clock};

    #[tokio::test]
    async fn requests_before_the_decision_are_denied_and_not_counted() {
        // Nothing listens there, so an allowed request fails with another error than a denied one.
        let origin = EgressOrigin::parse("http://127.0.0.1:1", true).expect("an origin");
        let limits = EgressLimits { timeout: Duration::from_secs(10), max_response_size: 1024, concurrency: 1 };
        let store = Arc::new(MemoryStore::new(1 << 16, std::collections::HashMap::new(), system_clock()));
        let env = PolicyEnv::new(store, &Limits { max_requests: 2, ..Limits::default() });
        let env = Arc::new(PolicyEnv { egress: Arc::new(Egress::new(vec![origin], limits)), ..env });
        let mut http = Http::new(&env, &"sha256:…".into(), "");
        let send = async |http: &mut Http| {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = http::Request::get("http://127.0.0.1:1/").body(body).expect("a request");
            Pin::from(http.sender.send_request(request, None, Box::new(async { Ok(()) }))).await.map(|_| ())
        };
        for _ in 0..5 {
            assert!(matches!(send(&mut http).await, Err(Error::HttpRequestDenied)));
        }
        http.start_decision("id");
        for _ in 0..2 {
            assert!(
                matches!(send(&mut http).await, Err(Error::ConnectionRefused)),
                "requests before the decision do not count"
            );
        }
        assert!(matches!(send(&mut http).await, Err(Error::HttpRequestDenied)), "beyond the limit");
        assert_eq!(http.sent(), 3);
    }
}
