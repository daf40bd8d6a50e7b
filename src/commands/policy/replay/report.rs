//! The results of a replay, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::commands::policy::replay::recording_reader::RecordedCase;
use crate::policy::decision_view::DecisionView;
use crate::shadow::decision_change::DecisionChange;
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
    pub replayed: u64,
    same: u64,
    changes: BTreeMap<DecisionChange, u64>,
    changed_fields: BTreeMap<&'static str, u64>,
    incomparable: u64,
    blocked_requests: u64,
    /// The first call that was not recorded, and its line.
    first_missed: Option<(u64, String)>,
    dropped: u64,
    unreadable: u64,
    /// The first line that is not one of a recording, and reason.
    pub first_unreadable: Option<String>,
    policies: Policies,
}

/// Digests of the policies that decided at the time of the recording: the first few, and whether there are more.
#[derive(Default)]
struct Policies(Vec<String>, bool);

/// A difference, printed at once.
pub struct ReportLine {
    text: String,
    json: Value,
}

impl ReportLine {
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
            replayed: 0,
            same: 0,
            changes: BTreeMap::new(),
            changed_fields: BTreeMap::new(),
            incomparable: 0,
            blocked_requests: 0,
            first_missed: None,
            dropped: 0,
            unreadable: 0,
            first_unreadable: None,
            policies: Policies::default(),
        }
    }

    /// The number of decisions whose outcome changes.
    pub fn outcome_changes(&self) -> u64 {
        DecisionChange::OUTCOME_CHANGES.iter().filter_map(|change| self.changes.get(change)).sum()
    }

    /// Whether no decision could be compared with the recorded one.
    pub const fn nothing_compared(&self) -> bool {
        self.replayed > 0 && self.incomparable == self.replayed
    }

    /// Compares a decision with the recorded one.
    pub fn add(
        &mut self,
        line: u64,
        case: &RecordedCase,
        now: &DecisionView,
        recorded: &RecordedCalls,
    ) -> Option<ReportLine> {
        self.replayed += 1;
        self.policies.add(&case.policy);
        let missed = recorded.unanswered();
        if missed.count > 0 || recorded.blocked_request() {
            self.incomparable += 1;
            if missed.count == 0 {
                self.blocked_requests += 1;
            } else if self.first_missed.is_none() {
                self.first_missed = missed.names.into_iter().next().map(|name| (line, name));
            }
            return None;
        }
        let Some((change, changed_fields)) = DecisionChange::between(&case.answer, now) else {
            self.same += 1;
            return None;
        };
        *self.changes.entry(change).or_default() += 1;
        if change == DecisionChange::Other {
            for field in &changed_fields {
                *self.changed_fields.entry(field).or_default() += 1;
            }
            if !self.all {
                return None;
            }
        }
        Some(report_line(line, case, now, change, &changed_fields))
    }

    /// Counts decisions that the gateway could not record.
    pub fn dropped(&mut self, lines: u64) -> Option<ReportLine> {
        self.dropped = self.dropped.saturating_add(lines);
        None
    }

    /// Counts a line that is not one of a recording.
    pub fn unreadable(&mut self, line: u64, reason: String) -> Option<ReportLine> {
        self.unreadable += 1;
        let text = format!("line {line}: {reason}");
        self.first_unreadable.get_or_insert_with(|| text.clone());
        (self.unreadable <= MAX_REPORTED_LINES).then(|| ReportLine {
            text: format!("{text}; skipped\n\n"),
            json: json!({ "line": line, "unreadable": reason }),
        })
    }

    /// The totals, for people.
    pub fn summary(&self) -> String {
        let mut text = format!("{} decisions replayed against {}\n", self.replayed, self.digest);
        let mut sum = |count: u64, what: &str| {
            if count > 0 {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{count:>10} {what}");
            }
        };
        sum(self.same, "identical");
        for change in DecisionChange::OUTCOME_CHANGES {
            sum(self.changes.get(&change).copied().unwrap_or(0), change.name());
        }
        let changed_fields: Vec<String> =
            self.changed_fields.iter().map(|(field, count)| format!("{field} {count}")).collect();
        let others = self.changes.get(&DecisionChange::Other).copied().unwrap_or(0);
        sum(others, &format!("same outcome, different response ({})", changed_fields.join(", ")));
        let first = self.first_missed.as_ref();
        let first = first.map_or_else(String::new, |(line, name)| format!(" (first in line {line}: {name})"));
        sum(
            self.incomparable - self.blocked_requests,
            &format!("not compared: needed a call that was not recorded{first}"),
        );
        sum(self.blocked_requests, "not compared: tried to send an HTTP request");
        let mut lines = String::new();
        if self.dropped > 0 {
            let _ = writeln!(lines, "{} decisions are missing: the gateway dropped them while recording", self.dropped);
        }
        if self.unreadable > 0 {
            let _ = writeln!(lines, "{} lines are not part of a recording and were skipped", self.unreadable);
        }
        let _ = writeln!(lines, "recorded from {}", self.policies.text());
        text + &lines
    }

    /// The totals as a line of JSON.
    pub fn json(&self) -> String {
        let changes = DecisionChange::OUTCOME_CHANGES
            .iter()
            .map(|change| (json!(change), self.changes.get(change).copied().unwrap_or(0)));
        let changes: serde_json::Map<String, Value> =
            changes.filter_map(|(name, count)| Some((name.as_str()?.to_owned(), json!(count)))).collect();
        let summary = json!({
            "policy": &*self.digest,
            "evaluated": self.replayed,
            "agree": self.same,
            "changes": changes,
            "other": self.changes.get(&DecisionChange::Other).copied().unwrap_or(0),
            "changed_fields": self.changed_fields,
            "incomparable": self.incomparable,
            "blocked_requests": self.blocked_requests,
            "dropped": self.dropped,
            "unreadable": self.unreadable,
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

fn report_line(
    line: u64,
    case: &RecordedCase,
    now: &DecisionView,
    change: DecisionChange,
    changed_fields: &[&'static str],
) -> ReportLine {
    let request = &case.request;
    let request_line: String =
        format!("{} {}", request.method, request.path_with_query).chars().take(MAX_REQUEST_CHARS).collect();
    let fields =
        if change == DecisionChange::Other { format!(" ({})", changed_fields.join(", ")) } else { String::new() };
    let text = format!(
        "line {line}, {}: {}{fields}\n  {}\n  recorded  {}\n  replayed  {}\n\n",
        case.time,
        change.name(),
        request_line.escape_debug(),
        describe(&case.answer),
        describe(now)
    );
    let json = json!({
        "line": line,
        "time": case.time,
        "request_id": request.id,
        "change": change,
        "changed_fields": changed_fields,
        "request": format!("{} {}", request.method, request.path_with_query),
        "channels": case.channels,
        "recorded": case.answer.to_json(),
        "replayed": now.to_json(),
    });
    ReportLine { text, json }
}

/// A decision in one line.
fn describe(answer: &DecisionView) -> String {
    let text = |name| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut line = match answer.kind() {
        Some("allow") => match text("subject") {
            "" => "allow".to_owned(),
            subject => format!("allow {subject:?}"),
        },
        Some("status") => {
            let body: String = text("body").chars().take(80).collect();
            format!("reject {} {body:?}", answer.get("status").unwrap_or(&Value::Null))
        }
        _ => format!("error {}: {:?}", text("error"), text("message")),
    };
    if !text("reason").is_empty() {
        let _ = write!(line, ", reason {:?}", text("reason"));
    }
    line
}
