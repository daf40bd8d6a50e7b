//! The gateway of tests on the host that have none: clocks and randomness of the system, and no network.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Gateway, HostError, NetworkEvent, OutboundRequest};

/// Without a store, settings and a network.
pub struct Standalone;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

const UNAVAILABLE: HostError = HostError { tag: "unavailable", text: None };

impl Gateway for Standalone {
    fn now(&self) -> u64 {
        (self.wall_clock() / 1000.0) as u64
    }
    fn request_id(&self) -> String {
        String::new()
    }
    fn action(&self) -> String {
        "stream".into()
    }
    fn log(&self, level: &str, line: &str) {
        eprintln!("{level}: {line}");
    }
    fn reason(&self, _: &str) {}
    fn replay_since(&self, _: u64) {}
    fn cache_for(&self, _: u32, _: &[String]) {}
    fn cache_any_address(&self) {}
    fn lookup(&self, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Err(UNAVAILABLE)
    }
    fn lookup_hash(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Err(UNAVAILABLE)
    }
    fn lookup_set(&self, _: &str, _: &str) -> Result<bool, HostError> {
        Err(UNAVAILABLE)
    }
    fn verify(&self, _: Option<&str>, _: &str) -> Result<String, HostError> {
        Err(UNAVAILABLE)
    }
    fn setting(&self, _: &str) -> Option<String> {
        None
    }
    fn wall_clock(&self) -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_micros() as f64)
    }
    fn monotonic_clock(&self) -> f64 {
        START.elapsed().as_secs_f64() * 1000.0
    }
    fn random(&self, bytes: &mut [u8]) {
        use std::io::Read;
        let filled = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(bytes));
        assert!(filled.is_ok(), "the system has no source of randomness");
    }
    fn send(&self, _: OutboundRequest) {}
    fn read(&self, _: u32) {}
    fn cancel(&self, _: u32) {}
    fn wait(&self, time: Option<f64>) -> Option<(u32, NetworkEvent)> {
        std::thread::sleep(Duration::from_secs_f64(time? / 1000.0));
        None
    }
}
