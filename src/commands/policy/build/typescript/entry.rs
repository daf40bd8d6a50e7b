//! The source file of a policy, and the folder of its project.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::commands::policy::build::MAX_MANIFEST_BYTES;
use crate::util::files;

const STEMS: &[&str] = &["policy", "src/policy", "route", "src/route", "index", "src/index"];
const ENDINGS: &[&str] = &["ts", "tsx", "mts", "js", "mjs", "jsx"];

/// The source file of a folder: `main` of its package.json, else the first file with a usual name.
pub fn find(folder: &Path) -> Result<PathBuf> {
    let manifest = folder.join("package.json");
    if manifest.exists() {
        let text =
            files::read(&manifest, MAX_MANIFEST_BYTES).with_context(|| format!("reading {}", manifest.display()))?;
        let json: Value = serde_json::from_slice(&text).with_context(|| manifest.display().to_string())?;
        if let Some(main) = json["main"].as_str().filter(|main| !main.is_empty()) {
            let path = folder.join(main);
            ensure!(path.is_file(), "{}: \"main\" names {main}, which does not exist", manifest.display());
            return Ok(path);
        }
    }
    let usual = STEMS.iter().flat_map(|stem| ENDINGS.iter().map(move |ending| folder.join(format!("{stem}.{ending}"))));
    usual.into_iter().find(|path| path.is_file()).with_context(|| {
        format!(
            "{}: no policy found: name its file as \"main\" in package.json, or call it policy.ts",
            folder.display()
        )
    })
}

/// The folder that names of modules are relative to: the nearest one with a package.json, else that of the source file. It does not
/// depend on the folder in which the build runs, so neither does the component.
pub fn project_root(entry: &Path) -> PathBuf {
    let folder = entry.parent().unwrap_or(Path::new("/"));
    folder.ancestors().find(|folder| folder.join("package.json").is_file()).unwrap_or(folder).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn entry_is_main_or_a_usual_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path();
        let error = find(folder).expect_err("no file").to_string();
        assert!(error.contains("call it policy.ts"), "{error}");
        fs::create_dir(folder.join("src")).expect("a folder");
        for (file, is_next) in
            [("index.js", true), ("src/route.ts", true), ("route.mjs", true), ("src/policy.ts", true)]
        {
            fs::write(folder.join(file), "").expect("a file");
            assert_eq!(find(folder).is_ok_and(|found| found == folder.join(file)), is_next, "{file}");
        }
        fs::write(folder.join("package.json"), r#"{"main":"index.js"}"#).expect("a file");
        assert_eq!(find(folder).expect("a file"), folder.join("index.js"));
        fs::write(folder.join("package.json"), r#"{"main":"nowhere.js"}"#).expect("a file");
        assert!(find(folder).expect_err("no file").to_string().contains("names nowhere.js, which does not exist"));
    }

    #[test]
    fn root_is_the_nearest_folder_with_a_manifest() {
        let dir = tempfile::tempdir().expect("a folder");
        let route = dir.path().join("app/api/route.ts");
        fs::create_dir_all(route.parent().expect("a folder")).expect("a folder");
        assert_eq!(project_root(&route), dir.path().join("app/api"));
        fs::write(dir.path().join("package.json"), "{}").expect("a file");
        assert_eq!(project_root(&route), dir.path());
    }
}
