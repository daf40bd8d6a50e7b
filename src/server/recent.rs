//! Who was kept out lately, for whoever looks at the status page. Bounded in number and in bytes, whatever clients ask for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::policy::{Decision, Outcome};
use crate::util::clock::now_ms;

/// So many are remembered.
const REMEMBERED: usize = 50;
/// Of each, so many channels, and so many characters of each text.
const CHANNELS: usize = 4;
const TEXT: usize = 200;
/// Why somebody is out whom the policy would let in.
const REVOKED: &str = "the right to read was taken away for a while";

/// Somebody who was kept out.
#[derive(Clone, Debug, Serialize)]
pub struct KeptOut {
    /// When, ms since 1970.
    pub time: u64,
    /// The id of the request, as in the log.
    pub request: String,
    /// What was asked for, less what is too much.
    pub channels: Vec<String>,
    /// Channels that are not shown.
    pub more_channels: usize,
    /// `rejected`, `revoked` or `error`.
    pub outcome: &'static str,
    /// The status of a rejection.
    pub status: Option<u16>,
    /// The kind of a failure.
    pub kind: Option<&'static str>,
    /// The policy's reason, or the failure's text, or what the client was told.
    pub reason: String,
    /// The number of the version that decided.
    pub version: Option<u64>,
    /// How long that took.
    pub micros: u64,
}

/// The last of them.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<KeptOut>>);

impl Recent {
    /// Remembers a decision, if it kept somebody out.
    pub fn remember(&self, request: &str, channels: &[String], decision: &Decision) {
        let (outcome, status, kind, said) = match &decision.outcome {
            Outcome::Allowed(_) => return,
            Outcome::Rejected(_) if decision.revoked => ("revoked", Some(403), None, REVOKED.to_owned()),
            Outcome::Rejected(rejection) => {
                let body = String::from_utf8_lossy(&rejection.body[..rejection.body.len().min(4 * TEXT)]);
                ("rejected", Some(rejection.status.as_u16()), None, body.into_owned())
            }
            Outcome::Failed(failure) => ("error", None, Some(failure.kind()), failure.to_string()),
        };
        let kept = KeptOut {
            time: now_ms(),
            request: request.to_owned(),
            channels: channels.iter().take(CHANNELS).map(|channel| short(channel)).collect(),
            more_channels: channels.len().saturating_sub(CHANNELS),
            outcome,
            status,
            kind,
            // The policy's reason to let somebody in is not why they are out.
            reason: short(decision.reason.as_deref().filter(|_| !decision.revoked).unwrap_or(&said)),
            version: decision.policy.as_ref().map(|info| info.number),
            micros: u64::try_from(decision.duration.as_micros()).unwrap_or(u64::MAX),
        };
        let mut all = self.all();
        all.push_front(kept);
        all.truncate(REMEMBERED);
    }

    /// All of them, the latest first.
    pub fn list(&self) -> Vec<KeptOut> {
        self.all().iter().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<KeptOut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text that somebody else chose, as far as it is shown.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
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
    fn the_last_ones_are_remembered_and_none_is_large() {
        let recent = Recent::default();
        let decision = |outcome, reason| Decision {
            outcome,
            reason,
            revoked: false,
            cached: false,
            duration: Duration::ZERO,
            policy: None,
        };
        recent.remember("in", &["c".into()], &decision(Outcome::Allowed(Grant::default()), None));
        assert!(recent.list().is_empty());
        let body = "é".repeat(100_000).into_bytes().into();
        let rejected = Rejection { status: StatusCode::FORBIDDEN, headers: HeaderMap::new(), body };
        let channels: Vec<String> = (0..100).map(|n| format!("{n}{}", "ü".repeat(9_000))).collect();
        for _ in 0..2 * REMEMBERED {
            recent.remember("r", &channels, &decision(Outcome::Rejected(rejected.clone()), None));
        }
        let revoked = decision(Outcome::Rejected(rejected.clone()), Some("a member".into()));
        recent.remember("v", &channels, &Decision { revoked: true, ..revoked });
        recent.remember("f", &channels, &decision(Outcome::Failed(Failure::Cpu), Some("why".into())));
        let all = recent.list();
        assert_eq!((all.len(), all[0].kind, &*all[0].reason), (REMEMBERED, Some("cpu"), "why"));
        let bytes = serde_json::to_string(&all).expect("JSON").len();
        assert!(bytes < REMEMBERED * (CHANNELS + 1) * TEXT * 4, "{bytes}");
        assert_eq!((all[1].outcome, all[1].status, &*all[1].reason), ("revoked", Some(403), REVOKED));
        assert_eq!((all[2].status, all[2].more_channels, all[2].channels.len()), (Some(403), 96, 4));
    }
}
