//! What a node keeps of the fleet's policy, so that it starts with it while the store is away. It is verified again when it is read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::fleet::record;
use crate::fleet::record::ActiveRecord;
use crate::rollout::pipeline::MAX_CASES;
use crate::store::fleet::MAX_RECORD_BYTES;
use crate::util::files;
use crate::wasm::load_error;

const POINTER: &str = "pointer.json";
/// The pointer of what is prepared: it has its place on the disk before the flip, which is no time to find out that there is none.
const NEXT: &str = "next.json";

/// A folder of one node, and of nobody else.
#[derive(Clone, Debug)]
pub struct LocalCache {
    folder: PathBuf,
}

impl LocalCache {
    /// Makes the folder, if it is not there.
    pub fn open(cache_dir: &Path, node: &str) -> io::Result<Self> {
        let folder = cache_dir.join("fleet").join(format!("node-{node}"));
        files::create_private_dir(&folder)?;
        Ok(Self { folder })
    }

    /// What was in force last, if anything was.
    pub fn pointer(&self) -> Result<Option<ActiveRecord>, String> {
        let file = self.folder.join(POINTER);
        let told = |what: String| format!("{}: {what}", file.display());
        let note = files::read_private(&file, MAX_RECORD_BYTES as u64).map_err(|error| told(error.to_string()))?;
        note.map(|note| record::parse(&note)).transpose().map_err(told)
    }

    /// All that a pointer points to, as far as it is here and what it should be.
    pub fn artifact(&self, of: &ActiveRecord) -> Result<PolicyBundle, String> {
        let component = self.blob(of.component, load_error::MAX_COMPONENT_BYTES)?;
        let cases = of.cases.map(|digest| self.blob(digest, MAX_CASES as u64)).transpose()?;
        of.artifact(component, cases).map_err(|missing| missing.to_string())
    }

    fn blob(&self, digest: Digest, max: u64) -> Result<Vec<u8>, String> {
        let file = self.folder.join(digest.hex());
        let told = |what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
        let content =
            files::read_private(&file, max).map_err(|error| told(&error))?.ok_or_else(|| told(&"it is gone"))?;
        if Digest::of(&content) == digest { Ok(content) } else { Err(told(&"it was changed")) }
    }

    /// Keeps what a pointer points to. It does not count before [`Self::point`].
    pub fn keep(&self, pointer: &ActiveRecord, artifact: &PolicyBundle) -> io::Result<()> {
        files::write_private(&self.folder.join(pointer.component.hex()), &artifact.component)?;
        if let (Some(digest), Some(cases)) = (pointer.cases, &artifact.cases) {
            files::write_private(&self.folder.join(digest.hex()), cases.as_bytes())?;
        }
        files::write_private(&self.folder.join(NEXT), record::to_json(pointer).as_bytes())?;
        // Of what was prepared before and given up nothing is left.
        let current = self.pointer().ok().flatten();
        let blobs = current.iter().flat_map(ActiveRecord::blobs).chain(pointer.blobs());
        self.sweep(&blobs.map(|digest| digest.hex()).chain([POINTER.to_owned(), NEXT.to_owned()]).collect::<Vec<_>>())
    }

    /// From now on this is what was in force last, and what else is here goes.
    pub fn point(&self, to: &ActiveRecord) -> io::Result<()> {
        let (note, next, file) = (record::to_json(to), self.folder.join(NEXT), self.folder.join(POINTER));
        match files::read_private(&next, MAX_RECORD_BYTES as u64) {
            Ok(Some(prepared)) if prepared == note.as_bytes() => fs::rename(next, file)?,
            _ => files::write_private(&file, note.as_bytes())?,
        }
        self.sweep(&to.blobs().iter().map(Digest::hex).chain([POINTER.to_owned()]).collect::<Vec<_>>())
    }

    fn sweep(&self, kept: &[String]) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !kept.iter().any(|name| entry.file_name() == **name) {
                // What stays is only in the way of nobody.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::record::PushId;

    fn pointer(component: &[u8], cases: Option<&str>) -> ActiveRecord {
        ActiveRecord {
            sequence: 3,
            component: Digest::of(component),
            cases: cases.map(|text| Digest::of(text.as_bytes())),
            signature: None,
            pushed_at: 5,
            push_id: PushId::new(),
            rollback_of: None,
        }
    }

    #[test]
    fn what_was_changed_is_not_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let copy = LocalCache::open(dir.path(), "n").expect("a folder");
        assert_eq!(copy.pointer(), Ok(None));
        let (first, second) = (pointer(b"first", Some("cases")), pointer(b"second", None));
        let keep = |pointer: &ActiveRecord, component: &'static str, cases: Option<&str>| {
            let artifact = PolicyBundle { cases: cases.map(Into::into), ..PolicyBundle::new(component) };
            copy.keep(pointer, &artifact).expect("kept");
        };
        keep(&first, "first", Some("cases"));
        copy.point(&first).expect("written");
        keep(&second, "second", None);
        assert!(copy.artifact(&first).is_ok() && copy.artifact(&second).is_ok());
        // It was given up: the next one takes its place, and what is in force stays.
        keep(&pointer(b"third", None), "third", None);
        assert!(copy.artifact(&first).is_ok() && copy.artifact(&second).is_err());
        copy.point(&first).expect("written");
        assert_eq!(copy.pointer(), Ok(Some(first.clone())));
        let artifact = copy.artifact(&first).expect("it is here");
        assert_eq!((&*artifact.component, artifact.cases.as_deref()), (&b"first"[..], Some("cases")));
        assert!(copy.artifact(&second).expect_err("swept").contains("gone"));
        let file = copy.folder.join(first.component.hex());
        fs::write(&file, "other").expect("written");
        assert!(copy.artifact(&first).expect_err("changed").contains("it was changed"));
        fs::write(copy.folder.join(POINTER), "{}").expect("written");
        assert!(copy.pointer().expect_err("broken").contains("pointer.json"));
    }
}
