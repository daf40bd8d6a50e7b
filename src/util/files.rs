//! Reads of files within a bound, and lists of directories.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Opens a regular file for reading.
pub fn open(path: &Path) -> io::Result<File> {
    let file = open_with(path, OFlags::RDONLY)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Opens a file with these flags; a new one is accessible to this user only. `O_NONBLOCK` because the open of a FIFO without another end
/// blocks for ever otherwise.
pub fn open_with(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Writes a file, which others may read. Readers see the old content or the new one, never a part. An irregular file, such as
/// a terminal, is written to.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|info| !info.is_file()) {
        return open_with(path, OFlags::WRONLY)?.write_all(content);
    }
    // A link stays a link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(parent)?;
    new.write_all(content)?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
}

/// Writes the directory's entries to disk.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    open_with(path, OFlags::RDONLY | OFlags::DIRECTORY)?.sync_all()
}

/// Reads a whole file; one of more than `max_bytes` is [`ErrorKind::FileTooLarge`].
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    read_open(open(path)?, max_bytes)
}

/// Reads the rest of an open file.
pub fn read_open(file: File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The bound is on the bytes that are read, not on the size in the metadata: another process may append meanwhile.
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text.
pub fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    String::from_utf8(read(path, max_bytes)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8 text"))
}

/// A path for messages. A text that cannot be meant as a path, such as a pasted key, is not shown.
pub fn display(path: &Path) -> String {
    const MAX_PATH_BYTES: usize = 4096;
    let text = path.to_string_lossy();
    let is_content = text.contains("-----") || text.contains(['{', '"']) || text.chars().any(char::is_control);
    if is_content || text.len() > MAX_PATH_BYTES { "a text that is not a path".into() } else { text.into_owned() }
}

/// `None` for a file that does not exist.
pub fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
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

#[cfg(test)]
mod tests {
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
}
