//! Which modules of packages have no side effects, as their package.json tells bundlers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::Value;

use crate::commands::policy::build::typescript::MAX_SOURCE_BYTES;
use crate::util::files;

/// What the package.json files of packages say, by their folder.
#[derive(Default)]
pub struct SideEffects(BTreeMap<PathBuf, Option<Declared>>);

/// The field `sideEffects` of a package.json.
enum Declared {
    /// It is missing, or it cannot be understood.
    Unknown,
    None,
    /// Only modules with these paths have some.
    In(GlobSet),
}

impl SideEffects {
    /// Whether the module of a package has no side effects: if nothing uses its exports, it need not be evaluated. The nearest package.json
    /// tells it.
    pub fn has_none(&mut self, file: &Path) -> bool {
        let mut folders = file.ancestors().skip(1).take_while(|folder| !folder.ends_with("node_modules"));
        folders
            .find_map(|folder| {
                let declared = self.0.entry(folder.to_owned()).or_insert_with(|| Declared::read(folder));
                let path = file.strip_prefix(folder).ok()?;
                Some(match declared.as_ref()? {
                    Declared::Unknown => false,
                    Declared::None => true,
                    Declared::In(globs) => !globs.is_match(path),
                })
            })
            .unwrap_or_default()
    }
}

impl Declared {
    /// `None` if there is no package.json.
    fn read(folder: &Path) -> Option<Self> {
        let text = files::read_text(&folder.join("package.json"), MAX_SOURCE_BYTES).ok()?;
        let package: Value = serde_json::from_str(&text).unwrap_or_default();
        Some(match package.get("sideEffects") {
            Some(Value::Bool(false)) => Self::None,
            Some(Value::Array(patterns)) => globs(patterns).map_or(Self::Unknown, Self::In),
            _ => Self::Unknown,
        })
    }
}

/// Paths relative to the package. A pattern without a folder is that of a file in any folder.
fn globs(patterns: &[Value]) -> Option<GlobSet> {
    let mut globs = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.as_str()?;
        let path = pattern.strip_prefix("./").unwrap_or(pattern);
        let path = if pattern.contains('/') { path.to_owned() } else { format!("**/{path}") };
        globs.add(GlobBuilder::new(&path).literal_separator(true).build().ok()?);
    }
    globs.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nearest_package_json_tells_side_effects() {
        let folder = tempfile::tempdir().expect("a folder");
        let modules = folder.path().join("node_modules");
        for (package, text) in [
            ("pure", r#"{"sideEffects": false}"#),
            ("pure/nested", r#"{"type": "module"}"#),
            ("listed", r#"{"sideEffects": ["./setup.js", "*.css", "lib/**/*.effect.js"]}"#),
            ("all", r#"{"name": "all"}"#),
            ("broken", r#"{"sideEffects": [1]}"#),
        ] {
            fs::create_dir_all(modules.join(package)).expect("a folder");
            fs::write(modules.join(package).join("package.json"), text).expect("a file");
        }
        let mut side_effects = SideEffects::default();
        for (file, has_none) in [
            ("pure/index.js", true),
            ("pure/lib/a.js", true),
            ("pure/nested/a.js", false),
            ("listed/index.js", true),
            ("listed/setup.js", false),
            ("listed/lib/setup.js", true),
            ("listed/lib/a.css", false),
            ("listed/lib/a/b.effect.js", false),
            ("listed/lib/a/b.js", true),
            ("all/index.js", false),
            ("broken/index.js", false),
            ("missing/index.js", false),
        ] {
            assert_eq!(side_effects.has_none(&modules.join(file)), has_none, "{file}");
        }
    }
}
