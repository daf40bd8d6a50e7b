//! The recording: complete requests with their credentials, the answers to host calls, and the decisions, so that another policy can be
//! evaluated on the same requests.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::fs::OFlags;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::audit::reopening_file::ReopeningFile;
use crate::audit::writer::{LineCounters, LineWriter, QueuedLine, Sink};
use crate::audit::{OpenError, rfc3339};
use crate::authz::observer::DecisionEvent;
use crate::policy::decision_view::DecisionView;
use crate::policy::{Decision, Request, headers_size, request, strings_size};
use crate::util::clock::now_ms;
use crate::util::files;
use crate::wasm::host_trace::{HostTrace, Octets};

/// Version of the line format.
pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq)]
pub struct RecordingConfig {
    pub file: PathBuf,
    /// The share of decisions, from 0 to 1.
    pub share: f64,
    /// Maximum bytes of the file.
    pub limit: u64,
}

/// A line of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedDecision {
    /// [`FORMAT`].
    pub recording: u32,
    /// When it was decided, in RFC 3339 format.
    pub time: String,
    /// The digest of the policy, `sha256:…`.
    pub policy: String,
    /// How long the decision took.
    pub duration_us: u64,
    #[serde(with = "RecordedRequest")]
    pub request: Request,
    /// The channels that the request asked for.
    pub channels: Vec<String>,
    #[serde(flatten)]
    pub trace: HostTrace,
    /// The decision, with the field names of a test case.
    pub answer: Map<String, Value>,
}

/// How a line represents a complete request.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Request")]
struct RecordedRequest {
    id: String,
    method: String,
    scheme: String,
    authority: String,
    path_with_query: String,
    #[serde(serialize_with = "serialize_headers", deserialize_with = "deserialize_headers")]
    headers: HeaderMap,
    #[serde(serialize_with = "serialize_address", deserialize_with = "deserialize_address")]
    client_address: Option<IpAddr>,
}

fn serialize_address<S: Serializer>(address: &Option<IpAddr>, to: S) -> Result<S::Ok, S::Error> {
    address.map_or_else(String::new, |address| address.to_string()).serialize(to)
}

