//! What a policy may import: the interfaces of `wit/policy.wit`, and WASI with nothing behind it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::limits::MemoryLimiter;
use crate::store::{Store, StoreError};
use crate::stream::now_ms;

wasmtime::component::bindgen!({
    path: "wit",
    world: "policy",
    imports: {
        "tidegate:policy/lookup.get": async,
        "tidegate:policy/lookup.hash-get": async,
        "tidegate:policy/lookup.set-contains": async,
    },
    exports: { default: async },
});

pub use self::tidegate::policy::types as wit;
use self::tidegate::policy::{answer, context, lookup, settings, tokens};

/// What a policy may write to the log in one decision, in bytes; the rest is dropped and said so.
const LOG_BYTES: usize = 8 * 1024;
/// Open WASI handles of one decision.
const HANDLES: usize = 256;
/// Bytes of randomness of one call.
const RANDOM: u64 = 1 << 16;

/// What belongs to a policy and is the same for all its decisions.
pub struct Surroundings {
    /// Where look-ups go.
    pub store: Arc<dyn Store>,
    /// Keys that may be looked up begin with one of these.
    pub prefixes: Vec<String>,
    /// The operator's settings.
    pub settings: BTreeMap<String, String>,
    /// One look-up.
    pub lookup_timeout: Duration,
}

/// The state of one decision.
pub struct State {
    pub surroundings: Arc<Surroundings>,
    pub limiter: MemoryLimiter,
    pub ticks_left: u32,
    /// Set when the policy has run for a whole tick.
    pub is_slow: Arc<AtomicBool>,
    pub request_id: String,
    pub digest: Arc<str>,
    pub reason: Option<String>,
    pub replay_since: Option<u64>,
    log_left: usize,
    wasi: Option<Box<Wasi>>,
}

/// Made when a policy first asks for anything of WASI: most never do.
struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    output: Captured,
}

impl State {
    pub fn new(
        surroundings: Arc<Surroundings>,
        memory: usize,
        ticks: u32,
        request_id: String,
        digest: Arc<str>,
    ) -> Self {
        Self {
            surroundings,
            limiter: MemoryLimiter::new(memory),
            ticks_left: ticks,
            is_slow: Arc::default(),
            request_id,
            digest,
            reason: None,
            replay_since: None,
            log_left: LOG_BYTES,
            wasi: None,
        }
    }

    /// Writes what the policy printed to the log.
    pub fn flush(&mut self) {
        if let Some(wasi) = self.wasi.take() {
            let text = wasi.output.take();
            for line in String::from_utf8_lossy(&text).lines() {
                self.write_log(context::Level::Info, line);
            }
        }
    }

    fn write_log(&mut self, level: context::Level, message: &str) {
        let Some(left) = self.log_left.checked_sub(message.len() + 1) else {
            if self.log_left > 0 {
                self.log_left = 0;
                tracing::warn!(target: "tidegate::policy", policy = %self.digest, request = %self.request_id,
                    "the policy wrote more than {LOG_BYTES} bytes to the log in one decision; the rest is dropped");
            }
            return;
        };
        self.log_left = left;
        let (policy, request) = (&self.digest, &self.request_id);
        match level {
            context::Level::Debug => tracing::debug!(target: "tidegate::policy", %policy, %request, "{message:?}"),
            context::Level::Info => tracing::info!(target: "tidegate::policy", %policy, %request, "{message:?}"),
            context::Level::Warn => tracing::warn!(target: "tidegate::policy", %policy, %request, "{message:?}"),
            context::Level::Error => tracing::error!(target: "tidegate::policy", %policy, %request, "{message:?}"),
        }
    }

    async fn look_up<T>(
        &mut self,
        key: &str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, lookup::Error> {
        if !self.surroundings.prefixes.iter().any(|prefix| key.starts_with(&**prefix)) {
            return Err(lookup::Error::Denied);
        }
        match tokio::time::timeout(self.surroundings.lookup_timeout, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::warn!(policy = %self.digest, request = %self.request_id, %error, "a look-up failed");
                Err(lookup::Error::Unavailable(match error {
                    StoreError::WrongType => "the key holds another type of value".into(),
                    _ => "the store does not answer".into(),
                }))
            }
            Err(_) => Err(lookup::Error::Unavailable("the store did not answer in time".into())),
        }
    }
}

impl wit::Host for State {}

impl context::Host for State {
    fn now(&mut self) -> u64 {
        now_ms()
    }

    fn request_id(&mut self) -> String {
        self.request_id.clone()
    }

    fn action(&mut self) -> String {
        "stream".into()
    }

    fn log(&mut self, level: context::Level, message: String) {
        self.write_log(level, &message);
    }
}

impl answer::Host for State {
    fn reason(&mut self, text: String) {
        self.reason = Some(text.chars().take(512).collect());
    }

    fn replay_since(&mut self, time: u64) {
        self.replay_since = Some(time);
    }
}

impl lookup::Host for State {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, lookup::Error> {
        let surroundings = Arc::clone(&self.surroundings);
        self.look_up(&key, surroundings.store.get(&key)).await
    }

    async fn hash_get(&mut self, key: String, field: String) -> Result<Option<Vec<u8>>, lookup::Error> {
        let surroundings = Arc::clone(&self.surroundings);
        self.look_up(&key, surroundings.store.hash_get(&key, &field)).await
    }

    async fn set_contains(&mut self, key: String, member: String) -> Result<bool, lookup::Error> {
        let surroundings = Arc::clone(&self.surroundings);
        self.look_up(&key, surroundings.store.set_contains(&key, &member)).await
    }
}

impl settings::Host for State {
    fn get(&mut self, name: String) -> Option<String> {
        self.surroundings.settings.get(&name).cloned()
    }
}

impl tokens::Host for State {
    fn verify(&mut self, _: String) -> Result<String, tokens::Error> {
        Err(tokens::Error::Unavailable("no token profile is configured".into()))
    }

    fn verify_with(&mut self, _: String, _: String) -> Result<String, tokens::Error> {
        Err(tokens::Error::Unavailable("no token profile is configured".into()))
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_with(|| {
            let output = Captured::default();
            let mut table = ResourceTable::new();
            table.set_max_capacity(HANDLES);
            // No files, no environment, no arguments, no network: clocks, randomness and output are all there is.
            let context = WasiCtxBuilder::new()
                .stdout(output.clone())
                .stderr(output.clone())
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false)
                .max_random_size(RANDOM)
                .build();
            Box::new(Wasi { context, table, output })
        });
        WasiCtxView { ctx: &mut wasi.context, table: &mut wasi.table }
    }
}

/// Links everything that a policy may import.
pub fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Policy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Keeps the beginning of what a policy prints; takes the rest without a word.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
