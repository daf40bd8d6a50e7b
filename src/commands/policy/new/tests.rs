use std::collections::BTreeMap;

use super::*;

fn project(lang: Language, pattern: Pattern, name: &str) -> BTreeMap<String, String> {
    let files = template::files(lang, pattern, name).expect("a project");
    files.into_iter().map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned())).collect()
}

#[test]
fn every_language_has_every_pattern_and_an_sdk() {
    for lang in Language::value_variants() {
        for pattern in Pattern::value_variants() {
            if *lang == Language::Zig && *pattern != Pattern::Role {
                let error = template::files(*lang, *pattern, "my-policy").expect_err("there is none").to_string();
                assert!(error.contains("select another one with --pattern"), "{error}");
                continue;
            }
            let files = project(*lang, *pattern, "my-policy");
            let what = format!("{lang:?} {pattern:?}");
            for path in [".gitignore", "README.md", "cases.toml", "sdk/wit/policy.wit"] {
                assert!(files.contains_key(path), "{what}: {path}");
            }
            let readme = &files["README.md"];
            let (file, _) = readme.split_once("` is the policy").expect("it is named");
            let (_, file) = file.rsplit_once('`').expect("it is named");
            assert!(files.contains_key(file), "{what}: {file}");
            assert!(files.keys().filter(|path| path.starts_with("sdk/")).count() > 2, "{what}: the SDK");
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
fn rust_project_is_its_own_workspace() {
    let files = project(Language::Rust, Pattern::User, "my-policy");
    let manifest: toml::Table = files["Cargo.toml"].parse().expect("TOML");
    assert_eq!(manifest["package"]["name"].as_str(), Some("my-policy"));
    assert_eq!(manifest["dependencies"]["tidegate-policy"]["path"].as_str(), Some("./sdk"));
    assert_eq!(manifest["profile"]["release"]["opt-level"].as_str(), Some("s"));
    assert!(manifest["workspace"].as_table().expect("a table").is_empty());
}

#[test]
fn project_names_are_checked() {
    let check = |dir: &str| name(Path::new(dir), Language::Rust).ok();
    for (dir, expect) in [
        ("team", Some("team")),
        ("/nowhere/my-policy2", Some("my-policy2")),
        ("a/../team", Some("team")),
        ("My-team", None),
        ("2team", None),
        ("te am", None),
        ("team-", None),
        ("a--b", None),
        ("te\u{e4}m", None),
        ("match", None),
        ("sdk", None),
        ("serde", None),
        ("", None),
        ("/", None),
    ] {
        assert_eq!(check(dir).as_deref(), expect, "{dir}");
    }
    assert!(name(Path::new("match"), Language::Go).is_ok());
    assert!(name(Path::new(&"a".repeat(65)), Language::C).is_err());
}

#[test]
fn project_folder_must_be_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    ensure_empty(folder.path()).expect("it is empty");
    ensure_empty(&folder.path().join("new")).expect("it is new");
    fs::write(folder.path().join("a"), "").expect("a file");
    assert!(ensure_empty(folder.path()).expect_err("it is not").to_string().contains("is not empty"));
    assert!(ensure_empty(&folder.path().join("a")).is_err());
}

/// No build generates the bindings for Rust, so they may lack new functions of the interface.
#[test]
fn rust_bindings_have_all_functions_of_the_interface() {
    let files = project(Language::Rust, Pattern::Role, "my-policy");
    let bindings = &files["sdk/src/bindings.rs"];
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_source("policy.wit", &files["sdk/wit/policy.wit"]).expect("WIT");
    let mut count = 0;
    for (name, interface) in &resolve.packages[package].interfaces {
        // Policies in Rust do not have the optional exports.
        let is_optional = ["preparation", "checkpoint"].contains(&&**name);
        for function in resolve.interfaces[*interface].functions.keys().filter(|_| !is_optional) {
            let symbol = match &**name {
                "authorizer" => format!("tidegate:policy/authorizer@0.1.0#{function}"),
                _ => format!("[link_name = \"{function}\"]"),
            };
            assert!(bindings.contains(&symbol), "{name}: {function}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}
