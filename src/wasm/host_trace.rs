//! What the host answered in one decision: written down while it is made ([`HostTrace`]), or given again in place of the world
//! ([`RecordedCalls`]).

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::wasm::octets::Octets;

/// What is written down of one decision, in bytes. A call that has no room is left out, as if it had not been asked.
const ROOM: usize = 256 << 10;
/// What a call takes beside its texts.
const OVERHEAD: usize = 64;
/// Calls without an answer that are remembered by name.
const REMEMBERED: usize = 8;

/// What a policy is told where nothing was recorded.
pub const NOT_RECORDED: &str = "this was not asked when it was recorded";

/// What was asked of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostCall {
    /// `lookup.get` of a key.
    Get(String),
    /// `lookup.hash-get` of a key and a field.
    HashGet(String, String),
    /// `lookup.set-contains` of a key and a member.
    SetContains(String, String),
    /// `tokens.verify` of a token.
    Verify(String),
    /// `tokens.verify-with` of a profile and a token.
    VerifyWith(String, String),
}

impl HostCall {
    /// What is missing, for people: a key may be told, a token not.
    fn name(&self) -> String {
        match self {
            Self::Get(key) => format!("lookup.get {key:?}"),
            Self::HashGet(key, field) => format!("lookup.hash-get {key:?} {field:?}"),
            Self::SetContains(key, member) => format!("lookup.set-contains {key:?} {member:?}"),
            Self::Verify(_) => "tokens.verify".into(),
            Self::VerifyWith(profile, _) => format!("tokens.verify-with {profile:?}"),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Get(text) | Self::Verify(text) => text.len(),
            Self::HashGet(one, two) | Self::SetContains(one, two) | Self::VerifyWith(one, two) => one.len() + two.len(),
        }
    }
}

/// What the host said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostAnswer {
    /// A key's or a field's value, if there is one.
    Value(Option<Octets>),
    /// Whether the set has it.
    Contains(bool),
    /// The token holds: its claims, as JSON.
    Claims(String),
    /// The key is not one that may be looked up.
    Denied,
    /// The store, or the keys, could not be had.
    Unavailable(String),
    /// It is no token.
    Malformed,
    /// The token's signature does not hold.
    Untrusted,
    /// The token's time is over.
    Expired,
    /// A claim of the token does not hold.
    WrongClaims(String),
}

impl HostAnswer {
    fn size(&self) -> usize {
        match self {
            Self::Value(value) => value.as_ref().map_or(0, |Octets(bytes)| bytes.len()),
            Self::Claims(text) | Self::Unavailable(text) | Self::WrongClaims(text) => text.len(),
            _ => 0,
        }
    }
}

/// A call and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// What was asked.
    pub call: HostCall,
    /// What the host said.
    pub answer: HostAnswer,
}

/// What the host answered in one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTrace {
    /// What the policy took for the time, ms since 1970.
    pub now: u64,
    /// In the order in which they were asked.
    pub calls: Vec<Exchange>,
    /// Whether it sent requests; what came of them is not written down.
    pub network: bool,
    taken: usize,
}

impl HostTrace {
    /// An empty one, of this time.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.taken
    }

    /// Writes a call down, unless it is known or there is no room.
    pub fn note(&mut self, call: HostCall, answer: HostAnswer) {
        let last = self.calls.iter().rev().find(|exchange| exchange.call == call);
        if last.is_some_and(|exchange| exchange.answer == answer) {
            return;
        }
        let size = OVERHEAD + call.size() + answer.size();
        if self.taken + size <= ROOM {
            self.taken += size;
            self.calls.push(Exchange { call, answer });
        }
    }
}

/// What the host answered before, to be given again.
#[derive(Debug)]
pub struct RecordedCalls {
    now: u64,
    calls: Mutex<Vec<(Exchange, bool)>>,
    missed: Mutex<UnansweredCalls>,
    network: AtomicBool,
}

