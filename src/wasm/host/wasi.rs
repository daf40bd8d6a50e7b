//! WASI 0.2: clocks, randomness, output (written to the log) and `wasi:config/store`. The other functions have no effect.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

use crate::util::clock::Clock;
use crate::wasm::host::context::MAX_LOG_BYTES;
use crate::wasm::host::http::{MAX_HEADER_BYTES, RequestSender};
use crate::wasm::host::tidegate::policy::context::Level;
use crate::wasm::host::{PolicyEnv, State};

/// Open WASI handles of one decision, and for each outbound request that it may send. A request has up to ten at once: its fields, its
/// body and stream, the future, the response with its fields, body and stream, and pollables.
const MAX_HANDLES: usize = 32;
const HANDLES_PER_REQUEST: usize = 16;
/// Bytes of randomness of one call.
const MAX_RANDOM_BYTES: u64 = 1 << 16;

/// Created when a policy first calls WASI, because most policies never do.
pub struct Wasi {
    context: WasiCtx,
    pub table: ResourceTable,
    /// The policy called a function that may have changed the table.
    pub is_touched: bool,
    pub http_context: WasiHttpCtx,
    pub requests: RequestSender,
    output: CapturedOutput,
}

impl Wasi {
    fn new(requests: RequestSender) -> Self {
        let output = CapturedOutput::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(max_handles(&requests.env));
        let mut http_context = WasiHttpCtx::new();
        http_context.set_field_size_limit(MAX_HEADER_BYTES);
        let context = WasiCtxBuilder::new()
            .stdout(output.clone())
            .stderr(output.clone())
            .wall_clock(WallClock(Arc::clone(&requests.env.clock)))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(MAX_RANDOM_BYTES)
            .build();
        Self { context, table, is_touched: false, http_context, requests, output }
    }
}

/// Without an origin that it may send requests to, a policy needs no handles for requests.
fn max_handles(env: &PolicyEnv) -> usize {
    let requests = if env.egress.has_origins() { env.max_requests as usize } else { 0 };
    MAX_HANDLES.saturating_add(requests.saturating_mul(HANDLES_PER_REQUEST))
}

impl State {
    /// Writes to the log what the policy printed, and how many lines were dropped.
    pub fn flush_output(&mut self, level: Level) {
        self.env.log_rate.report_dropped();
        let Some(wasi) = &self.wasi else { return };
        let text = std::mem::take(&mut *wasi.output.0.lock());
        for line in String::from_utf8_lossy(&text).lines() {
            self.write_log(level, line);
        }
    }

    pub(super) fn wasi(&mut self) -> &mut Wasi {
        let wasi = self.wasi.get_or_insert_with(|| {
            let (env, digest) = (Arc::clone(&self.env), Arc::clone(&self.digest));
            Box::new(Wasi::new(RequestSender { env, digest, request_id: self.decision.request_id.clone(), sent: 0 }))
        });
        wasi.is_touched = true;
        wasi
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.context, table: &mut wasi.table }
    }
}

struct WallClock(Clock);

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis((self.0)())
    }
}

/// The beginning of a policy's output. The rest is discarded.
#[derive(Clone, Default)]
struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

impl IsTerminal for CapturedOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for CapturedOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for CapturedOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut captured = self.0.lock();
        // One byte more than the log accepts, so that `write_log` reports that something was dropped.
        let room = (MAX_LOG_BYTES + 1).saturating_sub(captured.len());
        captured.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
