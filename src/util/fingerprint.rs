//! Fingerprints of files: whether a file has changed, without reading it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the metadata of some files says of their contents; `None` for a file that does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<[i64; 7]>>);

impl Fingerprint {
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self(paths.into_iter().map(|path| fs::metadata(path).ok().map(|data| identity(&data))).collect())
    }

    /// Whether the first of the files exists.
    pub fn first_exists(&self) -> bool {
        self.0.first().is_some_and(Option::is_some)
    }
}

/// Includes the inode's change time: `cp -p` and `rsync -t` preserve the modification time, but nothing preserves this one.
fn identity(data: &Metadata) -> [i64; 7] {
    let signed = |n: u64| i64::from_ne_bytes(n.to_ne_bytes());
    let (device, inode, size) = (signed(data.dev()), signed(data.ino()), signed(data.size()));
    [device, inode, size, data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()]
}

/// The paths of some files, with their fingerprint at the time when they were read.
#[derive(Clone, Debug, Default)]
pub struct FileSnapshot {
    paths: Vec<PathBuf>,
    fingerprint: Fingerprint,
}

impl FileSnapshot {
    pub fn take(paths: Vec<PathBuf>) -> Self {
        let fingerprint = Fingerprint::of(paths.iter().map(PathBuf::as_path));
        Self { paths, fingerprint }
    }

    /// Adds files as they are now.
    pub fn add(&mut self, paths: Vec<PathBuf>) {
        let more = Self::take(paths);
        self.paths.extend(more.paths);
        self.fingerprint.0.extend(more.fingerprint.0);
    }

    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether the first of the files existed.
    pub fn first_existed(&self) -> bool {
        self.fingerprint.first_exists()
    }

    /// Whether any of the files has changed since the snapshot.
    pub fn has_changed(&self) -> bool {
        Fingerprint::of(self.paths.iter().map(PathBuf::as_path)) != self.fingerprint
    }
}
