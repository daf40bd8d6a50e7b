//! Files that a process trusts when it finds them again: nobody else may write to them, and each is either whole or not there.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::util::files;

/// Makes a folder that is this user's alone, unless it is there; one that others may write to is an error.
pub fn folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    owned(path)
}

/// Whether only this user may write to a file or folder.
pub fn owned(path: &Path) -> io::Result<()> {
    let info = fs::metadata(path)?;
    let alone = info.uid() == rustix::process::geteuid().as_raw() && info.mode() & 0o022 == 0;
    if alone { Ok(()) } else { Err(io::Error::other("somebody else may write to it")) }
}

/// Writes a file, in a folder that is this user's alone.
pub fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let parent = file.parent().unwrap_or(Path::new("."));
    folder(parent)?;
    // In the same folder, so that renaming is one step.
    let mut new = tempfile::NamedTempFile::new_in(parent)?;
    new.write_all(content)?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

/// Reads a file that nobody else may write to, of so many bytes at the most; none if it is not there.
pub fn read(file: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    files::if_there(owned(file).and_then(|()| files::read(file, limit)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_may_write_to_is_not_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("own/file");
        assert_eq!(read(&file, 10).expect("nothing"), None);
        write(&file, b"content").expect("written");
        assert_eq!(fs::metadata(file.parent().expect("it has one")).expect("it is there").mode() & 0o777, 0o700);
        assert_eq!(read(&file, 7).expect("read").as_deref(), Some(&b"content"[..]));
        assert!(read(&file, 6).expect_err("too long").to_string().contains("more than 6"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("set");
        assert!(read(&file, 10).expect_err("anybody's").to_string().contains("somebody else"));
        fs::set_permissions(dir.path().join("own"), fs::Permissions::from_mode(0o777)).expect("set");
        assert!(write(&file, b"").is_err());
    }
}
