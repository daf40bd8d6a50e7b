//! A file at the end of which lines are written, under a name that others may take away, as those do who rotate logs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is looked whether the file is still the one of that name.
const LOOK: Duration = Duration::from_secs(1);

/// The file.
pub struct ReopeningFile {
    path: PathBuf,
    open: fn(&Path) -> io::Result<File>,
    file: File,
    looked: Instant,
    /// It was moved away, and there is no other.
    moved: bool,
}

impl ReopeningFile {
    /// Opens it, now and when another one has its name.
    pub fn open(path: PathBuf, open: fn(&Path) -> io::Result<File>) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, open, file, looked: Instant::now(), moved: false })
    }

    /// The file of now.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Opens the file anew where another one has its name, or none. True if it did. It is looked now and then, unless at once. An error
    /// means that what is written would be lost.
    pub fn follow(&mut self, at_once: bool) -> io::Result<bool> {
        if !at_once && self.looked.elapsed() < LOOK {
            return Ok(false);
        }
        self.looked = Instant::now();
        let own = self.file.metadata()?;
        if std::fs::metadata(&self.path).is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())) {
            self.moved = false;
            return Ok(false);
        }
        match (self.open)(&self.path) {
            Ok(file) => {
                (self.file, self.moved) = (file, false);
                Ok(true)
            }
            Err(error) if own.nlink() == 0 => Err(error),
            // Whoever moved it away has the lines.
            Err(error) => {
                if !std::mem::replace(&mut self.moved, true) {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "it was moved away and cannot be made anew: lines go on to where it is now");
                }
                Ok(false)
            }
        }
    }

    /// For a test: a look is due.
    #[cfg(test)]
    pub fn look_again(&mut self) {
        self.looked -= LOOK;
    }
}

/// Opens a file to write at its end. The mode is that of a file that is made here; one that is there keeps its own.
pub fn at_its_end(path: &Path) -> io::Result<File> {
    // A pipe that nobody reads is not waited for: who is its reader, too, is not.
    let is_pipe = std::fs::metadata(path).is_ok_and(|info| info.file_type().is_fifo());
    OpenOptions::new().append(true).read(is_pipe).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_cannot_be_made_anew_is_an_error_as_long_as_lines_would_be_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let (within, away) = (folder.path().join("within"), folder.path().join("away"));
        std::fs::create_dir(&within).expect("made");
        let mut named = ReopeningFile::open(within.join("log"), at_its_end).expect("it opens");
        std::fs::rename(&within, &away).expect("moved");
        assert!(!named.follow(true).expect("its lines are where it went"));
        named.file().write_all(b"one\n").expect("written");
        assert_eq!(std::fs::read(away.join("log")).expect("it is there"), b"one\n");
        std::fs::remove_dir_all(&away).expect("removed");
        assert!(!named.follow(false).expect("it was looked at just now"));
        for _ in 0..2 {
            named.follow(true).expect_err("nobody would see its lines");
        }
        std::fs::create_dir(&within).expect("made");
        assert!(named.follow(true).expect("it opens"));
        named.file().write_all(b"two\n").expect("written");
        assert_eq!(std::fs::read(within.join("log")).expect("it is there"), b"two\n");
    }
}
