//! Which files cases may name. On an author's desk any; those that come with a policy to a gateway are whoever's, and the gateway may
//! read what its operator would show to nobody.

use std::path::{Component, Path, PathBuf};

/// Where files of keys may lie.
#[derive(Clone, Copy, Debug)]
pub enum FileAccess<'a> {
    /// Anywhere; a relative path is meant from this folder.
    Anywhere(&'a Path),
    /// In this folder or below it.
    Below(&'a Path),
    /// Nowhere: the cases came without a folder.
    Nowhere,
}

impl FileAccess<'_> {
    /// The file that a path means.
    pub(super) fn file(self, path: &Path) -> Result<PathBuf, &'static str> {
        let is_below = || path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        match self {
            Self::Anywhere(folder) => Ok(folder.join(path)),
            Self::Below(folder) if is_below() => Ok(folder.join(path)),
            Self::Below(_) => Err("cases of a policy in a gateway read files beside them and below, and no others"),
            Self::Nowhere => Err("cases that were sent to a gateway read no files: sign their tokens with a secret"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let (desk, below) = (FileAccess::Anywhere(Path::new("/a")), FileAccess::Below(Path::new("/a")));
        let file = |reach: FileAccess<'_>, path: &str| reach.file(Path::new(path)).ok();
        for (path, anywhere, inside) in [
            ("k.pem", "/a/k.pem", true),
            ("./b/k.pem", "/a/./b/k.pem", true),
            ("../k.pem", "/a/../k.pem", false),
            ("b/../../k.pem", "/a/b/../../k.pem", false),
            ("/etc/k.pem", "/etc/k.pem", false),
        ] {
            assert_eq!(file(desk, path), Some(anywhere.into()), "{path}");
            assert_eq!(file(below, path).is_some(), inside, "{path}");
            assert_eq!(file(FileAccess::Nowhere, path), None, "{path}");
        }
    }
}
