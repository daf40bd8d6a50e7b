//! The results of a replay, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::commands::policy::replay::entries::Question;
use crate::policy::decision_view::DecisionView;
use crate::shadow::decision_change::{DecisionChange, OutcomeKind, view_changes};
use crate::wasm::host_trace::RecordedCalls;

/// Lines of another kind that are reported one by one.
const MAX_REPORTED_LINES: u64 = 10;
/// Characters of a request that are shown.
const MAX_REQUEST_CHARS: usize = 300;

/// The totals of a replay.
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
    /// The first call that was not recorded, and its line.
    first_missed: Option<(u64, String)>,
    dropped: u64,
    foreign: u64,
    /// The first line that is not one of a recording, and why.
    pub first_foreign: Option<String>,
    policies: Policies,
}

/// Digests of the policies that decided at the time of the recording: the first few, and whether there are more.
#[derive(Default)]
struct Policies(Vec<String>, bool);

/// A difference, printed at once.
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

    /// The number of decisions whose outcome changes.
    pub fn flips(&self) -> u64 {
        DecisionChange::OUTCOME_CHANGES.iter().filter_map(|flip| self.flips.get(flip)).sum()
    }

    /// Whether no decision could be compared with the recorded one.
    pub const fn nothing_compared(&self) -> bool {
        self.asked > 0 && self.incomparable == self.asked
    }

    /// Compares a decision with the recorded one.
    pub fn add(
        &mut self,
        line: u64,
        question: &Question,
        now: &DecisionView,
        recorded: &RecordedCalls,
    ) -> Option<Told> {
        self.asked += 1;
        self.policies.add(&question.policy);
        let missed = recorded.missed();
        if missed.count > 0 || recorded.wanted_network() {
            self.incomparable += 1;
            if missed.count == 0 {
                self.wanted_network += 1;
            } else if self.first_missed.is_none() {
                self.first_missed = missed.names.into_iter().next().map(|name| (line, name));
            }
            return None;
        }
        let before = &question.answer;
        let differs = view_changes(before, now);
        let Some(flip) = DecisionChange::between_kinds(kind(before), kind(now), !differs.is_empty()) else {
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

    /// Counts decisions that the gateway could not record.
    pub fn dropped(&mut self, lines: u64) -> Option<Told> {
        self.dropped = self.dropped.saturating_add(lines);
        None
    }

    /// Counts a line that is not one of a recording.
    pub fn foreign(&mut self, line: u64, why: String) -> Option<Told> {
        self.foreign += 1;
        let text = format!("line {line}: {why}");
        self.first_foreign.get_or_insert_with(|| text.clone());
        (self.foreign <= MAX_REPORTED_LINES)
            .then(|| Told { text: format!("{text}; skipped\n\n"), json: json!({ "line": line, "unreadable": why }) })
    }

    /// The totals, for people.
    pub fn summary(&self) -> String {
        let mut text = format!("{} decisions replayed against {}\n", self.asked, self.digest);
        let mut sum = |count: u64, what: &str| {
            if count > 0 {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{count:>10} {what}");
            }
        };
        sum(self.same, "identical");
        for flip in DecisionChange::OUTCOME_CHANGES {
            sum(self.flips.get(&flip).copied().unwrap_or(0), flip.name());
        }
        let differs: Vec<String> = self.differs.iter().map(|(field, count)| format!("{field} {count}")).collect();
        let others = self.flips.get(&DecisionChange::Other).copied().unwrap_or(0);
        sum(others, &format!("same outcome, different response ({})", differs.join(", ")));
        let first = self.first_missed.as_ref();
        let first = first.map_or_else(String::new, |(line, name)| format!(" (first in line {line}: {name})"));
        sum(
            self.incomparable - self.wanted_network,
            &format!("not compared: needed a call that was not recorded{first}"),
        );
        sum(self.wanted_network, "not compared: tried to send an HTTP request");
        let mut lines = String::new();
        if self.dropped > 0 {
            let _ = writeln!(lines, "{} decisions are missing: the gateway dropped them while recording", self.dropped);
        }
        if self.foreign > 0 {
            let _ = writeln!(lines, "{} lines are not part of a recording and were skipped", self.foreign);
        }
        let _ = writeln!(lines, "recorded from {}", self.policies.text());
        text + &lines
    }

    /// The totals as a line of JSON.
    pub fn json(&self) -> String {
        let flips = DecisionChange::OUTCOME_CHANGES
            .iter()
            .map(|flip| (json!(flip), self.flips.get(flip).copied().unwrap_or(0)));
        let flips: serde_json::Map<String, Value> =
            flips.filter_map(|(name, count)| Some((name.as_str()?.to_owned(), json!(count)))).collect();
        let summary = json!({
            "policy": &*self.digest,
            "evaluated": self.asked,
            "agree": self.same,
            "changes": flips,
            "other": self.flips.get(&DecisionChange::Other).copied().unwrap_or(0),
            "changed_fields": self.differs,
            "incomparable": self.incomparable,
            "blocked_requests": self.wanted_network,
            "dropped": self.dropped,
            "unreadable": self.foreign,
            "recorded_policies": self.policies.0,
        });
        format!("{}\n", json!({ "summary": summary }))
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
    let asked: String =
        format!("{} {}", request.method, request.path_with_query).chars().take(MAX_REQUEST_CHARS).collect();
    let differ = if flip == DecisionChange::Other { format!(" ({})", differs.join(", ")) } else { String::new() };
    let text = format!(
        "line {line}, {}: {}{differ}\n  {}\n  recorded  {}\n  replayed  {}\n\n",
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
        "change": flip,
        "changed_fields": differs,
        "request": format!("{} {}", request.method, request.path_with_query),
        "channels": question.channels,
        "recorded": question.answer.to_json(),
        "replayed": now.to_json(),
    });
    Told { text, json }
}

/// A decision in one line.
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
        OutcomeKind::Error => format!("error {}: {:?}", text("error"), text("message")),
    };
    if !text("reason").is_empty() {
        let _ = write!(line, ", reason {:?}", text("reason"));
    }
    line
}
