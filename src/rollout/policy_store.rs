//! What was in force lately, in a folder, so that going back is one command. Names are digests, and what is read is held against them.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::artifact::signature;
use crate::rollout::pipeline::MAX_CASES;
use crate::util::files;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// Artifacts that are kept; the oldest go. Gateways may share the folder.
const KEPT: usize = 16;
const PARTS: [&str; 3] = ["wasm", "cases.toml", "sig"];

/// A folder of artifacts.
#[derive(Clone, Debug)]
pub struct PolicyArchive {
    folder: PathBuf,
}

/// What tells one artifact from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// `sha256:…` of the component.
    pub component: String,
    /// `sha256:…` of the cases.
    pub cases: Option<String>,
}

impl Id {
    /// An artifact's own.
    pub fn of(artifact: &PolicyBundle) -> Self {
        Self { component: artifact.digest(), cases: artifact.cases_digest() }
    }

    fn stem(&self) -> String {
        Digest::of(format!("{}\n{}", self.component, self.cases.as_deref().unwrap_or_default()).as_bytes()).hex()
    }
}

impl PolicyArchive {
    /// The archive below `cache_dir`.
    pub fn below(cache_dir: &Path) -> Self {
        Self { folder: cache_dir.join("policies") }
    }

    /// Keeps an artifact.
    pub fn keep(&self, artifact: &PolicyBundle) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let stem = Id::of(artifact).stem();
        let texts = [artifact.cases.as_deref(), artifact.signature.as_deref()].map(|text| text.map(str::as_bytes));
        // The component last: it says that the rest is there.
        for (part, bytes) in PARTS.iter().zip([Some(&*artifact.component), texts[0], texts[1]]).rev() {
            let Some(bytes) = bytes else { continue };
            let mut new = tempfile::NamedTempFile::new_in(&self.folder)?;
            io::Write::write_all(&mut new, bytes)?;
            new.persist(self.folder.join(format!("{stem}.{part}")))?;
        }
        self.prune()
    }

    /// What was kept; an error if it is gone or was changed.
    pub fn get(&self, id: &Id) -> io::Result<PolicyBundle> {
        let path = |part: &str| self.folder.join(format!("{}.{part}", id.stem()));
        let text = |part: &str, most: u64| {
            let bytes = files::if_exists(files::read(&path(part), most))?;
            bytes.map(|bytes| String::from_utf8(bytes).map_err(io::Error::other)).transpose()
        };
        let component = files::read(&path("wasm"), MAX_COMPONENT_BYTES)?;
        let cases = if id.cases.is_some() { text("cases.toml", MAX_CASES as u64)? } else { None };
        let artifact = PolicyBundle {
            cases,
            signature: text("sig", signature::MAX_SIGNATURE_BYTES as u64)?,
            ..PolicyBundle::new(component)
        };
        if Id::of(&artifact) == *id { Ok(artifact) } else { Err(io::Error::other("it was changed")) }
    }

    fn prune(&self) -> io::Result<()> {
        let mut kept: Vec<(SystemTime, String)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Another gateway may have removed it by now.
            let Ok(info) = entry.metadata() else { continue };
            if let Some(stem) = name.strip_suffix(".wasm") {
                kept.push((info.modified()?, stem.to_owned()));
            }
        }
        kept.sort();
        let too_many = kept.len().saturating_sub(KEPT);
        for (_, stem) in &kept[..too_many] {
            for part in PARTS {
                match fs::remove_file(self.folder.join(format!("{stem}.{part}"))) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = PolicyArchive::below(folder.path());
        let artifact = |n: u8, cases: Option<&str>| PolicyBundle {
            cases: cases.map(Into::into),
            signature: cases.map(|_| "signed".into()),
            ..PolicyBundle::new(vec![n])
        };
        let (plain, tested) = (artifact(1, None), artifact(1, Some("cases")));
        for kept in [&plain, &tested] {
            archive.keep(kept).expect("it is kept");
            let back = archive.get(&Id::of(kept)).expect("it is there");
            assert_eq!(
                (&back.component, &back.cases, &back.signature),
                (&kept.component, &kept.cases, &kept.signature)
            );
        }
        let files = fs::read_dir(folder.path().join("policies")).expect("a folder");
        for file in files {
            fs::write(file.expect("a file").path(), "something else").expect("it is written");
        }
        assert!(archive.get(&Id::of(&plain)).is_err() && archive.get(&Id::of(&tested)).is_err());
        for n in 0..40 {
            archive.keep(&artifact(n, Some("cases"))).expect("it is kept");
        }
        assert_eq!(fs::read_dir(folder.path().join("policies")).expect("a folder").count(), 3 * KEPT);
    }
}
