//! `wasi:http/outgoing-handler`: requests to the hosts that the operator named.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http_body_util::BodyExt;
use wasmtime::component::Linker;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::egress::body::CappedBody;
use crate::egress::{EgressError, RequestDeadline};
use crate::wasm::host::body_drain::ReadOn;
use crate::wasm::host::{PolicyEnv, State};

/// Bytes of a set of header fields, as they are kept.
const FIELDS: usize = 64 << 10;
/// Bytes of a request's body.
const REQUEST: usize = 1 << 20;
/// Bytes of it that are on their way from the guest.
const CHUNK: usize = 64 << 10;
/// What is of one connection, or of the proxies on the way, beside what is forbidden anyway.
const FORBIDDEN: [&str; 3] = ["te", "trailer", "expect"];

static FILTER: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name) || FORBIDDEN.contains(&name.as_str())));

/// What an instance sends.
pub struct Http {
    context: WasiHttpCtx,
    out: Out,
}

impl Http {
    pub fn new(env: &Arc<PolicyEnv>, digest: &Arc<str>, request_id: &str) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(FIELDS);
        let (env, digest) = (Arc::clone(env), Arc::clone(digest));
        Self { context, out: Out { env, digest, request_id: request_id.into(), sent: 0 } }
    }

    /// Begins a decision: before, nothing goes out.
    pub fn begin(&mut self, request_id: &str) {
        self.out.request_id = request_id.into();
        self.out.sent = 0;
    }

    /// Requests that were asked for, the last of them perhaps in vain.
    pub fn sent(&self) -> u32 {
        self.out.sent
    }
}

struct Out {
    env: Arc<PolicyEnv>,
    digest: Arc<str>,
    /// Empty while the instance only prepares.
    request_id: String,
    sent: u32,
}

/// A response, and what has to run while that is read: nothing, for connections run by themselves.
type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<()>> + Send>)>;

impl WasiHttpHooks for Out {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let denied = || Box::new(async { Err(Error::HttpRequestDenied) });
        let request = request.map(ReadOn::new);
        self.sent = self.sent.saturating_add(1);
        if self.request_id.is_empty() || self.sent > self.env.max_requests {
            return denied();
        }
        if let Some(recorded) = &self.env.recorded {
            recorded.kept_in();
            return denied();
        }
        let told = self.told(request.uri());
        if !self.env.egress.allows(request.uri()) {
            told(&EgressError::Denied);
            return denied();
        }
        let request = request.map(|body| {
            let body = body.map_err(|error| EgressError::Http(error.to_string()));
            CappedBody::new(body, REQUEST, EgressError::RequestTooLarge).boxed_unsync()
        });
        let sending = self.env.egress.send(request, options.map_or_else(RequestDeadline::default, patience));
        Box::new(async move {
            match sending.await {
                Ok(response) => {
                    let response = response.map(|body| body.map_err(to_wasi).boxed_unsync());
                    Ok((response, Box::new(async { Ok(()) }) as Box<_>))
                }
                Err(error) => {
                    told(&error);
                    Err(to_wasi(error))
                }
            }
        })
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&FILTER)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

impl Out {
    /// Tells the operator of a request that did not go well. Where it went is said without its path, which may be a secret.
    fn told(&self, uri: &http::Uri) -> impl Fn(&EgressError) + Send + 'static {
        let scheme = uri.scheme_str().unwrap_or_default();
        let host = uri.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        let to: String = format!("{scheme}://{host}").chars().take(300).collect();
        let (env, policy, request) = (Arc::clone(&self.env), Arc::clone(&self.digest), self.request_id.clone());
        move |error| {
            if env.log.admits() {
                tracing::warn!(%policy, %request, ?to, %error, "a request of the policy failed");
            }
        }
    }
}

fn patience(options: RequestOptions) -> RequestDeadline {
    let head = match (options.connect_timeout, options.first_byte_timeout) {
        (Some(connect), Some(first)) => Some(connect.saturating_add(first)),
        (None, Some(first)) => Some(first),
        // A connection is often there already; then its making takes no time.
        (_, None) => None,
    };
    // A guest that allows no time at all means the least of it.
    let some = |time: Duration| time.max(Duration::from_millis(1));
    RequestDeadline { head: head.map(some), silence: options.between_bytes_timeout.map(some) }
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
        WasiHttpCtxView { hooks: &mut wasi.http.out, table: &mut wasi.table, ctx: &mut wasi.http.context }
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
    use crate::egress::origin::Origin;
    use crate::egress::{Egress, EgressLimits};
    use crate::policy::Limits;
    use crate::store::memory::{MemoryStore, system_clock};

    #[tokio::test]
    async fn nothing_goes_out_before_there_is_a_request() {
        // Nobody listens there, which is told from what is denied.
        let origin = Origin::parse("http://127.0.0.1:1", true).expect("an origin");
        let bounds = EgressLimits { timeout: Duration::from_secs(10), response: 1024, concurrency: 1 };
        let store = Arc::new(MemoryStore::new(1 << 16, std::collections::HashMap::new(), system_clock()));
        let env = PolicyEnv::new(store, &Limits { requests: 2, ..Limits::default() });
        let env = Arc::new(PolicyEnv { egress: Arc::new(Egress::new(vec![origin], bounds)), ..env });
        let mut http = Http::new(&env, &"sha256:…".into(), "");
        let send = async |http: &mut Http| {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = http::Request::get("http://127.0.0.1:1/").body(body).expect("a request");
            Pin::from(http.out.send_request(request, None, Box::new(async { Ok(()) }))).await.map(|_| ())
        };
        for _ in 0..5 {
            assert!(matches!(send(&mut http).await, Err(Error::HttpRequestDenied)));
        }
        http.begin("id");
        for _ in 0..2 {
            assert!(
                matches!(send(&mut http).await, Err(Error::ConnectionRefused)),
                "what was denied before does not count"
            );
        }
        assert!(matches!(send(&mut http).await, Err(Error::HttpRequestDenied)), "no third one");
        assert_eq!(http.sent(), 3);
    }
}
