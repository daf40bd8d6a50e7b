//! What was in force and in which order: the way back. It is remembered in a file, so that it outlives the process.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artifact::digest::Digest;
use crate::policy::info::PolicyInfo;
use crate::rollout::policy_store::Id;
use crate::rollout::prepared::PolicyAttachments;
use crate::rollout::source_file::PolicySource;
use crate::util::files;
use crate::wasm::component::Policy;

/// Versions that are remembered, what is in force with them.
const KEPT: usize = 8;
/// Bytes of the file; it has some 300 a version.
const MAX_SIZE: u64 = 64 << 10;
/// Files of gateways that share the folder, or had other names before; the oldest go.
const FILES: usize = 64;

/// What is in force, and the way back.
#[derive(Default)]
pub struct RollbackHistory {
    /// What is in force.
    pub now: Option<(Policy, PolicyAttachments)>,
    /// What was in force, the latest last.
    past: Vec<PastActivation>,
    /// The same as it was written last.
    written: Vec<PastActivation>,
}

/// A version that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastActivation {
    /// `sha256:…` of the component.
    pub digest: String,
    /// `sha256:…` of its cases.
    pub cases: Option<String>,
    /// In force since, ms since 1970.
    pub since: u64,
    /// Where it came from.
    pub source: String,
}

impl PastActivation {
    /// What is told of a version is what is remembered of it.
    pub fn of(info: &PolicyInfo) -> Self {
        Self {
            digest: info.digest.to_string(),
            cases: info.cases.as_deref().map(Into::into),
            since: info.since,
            source: info.origin.source.clone(),
        }
    }

    /// By which it is found in the archive.
    pub fn id(&self) -> Id {
        Id { component: self.digest.clone(), cases: self.cases.clone() }
    }

    fn is_one(&self) -> bool {
        [Some(&self.digest), self.cases.as_ref()].into_iter().flatten().all(|digest| digest.parse::<Digest>().is_ok())
    }
}

impl RollbackHistory {
    /// Goes on where another process ended.
    pub fn begin_with(&mut self, past: Vec<PastActivation>) {
        self.written.clone_from(&past);
        self.past = past;
    }

    /// What one goes back to.
    pub fn back(&self) -> Option<&PastActivation> {
        self.past.len().checked_sub(2).and_then(|place| self.past.get(place))
    }

    /// What is in force is gone back from; if nothing comes of that, it is to be given to [`Self::forth`].
    pub fn go_back(&mut self) -> Option<PastActivation> {
        self.past.pop()
    }

    /// It is in force all the same.
    pub fn forth(&mut self, past: Option<PastActivation>) {
        self.past.extend(past);
    }

    /// Something took force. What is there already is there once.
    pub fn record_activation(&mut self, past: PastActivation) {
        if self.past.last().map(PastActivation::id) != Some(past.id()) {
            self.past.push(past);
        }
        let too_many = self.past.len().saturating_sub(KEPT);
        self.past.drain(..too_many);
    }

    /// What has to be written by now, if anything; whoever asks writes it.
    pub fn unwritten(&mut self) -> Option<Vec<PastActivation>> {
        if self.past == self.written {
            return None;
        }
        self.written.clone_from(&self.past);
        Some(self.past.clone())
    }
}

/// Where lines are remembered: a file for each gateway and each place of a policy, so that nobody goes back to what was in force
/// elsewhere.
#[derive(Clone, Debug)]
pub struct HistoryFile {
    folder: PathBuf,
    node: String,
}

impl HistoryFile {
    /// That of this node, below `cache_dir`.
    pub fn below(cache_dir: &Path, node: &str) -> Self {
        Self { folder: cache_dir.join("past"), node: node.into() }
    }

    fn file(&self, files: Option<&PolicySource>) -> PathBuf {
        let place = files.map_or(Path::new("example"), |files| &files.component);
        let place = std::path::absolute(place).unwrap_or_else(|_| place.into());
        let name = Digest::of(format!("{}\n{}", self.node, place.display()).as_bytes());
        self.folder.join(format!("{}.json", name.hex()))
    }

    /// What was in force here, the latest last.
    pub fn read(&self, files: Option<&PolicySource>) -> io::Result<Vec<PastActivation>> {
        let file = self.file(files);
        let told = |what: &dyn std::fmt::Display| io::Error::other(format!("{}: {what}", file.display()));
        let Some(text) = files::read_private(&file, MAX_SIZE).map_err(|error| told(&error))? else {
            return Ok(Vec::new());
        };
        let past: Vec<PastActivation> = serde_json::from_slice(&text).map_err(|error| told(&error))?;
        if past.len() > KEPT || !past.iter().all(PastActivation::is_one) {
            return Err(told(&"it is not what was written there"));
        }
        Ok(past)
    }

    /// Remembers this in its place.
    pub fn write(&self, files: Option<&PolicySource>, past: &[PastActivation]) -> io::Result<()> {
        files::write_private(&self.file(files), &serde_json::to_vec(past)?)?;
        // Best effort: a file that remains is removed by a later write.
        let _ = files::prune(&self.folder, FILES);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(n: u64) -> PastActivation {
        PastActivation {
            digest: Digest::of(&n.to_le_bytes()).to_string(),
            cases: None,
            since: n,
            source: "file policy.wasm".into(),
        }
    }

    #[test]
    fn one_goes_back_a_step_at_a_time() {
        let mut line = RollbackHistory::default();
        assert!(line.back().is_none() && line.unwritten().is_none());
        for n in [1, 2, 2, 3] {
            line.record_activation(past(n));
        }
        assert_eq!(line.unwritten(), Some(vec![past(1), past(2), past(3)]));
        assert!(line.back() == Some(&past(2)) && line.unwritten().is_none());
        let gone = line.go_back();
        line.record_activation(past(2));
        assert_eq!((gone, line.back()), (Some(past(3)), Some(&past(1))));
        // What does not come of it changes nothing.
        let gone = line.go_back();
        line.forth(gone);
        assert_eq!(line.unwritten(), Some(vec![past(1), past(2)]));
        for n in 10..40 {
            line.record_activation(past(n));
        }
        assert_eq!(line.unwritten().map(|past| past.len()), Some(KEPT));
    }

    #[test]
    fn each_gateway_remembers_its_own() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, other) = (HistoryFile::below(dir.path(), "one"), HistoryFile::below(dir.path(), "other"));
        let files = |name: &str| PolicySource::at(dir.path().join(name));
        let (a, b) = (files("a.wasm"), files("b.wasm"));
        one.write(Some(&a), &[past(1)]).expect("written");
        other.write(Some(&a), &[past(2)]).expect("written");
        one.write(Some(&b), &[past(3)]).expect("written");
        for (memory, files, expect) in [(&one, Some(&a), vec![past(1)]), (&other, Some(&a), vec![past(2)])] {
            assert_eq!(memory.read(files).expect("it is there"), expect);
        }
        assert_eq!(one.read(None).expect("nothing"), []);
        for damaged in ["", "[", "{}", r#"[{"digest":"../../etc/passwd","cases":null,"since":1,"source":""}]"#] {
            std::fs::write(one.file(Some(&a)), damaged).expect("written");
            let error = one.read(Some(&a)).expect_err(damaged).to_string();
            assert!(error.contains("past"), "{error}");
        }
        for n in 0..100 {
            one.write(Some(&files(&n.to_string())), &[past(n)]).expect("written");
        }
        assert_eq!(std::fs::read_dir(dir.path().join("past")).expect("a folder").count(), FILES);
    }
}
