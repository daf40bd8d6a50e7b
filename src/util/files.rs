//! Files: reads within a bound, files that only this user may write to, and pruning of directories.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Opens a regular file for reading. `O_NONBLOCK` because the open of a FIFO without a writer blocks for ever otherwise.
pub fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Reads a whole file; one of more than `max_bytes` is [`ErrorKind::FileTooLarge`].
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The bound is on the bytes that are read, not on the size in the metadata: another process may append meanwhile.
    open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text.
pub fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    String::from_utf8(read(path, max_bytes)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8 text"))
}

/// `None` for a file that does not exist.
pub fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Creates a directory that only this user can enter; an existing one that others may write to is an error.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    check_private(path)
}

/// Checks that only this user may write to a file or directory.
pub fn check_private(path: &Path) -> io::Result<()> {
    let info = fs::metadata(path)?;
    let is_private = info.uid() == rustix::process::geteuid().as_raw() && info.mode() & 0o022 == 0;
    if is_private { Ok(()) } else { Err(io::Error::other("other users may write to it")) }
}

/// Writes a file into a private directory, creating the directory if necessary. Readers see the old content or the new one, never a part.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    create_private_dir(parent)?;
    // In the same directory, because a rename is atomic only within one file system.
    let mut new = tempfile::NamedTempFile::new_in(parent)?;
    new.write_all(content)?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
}

/// Reads a whole file that only this user may write to; `None` if it does not exist.
pub fn read_private(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    if_exists(check_private(path).and_then(|()| read(path, max_bytes)))
}

/// The files of a directory, the oldest first; none if it does not exist. Other processes may remove files at the same time.
pub fn list_by_age(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in if_exists(fs::read_dir(directory))?.into_iter().flatten() {
        let entry = entry?;
        if let Some(info) = if_exists(entry.metadata())? {
            files.push((info.modified()?, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Removes all but the newest `keep` of these files, which other processes may be removing at the same time.
pub fn prune(oldest_first: &[PathBuf], keep: usize) -> io::Result<()> {
    let surplus = oldest_first.len().saturating_sub(keep);
    oldest_first[..surplus].iter().try_for_each(|file| if_exists(fs::remove_file(file)).map(drop))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn reads_of_irregular_files_fail_without_blocking() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "content").expect("written");
        assert_eq!(read(&at("file"), 7).expect("read"), b"content");
        let error = read(&at("file"), 6).expect_err("it is longer");
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::FileTooLarge, "larger than 6 bytes"));
        assert!(if_exists(read(&at("missing"), 1)).expect("not an error").is_none());
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).expect("a pipe");
        for path in [at("pipe"), dir.path().into(), "/dev/zero".into()] {
            assert_eq!(read(&path, 1).expect_err("refused").to_string(), "not a regular file", "{}", path.display());
        }
    }

    #[test]
    fn files_that_others_may_write_to_are_not_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("own/file");
        assert_eq!(read_private(&file, 10).expect("nothing"), None);
        write_private(&file, b"content").expect("written");
        assert_eq!(fs::metadata(file.parent().expect("a parent")).expect("created").mode() & 0o777, 0o700);
        assert_eq!(read_private(&file, 7).expect("read").as_deref(), Some(&b"content"[..]));
        assert!(read_private(&file, 6).expect_err("too long").to_string().contains("larger than 6"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("set");
        assert!(read_private(&file, 10).expect_err("writable by all").to_string().contains("other users"));
        fs::set_permissions(dir.path().join("own"), fs::Permissions::from_mode(0o777)).expect("set");
        assert!(write_private(&file, b"").is_err());
    }

    #[test]
    fn prune_keeps_the_newest_files() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, age) in [("c", 1), ("a", 2), ("b", 3)] {
            let file = File::create(dir.path().join(name)).expect("created");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("set");
        }
        let oldest_first = list_by_age(dir.path()).expect("listed");
        prune(&oldest_first, 3).expect("nothing to remove");
        prune(&oldest_first, 2).expect("pruned");
        assert!(!dir.path().join("b").exists() && dir.path().join("a").exists() && dir.path().join("c").exists());
    }

    #[test]
    fn prune_tolerates_files_that_another_process_removes() {
        let dir = tempfile::tempdir().expect("a directory");
        for n in 0..2_000 {
            fs::write(dir.path().join(n.to_string()), "").expect("written");
        }
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let prune = || {
                start.wait();
                list_by_age(dir.path()).and_then(|files| prune(&files, 1))
            };
            for thread in [scope.spawn(prune), scope.spawn(prune)] {
                thread.join().expect("no panic").expect("pruned");
            }
        });
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
    }
}
