//! Files that are read whole.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file to be read. What is none, as a folder, or a pipe that nobody may ever write to, is an error and not waited for.
pub fn open(path: &Path) -> io::Result<File> {
    let not_waiting = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(not_waiting).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// Reads a file of so many bytes at the most; one that has more is [`ErrorKind::FileTooLarge`].
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Whatever its size is said to be, it may be written to meanwhile.
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Something that need not be there.
pub fn if_there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_told_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "content").expect("written");
        assert_eq!(read(&at("file"), 7).expect("read"), b"content");
        let error = read(&at("file"), 6).expect_err("it is longer");
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::FileTooLarge, "it has more than 6 bytes"));
        assert!(if_there(read(&at("none"), 1)).expect("that is no error").is_none());
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).expect("a pipe");
        for none in [at("pipe"), dir.path().into(), "/dev/zero".into()] {
            assert_eq!(read(&none, 1).expect_err("it is none").to_string(), "it is no file", "{}", none.display());
        }
    }
}