fn deserialize_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    request::parse_client_address(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn serialize_headers<S: Serializer>(headers: &HeaderMap, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(headers.iter().map(|(name, value)| (name.as_str(), Octets(value.as_bytes().to_vec()))))
}

fn deserialize_headers<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderMap, D::Error> {
    let mut headers = HeaderMap::new();
    for (name, Octets(value)) in Vec::<(String, Octets)>::deserialize(from)? {
        let invalid = || D::Error::custom(format!("invalid header: {:?}", name.chars().take(64).collect::<String>()));
        let value = HeaderValue::from_bytes(&value).map_err(|_| invalid())?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        headers.try_append(name, value).map_err(|_| D::Error::custom("too many headers"))?;
    }
    Ok(headers)
}

pub struct Recording {
    pub(super) lines: LineWriter<PendingEntry>,
    share: f64,
    is_full: Arc<AtomicBool>,
}

impl Recording {
    /// Opens the file and makes it accessible to this user only.
    pub fn open(config: &RecordingConfig, counters: &Arc<LineCounters>) -> Result<Self, OpenError> {
        let RecordingConfig { file, share, limit } = config.clone();
        let target = file.display().to_string();
        let is_full = Arc::new(AtomicBool::new(false));
        let lines = RecordingFile::open(file, limit, Arc::clone(&is_full))
            .and_then(|file| LineWriter::start("recording", Box::new(file), Arc::clone(counters)))
            .map_err(|source| OpenError { key: "decisions.recording.file", target: target.clone(), source })?;
        tracing::warn!(
            file = target,
            share,
            limit,
            "decisions.recording.file: complete requests are recorded, WITH THEIR COOKIES AND TOKENS: anyone who can read the file can sign in as these clients"
        );
        Ok(Self { lines, share, is_full })
    }

    /// Whether to record the next decision. Chosen at random.
    pub fn samples(&self) -> bool {
        !self.is_full.load(Ordering::Relaxed) && rand::random::<f64>() < self.share
    }

    /// Queues a decision. A decision without a trace, such as a cached one, is not recorded: no policy was evaluated.
    pub(super) fn record(&self, event: &DecisionEvent<'_>) {
        let Some(trace) = event.trace.clone() else { return };
        let (request, decision) = (event.request.clone(), event.decision.clone());
        self.lines.push(PendingEntry { time: event.time, request, channels: event.channels.to_vec(), decision, trace });
    }
}

/// A queued decision. The writer thread formats it.
pub(super) struct PendingEntry {
    time: u64,
    request: Request,
    channels: Vec<String>,
    decision: Decision,
    trace: Arc<HostTrace>,
}

impl QueuedLine for PendingEntry {
    fn size(&self) -> usize {
        let request = self.request.path_with_query.len() + headers_size(&self.request.headers);
        let decision = self.trace.size + self.decision.outcome.size();
        size_of::<Self>() + request + strings_size(&self.channels) + decision
    }

    fn write(self, to: &mut Vec<u8>) {
        let answer = match DecisionView::new(&self.decision, &self.channels).to_json() {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let entry = RecordedDecision {
            recording: FORMAT,
            time: rfc3339(self.time).to_string(),
            policy: self.decision.policy_digest().to_owned(),
            duration_us: self.decision.duration_us(),
            request: self.request,
            channels: self.channels,
            trace: Arc::unwrap_or_clone(self.trace),
            answer,
        };
        // Cannot fail: the writer is a vector, and every field is valid JSON.
        let _ = serde_json::to_writer(&mut *to, &entry);
        to.push(b'\n');
    }

    fn dropped(lines: u64) -> String {
        json!({ "recording": FORMAT, "time": rfc3339(now_ms()).to_string(), "dropped": lines }).to_string()
    }
}

struct RecordingFile {
    file: ReopeningFile,
    size: u64,
    limit: u64,
    is_full: Arc<AtomicBool>,
}

impl RecordingFile {
    fn open(path: PathBuf, limit: u64, is_full: Arc<AtomicBool>) -> io::Result<Self> {
        let mut file = Self { file: ReopeningFile::open(path, open_private)?, size: 0, limit, is_full };
        file.find_end()?;
        Ok(file)
    }

    fn find_end(&mut self) -> io::Result<()> {
        let file = self.file.handle();
        self.size = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if self.size > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        self.file.torn = last != *b"\n";
        Ok(())
    }
}

/// Opens a file for appending and makes it accessible to this user only. Anything but a regular file is refused, because the mode of a
/// device must not change. So are links and files of other users, who may have put them there to read the recording.
fn open_private(path: &Path) -> io::Result<File> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW;
    let is_link = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    let opened = files::open_with(path, flags);
    let file = opened
        .map_err(|error| if is_link(&error) { invalid("a symbolic link: name the file itself") } else { error })?;
    let info = file.metadata()?;
    if !info.is_file() {
        return Err(invalid("not a regular file"));
    }
    if info.uid() != rustix::process::geteuid().as_raw() {
        return Err(invalid("the file belongs to another user"));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

impl Sink for RecordingFile {
    /// Writes the lines that fit into the limit. The first one that does not ends the recording.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.is_full.load(Ordering::Relaxed) {
            return Ok(0);
        }
        if self.file.reopen_if_moved()? {
            self.find_end()?;
        }
        let size = self.size + u64::from(self.file.torn);
        let room = usize::try_from(self.limit.saturating_sub(size)).unwrap_or(usize::MAX);
        let fitting = match lines.get(..room) {
            None => lines,
            Some(room) => &lines[..room.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)],
        };
        if !fitting.is_empty() {
            let result = self.file.append(fitting);
            self.size = self.file.handle().metadata().map_or(self.size + fitting.len() as u64, |info| info.len());
            result?;
        }
        if fitting.len() < lines.len() {
            self.is_full.store(true, Ordering::Relaxed);
            tracing::warn!(limit = self.limit, "the recording has reached decisions.recording.max-size and ends");
        }
        Ok(fitting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::writer::LineCounts;

    fn open(path: &std::path::Path, limit: u64) -> (RecordingFile, Arc<AtomicBool>) {
        let is_full = Arc::<AtomicBool>::default();
        (RecordingFile::open(path.to_owned(), limit, Arc::clone(&is_full)).expect("it opens"), is_full)
    }

    #[test]
    fn recording_ends_at_its_limit_and_continues_after_a_torn_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recording.jsonl");
        std::fs::write(&path, "cut o").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        let (mut file, is_full) = open(&path, 20);
        file.write(b"one\ntwo\n").expect("written");
        file.write(b"three\nfour\n").expect("written");
        assert!(is_full.load(Ordering::Relaxed));
        file.write(b"a\n").expect("no error");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "cut o\none\ntwo\nthree\n");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (mut file, is_full) = open(&path, 20);
        file.write(b"more\n").expect("no error");
        assert!(is_full.load(Ordering::Relaxed));
    }

    #[test]
    fn addresses_are_recorded_and_read_again() {
        #[derive(Serialize, Deserialize)]
        struct Line(#[serde(with = "RecordedRequest")] Request);

        let line = |address: &str| {
            format!(
                r#"{{"id":"1","method":"GET","scheme":"http","authority":"h","path_with_query":"/","headers":[],"client_address":"{address}"}}"#
            )
        };
        for address in ["192.0.2.1", "2001:db8::7", ""] {
            let Line(request) = serde_json::from_str(&line(address)).expect("a recorded request");
            assert_eq!(request.client_address, address.parse().ok(), "an empty one is unknown");
            assert_eq!(serde_json::to_string(&Line(request)).expect("JSON"), line(address));
        }
        assert!(serde_json::from_str::<Line>(&line("me")).is_err());
    }

    struct Text(&'static str);

    impl QueuedLine for Text {
        fn size(&self) -> usize {
            self.0.len()
        }

        fn write(self, to: &mut Vec<u8>) {
            to.extend_from_slice(self.0.as_bytes());
        }

        fn dropped(lines: u64) -> String {
            PendingEntry::dropped(lines)
        }
    }

    #[test]
    fn lines_beyond_the_size_limit_count_as_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, _) = open(&folder.path().join("recording.jsonl"), 10);
        let counters = Arc::<LineCounters>::default();
        let lines = LineWriter::start("test", Box::new(file), Arc::clone(&counters)).expect("a thread");
        for text in ["one\n", "two\n", "three\n", "four\n"] {
            lines.push(Text(text));
        }
        lines.flush(std::time::Instant::now() + std::time::Duration::from_secs(20));
        assert_eq!(counters.counts(), LineCounts { written: 2, dropped: 2 });
    }

    #[test]
    fn deleted_recording_is_created_again_with_the_whole_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recording.jsonl");
        let (mut file, _) = open(&path, 20);
        file.write(b"one\ntwo\n").expect("written");
        std::fs::remove_file(&path).expect("removed");
        file.file.make_check_due();
        file.write(b"three\nfour\nfive\n").expect("written");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"three\nfour\nfive\n", "it has the whole limit");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn links_and_files_of_other_users_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("recording.jsonl"), folder.path().join("other"));
        std::fs::write(&other, "").expect("written");
        std::fs::set_permissions(&other, Permissions::from_mode(0o644)).expect("set");
        std::os::unix::fs::symlink(&other, &path).expect("a link");
        let refused = || RecordingFile::open(path.clone(), 20, Arc::default()).err().expect("refused").to_string();
        assert!(refused().contains("a symbolic link"));
        assert_eq!(other.metadata().expect("it is there").permissions().mode() & 0o777, 0o644);
        std::fs::rename(&other, &path).expect("moved");
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            assert!(refused().contains("another user"));
        }
    }

    #[test]
    fn pipe_is_refused_and_keeps_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        // Instead of `/dev/null`, whose mode a failing test would change.
        let path = folder.path().join("pipe");
        let mkfifo =
            std::process::Command::new("mkfifo").args(["-m", "0644"]).arg(&path).status().expect("mkfifo runs");
        assert!(mkfifo.success());
        let error = RecordingFile::open(path.clone(), 20, Arc::default()).err().expect("it is a pipe");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }
}
