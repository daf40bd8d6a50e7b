//! Directories that only this user can write to, checked from the root of the file system down.
//!
//! A private directory does not help if another user can rename it, or a directory above it, and put another one there. So each
//! directory of the path has to belong to this user or root, and others may write to it only if its sticky bit protects the entries.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use crate::util::files;

/// The kernel's limit for symbolic links in a path.
const MAX_LINKS: usize = 40;
/// The directory protects its entries from users who can write to it but do not own the entry.
const STICKY: u32 = 0o1000;

/// Why a path is not private. It is the inner error of an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    #[error(
        "{0}: other users may write to it (mode {1:o}): take this right away (`chmod go-w`), or name a directory that only the user of \
         this process can write to, below directories that others cannot write to or that have the sticky bit"
    )]
    Writable(PathBuf, u32),
    #[error(
        "{0}: belongs to another user (uid {1}), who may write to it: it has to belong to the user of this process (uid {2}){3}"
    )]
    Owner(PathBuf, u32, u32, &'static str),
}

/// A directory whose files only this user can write, create, replace and rename. Each operation checks the directories of its path, so
/// that one whose rights change later is noticed.
#[derive(Clone, Debug)]
pub struct PrivateDir(PathBuf);

impl PrivateDir {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The path of a file in it, for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Why the directory is not private, if the directories of its path that exist show it.
    pub fn fault(&self) -> Option<NotPrivate> {
        self.open_dir(false).err()?.downcast().ok()
    }

    /// Creates the directory, and missing ones above it, so that only this user can enter them.
    pub fn create(&self) -> io::Result<()> {
        self.open_dir(true).map(drop)
    }

    fn open_dir(&self, create: bool) -> io::Result<OwnedFd> {
        let (dir, metadata) = walk(&self.0, create)?;
        check_own(&self.0, &metadata)?;
        Ok(dir)
    }

    /// Opens a file for reading and checks the opened file; `None` if it does not exist.
    pub fn open(&self, name: &str) -> io::Result<Option<File>> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(self.open_dir(false)?, name, flags, Mode::empty())?);
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("not a regular file"));
            }
            check_own(&self.path(name), &metadata)?;
            Ok(file)
        };
        files::if_exists(open())
    }

    /// Reads a whole file; `None` if it does not exist.
    pub fn read(&self, name: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        self.open(name)?.map(|file| files::read_open(file, max_bytes)).transpose()
    }

    /// Writes a file. Readers see the old content or the new one, never a part.
    pub fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        self.create()?;
        // In the same directory, because a rename is atomic only within one file system. The path still leads to the directory that was
        // checked, because no other user can change it.
        let mut new = tempfile::NamedTempFile::new_in(&self.0)?;
        parts.iter().try_for_each(|part| new.write_all(part))?;
        new.as_file().sync_all()?;
        new.persist(self.path(name))?;
        Ok(())
    }

    /// Opens a file for locking, and creates it if necessary.
    pub fn open_lock(&self, name: &str) -> io::Result<File> {
        let dir = self.open_dir(true)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Replaces the file `to` with the file `from`.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let dir = self.open_dir(false)?;
        Ok(rustix::fs::renameat(&dir, from, &dir, to)?)
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let remove = || Ok(rustix::fs::unlinkat(self.open_dir(false)?, name, rustix::fs::AtFlags::empty())?);
        files::if_exists(remove()).map(drop)
    }

    /// The names of the files, the oldest first; none if the directory does not exist.
    pub fn list_by_age(&self) -> io::Result<Vec<String>> {
        if files::if_exists(self.open_dir(false))?.is_none() {
            return Ok(Vec::new());
        }
        let paths = files::list_by_age(&self.0)?;
        Ok(paths.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    /// Removes all but the newest `keep` of these files, which other processes may be removing at the same time.
    pub fn prune(&self, oldest_first: &[String], keep: usize) -> io::Result<()> {
        let surplus = oldest_first.len().saturating_sub(keep);
        oldest_first[..surplus].iter().try_for_each(|name| self.remove(name))
    }
}

/// Opens a directory step by step, and checks each opened directory. Missing ones are created with `create`.
fn walk(path: &Path, create: bool) -> io::Result<(OwnedFd, Metadata)> {
    let root = || open_step(CWD, OsStr::new("/"));
    let mut steps: VecDeque<OsString> = steps(&std::path::absolute(path)?).collect();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let (mut dir, mut metadata) = root()?;
    while let Some(step) = steps.pop_front() {
        let next = match open_step(&dir, &step) {
            Err(error) if create && error.kind() == ErrorKind::NotFound => {
                match rustix::fs::mkdirat(&dir, &*step, Mode::RWXU) {
                    // Another process of this user may have been faster.
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(at_path(&at.join(&step), &error.into())),
                }
                open_step(&dir, &step)
            }
            next => next,
        };
        let here = at.join(&step);
        let (next, found) = next.map_err(|error| at_path(&here, &error))?;
        if found.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(at_path(&here, &rustix::io::Errno::LOOP.into()));
            }
            check_owner(&here, &found)?;
            let target =
                PathBuf::from(OsString::from_vec(rustix::fs::readlinkat(&dir, &*step, Vec::new())?.into_bytes()));
            if target.is_absolute() {
                (dir, metadata) = root()?;
                at = PathBuf::from("/");
            }
            for step in self::steps(&target).collect::<Vec<_>>().into_iter().rev() {
                steps.push_front(step);
            }
            continue;
        }
        if !found.is_dir() {
            return Err(at_path(&here, &ErrorKind::NotADirectory.into()));
        }
        check_owner(&here, &found)?;
        if found.mode() & STICKY == 0 {
            check_mode(&here, &found)?;
        }
        (dir, metadata, at) = (next, found, here);
    }
    Ok((dir, metadata))
}

