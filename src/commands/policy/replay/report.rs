//! What a replay found, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::commands::policy::replay::entries::Question;
use crate::policy::decision_view::DecisionView;
use crate::shadow::decision_change::{DecisionChange, OutcomeKind, answers_differ};
use crate::wasm::host_trace::RecordedCalls;

/// Foreign lines that are told of one by one.
const TOLD: u64 = 10;
/// What of a request's line is shown.
const SHOWN: usize = 300;

/// The sums of a replay.
pub struct Report {
    digest: Arc<str>,
    all: bool,
    /// Decisions that were replayed.
    pub asked: u64,
    same: u64,
    flips: BTreeMap<DecisionChange, u64>,
    differs: BTreeMap<&'static str, u64>,
    incomparable: u64,
    wanted_network: u64,
    /// The first thing that was not recorded, and where.
    first_missed: Option<(u64, String)>,
    dropped: u64,
    foreign: u64,
    /// Where the first line stands that is none, and why it is none.
    pub first_foreign: Option<String>,
    policies: Policies,
}

/// What decided then: the digests, as far as they are few.
#[derive(Default)]
struct Policies(Vec<String>, bool);

/// Something to be told at once.
pub struct Told {
    text: String,
    json: Value,
}

impl Told {
    pub fn text(&self) -> String {
        self.text.clone()
    }

    pub fn json(&self) -> String {
        format!("{}\n", self.json)
    }
}

impl Report {
    pub fn new(digest: &Arc<str>, all: bool) -> Self {
        Self {
            digest: Arc::clone(digest),
            all,
            asked: 0,
            same: 0,
            flips: BTreeMap::new(),
            differs: BTreeMap::new(),
            incomparable: 0,
            wanted_network: 0,
            first_missed: None,
            dropped: 0,
            foreign: 0,
            first_foreign: None,
            policies: Policies::default(),
        }
    }

    /// How many decisions flip.
    pub fn flips(&self) -> u64 {
        DecisionChange::KINDS.iter().filter_map(|flip| self.flips.get(flip)).sum()
    }

    /// Whether no decision at all could be held against that of then.
    pub const fn nothing_compared(&self) -> bool {
        self.asked > 0 && self.incomparable == self.asked
    }

    /// Takes what was answered now.
    pub fn add(
        &mut self,
        line: u64,
        question: &Question,
        now: &DecisionView,
        recorded: &RecordedCalls,
    ) -> Option<Told> {
        self.asked += 1;
        self.policies.add(&question.policy);
        let missed = recorded.unanswered();
        if missed.count > 0 || recorded.blocked_request() {
            self.incomparable += 1;
            if missed.count == 0 {
                self.wanted_network += 1;
            } else if self.first_missed.is_none() {
                self.first_missed = missed.names.into_iter().next().map(|name| (line, name));
            }
            return None;
        }
        let before = &question.answer;
        let differs = answers_differ(before, now);
        let Some(flip) = DecisionChange::of(kind(before), kind(now), !differs.is_empty()) else {
            self.same += 1;
            return None;
        };
        *self.flips.entry(flip).or_default() += 1;
        if flip == DecisionChange::Other {
            for field in &differs {
                *self.differs.entry(field).or_default() += 1;
            }
            if !self.all {
                return None;
            }
        }
        Some(told(line, question, now, flip, &differs))
    }

    /// So many decisions were to be recorded and were not.
    pub fn dropped(&mut self, lines: u64) -> Option<Told> {
        self.dropped = self.dropped.saturating_add(lines);
        None
    }

    /// A line is none of a recording.
    pub fn foreign(&mut self, line: u64, why: String) -> Option<Told> {
        self.foreign += 1;
        let text = format!("line {line}: {why}");
        self.first_foreign.get_or_insert_with(|| text.clone());
        (self.foreign <= TOLD)
            .then(|| Told { text: format!("{text}; passed over\n\n"), json: json!({ "line": line, "foreign": why }) })
    }

