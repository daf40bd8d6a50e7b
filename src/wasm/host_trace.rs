//! The host calls of a decision: recorded while they are made ([`HostTrace`]), or answered from a recording ([`RecordedCalls`]).

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes recorded per decision. A call that does not fit is left out, as if the policy had not made it.
const MAX_TRACE_BYTES: usize = 256 << 10;
/// Memory of a recorded call in addition to its texts.
const CALL_OVERHEAD_BYTES: usize = 64;
/// Unanswered calls that are remembered by name.
const MAX_UNANSWERED_NAMES: usize = 8;

/// The error that a policy gets for a call that is not in the recording.
pub const NOT_RECORDED: &str = "this call was not recorded";

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
    /// The call as operators see it: keys are shown, tokens are not.
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostAnswer {
    /// The value of a key or field, if it exists.
    Value(Option<Octets>),
    /// Whether the set contains the member.
    Contains(bool),
    /// The claims of a valid token, as JSON.
    Claims(String),
    /// The operator does not allow look-ups of this key.
    Denied,
    /// The store or the keys are unavailable.
    Unavailable(String),
    /// Not a token.
    Malformed,
    /// The token's signature is invalid.
    Untrusted,
    /// The token has expired.
    Expired,
    /// A claim of the token is invalid.
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

/// Bytes, which JSON shows as text if they are UTF-8, else as `{"base64":"…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Octets(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a string, or {\"base64\":\"…\"}")]
enum JsonOctets<'a> {
    Text(Cow<'a, str>),
    Bytes { base64: String },
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => JsonOctets::Text(text.into()).serialize(to),
            Err(_) => JsonOctets::Bytes { base64: STANDARD.encode(&self.0) }.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(match JsonOctets::deserialize(from)? {
            JsonOctets::Text(text) => text.into_owned().into_bytes(),
            JsonOctets::Bytes { base64 } => STANDARD.decode(base64).map_err(D::Error::custom)?,
        }))
    }
}

/// A host call and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    pub call: HostCall,
    pub answer: HostAnswer,
}

/// The host calls of one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTrace {
    /// The policy's clock, in ms since the Unix epoch.
    pub now: u64,
    /// In the order of the calls.
    pub calls: Vec<Exchange>,
    /// Whether the policy sent requests. Their responses are not recorded.
    #[serde(rename = "network")]
    pub sent_requests: bool,
    /// The approximate memory of the calls, in bytes.
    #[serde(skip)]
    pub size: usize,
}

impl HostTrace {
    pub fn new(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Records a call, unless it repeats the last answer to the same call, or does not fit.
    pub fn record(&mut self, call: HostCall, answer: HostAnswer) {
        let last = self.calls.iter().rev().find(|exchange| exchange.call == call);
        if last.is_some_and(|exchange| exchange.answer == answer) {
            return;
        }
        let size = CALL_OVERHEAD_BYTES + call.size() + answer.size();
        if self.size + size <= MAX_TRACE_BYTES {
            self.size += size;
            self.calls.push(Exchange { call, answer });
        }
    }
}

/// A recording that answers host calls.
#[derive(Debug, Default)]
pub struct RecordedCalls {
    /// The time that the policy sees, in ms since the Unix epoch.
    pub now: u64,
    /// Each call, and whether it was replayed already.
    calls: Mutex<Vec<(Exchange, bool)>>,
    unanswered: Mutex<UnansweredCalls>,
    blocked_request: AtomicBool,
}

/// Calls that are not in the recording.
#[derive(Clone, Debug, Default)]
pub struct UnansweredCalls {
    pub count: usize,
    /// The first of them, as operators see them.
    pub names: Vec<String>,
}

impl From<&HostTrace> for RecordedCalls {
    fn from(trace: &HostTrace) -> Self {
        let calls = trace.calls.iter().map(|exchange| (exchange.clone(), false)).collect();
        Self { now: trace.now, calls: Mutex::new(calls), ..Self::default() }
    }
}

impl RecordedCalls {
    /// The answer to a call. Equal calls get the recorded answers in order, and the last one from then on. A call that is not in the
    /// recording is unavailable.
    pub fn answer(&self, call: &HostCall) -> HostAnswer {
        let mut calls = self.calls.lock();
        let mut found = None;
        for (exchange, replayed) in calls.iter_mut().filter(|(exchange, _)| exchange.call == *call) {
            found = Some(exchange.answer.clone());
            if !std::mem::replace(replayed, true) {
                break;
            }
        }
        found.unwrap_or_else(|| {
            let mut unanswered = self.unanswered.lock();
            unanswered.count += 1;
            if unanswered.names.len() < MAX_UNANSWERED_NAMES {
                unanswered.names.push(call.name());
            }
            HostAnswer::Unavailable(NOT_RECORDED.into())
        })
    }

    /// Notes that the policy tried to send a request, which a replay does not allow.
    pub fn block_request(&self) {
        self.blocked_request.store(true, Ordering::Relaxed);
    }

    pub fn blocked_request(&self) -> bool {
        self.blocked_request.load(Ordering::Relaxed)
    }

    pub fn unanswered(&self) -> UnansweredCalls {
        self.unanswered.lock().clone()
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
    fn replay_answers_equal_calls_in_recorded_order() {
        let mut trace = HostTrace::new(7);
        for (key, answer) in [("a", "1"), ("a", "1"), ("b", "x"), ("a", "2")] {
            trace.record(get(key), value(answer));
        }
        assert_eq!(trace.calls.len(), 3, "a repeated answer is recorded once");
        let recorded = RecordedCalls::from(&trace);
        let answers: Vec<_> = (0..3).map(|_| recorded.answer(&get("a"))).collect();
        assert_eq!(answers, [value("1"), value("2"), value("2")]);
        assert_eq!(recorded.answer(&get("b")), value("x"));
        assert_eq!(recorded.unanswered().count, 0);
        let not_recorded = HostAnswer::Unavailable(NOT_RECORDED.into());
        assert_eq!(recorded.answer(&HostCall::Verify("secret".into())), not_recorded);
        assert_eq!((recorded.unanswered().count, recorded.unanswered().names), (1, vec!["tokens.verify".to_owned()]));
    }

    #[test]
    fn calls_beyond_the_trace_size_are_left_out() {
        let mut trace = HostTrace::new(0);
        for number in 0..5_000 {
            trace.record(get(&number.to_string()), value(&"x".repeat(1000)));
        }
        assert!((200..300).contains(&trace.calls.len()), "{}", trace.calls.len());
        trace.record(get("large"), value(&"x".repeat(MAX_TRACE_BYTES)));
        assert!(trace.calls.iter().all(|exchange| exchange.call != get("large")));
    }

    #[test]
    fn answers_are_json_and_values_that_are_not_text_base64() {
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
