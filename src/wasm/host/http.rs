//! `wasi:http/outgoing-handler`: requests to the origins that the operator allows.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http_body_util::BodyExt;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

use crate::egress::body::limit_request_body;
use crate::egress::{EgressError, RequestTimeouts};
use crate::wasm::host::body_drain::DrainedBody;
use crate::wasm::host::{PolicyEnv, State};

/// Bytes of a set of header fields in host memory.
pub const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_REQUEST_BODY_BYTES: usize = 1 << 20;
/// Bytes of a request's body in transit from the guest.
pub const BODY_CHUNK_BYTES: usize = 64 << 10;
/// Headers that belong to a connection or to proxies, in addition to those that WASI forbids.
const FORBIDDEN_HEADERS: [&str; 3] = ["te", "trailer", "expect"];

static FORBIDDEN_HEADER_FILTER: LazyLock<ForbiddenHeaderFilter> = LazyLock::new(|| {
    Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name) || FORBIDDEN_HEADERS.contains(&name.as_str()))
});

/// Sends the requests of an instance.
pub struct RequestSender {
    pub env: Arc<PolicyEnv>,
    /// The policy's, for log lines.
    pub digest: Arc<str>,
    /// Empty before the decision starts: requests of `prepare` are refused.
    pub request_id: String,
    /// Requests that the policy tried to send in this decision, refused ones included.
    pub sent: u32,
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
        let refuse = || Box::new(async { Err(Error::HttpRequestDenied) });
        let request = request.map(|body| DrainedBody(Some(body)));
        self.sent = self.sent.saturating_add(1);
        if self.request_id.is_empty() || self.sent > self.env.max_requests {
            return refuse();
        }
        if let Some(recorded) = &self.env.recorded_calls {
            recorded.block_request();
            return refuse();
        }
        let log_failure = self.failure_logger(request.uri());
        if !self.env.egress.allows(request.uri()) {
            log_failure(&EgressError::Denied);
            return refuse();
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

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
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
    // A connect timeout alone has no effect, because a request often reuses a connection.
    let connect = options.connect_timeout.unwrap_or_default();
    let head = options.first_byte_timeout.map(|first| first.saturating_add(connect));
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
        WasiHttpCtxView { hooks: &mut wasi.requests, table: &mut wasi.table, ctx: &mut wasi.http_context }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use http_body_util::Empty;

    use super::*;
    use crate::egress::origin::EgressOrigin;
    use crate::egress::{Egress, EgressLimits};
    use crate::policy::Limits;
    use crate::store::memory::MemoryStore;
    use crate::util::clock::system_clock;
    use crate::wasm::host::EvaluationParams;

    #[tokio::test]
    async fn requests_before_the_decision_are_refused_and_not_counted() {
        // Nothing listens there, so an allowed request fails with another error than a refused one.
        let origin = EgressOrigin::parse("http://127.0.0.1:1", true).expect("an origin");
        let limits = EgressLimits { timeout: Duration::from_secs(10), max_response_size: 1024, concurrency: 1 };
        let store = Arc::new(MemoryStore::new(1 << 16, std::collections::HashMap::new(), system_clock()));
        let env = PolicyEnv::new(store, &Limits { max_requests: 2, ..Limits::default() });
        let env = Arc::new(PolicyEnv { egress: Arc::new(Egress::new(vec![origin], limits)), ..env });
        let mut state =
            State::new(env, &Limits { max_memory: 1 << 20, ..Limits::default() }, Arc::default(), "sha256:…".into());
        let send = async |state: &mut State| {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = http::Request::get("http://127.0.0.1:1/").body(body).expect("a request");
            Pin::from(state.wasi().requests.send_request(request, None, Box::new(async { Ok(()) }))).await.map(|_| ())
        };
        for _ in 0..5 {
            assert!(matches!(send(&mut state).await, Err(Error::HttpRequestDenied)));
        }
        let deadline = tokio::time::Instant::now();
        let params = EvaluationParams { deadline, keys_until: deadline, may_restart: false, lookups: 0, traced: false };
        state.start_decision("id".into(), params);
        for _ in 0..2 {
            assert!(
                matches!(send(&mut state).await, Err(Error::ConnectionRefused)),
                "requests before the decision do not count"
            );
        }
        assert!(matches!(send(&mut state).await, Err(Error::HttpRequestDenied)), "beyond the limit");
        assert_eq!(state.wasi().requests.sent, 3);
        assert!(matches!(to_wasi(EgressError::Prohibited), Error::DestinationIpProhibited));
    }
}
