//! The recording: whole requests, credentials and all, with what the host answered and what was decided, so that another policy
//! can be asked the same.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::audit::reopening_file::ReopeningFile;
use crate::audit::summary::texts;
use crate::audit::writer::{Line, LineCounters, LineWriter, Sink};
use crate::audit::{OpenError, rfc3339};
use crate::authz::observer::DecisionEvent;
use crate::policy::decision_view::DecisionView;
use crate::policy::{Decision, Outcome, Request};
use crate::util::clock::now_ms;
use crate::wasm::host_trace::Octets;
use crate::wasm::host_trace::{Exchange, HostTrace};

/// The form of the lines.
pub const FORMAT: u32 = 1;

/// What is recorded, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingConfig {
    /// The file.
    pub file: PathBuf,
    /// The share of decisions, from 0 to 1.
    pub share: f64,
    /// The file has at most so many bytes.
    pub limit: u64,
}

/// A line of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedDecision {
    /// [`FORMAT`].
    pub recording: u32,
    /// When it was decided, as RFC 3339 has it.
    pub time: String,
    /// What decided, `sha256:…`.
    pub policy: String,
    /// How long that took.
    pub us: u64,
    /// What was asked.
    pub request: RecordedRequest,
    /// The channels that were asked for.
    pub channels: Vec<String>,
    /// What the policy took for the time, ms since 1970.
    pub now: u64,
    /// What it asked of the host.
    pub calls: Vec<Exchange>,
    /// Whether it sent requests. What came of them is not here.
    pub network: bool,
    /// What was decided, as a file of cases has it.
    pub answer: Map<String, Value>,
}

/// A request with everything that is in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedRequest {
    id: String,
    /// As it was sent.
    pub method: String,
    scheme: String,
    authority: String,
    /// As it was sent.
    pub path_with_query: String,
    headers: Vec<(String, Octets)>,
    client_address: String,
}

impl From<&Request> for RecordedRequest {
    fn from(request: &Request) -> Self {
        let header = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), Octets(value.as_bytes().to_vec()));
        Self {
            id: request.id.clone(),
            method: request.method.clone(),
            scheme: request.scheme.clone(),
            authority: request.authority.clone(),
            path_with_query: request.path_with_query.clone(),
            headers: request.headers.iter().map(header).collect(),
            client_address: request.client_address.clone(),
        }
    }
}

impl TryFrom<RecordedRequest> for Request {
    type Error = String;

    fn try_from(whole: RecordedRequest) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, Octets(value)) in whole.headers {
            let wrong = || format!("a header that is none: {:?}", name.chars().take(64).collect::<String>());
            let value = HeaderValue::from_bytes(&value).map_err(|_| wrong())?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            headers.try_append(name, value).map_err(|_| "too many headers".to_owned())?;
        }
        Ok(Self {
            method: whole.method,
            scheme: whole.scheme,
            authority: whole.authority,
            path_with_query: whole.path_with_query,
            headers,
            client_address: whole.client_address,
            id: whole.id,
        })
    }
}

/// Records.
pub struct Recording {
    lines: LineWriter<PendingEntry>,
    share: f64,
    is_full: Arc<AtomicBool>,
}

impl Recording {
    /// Opens the file, which is this user's alone from then on.
    pub fn open(settings: &RecordingConfig, tally: Arc<LineCounters>) -> Result<Self, OpenError> {
        let RecordingConfig { file, share, limit } = settings.clone();
        let target = file.display().to_string();
        let is_full = Arc::new(AtomicBool::new(false));
        let lines = RecordingFile::open(file, limit, Arc::clone(&is_full))
            .and_then(|file| LineWriter::start("recording", file, gap, tally))
            .map_err(|source| OpenError { key: "decisions.record", target: target.clone(), source })?;
        tracing::warn!(
            file = target,
            share,
            limit,
            "decisions.record: whole requests are being recorded, WITH THEIR COOKIES AND TOKENS; whoever reads the file can sign in as these clients"
        );
        Ok(Self { lines, share, is_full })
    }

    /// Whether the next decision is recorded.
    pub fn wants(&self) -> bool {
        !self.is_full.load(Ordering::Relaxed) && rand::random::<f64>() < self.share
    }

    /// Takes a decision. Without a trace no policy was asked: an answer that was given again was recorded before, or could have been.
    pub(super) fn record(&self, event: &DecisionEvent<'_>) {
        let Some(trace) = event.trace.clone() else { return };
        let (request, decision) = (event.request.clone(), event.decision.clone());
        self.lines.push(PendingEntry { time: event.time, request, channels: event.channels.to_vec(), decision, trace });
    }

    /// Waits until what was told by now is written, or until then.
    pub fn flush(&self, until: Instant) {
        self.lines.flush(until);
    }
}

/// A decision on its way to the recording.
struct PendingEntry {
    time: u64,
    request: Request,
    channels: Vec<String>,
    decision: Decision,
    trace: Arc<HostTrace>,
}

