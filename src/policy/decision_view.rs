//! Decisions as lists of named fields, the form in which test cases, recordings and decisions are compared.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::policy::{Decision, Outcome};

/// The fields of a decision, each at most once, under their names in a file of cases. The first is `allow`, `status` or `error`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecisionView {
    /// In the order of display.
    pub fields: Vec<(&'static str, Value)>,
}

/// All field names, in the order of display.
const FIELDS: [&str; 11] = [
    "allow",
    "subject",
    "channels",
    "expires-at",
    "replay-since",
    "status",
    "error",
    "message",
    "headers",
    "body",
    "reason",
];

/// A field that is not as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub field: &'static str,
    /// `null` for a field that was not expected.
    pub expected: Value,
    /// `null` for a field that is missing.
    pub got: Value,
}

/// Header fields as a JSON object of names and their values, in order.
pub fn headers(headers: &HeaderMap) -> Value {
    let mut all: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (name, value) in headers {
        all.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into());
    }
    all.into_iter().map(|(name, values)| (name.to_owned(), Value::Array(values))).collect::<Map<_, _>>().into()
}

impl DecisionView {
    /// `requested` are the channels of the request.
    pub fn new(decision: &Decision, requested: &[String]) -> Self {
        let mut fields = match &decision.outcome {
            Outcome::Allowed(grant) => {
                let is_granted = |name: &&String| grant.channels.as_ref().is_none_or(|granted| granted.contains(*name));
                let granted: Vec<&String> = requested.iter().filter(is_granted).collect();
                let mut fields = vec![
                    ("allow", json!(true)),
                    ("subject", json!(grant.subject.as_deref().unwrap_or_default())),
                    ("channels", json!(granted)),
                ];
                fields.extend(grant.expires_at.map(|time| ("expires-at", json!(time))));
                fields.extend(grant.replay_since.map(|time| ("replay-since", json!(time))));
                fields.push(("headers", headers(&grant.headers)));
                fields
            }
            Outcome::Rejected(rejection) => vec![
                ("status", json!(rejection.status.as_u16())),
                ("headers", headers(&rejection.headers)),
                ("body", String::from_utf8_lossy(&rejection.body).into()),
            ],
            Outcome::Failed(failure) => {
                vec![("error", json!(failure.kind())), ("message", json!(failure.to_string()))]
            }
        };
        fields.push(("reason", json!(decision.reason.as_deref().unwrap_or_default())));
        Self { fields }
    }

    /// Reads what [`Self::to_json`] writes; fields may be missing.
    pub fn from_json(object: &Map<String, Value>) -> Self {
        let fields = FIELDS.iter().filter_map(|name| Some((*name, object.get(*name)?.clone())));
        Self { fields: fields.collect() }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// This expectation, with the actual value in place of each header that may have any value.
    pub fn filled(&self, got: &Self) -> Self {
        let fill = |(name, value): &(&'static str, Value)| (*name, fill(value, got.get(name)));
        Self { fields: self.fields.iter().map(fill).collect() }
    }

    /// The differences from this expectation. In a decision of another kind every field differs.
    pub fn differences(&self, got: &Self) -> Vec<Difference> {
        let value = |answer: &Self, field| answer.get(field).unwrap_or(&Value::Null).clone();
        let expected = self.fields.iter().map(|(field, _)| *field);
        let is_other = self.kind() != got.kind();
        let more = got.fields.iter().map(|(field, _)| *field).filter(|field| is_other && self.get(field).is_none());
        let all = expected.chain(more).map(|field| Difference {
            field,
            expected: value(self, field),
            got: value(got, field),
        });
        all.filter(|difference| difference.expected != difference.got).collect()
    }

    /// `allow`, `status` or `error`.
    pub fn kind(&self) -> Option<&'static str> {
        self.fields.first().map(|(name, _)| *name)
    }

    /// The fields as a JSON object.
    pub fn to_json(&self) -> Value {
        self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>().into()
    }

    /// The fields as lines for a text diff: those that `only` has, or all.
    pub fn lines(&self, only: Option<&Self>) -> Vec<String> {
        let shown = self.fields.iter().filter(|(field, _)| only.is_none_or(|only| only.get(field).is_some()));
        shown.flat_map(|(field, value)| lines(field, value)).collect()
    }
}

fn fill(expected: &Value, got: Option<&Value>) -> Value {
    let (Value::Object(expected), Some(Value::Object(got))) = (expected, got) else { return expected.clone() };
    let fill = |(name, value): (&String, &Value)| {
        let value = if *value == json!(true) { got.get(name).unwrap_or(value) } else { value };
        (name.clone(), value.clone())
    };
    expected.iter().map(fill).collect::<Map<_, _>>().into()
}

fn lines(field: &str, value: &Value) -> Vec<String> {
    let line = |text: &str| format!("{field:<12} {}", visible(text));
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.split('\n').map(line).collect(),
        Value::Object(headers) if headers.is_empty() => vec![line("none")],
        Value::Object(headers) => {
            let each = |(name, values): (&String, &Value)| match values {
                Value::Array(values) => values
                    .iter()
                    .map(|value| line(&format!("{name}: {}", value.as_str().unwrap_or_default())))
                    .collect(),
                _ => vec![line(&format!("{name}: (any value)"))],
            };
            headers.iter().flat_map(each).collect()
        }
        other => vec![line(&other.to_string())],
    }
}

/// A line of text, in quotes if it is empty or has invisible characters.
fn visible(text: &str) -> String {
    let plain = !text.is_empty() && text.trim() == text && !text.contains(char::is_control);
    if plain { text.to_owned() } else { format!("{text:?}") }
}
