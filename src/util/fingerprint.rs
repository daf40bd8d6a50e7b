//! What tells one content of files from another without reading them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files as they are at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<[i64; 7]>>);

impl Fingerprint {
    /// The stamp of some files.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self(paths.into_iter().map(|path| fs::metadata(path).ok().map(|data| stamp(&data))).collect())
    }

    /// Whether the first of the files is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.first().is_some_and(Option::is_some)
    }
}

/// The time of the last change of the inode counts too: who copies a file with its times changes that.
fn stamp(data: &Metadata) -> [i64; 7] {
    let number = |n: u64| i64::from_ne_bytes(n.to_ne_bytes());
    let (device, inode, size) = (number(data.dev()), number(data.ino()), number(data.size()));
    [device, inode, size, data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()]
}

/// Files with what they were when they were looked at last.
#[derive(Clone, Debug, Default)]
pub struct FileSnapshot {
    paths: Vec<PathBuf>,
    stamp: Fingerprint,
}

impl FileSnapshot {
    /// Some files as they are now.
    #[must_use]
    pub fn now(paths: Vec<PathBuf>) -> Self {
        let stamp = Fingerprint::of(paths.iter().map(PathBuf::as_path));
        Self { paths, stamp }
    }

    /// More of them, as they are now.
    pub fn add(&mut self, paths: Vec<PathBuf>) {
        let more = Self::now(paths);
        self.paths.extend(more.paths);
        self.stamp.0.extend(more.stamp.0);
    }

    /// Where they are.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether the first of them was there.
    #[must_use]
    pub fn was_there(&self) -> bool {
        self.stamp.is_there()
    }

    /// Whether they are others by now.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        Fingerprint::of(self.paths.iter().map(PathBuf::as_path)) != self.stamp
    }
}
