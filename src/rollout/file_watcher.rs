//! Says that files may have changed: those that editors write in place or replace, that links point to, and links on the way to them, as
//! Kubernetes replaces all files of a `ConfigMap` at once. Whoever is told looks for himself.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Files are looked at this often too: not every file system tells of changes, and a folder may be replaced whole.
const POLL: Duration = Duration::from_secs(2);
/// As many links on the way to a file as the system follows.
const LINKS: usize = 40;

/// The folders that are watched: which inode each was.
type WatchedDirectories = BTreeMap<PathBuf, Option<(u64, u64)>>;

/// Watches some files.
pub struct Watch {
    sender: mpsc::Sender<()>,
    changed: mpsc::Receiver<()>,
    folders: WatchedDirectories,
    watcher: Option<RecommendedWatcher>,
}

impl Default for Watch {
    fn default() -> Self {
        let (sender, changed) = mpsc::channel(1);
        Self { sender, changed, folders: WatchedDirectories::new(), watcher: None }
    }
}

impl Watch {
    /// Watches these files from now on, by the folders that they and the links to them lie in now.
    pub fn set(&mut self, paths: &[PathBuf]) {
        let mut folders = WatchedDirectories::new();
        for path in paths {
            on_the_way(path, &mut folders);
        }
        if folders == self.folders {
            return;
        }
        let before = std::mem::replace(&mut self.folders, folders);
        match self.watcher() {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                if before.is_empty() || self.watcher.take().is_some() {
                    tracing::warn!(%error, "changes of files are seen by looking, every {POLL:?}");
                }
            }
        }
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let changed = self.sender.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Opening a file changes nothing; without this, reading would be a reason to read again.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                // A full channel says it already.
                let _ = changed.try_send(());
            }
        })?;
        for folder in self.folders.keys() {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    /// Waits until something may have changed.
    pub async fn changed(&mut self) {
        // The sender is here, so that the channel never closes.
        let _ = tokio::time::timeout(POLL, self.changed.recv()).await;
    }
}

/// The folders in which a change may make a path mean something else: that of the file, and those of all links on the way.
fn on_the_way(path: &Path, folders: &mut WatchedDirectories) {
    let mut watch = |folder: &Path| {
        let inode = fs::metadata(folder).ok().map(|info| (info.dev(), info.ino()));
        folders.insert(folder.to_path_buf(), inode);
    };
    let Ok(path) = std::path::absolute(path) else { return };
    let mut rest: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::CurDir) | None => continue,
            Some(Component::RootDir | Component::Prefix(_)) => {
                at = PathBuf::from(part);
                continue;
            }
            Some(Component::Normal(_)) => {}
        }
        let next = at.join(&part);
        if let Ok(target) = fs::read_link(&next) {
            watch(&at);
            links += 1;
            if links > LINKS {
                return;
            }
            for part in target.components().rev() {
                rest.push_front(part.as_os_str().to_owned());
            }
        } else if rest.is_empty() || !next.exists() {
            // The file itself; or what it needs is not there yet.
            watch(&at);
            return;
        } else {
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_on_the_way() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("its path");
        let at = |path: &str| root.join(path);
        for folder in ["map/..1", "store/v1", "plain"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        fs::write(at("map/..1/policy.wasm"), "").expect("a file");
        symlink("..1", at("map/..data")).expect("a link");
        symlink("..data/policy.wasm", at("map/policy.wasm")).expect("a link");
        symlink(at("store/v1"), at("current")).expect("a link");
        symlink("loop", at("loop")).expect("a link");
        let check = |path: &str, expect: &[&str]| {
            let mut folders = WatchedDirectories::new();
            on_the_way(&at(path), &mut folders);
            let expect: Vec<PathBuf> = expect.iter().map(|folder| at(folder)).collect();
            assert_eq!(folders.into_keys().collect::<Vec<_>>(), expect, "{path}");
        };
        check("plain/policy.wasm", &["plain"]);
        check("map/policy.wasm", &["map", "map/..1"]);
        check("current/policy.wasm", &["", "store/v1"]);
        check("current/../v2/policy.wasm", &["", "store"]);
        check("not/there/policy.wasm", &[""]);
        check("loop/policy.wasm", &[""]);
    }
}
