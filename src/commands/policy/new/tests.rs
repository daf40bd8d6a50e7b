use std::collections::BTreeMap;

use super::*;

/// The last languages' examples are on their way.
fn there_is_any(lang: Lang) -> bool {
    Pattern::value_variants().iter().any(|pattern| template::files(lang, *pattern, "x").is_ok())
}

fn project(lang: Lang, pattern: Pattern, name: &str) -> BTreeMap<String, String> {
    let files = template::files(lang, pattern, name).expect("a project");
    files.into_iter().map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned())).collect()
}

#[test]
fn every_language_has_every_pattern_and_a_library() {
    for lang in Lang::value_variants().iter().filter(|lang| there_is_any(**lang)) {
        for pattern in Pattern::value_variants() {
            let files = project(*lang, *pattern, "my-door");
            let what = format!("{lang:?} {pattern:?}");
            for path in [".gitignore", "README.md", "cases.toml", "sdk/wit/policy.wit"] {
                assert!(files.contains_key(path), "{what}: {path}");
            }
            let readme = &files["README.md"];
            let (file, _) = readme.split_once("` is the policy").expect("it is named");
            let (_, file) = file.rsplit_once('`').expect("it is named");
            assert!(files.contains_key(file), "{what}: {file}");
            assert!(files.keys().filter(|path| path.starts_with("sdk/")).count() > 2, "{what}: the library");
            for (path, text) in &files {
                let is_product = ["target/", "node_modules/", "__pycache__", "policy.wasm"];
                assert!(!is_product.iter().any(|product| path.contains(product)), "{what}: {path}");
                if !path.starts_with("sdk/") {
                    assert!(!text.contains("../sdk") && !text.contains("-based\""), "{what}: {path}");
                }
            }
        }
    }
}

#[test]
fn a_project_in_rust_stands_by_itself() {
    let files = project(Lang::Rust, Pattern::User, "my-door");
    let manifest: toml::Table = files["Cargo.toml"].parse().expect("TOML");
    assert_eq!(manifest["package"]["name"].as_str(), Some("my-door"));
    assert_eq!(manifest["dependencies"]["tidegate-policy"]["path"].as_str(), Some("./sdk"));
    assert_eq!(manifest["profile"]["release"]["opt-level"].as_str(), Some("s"));
    assert!(manifest["workspace"].as_table().expect("a table").is_empty());
}

#[test]
fn names() {
    let check = |dir: &str| name(Path::new(dir), Lang::Rust).ok();
    for (dir, expect) in [
        ("door", Some("door")),
        ("/nowhere/my-door2", Some("my-door2")),
        ("a/../door", Some("door")),
        ("My-door", None),
        ("2door", None),
        ("do or", None),
        ("door-", None),
        ("a--b", None),
        ("d\u{f6}or", None),
        ("match", None),
        ("sdk", None),
        ("serde", None),
        ("", None),
        ("/", None),
    ] {
        assert_eq!(check(dir).as_deref(), expect, "{dir}");
    }
    assert!(name(Path::new("match"), Lang::Go).is_ok());
    assert!(name(Path::new(&"a".repeat(65)), Lang::C).is_err());
}

#[test]
fn only_an_empty_folder_is_filled() {
    let folder = tempfile::tempdir().expect("a folder");
    ensure_empty(folder.path()).expect("it is empty");
    ensure_empty(&folder.path().join("new")).expect("it is new");
    fs::write(folder.path().join("a"), "").expect("a file");
    assert!(ensure_empty(folder.path()).expect_err("it is not").to_string().contains("is not empty"));
    assert!(ensure_empty(&folder.path().join("a")).is_err());
}