/// Calls that were not answered, since they had not been asked before.
#[derive(Clone, Debug, Default)]
pub struct UnansweredCalls {
    /// How many.
    pub count: usize,
    /// Some of them, for people.
    pub names: Vec<String>,
}

impl From<&HostTrace> for RecordedCalls {
    fn from(trace: &HostTrace) -> Self {
        let calls = trace.calls.iter().map(|exchange| (exchange.clone(), false)).collect();
        Self { now: trace.now, calls: Mutex::new(calls), missed: Mutex::default(), network: AtomicBool::new(false) }
    }
}

impl RecordedCalls {
    /// What the policy takes for the time.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The answer to a call: those to the same call in their order, the last of them as often as it is asked for.
    pub fn answer(&self, call: &HostCall) -> Option<HostAnswer> {
        let mut calls = self.calls.lock();
        let mut found = None;
        for (exchange, given) in calls.iter_mut().filter(|(exchange, _)| exchange.call == *call) {
            found = Some(exchange.answer.clone());
            if !std::mem::replace(given, true) {
                break;
            }
        }
        if found.is_none() {
            let mut missed = self.missed.lock();
            missed.count += 1;
            if missed.names.len() < REMEMBERED {
                missed.names.push(call.name());
            }
        }
        found
    }

    /// A request was to go out, and did not.
    pub fn kept_in(&self) {
        self.network.store(true, Ordering::Relaxed);
    }

    /// Whether a request was to go out.
    pub fn wanted_network(&self) -> bool {
        self.network.load(Ordering::Relaxed)
    }

    /// What was asked for and is not known.
    pub fn missed(&self) -> UnansweredCalls {
        self.missed.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(key: &str) -> HostCall {
        HostCall::Get(key.into())
    }

    fn value(text: &str) -> HostAnswer {
        HostAnswer::Value(Some(Octets(text.into())))
    }

    #[test]
    fn answers_come_again_in_their_order() {
        let mut trace = HostTrace::new(7);
        for (key, answer) in [("a", "1"), ("a", "1"), ("b", "x"), ("a", "2")] {
            trace.note(get(key), value(answer));
        }
        assert_eq!(trace.calls.len(), 3, "what is known is not written twice");
        let recorded = RecordedCalls::from(&trace);
        let given: Vec<_> = (0..3).map(|_| recorded.answer(&get("a"))).collect();
        assert_eq!(given, [Some(value("1")), Some(value("2")), Some(value("2"))]);
        assert_eq!(recorded.answer(&get("b")), Some(value("x")));
        assert_eq!(recorded.missed().count, 0);
        assert_eq!(recorded.answer(&HostCall::Verify("secret".into())), None);
        assert_eq!((recorded.missed().count, recorded.missed().names), (1, vec!["tokens.verify".to_owned()]));
    }

    #[test]
    fn there_is_no_room_for_all() {
        let mut trace = HostTrace::new(0);
        for number in 0..5_000 {
            trace.note(get(&number.to_string()), value(&"x".repeat(1000)));
        }
        assert!((200..300).contains(&trace.calls.len()), "{}", trace.calls.len());
        trace.note(get("large"), value(&"x".repeat(ROOM)));
        assert!(trace.calls.iter().all(|exchange| exchange.call != get("large")));
    }

    #[test]
    fn values_are_bytes() {
        for (answer, json) in [
            (value("ü"), r#"{"value":"ü"}"#),
            (HostAnswer::Value(None), r#"{"value":null}"#),
            (HostAnswer::Value(Some(Octets(vec![255, 0]))), r#"{"value":{"base64":"/wA="}}"#),
            (HostAnswer::Contains(true), r#"{"contains":true}"#),
            (HostAnswer::Denied, r#""denied""#),
        ] {
            assert_eq!(serde_json::to_string(&answer).expect("JSON"), json);
            assert_eq!(serde_json::from_str::<HostAnswer>(json).expect("an answer"), answer);
        }
    }
}