/// The names in a path, and `..`, which has a meaning after a symbolic link.
fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
}

fn open_step(dir: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<(OwnedFd, Metadata)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    Ok((file.into(), metadata))
}

/// Checks that only this user may write to something.
fn check_own(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(refuse(NotPrivate::Owner(path.into(), metadata.uid(), user, "")));
    }
    check_mode(path, metadata)
}

/// Checks that something belongs to this user or to root.
fn check_owner(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if [user, 0].contains(&metadata.uid()) {
        return Ok(());
    }
    Err(refuse(NotPrivate::Owner(path.into(), metadata.uid(), user, " or to root")))
}

fn check_mode(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mode = metadata.mode() & 0o7777;
    if is_writable_by_others(mode, metadata.uid(), metadata.gid()) {
        return Err(refuse(NotPrivate::Writable(path.into(), mode)));
    }
    Ok(())
}

/// Many systems give each user a group of the same number, which has no other member, and a umask with which this group may write.
const fn is_writable_by_others(mode: u32, owner: u32, group: u32) -> bool {
    let is_private_group = owner != 0 && owner == group;
    mode & 0o002 != 0 || (mode & 0o020 != 0 && !is_private_group)
}

fn refuse(fault: NotPrivate) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, fault)
}

/// The error of a step, with its path.
fn at_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    /// A private directory with a file, two levels below a temporary one.
    fn fixture() -> (tempfile::TempDir, PrivateDir) {
        let root = tempfile::tempdir().expect("a directory");
        let dir = PrivateDir::new(root.path().join("cache/own"));
        dir.write("file", &[b"con", b"tent"]).expect("written");
        (root, dir)
    }

    fn read(dir: &PrivateDir) -> io::Result<Option<Vec<u8>>> {
        dir.read("file", 7)
    }

    #[test]
    fn files_are_written_read_and_removed() {
        let (root, dir) = fixture();
        assert_eq!(fs::metadata(root.path().join("cache")).expect("created").mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(dir.path("file")).expect("created").mode() & 0o777, 0o600);
        assert_eq!(read(&dir).expect("read").as_deref(), Some(&b"content"[..]));
        assert!(dir.read("file", 6).expect_err("too long").to_string().contains("larger than 6"));
        dir.rename("file", "other").expect("renamed");
        assert_eq!(dir.list_by_age().expect("listed"), ["other"]);
        dir.remove("other").expect("removed");
        dir.remove("other").expect("it need not be there");
        assert!(read(&dir).expect("nothing").is_none() && dir.fault().is_none());
        let missing = PrivateDir::new(root.path().join("no/such"));
        assert!(read(&missing).expect("nothing").is_none() && missing.list_by_age().expect("nothing").is_empty());
        missing.remove("file").expect("it need not be there");
    }

    #[test]
    fn directories_that_others_may_write_to_are_refused_unless_sticky() {
        let (root, dir) = fixture();
        for (path, mode, refused) in [
            ("cache/own/file", 0o620, true),
            ("cache/own/file", 0o644, false),
            ("cache/own", 0o770, true),
            ("cache/own", 0o1777, true),
            ("cache/own", 0o755, false),
            ("cache", 0o777, true),
            ("cache", 0o2775, true),
            ("cache", 0o1777, false),
            ("cache", 0o755, false),
            ("", 0o702, true),
            ("", 0o1777, false),
        ] {
            let changed = root.path().join(path);
            let metadata = fs::metadata(&changed).expect("it exists");
            let before = metadata.mode();
            // The directories of the test have the group of this process.
            let refused =
                refused && (mode & 0o1002 != 0 || is_writable_by_others(0o020, metadata.uid(), metadata.gid()));
            set_mode(&changed, mode);
            assert_eq!(read(&dir).is_err(), refused, "{path} {mode:o}");
            if refused && path != "cache/own/file" {
                let fault = dir.fault().expect("a fault").to_string();
                let path = changed.components().as_path().display().to_string();
                assert!(fault.starts_with(&path) && fault.contains("other users may write to it"), "{fault}");
                assert!(dir.write("new", &[b""]).is_err() && dir.create().is_err() && dir.list_by_age().is_err());
                assert!(dir.remove("file").is_err() && dir.rename("file", "x").is_err());
            }
            set_mode(&changed, before);
        }
        assert!(read(&dir).expect("as before").is_some());
    }

    #[test]
    fn private_group_of_a_user_is_not_another_user() {
        assert!(!is_writable_by_others(0o775, 1000, 1000));
        assert!(is_writable_by_others(0o775, 1000, 100) && is_writable_by_others(0o775, 0, 0));
        assert!(is_writable_by_others(0o777, 1000, 1000) && !is_writable_by_others(0o755, 0, 0));
    }

    #[test]
    fn directories_and_files_of_other_users_are_refused() {
        if !rustix::process::geteuid().is_root() {
            // Only root can give a file away, but this directory is root's.
            let error =
                check_own(Path::new("/"), &fs::metadata("/").expect("the root")).expect_err("root's").to_string();
            assert!(error.contains("uid 0"), "{error}");
            return;
        }
        let (root, dir) = fixture();
        for path in ["cache/own/file", "cache/own", "cache", ""] {
            let given = root.path().join(path);
            std::os::unix::fs::chown(&given, Some(65_534), None).expect("given away");
            let error = read(&dir).expect_err(path).to_string();
            assert!(error.contains("uid 65534"), "{error}");
            std::os::unix::fs::chown(&given, Some(0), None).expect("taken back");
        }
        assert!(read(&dir).expect("as before").is_some());
    }

    #[test]
    fn links_to_files_are_refused_and_links_of_this_user_to_directories_are_followed_and_checked() {
        let (root, dir) = fixture();
        let at = |path: &str| root.path().join(path);
        fs::rename(at("cache/own/file"), at("cache/target")).expect("moved");
        symlink("../target", at("cache/own/file")).expect("a link");
        assert!(read(&dir).is_err());
        rustix::fs::mkfifoat(CWD, at("cache/own/pipe"), Mode::RUSR).expect("a FIFO");
        assert!(dir.read("pipe", 1).expect_err("a FIFO").to_string().contains("not a regular file"));
        fs::create_dir_all(at("disk/a/own")).expect("created");
        fs::write(at("disk/a/own/file"), "content").expect("written");
        symlink("disk/b/../a/own/..", at("link")).expect("a link");
        fs::create_dir(at("disk/b")).expect("created");
        let linked = PrivateDir::new(at("link/own"));
        assert!(read(&linked).expect("read").is_some());
        set_mode(&at("disk"), 0o777);
        assert!(read(&linked).is_err(), "the target is checked as well");
        symlink("loop", at("loop")).expect("a link");
        assert!(PrivateDir::new(at("loop/own")).create().is_err());
        fs::write(at("plain"), "").expect("written");
        assert!(PrivateDir::new(at("plain/own")).create().is_err());
    }

    #[test]
    fn prune_keeps_the_newest_files() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = PrivateDir::new(root.path().into());
        for (name, age) in [("c", 1), ("a", 2), ("b", 3)] {
            let file = File::create(dir.path(name)).expect("created");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("set");
        }
        let oldest_first = dir.list_by_age().expect("listed");
        assert_eq!(oldest_first, ["b", "a", "c"]);
        dir.prune(&oldest_first, 3).expect("nothing to remove");
        dir.prune(&oldest_first, 2).expect("pruned");
        assert_eq!(dir.list_by_age().expect("listed"), ["a", "c"]);
    }

    #[test]
    fn prune_tolerates_files_that_another_process_removes() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = PrivateDir::new(root.path().into());
        for n in 0..2_000 {
            fs::write(dir.path(&n.to_string()), "").expect("written");
        }
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let prune = || {
                start.wait();
                dir.list_by_age().and_then(|files| dir.prune(&files, 1))
            };
            for thread in [scope.spawn(prune), scope.spawn(prune)] {
                thread.join().expect("no panic").expect("pruned");
            }
        });
        assert_eq!(dir.list_by_age().expect("listed").len(), 1);
    }
}
