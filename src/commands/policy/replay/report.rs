//! The results of a replay, as text and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::count_lines;
use crate::commands::policy::replay::recording_reader::RecordedCase;
use crate::policy::decision_view::DecisionView;
use crate::shadow::decision_change::DecisionChange;
use crate::util::printable::printable;
use crate::wasm::host_trace::RecordedCalls;

/// Lines that are not part of a recording and are reported one by one.
const MAX_REPORTED_LINES: u64 = 10;
/// Characters of a request that are shown.
const MAX_REQUEST_CHARS: usize = 300;

/// Policies whose digests are reported.
const MAX_POLICIES: usize = 8;

/// The totals of a replay, as they are printed in JSON.
#[derive(Default, Serialize)]
pub struct ReplayReport {
    policy: String,
    /// Whether differences that do not change the outcome are reported one by one.
    #[serde(skip)]
    all: bool,
    pub evaluated: u64,
    agree: u64,
    /// Decisions whose outcome changes. Every such change has an entry.
    changes: BTreeMap<DecisionChange, u64>,
    /// Decisions with the same outcome and other fields.
    other: u64,
    changed_fields: BTreeMap<&'static str, u64>,
    /// Decisions that needed a call that was not recorded, or tried to send an HTTP request.
    pub incomparable: u64,
    blocked_requests: u64,
    /// The first call that was not recorded, with its line.
    #[serde(skip)]
    first_missed: Option<String>,
    /// Decisions that the gateway could not record.
    pub dropped: u64,
    unreadable: u64,
    /// The first line that is not part of a recording, with the reason.
    #[serde(skip)]
    pub first_unreadable: Option<String>,
    /// Digests of the policies that decided at the time of the recording.
    recorded_policies: Vec<String>,
    #[serde(skip)]
    has_more_policies: bool,
}

/// A difference or an unreadable line, which is printed at once.
pub struct ReportLine {
    pub text: String,
    pub json: Value,
}

impl ReplayReport {
    pub fn new(policy: &str, all: bool) -> Self {
        let changes = DecisionChange::OUTCOME_CHANGES.map(|change| (change, 0)).into();
        Self { policy: policy.to_owned(), all, changes, ..Self::default() }
    }

    /// The number of decisions whose outcome changes.
    pub fn outcome_changes(&self) -> u64 {
        self.changes.values().sum()
    }

    /// Compares a decision with the recorded one.
    pub fn add(
        &mut self,
        line: u64,
        case: &RecordedCase,
        replayed: &DecisionView,
        calls: &RecordedCalls,
    ) -> Option<ReportLine> {
        self.evaluated += 1;
        self.add_policy(&case.policy);
        let missed = calls.unanswered();
        if missed.count > 0 || calls.blocked_request() {
            self.incomparable += 1;
            self.blocked_requests += u64::from(missed.count == 0);
            if let (None, Some(call)) = (&self.first_missed, missed.names.first()) {
                self.first_missed = Some(format!("line {line}: {call}"));
            }
            return None;
        }
        let Some((change, fields)) = DecisionChange::between(&case.answer, replayed) else {
            self.agree += 1;
            return None;
        };
        if let Some(count) = self.changes.get_mut(&change) {
            *count += 1;
        } else {
            self.other += 1;
            fields.iter().for_each(|field| *self.changed_fields.entry(field).or_default() += 1);
            if !self.all {
                return None;
            }
        }
        Some(report_line(line, case, replayed, change, &fields))
    }

    fn add_policy(&mut self, digest: &str) {
        if !self.recorded_policies.iter().any(|known| known == digest) {
            self.has_more_policies = self.recorded_policies.len() == MAX_POLICIES;
            if !self.has_more_policies {
                self.recorded_policies.push(digest.to_owned());
            }
        }
    }

    /// Counts a line that is not part of a recording.
    pub fn add_unreadable(&mut self, line: u64, reason: &str) -> Option<ReportLine> {
        self.unreadable += 1;
        let text = format!("line {line}: {reason}");
        self.first_unreadable.get_or_insert_with(|| text.clone());
        (self.unreadable <= MAX_REPORTED_LINES).then(|| ReportLine {
            text: format!("{}; skipped\n\n", printable(&text)),
            json: json!({ "line": line, "unreadable": reason }),
        })
    }

    /// The totals, for people.
    pub fn text(&self) -> String {
        let fields: Vec<String> = self.changed_fields.iter().map(|(field, count)| format!("{field} {count}")).collect();
        let first_missed =
            self.first_missed.as_ref().map(|call| format!(" (first in {})", printable(call))).unwrap_or_default();
        let changes = DecisionChange::OUTCOME_CHANGES.map(|change| (self.changes[&change], change.name()));
        let not_recorded = self.incomparable - self.blocked_requests;
        let mut text = format!("{} decisions replayed against {}\n", self.evaluated, self.policy);
        text += &count_lines([(self.agree, "identical")]);
        text += &count_lines(changes);
        text += &count_lines([
            (self.other, format!("same outcome, different response ({})", fields.join(", "))),
            (not_recorded, format!("not compared: needed a call that was not recorded{first_missed}")),
            (self.blocked_requests, "not compared: tried to send an HTTP request".to_owned()),
        ]);
        if self.dropped > 0 {
            text += &format!("{} decisions are missing: the gateway dropped them while recording\n", self.dropped);
        }
        if self.unreadable > 0 {
            text += &format!("{} lines are not part of a recording and were skipped\n", self.unreadable);
        }
        let more = if self.has_more_policies { ", and others" } else { "" };
        text + &format!("recorded from {}{more}\n", printable(&self.recorded_policies.join(", ")))
    }
}

fn report_line(
    line: u64,
    case: &RecordedCase,
    replayed: &DecisionView,
    change: DecisionChange,
    fields: &[&'static str],
) -> ReportLine {
    let RecordedCase { time, request, .. } = case;
    let request_line = format!("{} {}", request.method, request.path_with_query);
    let shown: String = request_line.chars().take(MAX_REQUEST_CHARS).collect();
    let changed = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
    let text = format!(
        "line {line}, {}: {}{changed}\n  {}\n  recorded  {}\n  replayed  {}\n\n",
        printable(time),
        change.name(),
        shown.escape_debug(),
        describe(&case.answer),
        describe(replayed)
    );
    let json = json!({
        "line": line,
        "time": time,
        "request_id": request.id,
        "change": change,
        "changed_fields": fields,
        "request": request_line,
        "channels": case.channels,
        "recorded": case.answer.to_json(),
        "replayed": replayed.to_json(),
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
        line += &format!(", reason {:?}", text("reason"));
    }
    line
}
