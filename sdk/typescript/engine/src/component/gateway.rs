//! The gateway of a component: its imports.

use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::random::random::get_random_bytes;

use super::http;
use super::tidegate::policy::{answer, context, lookup, settings, tokens};
use crate::gateway::{Gateway, HostError, NetworkEvent, OutboundRequest, set};

struct Imports;

/// Connects the instance to its gateway, at the start of an export: at build there is none.
pub fn start() {
    crate::memory::start_decisions();
    set(Some(&Imports));
}

impl Gateway for Imports {
    fn now(&self) -> u64 {
        context::now()
    }

    fn request_id(&self) -> String {
        context::request_id()
    }

    fn action(&self) -> String {
        context::action()
    }

    fn log(&self, level: &str, line: &str) {
        let level = match level {
            "debug" => context::Level::Debug,
            "warn" => context::Level::Warn,
            "error" => context::Level::Error,
            _ => context::Level::Info,
        };
        context::log(level, line);
    }

    fn reason(&self, text: &str) {
        answer::reason(text);
    }

    fn replay_since(&self, time: u64) {
        answer::replay_since(time);
    }

    fn cache_for(&self, seconds: u32, vary: &[String]) {
        answer::cache_for(seconds, vary);
    }

    fn cache_any_address(&self) {
        answer::cache_any_address();
    }

    fn lookup(&self, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        lookup::get(key).map_err(lookup_error)
    }

    fn lookup_hash(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, HostError> {
        lookup::hash_get(key, field).map_err(lookup_error)
    }

    fn lookup_set(&self, key: &str, member: &str) -> Result<bool, HostError> {
        lookup::set_contains(key, member).map_err(lookup_error)
    }

    fn verify(&self, profile: Option<&str>, token: &str) -> Result<String, HostError> {
        match profile {
            Some(profile) => tokens::verify_with(profile, token),
            None => tokens::verify(token),
        }
        .map_err(token_error)
    }

    fn setting(&self, name: &str) -> Option<String> {
        settings::get(name)
    }

    fn wall_clock(&self) -> f64 {
        let now = wall_clock::now();
        now.seconds as f64 * 1e6 + f64::from(now.nanoseconds / 1000)
    }

    fn monotonic_clock(&self) -> f64 {
        monotonic_clock::now() as f64 / 1e6
    }

    fn random(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&get_random_bytes(bytes.len() as u64));
    }

    fn send(&self, request: OutboundRequest) {
        http::with(|requests| requests.send(request));
    }

    fn read(&self, id: u32) {
        http::with(|requests| requests.read(id));
    }

    fn cancel(&self, id: u32) {
        http::with(|requests| requests.cancel(id));
    }

    fn wait(&self, time: Option<f64>) -> Option<(u32, NetworkEvent)> {
        http::with(|requests| requests.wait(time))
    }
}

fn lookup_error(error: lookup::Error) -> HostError {
    match error {
        lookup::Error::Denied => HostError { tag: "denied", text: None },
        lookup::Error::Unavailable(text) => HostError { tag: "unavailable", text: Some(text) },
    }
}

fn token_error(error: tokens::Error) -> HostError {
    match error {
        tokens::Error::Malformed => HostError { tag: "malformed", text: None },
        tokens::Error::Untrusted => HostError { tag: "untrusted", text: None },
        tokens::Error::Expired => HostError { tag: "expired", text: None },
        tokens::Error::Claims(text) => HostError { tag: "claims", text: Some(text) },
        tokens::Error::Unavailable(text) => HostError { tag: "unavailable", text: Some(text) },
    }
}
