//! The languages in which policies are written.

use std::path::Path;

use clap::ValueEnum;

/// A language with an SDK and examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
    #[value(name = "typescript", alias = "javascript")]
    TypeScript,
    Python,
    Go,
    C,
    /// Role-based only
    Zig,
}

/// The files that tell the language of a folder: its manifest, and the extensions of source files. A folder in C or Zig needs no manifest.
const FILES: [(Language, Option<&str>, &[&str]); 6] = [
    (Language::Rust, Some("Cargo.toml"), &["rs"]),
    (Language::Go, Some("go.mod"), &["go"]),
    (Language::TypeScript, Some("package.json"), &["ts", "tsx", "mts", "cts", "js", "jsx", "mjs", "cjs"]),
    (Language::Python, Some("pyproject.toml"), &["py"]),
    (Language::C, None, &["c"]),
    (Language::Zig, None, &["zig"]),
];

impl Language {
    /// The name in texts.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::TypeScript => "TypeScript",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::C => "C",
            Self::Zig => "Zig",
        }
    }

    pub fn of_file(file: &Path) -> Option<Self> {
        let extension = file.extension()?.to_str()?;
        FILES.iter().find(|(_, _, extensions)| extensions.contains(&extension)).map(|(language, ..)| *language)
    }

    /// The language of a folder's manifest, else of its source files if they have one language.
    pub fn of_folder(folder: &Path) -> std::io::Result<Option<Self>> {
        let has_manifest = |name: &Option<&str>| name.is_some_and(|name| folder.join(name).is_file());
        if let Some((language, ..)) = FILES.iter().find(|(_, manifest, _)| has_manifest(manifest)) {
            return Ok(Some(*language));
        }
        let mut found = None;
        for entry in folder.read_dir()? {
            let language = Self::of_file(&entry?.path());
            if found.is_some() && language.is_some() && found != language {
                return Ok(None);
            }
            found = found.or(language);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_is_detected_from_manifest_or_sources() {
        for (files, language) in [
            (&["Cargo.toml", "build.py"][..], Some(Language::Rust)),
            (&["package.json"], Some(Language::TypeScript)),
            (&["route.ts"], Some(Language::TypeScript)),
            (&["pyproject.toml", "app.py"], Some(Language::Python)),
            (&["app.py"], Some(Language::Python)),
            (&["go.mod", "main.go"], Some(Language::Go)),
            (&["Makefile", "policy.c", "test_policy.c"], Some(Language::C)),
            (&["policy.zig"], Some(Language::Zig)),
            (&["a.py", "b.c"], None),
            (&["README.md"], None),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            for file in files {
                std::fs::write(folder.path().join(file), "").expect("a file");
            }
            assert_eq!(Language::of_folder(folder.path()).expect("readable"), language, "{files:?}");
        }
    }
}
