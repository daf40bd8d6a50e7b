//! The decision log: one line of JSON per decision.

use std::io;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::audit::mask::{FieldMask, MaskedField};
use crate::audit::reopening_file::{ReopeningFile, open_for_append};
use crate::audit::summary::DecisionSummary;
use crate::audit::writer::{Line, LineCounters, LineWriter, Sink};
use crate::audit::{LogTarget, OpenError, rfc3339, serialize_rfc3339};
use crate::authz::observer::DecisionEvent;
use crate::policy::strings_size;
use crate::util::clock::now_ms;

pub struct DecisionLog {
    pub(super) lines: LineWriter<DecisionLine>,
    mask: Arc<FieldMask>,
}

impl DecisionLog {
    /// Opens the log, so that a wrong target is an error at startup. Later errors only drop lines.
    pub fn open(target: &LogTarget, mask: &Arc<FieldMask>, counters: &Arc<LineCounters>) -> Result<Self, OpenError> {
        let (target, sink): (_, io::Result<Box<dyn Sink>>) = match target {
            LogTarget::Stdout => ("stdout".into(), Ok(Box::new(io::stdout()))),
            LogTarget::File(path) => {
                let file = ReopeningFile::open(path.clone(), open_for_append);
                (path.display().to_string(), file.map(|file| Box::new(file) as _))
            }
        };
        let lines = sink.and_then(|sink| LineWriter::start("decision-log", sink, Arc::clone(counters)));
        let lines = lines.map_err(|source| OpenError { key: "decisions.log", target, source })?;
        Ok(Self { lines, mask: Arc::clone(mask) })
    }

    pub(super) fn push(&self, event: &DecisionEvent<'_>) {
        let DecisionEvent { time, request, channels, decision, .. } = *event;
        let policy = decision.policy.as_ref();
        self.lines.push(DecisionLine {
            time,
            request_id: request.id.clone(),
            policy: policy.map(|info| info.digest.clone()),
            generation: policy.map(|info| info.generation),
            channels: channels.to_vec(),
            summary: DecisionSummary::new(decision),
            cached: decision.cached,
            duration_us: decision.duration_us(),
            mask: Arc::clone(&self.mask),
        });
    }
}

/// One line of the log. It has no headers and no query, so neither cookies nor tokens. The writer thread masks and formats it.
#[derive(Serialize)]
pub(super) struct DecisionLine {
    #[serde(serialize_with = "serialize_rfc3339")]
    time: u64,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    channels: Vec<String>,
    #[serde(flatten)]
    summary: DecisionSummary,
    cached: bool,
    duration_us: u64,
    #[serde(skip)]
    mask: Arc<FieldMask>,
}

impl Line for DecisionLine {
    fn size(&self) -> usize {
        let policy = self.policy.as_deref().map_or(0, str::len);
        size_of::<Self>() + self.request_id.len() + policy + strings_size(&self.channels) + self.summary.size()
    }

    fn write(mut self, to: &mut Vec<u8>) {
        self.channels = self.mask.mask_all(MaskedField::Channels, &self.channels);
        self.summary = self.summary.masked(&self.mask);
        // Cannot fail: the writer is a vector, and every field is valid JSON.
        let _ = serde_json::to_writer(&mut *to, &self);
        to.push(b'\n');
    }

