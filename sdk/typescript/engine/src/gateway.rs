//! The gateway as the engine sees it: the interfaces of `wit/policy.wit`, clocks, randomness, and outbound requests.

use std::cell::Cell;

#[cfg(not(target_arch = "wasm32"))]
mod standalone;

/// A header of an outbound request or its response. Values are Latin-1 text, as in `Headers`.
pub type Header = (String, String);

/// An outbound request.
pub struct OutboundRequest {
    /// Chosen by the platform script; its events have it.
    pub id: u32,
    pub method: String,
    pub url: String,
    pub headers: Vec<Header>,
    /// `None` for a request without a body, which has no `content-length` either.
    pub body: Option<Vec<u8>>,
}

/// What happened to an outbound request.
#[derive(Debug, PartialEq, Eq)]
pub enum NetworkEvent {
    Head {
        status: u16,
        headers: Vec<Header>,
    },
    /// A part of the body, never empty.
    Chunk(Vec<u8>),
    End,
    /// The request failed, or its body ended early.
    Failed(String),
}

/// The error of a host function: a variant of the interface, with its text.
pub struct HostError {
    pub tag: &'static str,
    pub text: Option<String>,
}

/// The gateway of an instance.
pub trait Gateway {
    /// The gateway's clock, in ms since 1970.
    fn now(&self) -> u64;
    fn request_id(&self) -> String;
    fn action(&self) -> String;
    fn log(&self, level: &str, line: &str);

    fn reason(&self, text: &str);
    fn replay_since(&self, time: u64);
    fn cache_for(&self, seconds: u32, vary: &[String]);
    fn cache_any_address(&self);

    fn lookup(&self, key: &str) -> Result<Option<Vec<u8>>, HostError>;
    fn lookup_hash(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, HostError>;
    fn lookup_set(&self, key: &str, member: &str) -> Result<bool, HostError>;
    /// Verifies a token by one profile, or by that of its issuer. Returns the claims as JSON.
    fn verify(&self, profile: Option<&str>, token: &str) -> Result<String, HostError>;
    fn setting(&self, name: &str) -> Option<String>;

    /// The wall clock, in µs since 1970.
    fn wall_clock(&self) -> f64;
    /// A monotonic clock, in ms.
    fn monotonic_clock(&self) -> f64;
    fn random(&self, bytes: &mut [u8]);

    /// Sends a request, and reports its head or its failure as an event.
    fn send(&self, request: OutboundRequest);
    /// Asks for the next part of a response's body.
    fn read(&self, id: u32);
    /// Drops a request. It has no further events.
    fn cancel(&self, id: u32);
    /// Waits for the next event of a request, for at most this time in ms. `None` if nothing can happen, or the time has passed.
    fn wait(&self, time: Option<f64>) -> Option<(u32, NetworkEvent)>;
}

thread_local! {
    /// An instance has one thread and one gateway. At build there is none.
    static GATEWAY: Cell<Option<&'static dyn Gateway>> = const { Cell::new(DEFAULT) };
    static RANDOMNESS_READ: Cell<bool> = const { Cell::new(false) };
    /// Whether anything but a setting was read.
    static WAS_USED: Cell<bool> = const { Cell::new(false) };
}

#[cfg(target_arch = "wasm32")]
const DEFAULT: Option<&'static dyn Gateway> = None;
#[cfg(not(target_arch = "wasm32"))]
const DEFAULT: Option<&'static dyn Gateway> = Some(&standalone::Standalone);

/// Sets the gateway of this thread, and returns the last one.
pub fn set(gateway: Option<&'static dyn Gateway>) -> Option<&'static dyn Gateway> {
    GATEWAY.replace(gateway)
}

/// The gateway of this thread: none at build.
pub fn get() -> Option<&'static dyn Gateway> {
    WAS_USED.set(true);
    GATEWAY.get()
}

/// The gateway of this thread, for the settings, which are the same in all instances of an active policy, and for lines for developers.
pub fn get_for_all_instances() -> Option<&'static dyn Gateway> {
    GATEWAY.get()
}

/// Whether the gateway was used since the last call, but for settings and lines for developers.
pub fn was_used() -> bool {
    WAS_USED.replace(false)
}

/// Fills `bytes` with randomness. At build, where each instance would have the same, they stay as they are, and the read is remembered.
pub fn random(bytes: &mut [u8]) {
    match get() {
        Some(gateway) => gateway.random(bytes),
        None => RANDOMNESS_READ.set(true),
    }
}

/// Whether randomness was read at build since the last call.
pub fn was_randomness_read() -> bool {
    RANDOMNESS_READ.replace(false)
}
