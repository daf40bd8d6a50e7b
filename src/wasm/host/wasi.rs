//! WASI 0.2 with clocks, randomness, output, which goes to the log, and `wasi:config/store`. Nothing else has an effect.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfig;

use crate::wasm::host::context::MAX_LOG_BYTES;
use crate::wasm::host::http::Http;
use crate::wasm::host::tidegate::policy::context::Level;
use crate::wasm::host::{Clock, State};

/// Open WASI handles of one decision.
const MAX_HANDLES: usize = 256;
/// Bytes of randomness of one call.
const MAX_RANDOM_BYTES: u64 = 1 << 16;

/// Created when a policy first calls WASI, because most never do.
pub struct Wasi {
    context: WasiCtx,
    pub table: ResourceTable,
    pub http: Http,
    output: CapturedOutput,
}

impl Wasi {
    fn new(clock: Clock, http: Http) -> Self {
        let output = CapturedOutput::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let context = WasiCtxBuilder::new()
            .stdout(output.clone())
            .stderr(output.clone())
            .wall_clock(WallClock(clock))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(MAX_RANDOM_BYTES)
            .build();
        Self { context, table, http, output }
    }
}

impl State {
    /// Writes to the log what the policy printed, and how many lines were dropped.
    pub fn flush_output(&mut self) {
        self.env.log_rate.report_dropped();
        let Some(wasi) = &self.wasi else { return };
        let text = wasi.output.take();
        for line in String::from_utf8_lossy(&text).lines() {
            self.write_log(Level::Info, line);
        }
    }

    pub(super) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| {
            let http = Http::new(&self.env, &self.digest, &self.request_id);
            Box::new(Wasi::new(Arc::clone(&self.env.clock), http))
        })
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.context, table: &mut wasi.table }
    }
}

pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_config::add_to_linker(linker, |state| WasiConfig::from(state.env.settings.variables()))
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

/// Keeps the beginning of what a policy prints and discards the rest.
#[derive(Clone, Default)]
struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

impl CapturedOutput {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

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
        let mut kept = self.0.lock();
        // One byte more than the log accepts, so that `write_log` reports that something was dropped.
        let room = (MAX_LOG_BYTES + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
