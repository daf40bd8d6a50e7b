//! The latest stream requests that were not allowed, for `GET /v1/status`. Bounded in number and in bytes, whatever clients send.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

use crate::policy::{Decision, Outcome};
use crate::util::clock::now_ms;

const MAX_ENTRIES: usize = 50;
/// Channel names in an entry.
const MAX_CHANNELS: usize = 4;
/// Characters of a text in an entry.
const MAX_TEXT_CHARS: usize = 200;
/// The reason of a request that the policy allows and a revocation does not.
const REVOKED_REASON: &str = "an operator revoked this access for a while";

/// A stream request that was not allowed.
#[derive(Clone, Debug, Serialize)]
pub struct RecentRejection {
    /// When, ms since 1970.
    pub time: u64,
    /// The id of the request, as in the log.
    pub request_id: String,
    /// The first of the requested channels.
    pub channels: Vec<String>,
    /// How many requested channels are left out.
    pub more_channels: usize,
    /// `rejected`, `revoked` or `error`.
    pub outcome: &'static str,
    /// The status of a rejection.
    pub status: Option<u16>,
    /// The kind of a failure.
    pub kind: Option<&'static str>,
    /// The policy's reason, the failure's text, or the body that the client got.
    pub reason: String,
    /// The generation of the policy that decided.
    pub generation: Option<u64>,
    /// Time to the decision.
    pub duration_us: u64,
}

/// The latest rejections.
#[derive(Debug, Default)]
pub struct RecentRejections(Mutex<VecDeque<RecentRejection>>);

impl RecentRejections {
    /// Adds a decision, unless it allowed the request.
    pub fn record(&self, request: &str, channels: &[String], decision: &Decision) {
        let (outcome, status, kind, text) = match &decision.outcome {
            Outcome::Allowed(_) => return,
            Outcome::Rejected(_) if decision.revoked => ("revoked", Some(403), None, REVOKED_REASON.to_owned()),
            Outcome::Rejected(rejection) => {
                let body = String::from_utf8_lossy(&rejection.body[..rejection.body.len().min(4 * MAX_TEXT_CHARS)]);
                ("rejected", Some(rejection.status.as_u16()), None, body.into_owned())
            }
            Outcome::Failed(failure) => ("error", None, Some(failure.kind()), failure.to_string()),
        };
        let rejection = RecentRejection {
            time: now_ms(),
            request_id: request.to_owned(),
            channels: channels.iter().take(MAX_CHANNELS).map(|channel| truncate(channel)).collect(),
            more_channels: channels.len().saturating_sub(MAX_CHANNELS),
            outcome,
            status,
            kind,
            // The policy's reason to allow is not the reason of a revocation.
            reason: truncate(decision.reason.as_deref().filter(|_| !decision.revoked).unwrap_or(&text)),
            generation: decision.policy.as_ref().map(|info| info.generation),
            duration_us: u64::try_from(decision.duration.as_micros()).unwrap_or(u64::MAX),
        };
        let mut all = self.0.lock();
        all.push_front(rejection);
        all.truncate(MAX_ENTRIES);
    }

    /// All entries, the latest first.
    pub fn list(&self) -> Vec<RecentRejection> {
        self.0.lock().iter().cloned().collect()
    }
}

/// The beginning of a text that a client or a policy chose.
pub fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::policy::{Failure, Grant, Rejection};

    #[test]
    fn latest_rejections_are_stored_and_each_is_bounded() {
        let recent = RecentRejections::default();
        let decision = |outcome, reason| Decision {
            outcome,
            reason,
            revoked: false,
            cached: false,
            duration: Duration::ZERO,
            policy: None,
        };
        recent.record("in", &["c".into()], &decision(Outcome::Allowed(Grant::default()), None));
        assert!(recent.list().is_empty());
        let body = "é".repeat(100_000).into_bytes().into();
        let rejected = Rejection { status: StatusCode::FORBIDDEN, headers: HeaderMap::new(), body };
        let channels: Vec<String> = (0..100).map(|n| format!("{n}{}", "ü".repeat(9_000))).collect();
        for _ in 0..2 * MAX_ENTRIES {
            recent.record("r", &channels, &decision(Outcome::Rejected(rejected.clone()), None));
        }
        let revoked = decision(Outcome::Rejected(rejected.clone()), Some("a member".into()));
        recent.record("v", &channels, &Decision { revoked: true, ..revoked });
        recent.record("f", &channels, &decision(Outcome::Failed(Failure::Cpu), Some("why".into())));
        let all = recent.list();
        assert_eq!((all.len(), all[0].kind, &*all[0].reason), (MAX_ENTRIES, Some("cpu"), "why"));
        let bytes = serde_json::to_string(&all).expect("JSON").len();
        assert!(bytes < MAX_ENTRIES * (MAX_CHANNELS + 1) * MAX_TEXT_CHARS * 4, "{bytes}");
        assert_eq!((all[1].outcome, all[1].status, &*all[1].reason), ("revoked", Some(403), REVOKED_REASON));
        assert_eq!((all[2].status, all[2].more_channels, all[2].channels.len()), (Some(403), 96, 4));
    }
}