    /// The sums, for people.
    pub fn summary(&self) -> String {
        let mut text = format!("{} decisions asked of {}\n", self.asked, self.digest);
        let mut sum = |count: u64, what: &str| {
            if count > 0 {
                // Writing to a text does not fail.
                let _ = writeln!(text, "{count:>10} {what}");
            }
        };
        sum(self.same, "the same");
        for flip in DecisionChange::KINDS {
            sum(self.flips.get(&flip).copied().unwrap_or(0), flip.name());
        }
        let differs: Vec<String> = self.differs.iter().map(|(field, count)| format!("{field} {count}")).collect();
        let others = self.flips.get(&DecisionChange::Other).copied().unwrap_or(0);
        sum(others, &format!("of the same kind, with another answer ({})", differs.join(", ")));
        let first = self.first_missed.as_ref();
        let first = first.map_or_else(String::new, |(line, name)| format!(" (first in line {line}: {name})"));
        sum(self.incomparable - self.wanted_network, &format!("not compared: asked for what was not recorded{first}"));
        sum(self.wanted_network, "not compared: wanted to send a request");
        let mut lines = String::new();
        if self.dropped > 0 {
            let _ = writeln!(lines, "{} decisions are missing: the gateway could not write them in time", self.dropped);
        }
        if self.foreign > 0 {
            let _ = writeln!(lines, "{} lines are none of a recording and were passed over", self.foreign);
        }
        let _ = writeln!(lines, "decided then by {}", self.policies.text());
        text + &lines
    }

    /// The same as a line of JSON.
    pub fn json(&self) -> String {
        let flips = DecisionChange::KINDS.iter().map(|flip| (json!(flip), self.flips.get(flip).copied().unwrap_or(0)));
        let flips: serde_json::Map<String, Value> =
            flips.filter_map(|(name, count)| Some((name.as_str()?.to_owned(), json!(count)))).collect();
        let sums = json!({
            "policy": &*self.digest,
            "asked": self.asked,
            "same": self.same,
            "flips": flips,
            "other": self.flips.get(&DecisionChange::Other).copied().unwrap_or(0),
            "differs": self.differs,
            "incomparable": self.incomparable,
            "wanted_network": self.wanted_network,
            "dropped": self.dropped,
            "foreign": self.foreign,
            "decided_by": self.policies.0,
        });
        format!("{}\n", json!({ "sums": sums }))
    }
}

impl Policies {
    fn add(&mut self, digest: &str) {
        if self.0.iter().any(|known| known == digest) {
            return;
        }
        if self.0.len() < 8 {
            self.0.push(digest.to_owned());
        } else {
            self.1 = true;
        }
    }

    fn text(&self) -> String {
        self.0.join(", ") + if self.1 { ", and others" } else { "" }
    }
}

fn kind(answer: &DecisionView) -> OutcomeKind {
    match answer.kind() {
        Some("allow") => OutcomeKind::Allow,
        Some("status") => OutcomeKind::Reject,
        _ => OutcomeKind::Error,
    }
}

fn told(line: u64, question: &Question, now: &DecisionView, flip: DecisionChange, differs: &[&'static str]) -> Told {
    let request = &question.request;
    let asked: String = format!("{} {}", request.method, request.path_with_query).chars().take(SHOWN).collect();
    let differ = if flip == DecisionChange::Other { format!(" ({})", differs.join(", ")) } else { String::new() };
    let text = format!(
        "line {line}, {}: {}{differ}\n  {}\n  then  {}\n  now   {}\n\n",
        question.time,
        flip.name(),
        asked.escape_debug(),
        said(&question.answer),
        said(now)
    );
    let json = json!({
        "line": line,
        "time": question.time,
        "request_id": request.id,
        "flip": flip,
        "differs": differs,
        "request": format!("{} {}", request.method, request.path_with_query),
        "channels": question.channels,
        "then": question.answer.to_json(),
        "now": now.to_json(),
    });
    Told { text, json }
}

/// An answer in a line.
fn said(answer: &DecisionView) -> String {
    let text = |name| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut line = match kind(answer) {
        OutcomeKind::Allow => match text("subject") {
            "" => "allow".to_owned(),
            subject => format!("allow {subject:?}"),
        },
        OutcomeKind::Reject => {
            let body: String = text("body").chars().take(80).collect();
            format!("reject {} {body:?}", answer.get("status").unwrap_or(&Value::Null))
        }
        OutcomeKind::Error => format!("error {}: {:?}", text("error"), text("because")),
    };
    if !text("reason").is_empty() {
        let _ = write!(line, ", because {:?}", text("reason"));
    }
    line
}
