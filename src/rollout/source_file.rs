//! The file that a policy lies in, with its cases and its signature beside it: read when it is whole, and replaced at one moment.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::signature;
use crate::config::Config;
use crate::config::policy::PolicyMode;
use crate::policy::info::PolicyOrigin;
use crate::rollout::pipeline::MAX_CASES;
use crate::util::files;
use crate::util::fingerprint::Fingerprint;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// A file that others may write to is read anew so often at most, when it changed while it was read.
const ATTEMPTS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

/// Where a policy lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySource {
    /// The component.
    pub component: PathBuf,
    /// Its cases.
    pub cases: PathBuf,
    /// Whether the cases were named, and so have to be there.
    named: bool,
}

impl PolicySource {
    /// Where the configuration says that the policy lies; none if it is not a file.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        let PolicyMode::File(component) = &config.policy_mode else { return None };
        let beside = || component.with_extension("cases.toml");
        let (cases, named) = (config.rollout.cases.clone(), config.rollout.cases.is_some());
        Some(Self { component: component.clone(), cases: cases.unwrap_or_else(beside), named })
    }

    /// A component anywhere, with what lies beside it.
    #[must_use]
    pub fn at(component: PathBuf) -> Self {
        let cases = component.with_extension("cases.toml");
        Self { component, cases, named: false }
    }

    /// The same for those who ask.
    #[must_use]
    pub fn origin(&self) -> PolicyOrigin {
        PolicyOrigin { source: format!("file {}", self.component.display()), ..PolicyOrigin::default() }
    }

    /// The component's signature.
    #[must_use]
    pub fn signature(&self) -> PathBuf {
        signature::path_for(&self.component)
    }

    /// All of them, the component first.
    #[must_use]
    pub fn all(&self) -> [PathBuf; 3] {
        [self.component.clone(), self.cases.clone(), self.signature()]
    }

    /// What tells their content of now from any other.
    #[must_use]
    pub fn stamp(&self) -> Fingerprint {
        Fingerprint::of(self.all().iter().map(PathBuf::as_path))
    }

    /// Reads all of them, as they were at one moment.
    pub fn read(&self) -> io::Result<(PolicyBundle, Fingerprint)> {
        for _ in 0..ATTEMPTS {
            let before = self.stamp();
            let artifact = self.artifact()?;
            if self.stamp() == before {
                return Ok((artifact, before));
            }
            std::thread::sleep(BETWEEN);
        }
        Err(io::Error::other(format!("{}: it does not stop changing", self.component.display())))
    }

    fn artifact(&self) -> io::Result<PolicyBundle> {
        let component = files::read(&self.component, MAX_COMPONENT_BYTES)?;
        let cases = self.cases_text()?;
        let signature = optional(&self.signature(), signature::MAX_SIGNATURE_BYTES as u64)?;
        let folder = self.cases.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(PolicyBundle { cases, signature, cases_dir: Some(folder), ..PolicyBundle::new(component) })
    }

    /// The cases that lie beside the component.
    pub fn cases_text(&self) -> io::Result<Option<String>> {
        match optional(&self.cases, MAX_CASES as u64)? {
            None if self.named => {
                Err(io::Error::other(format!("{}: it is not there (policy.cases)", self.cases.display())))
            }
            cases => Ok(cases),
        }
    }

    /// Puts an artifact in the files' place, each at one moment. All are on disk before the first one is replaced: an error says
    /// why that cannot be done here, and then everything is as before.
    pub fn write(&self, artifact: &PolicyBundle) -> io::Result<Fingerprint> {
        let mut new = Vec::new();
        if let Some(signature) = &artifact.signature {
            new.push(prepare(&self.signature(), signature.as_bytes())?);
        }
        if let Some(cases) = artifact.cases.as_deref()
            && optional(&self.cases, MAX_CASES as u64)?.as_deref() != Some(cases)
        {
            new.push(prepare(&self.cases, cases.as_bytes())?);
        }
        new.push(prepare(&self.component, &artifact.component)?);
        for (file, path) in new {
            file.persist(path)?;
        }
        // What is left of them was another component's.
        if artifact.signature.is_none() {
            remove(&self.signature())?;
        }
        if artifact.cases.is_none() && !self.named {
            remove(&self.cases)?;
        }
        File::open(folder(&self.component))?.sync_all()?;
        Ok(self.stamp())
    }
}

/// A new file beside the one that it will replace, with that one's permissions, and on disk. A link is somebody's way of replacing
/// what it points to, so it is never replaced itself.
fn prepare(path: &Path, bytes: &[u8]) -> io::Result<(tempfile::NamedTempFile, PathBuf)> {
    let mode = match fs::symlink_metadata(path) {
        Ok(info) if info.is_symlink() => {
            return Err(io::Error::other(format!("{} is a link", path.display())));
        }
        Ok(info) => info.mode() & 0o777,
        Err(_) => 0o644,
    };
    let mut new = tempfile::Builder::new().prefix(".tidegate-").tempfile_in(folder(path))?;
    new.write_all(bytes)?;
    new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    Ok((new, path.to_path_buf()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn optional(path: &Path, most: u64) -> io::Result<Option<String>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let Some(bytes) = files::if_exists(files::read(path, most)).map_err(named)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| named(io::Error::other("it is not text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> PolicySource {
        let component = folder.join("policy.wasm");
        PolicySource { cases: component.with_extension("cases.toml"), component, named: false }
    }

    #[test]
    fn files_are_read_and_replaced_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = files(folder.path());
        assert_eq!(files.cases, folder.path().join("policy.cases.toml"));
        assert!(!files.stamp().first_exists());
        assert_eq!(files.read().expect_err("nothing is there").kind(), io::ErrorKind::NotFound);
        let one =
            PolicyBundle { cases: Some("cases".into()), signature: Some("sig".into()), ..PolicyBundle::new("one") };
        let stamp = files.write(&one).expect("it is written");
        let (read, at) = files.read().expect("it is read");
        assert_eq!((&*read.component, read.cases, read.signature, at), (&b"one"[..], one.cases, one.signature, stamp));
        fs::set_permissions(&files.component, fs::Permissions::from_mode(0o600)).expect("its permissions");
        files.write(&PolicyBundle::new("two")).expect("it is written");
        let (read, _) = files.read().expect("it is read");
        assert_eq!((&*read.component, read.cases.as_deref(), read.signature), (&b"two"[..], None, None));
        assert_eq!(fs::metadata(&files.component).expect("a file").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing else is left");
    }

    #[test]
    fn a_link_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = files(folder.path());
        fs::write(folder.path().join("one.wasm"), "one").expect("a file");
        std::os::unix::fs::symlink("one.wasm", &files.component).expect("a link");
        let with_cases = PolicyBundle { cases: Some("cases".into()), ..PolicyBundle::new("two") };
        assert!(files.write(&with_cases).expect_err("it is a link").to_string().contains("is a link"));
        let (read, _) = files.read().expect("it is read");
        assert_eq!((&*read.component, read.cases), (&b"one"[..], None), "all is as it was");
    }
}
