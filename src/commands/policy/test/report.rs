//! The results of test cases, for people and for machines.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use similar::{Change, TextDiff};

use crate::policytest::TestCase;
use crate::policytest::run::CaseOutcome;

/// The output of `--json`.
#[derive(Serialize)]
pub struct Report {
    file: String,
    policy: String,
    cases: String,
    pub passed: usize,
    pub failed: usize,
    results: Vec<CaseResult>,
}

/// The result of one test case.
#[derive(Serialize)]
pub struct CaseResult {
    name: String,
    line: usize,
    ok: bool,
    /// Whether a prewarmed instance decided.
    prewarmed: bool,
    /// Names of the fields that are not as expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<&'static str>,
    expected: Value,
    got: Value,
    #[serde(skip)]
    diff: String,
}

impl Report {
    pub fn new(file: &Path, policy: &str, cases: &Path) -> Self {
        let (file, cases) = (file.display().to_string(), cases.display().to_string());
        Self { file, policy: policy.to_owned(), cases, passed: 0, failed: 0, results: Vec::new() }
    }

    pub fn add(&mut self, case: &TestCase, outcome: CaseOutcome) -> &CaseResult {
        let ok = outcome.passed();
        let counter = if ok { &mut self.passed } else { &mut self.failed };
        *counter += 1;
        let result = CaseResult {
            name: case.name.clone(),
            line: case.line,
            ok,
            prewarmed: outcome.prewarmed,
            differences: outcome.differences.iter().map(|difference| difference.field).collect(),
            expected: outcome.expected.to_json(),
            got: outcome.got.to_json(),
            diff: if ok { String::new() } else { diff(&outcome) },
        };
        self.results.push_mut(result)
    }

    pub fn summary(&self) -> String {
        let Self { file, policy, cases, passed, failed, .. } = self;
        let digest = policy.get(..19).unwrap_or(policy);
        format!("\n{passed} passed, {failed} failed: {file} ({digest}…) by {cases}\n")
    }
}

impl CaseResult {
    /// One line; for a failed case, the differences below it.
    pub fn text(&self, cases: &Path) -> String {
        if self.ok {
            format!("ok    {}\n", self.name)
        } else {
            let how = if self.prewarmed { ", on a prewarmed instance" } else { "" };
            format!("FAIL  {}  ({}:{}{how})\n{}", self.name, cases.display(), self.line, self.diff)
        }
    }
}

/// The expected decision (`-`) against the actual one (`+`).
fn diff(outcome: &CaseOutcome) -> String {
    let CaseOutcome { expected, got, .. } = outcome;
    // A decision of another kind is shown as a whole, since no field of it was expected.
    let whole = expected.kind() != got.kind();
    let expected_lines = expected.lines(None).join("\n");
    let got_lines = got.lines(if whole { None } else { Some(expected) }).join("\n");
    let changes = TextDiff::from_lines(&expected_lines, &got_lines);
    let line = |change: Change<&str>| format!("      {} {}\n", change.tag(), change.value().trim_end_matches('\n'));
    changes.iter_all_changes().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{Decision, Failure, Grant, Outcome, Rejection};
    use crate::policytest::file::parse;
    use crate::util::golden::golden;

    const CASES: &str = r#"
[[case]]
name = "alice reads her team's channel"
channels = ["team-red"]
expect = { allow = true, subject = "alice" }

[[case]]
name = "a member is not an admin"
expect = { status = 403, body = "Admin access required", headers = { content-type = "text/plain", x-trace = true } }

[[case]]
name = "several lines"
expect = { status = 401, body = "two\nlines " }

[[case]]
name = "anonymous"
expect.status = 401
"#;

    #[test]
    fn golden_report() {
        let path = Path::new("cases.toml");
        let suite = parse(path, CASES).expect("valid");
        let headers = [("content-type", "text/plain"), ("x-trace", "1")]
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        let rejected = |status: u16, body: &'static str| {
            Outcome::Rejected(Rejection {
                status: http::StatusCode::from_u16(status).expect("a status"),
                headers: headers.clone().into_iter().collect(),
                body: body.into(),
            })
        };
        let outcomes = [
            Outcome::Allowed(Grant { subject: Some("alice".into()), ..Grant::default() }),
            rejected(401, "Unauthorized"),
            rejected(401, "two\nlines"),
            Outcome::Failed(Failure::Trap("wasm `unreachable` instruction executed".into())),
        ];
        let mut report = Report::new(Path::new("policy.wasm"), "sha256:0123456789abcdef", path);
        let mut text = String::new();
        for (case, outcome) in suite.cases.iter().zip(outcomes) {
            let decision = Decision {
                outcome,
                reason: Some("why".into()),
                cached: false,
                revoked: false,
                duration: Duration::ZERO,
                policy: None,
            };
            let got = crate::policy::decision_view::DecisionView::new(&decision, &case.channels);
            let expected = case.expect.filled(&got);
            let outcome = CaseOutcome { differences: expected.differences(&got), expected, got, prewarmed: false };
            text += &report.add(case, outcome).text(path);
        }
        text += &report.summary();
        golden("policy-test.txt", &text);
        golden("policy-test.json", &(serde_json::to_string_pretty(&report).expect("JSON") + "\n"));
    }
}
