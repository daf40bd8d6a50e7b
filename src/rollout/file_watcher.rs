//! Reports that files may have changed: files that are written in place or replaced, targets of symbolic links, and links in their paths, as
//! Kubernetes replaces all files of a `ConfigMap` at once. The receiver compares the files itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Files are compared at this interval in any case: not every file system reports changes, and a directory may be replaced as a whole.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Symbolic links in a path that are followed, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// The watched directories with device and inode, which differ for a directory that replaced another.
type WatchedDirectories = BTreeMap<PathBuf, Option<(u64, u64)>>;

/// Watches files by their directories.
pub struct FileWatcher {
    sender: mpsc::Sender<()>,
    changed: mpsc::Receiver<()>,
    directories: WatchedDirectories,
    watcher: Option<RecommendedWatcher>,
}

impl Default for FileWatcher {
    fn default() -> Self {
        let (sender, changed) = mpsc::channel(1);
        Self { sender, changed, directories: WatchedDirectories::new(), watcher: None }
    }
}

impl FileWatcher {
    /// Watches these files from now on, by the directories that contain them and the links in their paths.
    pub fn watch(&mut self, paths: &[PathBuf]) {
        let mut directories = WatchedDirectories::new();
        for path in paths {
            directories_to_watch(path, &mut directories);
        }
        if directories == self.directories {
            return;
        }
        let before = std::mem::replace(&mut self.directories, directories);
        match self.new_watcher() {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                if before.is_empty() || self.watcher.take().is_some() {
                    tracing::warn!(%error, "files cannot be watched; they are compared every {POLL_INTERVAL:?}");
                }
            }
        }
    }

    fn new_watcher(&self) -> notify::Result<RecommendedWatcher> {
        let changed = self.sender.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Opening a file changes nothing; without this check every read would cause the next one.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                // A full channel has the message already.
                let _ = changed.try_send(());
            }
        })?;
        for directory in self.directories.keys() {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    /// Waits until a file may have changed.
    pub async fn changed(&mut self) {
        // The channel never closes, because its sender is a field.
        let _ = tokio::time::timeout(POLL_INTERVAL, self.changed.recv()).await;
    }
}

/// Adds the directories in which a change may give a path another target: that of the file, and those of all links in the path.
fn directories_to_watch(path: &Path, directories: &mut WatchedDirectories) {
    let mut watch = |directory: &Path| {
        let inode = fs::metadata(directory).ok().map(|info| (info.dev(), info.ino()));
        directories.insert(directory.to_path_buf(), inode);
    };
    let Ok(path) = std::path::absolute(path) else { return };
    let names = |path: &Path| path.components().rev().map(|name| name.as_os_str().to_owned()).collect::<Vec<_>>();
    let (mut rest, mut at, mut links) = (names(&path), PathBuf::new(), 0);
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        if let Ok(target) = fs::read_link(&next) {
            watch(&at);
            links += 1;
            if links > MAX_LINKS {
                return;
            }
            rest.extend(names(&target));
        } else if rest.is_empty() || !next.exists() {
            // The file, or the first directory of its path that does not exist.
            watch(&at);
            return;
        } else if name != "." {
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn directories_of_file_and_links_are_watched() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("its path");
        let at = |path: &str| root.join(path);
        for directory in ["map/..1", "store/v1", "plain"] {
            fs::create_dir_all(at(directory)).expect("a directory");
        }
        fs::write(at("map/..1/policy.wasm"), "").expect("a file");
        symlink("..1", at("map/..data")).expect("a link");
        symlink("..data/policy.wasm", at("map/policy.wasm")).expect("a link");
        symlink(at("store/v1"), at("current")).expect("a link");
        symlink("loop", at("loop")).expect("a link");
        let check = |path: &str, expect: &[&str]| {
            let mut directories = WatchedDirectories::new();
            directories_to_watch(&at(path), &mut directories);
            let expect: Vec<PathBuf> = expect.iter().map(|directory| at(directory)).collect();
            assert_eq!(directories.into_keys().collect::<Vec<_>>(), expect, "{path}");
        };
        check("plain/policy.wasm", &["plain"]);
        check("map/policy.wasm", &["map", "map/..1"]);
        check("current/policy.wasm", &["", "store/v1"]);
        check("current/../v2/policy.wasm", &["", "store"]);
        check("not/there/policy.wasm", &[""]);
        check("loop/policy.wasm", &[""]);
    }
}