    fn dropped(lines: u64) -> String {
        json!({ "time": rfc3339(now_ms()).to_string(), "dropped": lines }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::policy::{Failure, Grant, Outcome, Rejection};
    use crate::util::golden::golden;

    fn line(outcome: Outcome, reason: Option<&str>, mask: &Arc<FieldMask>) -> DecisionLine {
        let decision = crate::policy::Decision {
            outcome,
            reason: reason.map(str::to_owned),
            cached: false,
            revoked: false,
            duration: Duration::from_micros(52),
            policy: None,
        };
        DecisionLine {
            time: 1_764_039_792_123,
            request_id: "5f0c".into(),
            policy: Some("sha256:5d41…".into()),
            generation: Some(3),
            channels: vec!["news".into(), "bob-\"1\"\n".into()],
            summary: DecisionSummary::new(&decision),
            cached: decision.cached,
            duration_us: decision.duration_us(),
            mask: Arc::clone(mask),
        }
    }

    #[test]
    fn lines_match_the_golden_file() {
        let open = Arc::<FieldMask>::default();
        let headers: http::HeaderMap =
            [(http::header::SET_COOKIE, http::HeaderValue::from_static("session=secret"))].into_iter().collect();
        let grant = Grant {
            subject: Some("alice".into()),
            channels: Some(vec!["news".into()]),
            expires_at: Some(1_764_043_392_123),
            headers: headers.clone(),
            ..Grant::default()
        };
        let rejection = Rejection { status: http::StatusCode::FORBIDDEN, headers, body: "secret".into() };
        let mut text = Vec::new();
        for (outcome, reason) in [
            (Outcome::Allowed(grant), Some("member")),
            (Outcome::Allowed(Grant::default()), None),
            (Outcome::Rejected(rejection), Some("not a member")),
            (Outcome::Failed(Failure::Trap("secret".into())), None),
        ] {
            line(outcome, reason, &open).write(&mut text);
        }
        let text = String::from_utf8(text).expect("text");
        assert!(!text.contains("secret"), "{text}");
        golden("decision-log.jsonl", &text);
    }

    #[test]
    fn masked_fields_do_not_appear_in_a_line() {
        let mask = Arc::new(FieldMask::new(&[MaskedField::Subject, MaskedField::Channels, MaskedField::Reason]));
        let grant = Grant { subject: Some("alice".into()), channels: Some(vec!["news".into()]), ..Grant::default() };
        let mut text = Vec::new();
        line(Outcome::Allowed(grant), Some("because"), &mask).write(&mut text);
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(json["channels"][0], json["granted"][0]);
        assert_eq!(json["subject"], mask.mask(MaskedField::Subject, "alice"));
        let text = String::from_utf8(text).expect("text");
        assert!(!["alice", "news", "because", "bob"].iter().any(|word| text.contains(word)), "{text}");
    }

    #[test]
    fn rotated_file_is_reopened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("decisions.jsonl");
        let mut file = ReopeningFile::open(path.clone(), open_for_append).expect("it opens");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        file.write(b"one\n").expect("written");
        std::fs::rename(&path, folder.path().join("old")).expect("moved");
        file.make_check_due();
        file.write(b"two\n").expect("written");
        assert_eq!(std::fs::read(folder.path().join("old")).expect("it is there"), b"one\n");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"two\n");
    }

    #[test]
    fn write_fails_while_the_file_is_deleted_and_cannot_be_created() {
        let folder = tempfile::tempdir().expect("a folder");
        let within = folder.path().join("within");
        std::fs::create_dir(&within).expect("made");
        let mut file = ReopeningFile::open(within.join("log"), open_for_append).expect("it opens");
        std::fs::remove_dir_all(&within).expect("removed");
        file.make_check_due();
        for _ in 0..3 {
            file.write(b"lost\n").expect_err("the line would be lost");
        }
        std::fs::create_dir(&within).expect("made");
        file.write(b"two\n").expect("written");
        assert_eq!(std::fs::read(within.join("log")).expect("it is there"), b"two\n");
    }

    #[test]
    fn opening_a_pipe_without_a_reader_does_not_block() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let mkfifo = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(mkfifo.success());
        let (opened, is_open) = std::sync::mpsc::channel();
        let to = path.clone();
        std::thread::spawn(move || {
            let mut file = ReopeningFile::open(to, open_for_append).expect("it opens");
            file.write(b"one\n").expect("the pipe buffers it");
            let _ = opened.send(file);
        });
        let _file = is_open.recv_timeout(Duration::from_secs(15)).expect("opening does not block");
        let mut line = [0; 4];
        let mut reader = std::fs::File::open(&path).expect("it opens");
        std::io::Read::read_exact(&mut reader, &mut line).expect("it is read");
        assert_eq!(&line, b"one\n");
    }
}
