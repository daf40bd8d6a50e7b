//! Which files test cases may read: any on the author's machine. Cases that come with a policy to a gateway may come from anyone, and
//! the gateway can read files that the operator does not share.

use std::path::{Component, Path, PathBuf};

/// Where key files may be.
#[derive(Clone, Copy, Debug)]
pub enum FileAccess<'a> {
    /// Anywhere; relative paths start in this directory.
    Anywhere(&'a Path),
    /// In this directory or below it.
    Below(&'a Path),
    /// Nowhere: the cases came without a directory.
    Nowhere,
}

impl FileAccess<'_> {
    /// The path to open.
    pub(super) fn resolve(self, path: &Path) -> Result<PathBuf, &'static str> {
        let is_below = || path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        match self {
            Self::Anywhere(folder) => Ok(folder.join(path)),
            Self::Below(folder) if is_below() => Ok(folder.join(path)),
            Self::Below(_) => Err("test cases in a gateway may only read files in their directory and below"),
            Self::Nowhere => {
                Err("test cases that are sent to a gateway read no files: sign their tokens with a secret")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_outside_of_the_directory_are_refused() {
        let (anywhere, below) = (FileAccess::Anywhere(Path::new("/a")), FileAccess::Below(Path::new("/a")));
        let file = |access: FileAccess<'_>, path: &str| access.resolve(Path::new(path)).ok();
        for (path, expected, is_below) in [
            ("k.pem", "/a/k.pem", true),
            ("./b/k.pem", "/a/./b/k.pem", true),
            ("../k.pem", "/a/../k.pem", false),
            ("b/../../k.pem", "/a/b/../../k.pem", false),
            ("/etc/k.pem", "/etc/k.pem", false),
        ] {
            assert_eq!(file(anywhere, path), Some(expected.into()), "{path}");
            assert_eq!(file(below, path).is_some(), is_below, "{path}");
            assert_eq!(file(FileAccess::Nowhere, path), None, "{path}");
        }
    }
}
