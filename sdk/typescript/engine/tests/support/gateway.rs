//! A gateway whose clock jumps to the next timer, so that no test waits, and whose network is a list of responses.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};

use tidegate_js::gateway::{self, Gateway, HostError, NetworkEvent, OutboundRequest};

struct VirtualTime;

thread_local! {
    static NOW_MS: Cell<f64> = const { Cell::new(0.0) };
    static RANDOM: Cell<u64> = const { Cell::new(1) };
    static NETWORK: RefCell<Network> = RefCell::default();
}

/// A response of the network; with `hangs` its body has no end.
#[derive(Clone, Default)]
pub struct Canned {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub chunks: Vec<Vec<u8>>,
    pub hangs: bool,
}

#[derive(Default)]
struct Network {
    /// The responses, by address. Requests for other addresses fail.
    responses: HashMap<String, Canned>,
    events: VecDeque<(u32, NetworkEvent)>,
    bodies: HashMap<u32, (VecDeque<Vec<u8>>, bool)>,
    /// The requests and cancellations, a line each.
    log: Vec<String>,
}

/// Adds a response.
#[allow(dead_code, reason = "the web-platform-tests use no network")]
pub fn respond(url: &str, response: Canned) {
    NETWORK.with_borrow_mut(|network| network.responses.insert(url.to_owned(), response));
}

/// The requests and cancellations since the last call.
#[allow(dead_code, reason = "the web-platform-tests use no network")]
pub fn log() -> Vec<String> {
    NETWORK.with_borrow_mut(|network| std::mem::take(&mut network.log))
}

/// What a clock advances with each reading, in ms: code that waits in a loop for the time to pass ends.
const STEP_MS: f64 = 0.001;

/// The start of the clock, in ms since 1970.
const EPOCH_MS: f64 = 1_800_000_000_000.0;

/// Gives this thread such a gateway.
pub fn install() {
    gateway::set(Some(&VirtualTime));
}

impl Gateway for VirtualTime {
    fn now(&self) -> u64 {
        (EPOCH_MS + self.monotonic_clock()) as u64
    }
    fn request_id(&self) -> String {
        String::new()
    }
    fn action(&self) -> String {
        String::new()
    }
    fn log(&self, _: &str, _: &str) {}
    fn reason(&self, _: &str) {}
    fn replay_since(&self, _: u64) {}
    fn cache_for(&self, _: u32, _: &[String]) {}
    fn cache_any_address(&self) {}
    fn lookup(&self, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }
    fn lookup_hash(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }
    fn lookup_set(&self, _: &str, _: &str) -> Result<bool, HostError> {
        Ok(false)
    }
    fn verify(&self, _: Option<&str>, _: &str) -> Result<String, HostError> {
        Err(HostError { tag: "untrusted", text: None })
    }
    fn setting(&self, _: &str) -> Option<String> {
        None
    }
    fn wall_clock(&self) -> f64 {
        (EPOCH_MS + self.monotonic_clock()) * 1000.0
    }
    fn monotonic_clock(&self) -> f64 {
        NOW_MS.with(|now| {
            now.set(now.get() + STEP_MS);
            now.get()
        })
    }
    fn random(&self, bytes: &mut [u8]) {
        // The generator "splitmix64": the same in each run, and never the same twice, which keys of RSA and UUIDs need.
        for part in bytes.chunks_mut(8) {
            let state = RANDOM.with(|state| state.replace(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15)));
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            part.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..part.len()]);
        }
    }
    fn send(&self, request: OutboundRequest) {
        NETWORK.with_borrow_mut(|network| {
            let headers: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let body = request.body.map_or(String::new(), |body| format!(" {}", String::from_utf8_lossy(&body)));
            network.log.push(format!("{} {} [{}]{body}", request.method, request.url, headers.join(", ")));
            let Some(canned) = network.responses.get(&request.url).cloned() else {
                network.events.push_back((request.id, NetworkEvent::Failed("connection refused".into())));
                return;
            };
            let headers =
                canned.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            network.bodies.insert(request.id, (canned.chunks.into(), canned.hangs));
            network.events.push_back((request.id, NetworkEvent::Head { status: canned.status, headers }));
        });
    }
    fn read(&self, id: u32) {
        NETWORK.with_borrow_mut(|network| {
            let Some((chunks, hangs)) = network.bodies.get_mut(&id) else { return };
            match chunks.pop_front() {
                Some(chunk) => network.events.push_back((id, NetworkEvent::Chunk(chunk))),
                None if *hangs => {}
                None => network.events.push_back((id, NetworkEvent::End)),
            }
        });
    }
    fn cancel(&self, id: u32) {
        NETWORK.with_borrow_mut(|network| {
            network.bodies.remove(&id);
            network.events.retain(|(it, _)| *it != id);
            network.log.push("cancel".into());
        });
    }
    fn wait(&self, time: Option<f64>) -> Option<(u32, NetworkEvent)> {
        if let Some(event) = NETWORK.with_borrow_mut(|network| network.events.pop_front()) {
            return Some(event);
        }
        let time = time?;
        NOW_MS.with(|now| now.set(now.get() + time));
        None
    }
}
