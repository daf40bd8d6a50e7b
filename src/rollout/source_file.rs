//! The file of a policy, with its test cases and its signature: read together, and replaced one by one.

use std::fs;
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

/// Reads of files that change while they are read.
const MAX_READS: u32 = 20;
const READ_INTERVAL: Duration = Duration::from_millis(100);

/// The files of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySource {
    pub component: PathBuf,
    pub cases: PathBuf,
    /// Whether the configuration names the test cases, so that the file must exist.
    cases_required: bool,
}

impl PolicySource {
    /// The files that the configuration names; `None` if the policy is not a file.
    pub fn of(config: &Config) -> Option<Self> {
        let PolicyMode::File(component) = &config.policy_mode else { return None };
        let source = Self::at(component.clone());
        let Some(cases) = config.rollout.cases.clone() else { return Some(source) };
        Some(Self { cases, cases_required: true, ..source })
    }

    /// A component, with the test cases of the same name, if there are any.
    pub fn at(component: PathBuf) -> Self {
        let cases = component.with_extension("cases.toml");
        Self { component, cases, cases_required: false }
    }

    /// The origin of a policy from these files.
    pub fn origin(&self) -> PolicyOrigin {
        PolicyOrigin { source: format!("file {}", self.component.display()), ..PolicyOrigin::default() }
    }

    /// The component's signature.
    pub fn signature(&self) -> PathBuf {
        signature::path_for(&self.component)
    }

    /// The directory that paths in the test cases are relative to.
    pub fn cases_dir(&self) -> Option<PathBuf> {
        self.cases.parent().map(Into::into)
    }

    /// All files, the component first.
    pub fn paths(&self) -> [PathBuf; 3] {
        [self.component.clone(), self.cases.clone(), self.signature()]
    }

    /// Differs when one of the files changes.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.paths().iter().map(PathBuf::as_path))
    }

    /// Reads all files as they are at one moment.
    pub fn read(&self) -> io::Result<(PolicyBundle, Fingerprint)> {
        for _ in 0..MAX_READS {
            let before = self.fingerprint();
            let bundle = self.read_once()?;
            if self.fingerprint() == before {
                return Ok((bundle, before));
            }
            std::thread::sleep(READ_INTERVAL);
        }
        Err(io::Error::other(format!("{}: does not stop changing", self.component.display())))
    }

    fn read_once(&self) -> io::Result<PolicyBundle> {
        let component = files::read(&self.component, MAX_COMPONENT_BYTES)?;
        let cases = self.read_cases()?;
        let signature = read_optional(&self.signature(), signature::MAX_SIGNATURE_BYTES as u64)?;
        Ok(PolicyBundle { cases, signature, cases_dir: self.cases_dir(), ..PolicyBundle::new(component) })
    }

    /// Reads the test cases.
    pub fn read_cases(&self) -> io::Result<Option<String>> {
        match read_optional(&self.cases, MAX_CASES as u64)? {
            None if self.cases_required => {
                let path = self.cases.display();
                Err(io::Error::other(format!("{path}: the file that policy.cases names does not exist")))
            }
            cases => Ok(cases),
        }
    }

    /// Replaces each file atomically. All new files are on disk before the first is replaced: after an error, nothing is changed.
    pub fn write(&self, bundle: &PolicyBundle) -> io::Result<Fingerprint> {
        let mut new = Vec::new();
        if let Some(signature) = &bundle.signature {
            new.push(write_temporary(&self.signature(), signature.as_bytes())?);
        }
        if let Some(cases) = bundle.cases.as_deref()
            && read_optional(&self.cases, MAX_CASES as u64)?.as_deref() != Some(cases)
        {
            new.push(write_temporary(&self.cases, cases.as_bytes())?);
        }
        new.push(write_temporary(&self.component, &bundle.component)?);
        for (file, path) in new {
            file.persist(path)?;
        }
        // The remaining files belong to the replaced component.
        if bundle.signature.is_none() {
            files::if_exists(fs::remove_file(self.signature()))?;
        }
        if bundle.cases.is_none() && !self.cases_required {
            files::if_exists(fs::remove_file(&self.cases))?;
        }
        files::sync_directory(directory(&self.component))?;
        Ok(self.fingerprint())
    }
}

/// Writes a file to disk that will replace the one at `path`, with the same permissions. A symbolic link is never replaced: an operator
/// switches its target.
fn write_temporary(path: &Path, bytes: &[u8]) -> io::Result<(tempfile::NamedTempFile, PathBuf)> {
    let mode = match fs::symlink_metadata(path) {
        Ok(info) if info.is_symlink() => {
            return Err(io::Error::other(format!("{} is a symbolic link", path.display())));
        }
        Ok(info) => info.mode() & 0o777,
        Err(_) => 0o644,
    };
    let mut new = tempfile::Builder::new().prefix(".tidegate-").tempfile_in(directory(path))?;
    new.write_all(bytes)?;
    new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    Ok((new, path.to_path_buf()))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read_optional(path: &Path, max_bytes: u64) -> io::Result<Option<String>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let Some(bytes) = files::if_exists(files::read(path, max_bytes)).map_err(named)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| named(io::Error::other("not UTF-8 text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_replaced_together() {
        let folder = tempfile::tempdir().expect("a directory");
        let files = PolicySource::at(folder.path().join("policy.wasm"));
        assert_eq!(files.cases, folder.path().join("policy.cases.toml"));
        assert!(!files.fingerprint().first_exists());
        assert_eq!(files.read().expect_err("nothing is there").kind(), io::ErrorKind::NotFound);
        let one =
            PolicyBundle { cases: Some("cases".into()), signature: Some("sig".into()), ..PolicyBundle::new("one") };
        let fingerprint = files.write(&one).expect("it is written");
        let (read, at) = files.read().expect("it is read");
        assert_eq!(
            (&*read.component, read.cases, read.signature, at),
            (&b"one"[..], one.cases, one.signature, fingerprint)
        );
        fs::set_permissions(&files.component, fs::Permissions::from_mode(0o600)).expect("its permissions");
        files.write(&PolicyBundle::new("two")).expect("it is written");
        let (read, _) = files.read().expect("it is read");
        assert_eq!((&*read.component, read.cases.as_deref(), read.signature), (&b"two"[..], None, None));
        assert_eq!(fs::metadata(&files.component).expect("a file").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a directory").count(), 1, "nothing else is left");
    }

    #[test]
    fn symbolic_link_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a directory");
        let files = PolicySource::at(folder.path().join("policy.wasm"));
        fs::write(folder.path().join("one.wasm"), "one").expect("a file");
        std::os::unix::fs::symlink("one.wasm", &files.component).expect("a link");
        let with_cases = PolicyBundle { cases: Some("cases".into()), ..PolicyBundle::new("two") };
        assert!(
            files.write(&with_cases).expect_err("it is a symbolic link").to_string().contains("is a symbolic link")
        );
        let (read, _) = files.read().expect("it is read");
        assert_eq!((&*read.component, read.cases), (&b"one"[..], None), "all is as it was");
    }
}