impl Line for PendingEntry {
    fn size(&self) -> usize {
        let headers = |headers: &HeaderMap| headers.iter().map(|(n, v)| 64 + n.as_str().len() + v.len()).sum::<usize>();
        let answer = match &self.decision.outcome {
            Outcome::Allowed(grant) => headers(&grant.headers),
            Outcome::Rejected(rejection) => headers(&rejection.headers) + rejection.body.len(),
            Outcome::Failed(_) => 0,
        };
        let request = self.request.path_with_query.len() + headers(&self.request.headers);
        size_of::<Self>() + request + texts(&self.channels) + self.trace.size() + answer
    }

    fn write(self, to: &mut Vec<u8>) {
        let answer = match DecisionView::new(&self.decision, &self.channels).to_json() {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let entry = RecordedDecision {
            recording: FORMAT,
            time: rfc3339(self.time),
            policy: self.decision.policy_digest().to_owned(),
            us: u64::try_from(self.decision.duration.as_micros()).unwrap_or(u64::MAX),
            request: RecordedRequest::from(&self.request),
            channels: self.channels,
            now: self.trace.now,
            calls: self.trace.calls.clone(),
            network: self.trace.sent_requests,
            answer,
        };
        // A vector takes all, and every text is one of JSON's.
        let _ = serde_json::to_writer(&mut *to, &entry);
        to.push(b'\n');
    }
}

/// The line that tells of decisions that were to be recorded and are not.
fn gap(dropped: u64) -> String {
    json!({ "recording": FORMAT, "time": rfc3339(now_ms()), "dropped": dropped }).to_string()
}

struct RecordingFile {
    named: ReopeningFile,
    size: u64,
    limit: u64,
    is_full: Arc<AtomicBool>,
    /// What is there may end in the middle of a line.
    torn: bool,
}

impl RecordingFile {
    fn open(path: PathBuf, limit: u64, is_full: Arc<AtomicBool>) -> io::Result<Self> {
        let mut file = Self { named: ReopeningFile::open(path, own_file)?, size: 0, limit, is_full, torn: false };
        file.find_end()?;
        Ok(file)
    }

    fn find_end(&mut self) -> io::Result<()> {
        let file = self.named.file();
        self.size = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if self.size > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        self.torn = last != *b"\n";
        Ok(())
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let torn = self.torn;
        // Until it is done.
        self.torn = true;
        if torn {
            self.named.file().write_all(b"\n")?;
        }
        self.named.file().write_all(lines)?;
        self.torn = false;
        Ok(())
    }
}

/// A file of this user's alone. Nothing else is made so: a device has a mode for all.
fn own_file(path: &Path) -> io::Result<File> {
    let is_other = std::fs::metadata(path).is_ok_and(|info| !info.is_file());
    if is_other {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no ordinary file"));
    }
    let file = OpenOptions::new().append(true).read(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

impl Sink for RecordingFile {
    /// Writes as many whole lines as there is room for. The first that has none is the end.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.named.follow(self.torn)? {
            self.find_end()?;
        }
        let room = usize::try_from(self.limit.saturating_sub(self.size + u64::from(self.torn))).unwrap_or(usize::MAX);
        let fitting = match lines.get(..room) {
            None => lines,
            Some(most) => &lines[..most.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)],
        };
        if !fitting.is_empty() {
            let result = self.append(fitting);
            self.size = self.named.file().metadata().map_or(self.size + fitting.len() as u64, |info| info.len());
            result?;
        }
        if fitting.len() < lines.len() {
            self.is_full.store(true, Ordering::Relaxed);
            tracing::warn!(limit = self.limit, "the recording has what decisions.record-limit allows, and ends");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path, limit: u64) -> (RecordingFile, Arc<AtomicBool>) {
        let is_full = Arc::<AtomicBool>::default();
        (RecordingFile::open(path.to_owned(), limit, Arc::clone(&is_full)).expect("it opens"), is_full)
    }

    #[test]
    fn a_recording_ends_at_its_limit_and_goes_on_behind_a_torn_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recording.jsonl");
        std::fs::write(&path, "cut o").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        let (mut file, is_full) = open(&path, 20);
        file.write(b"one\ntwo\n").expect("written");
        file.write(b"three\nfour\n").expect("written");
        assert!(is_full.load(Ordering::Relaxed));
        file.write(b"a\n").expect("not wanted");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "cut o\none\ntwo\nthree\n");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (mut file, is_full) = open(&path, 20);
        file.write(b"more\n").expect("not wanted");
        assert!(is_full.load(Ordering::Relaxed));
    }

    #[test]
    fn a_recording_that_was_taken_away_is_begun_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recording.jsonl");
        let (mut file, _) = open(&path, 20);
        file.write(b"one\ntwo\n").expect("written");
        std::fs::remove_file(&path).expect("removed");
        file.named.look_again();
        file.write(b"three\nfour\nfive\n").expect("written");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"three\nfour\nfive\n", "it has the whole limit");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_file_is_not_made_this_users_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        // Stands for `/dev/null`, which a test had better not touch.
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").args(["-m", "0644"]).arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        let error = RecordingFile::open(path.clone(), 20, Arc::default()).err().expect("it is a pipe");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }
}
