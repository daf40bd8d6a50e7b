//! A file of lines that is reopened after log rotation moved or deleted it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often to check whether the path still names the open file.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub struct ReopeningFile {
    path: PathBuf,
    open: fn(&Path) -> io::Result<File>,
    file: File,
    checked_at: Instant,
    /// The file was moved, and no new one could be created at its path.
    moved: bool,
    /// The file may end within a line: the last write or reopening failed, or an earlier process left it so.
    pub torn: bool,
}

impl ReopeningFile {
    /// `open` opens the file, now and after each rotation.
    pub fn open(path: PathBuf, open: fn(&Path) -> io::Result<File>) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, open, file, checked_at: Instant::now(), moved: false, torn: false })
    }

    pub fn handle(&mut self) -> &mut File {
        &mut self.file
    }

    /// Reopens the file if its path names another file, or none. Returns whether it did. Checks once per [`CHECK_INTERVAL`], and before
    /// each write that follows a failure. An error means that written lines would be lost.
    pub fn reopen_if_moved(&mut self) -> io::Result<bool> {
        if !self.torn && self.checked_at.elapsed() < CHECK_INTERVAL {
            return Ok(false);
        }
        self.checked_at = Instant::now();
        let own = self.file.metadata()?;
        if std::fs::metadata(&self.path).is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())) {
            self.moved = false;
            return Ok(false);
        }
        match (self.open)(&self.path) {
            Ok(file) => {
                (self.file, self.moved, self.torn) = (file, false, false);
                Ok(true)
            }
            Err(error) if own.nlink() == 0 => {
                self.torn = true;
                Err(error)
            }
            // The moved file still exists, so its lines are not lost.
            Err(error) => {
                if !std::mem::replace(&mut self.moved, true) {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "the log file was moved and cannot be created again: lines are appended to the moved file");
                }
                Ok(false)
            }
        }
    }

    /// Appends whole lines. If the file ends within a line, that line is ended first.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if std::mem::replace(&mut self.torn, true) {
            self.file.write_all(b"\n")?;
        }
        self.file.write_all(lines)?;
        self.torn = false;
        Ok(())
    }

    #[cfg(test)]
    pub fn make_check_due(&mut self) {
        self.checked_at -= CHECK_INTERVAL;
    }
}

/// Opens a file for appending. A new file gets mode 0600; an existing one keeps its mode. A regular file of another user is refused:
/// someone may have put it there to read the lines.
pub fn open_for_append(path: &Path) -> io::Result<File> {
    // Opening a pipe for writing blocks until it has a reader. Opening it for reading as well does not.
    let is_pipe = std::fs::metadata(path).is_ok_and(|info| info.file_type().is_fifo());
    #[expect(
        clippy::disallowed_methods,
        reason = "a write to a pipe that is full waits, so it is not opened with O_NONBLOCK"
    )]
    let file = OpenOptions::new().append(true).read(is_pipe).create(true).mode(0o600).open(path)?;
    let (info, user) = (file.metadata()?, rustix::process::geteuid().as_raw());
    if info.is_file() && ![user, 0].contains(&info.uid()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file belongs to another user"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_another_user_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        drop(open_for_append(&path).expect("it opens"));
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            assert!(open_for_append(&path).expect_err("refused").to_string().contains("another user"));
        }
    }

    #[test]
    fn reopening_fails_only_while_lines_would_be_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let (within, away) = (folder.path().join("within"), folder.path().join("away"));
        std::fs::create_dir(&within).expect("made");
        let mut file = ReopeningFile::open(within.join("log"), open_for_append).expect("it opens");
        std::fs::rename(&within, &away).expect("moved");
        file.make_check_due();
        assert!(!file.reopen_if_moved().expect("the moved file keeps its lines"));
        file.handle().write_all(b"one\n").expect("written");
        assert_eq!(std::fs::read(away.join("log")).expect("it is there"), b"one\n");
        std::fs::remove_dir_all(&away).expect("removed");
        assert!(!file.reopen_if_moved().expect("it was checked just now"));
        file.make_check_due();
        for _ in 0..2 {
            file.reopen_if_moved().expect_err("its lines would be lost");
        }
        std::fs::create_dir(&within).expect("made");
        assert!(file.reopen_if_moved().expect("it opens"));
        file.handle().write_all(b"two\n").expect("written");
        assert_eq!(std::fs::read(within.join("log")).expect("it is there"), b"two\n");
    }
}
