//! WASI 0.2 with nothing behind it but clocks, randomness and output, which goes to the log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::wasm::host::context::LOG_BYTES;
use crate::wasm::host::http::Http;
use crate::wasm::host::tidegate::policy::context::Level;
use crate::wasm::host::{Clock, State};

/// Open WASI handles of one decision.
const HANDLES: usize = 256;
/// Bytes of randomness of one call.
const RANDOM: u64 = 1 << 16;

/// Made when a policy first asks for anything of WASI: most never do.
pub struct Wasi {
    context: WasiCtx,
    pub table: ResourceTable,
    pub http: Http,
    output: Captured,
}

impl Wasi {
    fn new(clock: Clock, http: Http) -> Self {
        let output = Captured::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES);
        // No files, no environment, no arguments, no network: clocks, randomness and output are all there is.
        let context = WasiCtxBuilder::new()
            .stdout(output.clone())
            .stderr(output.clone())
            .wall_clock(WallClock(clock))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(RANDOM)
            .build();
        Self { context, table, http, output }
    }
}

impl State {
    /// Writes what the policy printed to the log.
    pub fn flush(&mut self) {
        self.env.log.settle();
        let Some(wasi) = &self.wasi else { return };
        let text = wasi.output.take();
        for line in String::from_utf8_lossy(&text).lines() {
            self.write_log(Level::Info, line);
        }
    }
}

impl State {
    /// What it has of WASI, which most never ask for.
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

/// Links what WASI has.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

/// The policy's clock, for those who ask WASI for it.
struct WallClock(Clock);

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis((self.0)())
    }
}

/// Keeps the beginning of what a policy prints; takes the rest without a word.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

impl IsTerminal for Captured {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Captured {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Captured {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut kept = self.0.lock();
        // One byte more than the log takes, so that it says that something was dropped.
        let room = (LOG_BYTES + 1).saturating_sub(kept.len());
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
