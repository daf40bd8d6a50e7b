//! `tidegate policy new`, `build` and `test` in sequence, with the real toolchain of each language.
//!
//! These tests take minutes, and download toolchains on their first run. `cargo test` ignores them; `cargo xtask test` runs them.

use std::path::Path;

use tokio::process::Command;

use crate::processes::{run_unlimited, tidegate};

/// Asserts that a new project can be built and passes its cases.
async fn assert_new_project_passes(lang: &str, pattern: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    run(dir.path(), &["policy", "new", "my-policy", "--lang", lang, "--pattern", pattern]).await;
    run(dir.path(), &["policy", "build", "my-policy"]).await;
    let printed = run(dir.path(), &["policy", "test", "my-policy/policy.wasm"]).await;
    assert!(printed.contains(" 0 failed"), "{printed}");
    let printed = run(dir.path(), &["policy", "inspect", "my-policy/policy.wasm", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((&report["kind"], &report["refused"]), (&"component".into(), &serde_json::Value::Null));
    let language = report["language"].as_str().unwrap_or_default().to_lowercase();
    let expect = match lang {
        "typescript" => "javascript",
        // Zig records no producer; the bindings that it is linked with do.
        "zig" => "c",
        other => other,
    };
    assert!(language.starts_with(expect), "{lang}: {printed}");

    let component = std::fs::read(dir.path().join("my-policy/policy.wasm")).expect("it was built");
    let mut paths = vec![dir.path().to_owned()];
    if lang == "rust" {
        // Runtimes of other languages contain paths of the machine that built them.
        paths.extend([std::env::home_dir().expect("a home"), env!("CARGO_MANIFEST_DIR").into()]);
    }
    for path in paths {
        let path = path.to_str().expect("text").as_bytes();
        let has_path = component.windows(path.len()).any(|part| part == path);
        assert!(!has_path, "{lang}: the component contains a path of the build machine");
    }
}

/// Runs a command, which must succeed, and returns its output.
async fn run(dir: &Path, args: &[&str]) -> String {
    let ended = run_unlimited(command(dir, args)).await;
    assert!(ended.succeeded(), "tidegate {}: {}\n{}", args.join(" "), ended.status, ended.all());
    ended.stdout
}

pub fn command(dir: &Path, args: &[&str]) -> Command {
    in_project(dir, tidegate(args))
}

/// Lets a command run in this folder, and keep what cargo builds for the next run. Projects in Rust share a directory of products, so each
/// needs a name of its own.
pub fn in_project(dir: &Path, mut command: Command) -> Command {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    command.current_dir(dir).env("CARGO_TARGET_DIR", target.join("projects"));
    command
}

/// Errors of a Rust package are reported before anything is compiled.
#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn invalid_rust_package_is_reported_before_compilation() {
    let dir = tempfile::tempdir().expect("a directory");
    let package = "[package]\nname = \"policy\"\nedition = \"2024\"\n";
    let dependency = "[lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\nlog = \"0.4\"\n[workspace]\n";
    for (name, manifest, lock, expect) in [
        ("library", package.to_owned(), None, "crate-type = [\"cdylib\"]"),
        ("", "[workspace]\nmembers = [\"library\"]\n".to_owned(), None, "build the folder of one of its members"),
        ("broken", "[package\n".to_owned(), None, "Cargo.toml"),
        ("stale", format!("{package}{dependency}"), Some("version = 4\n"), "cargo update --workspace"),
    ] {
        let folder = dir.path().join(name);
        std::fs::create_dir_all(folder.join("src")).expect("a directory");
        std::fs::write(folder.join("Cargo.toml"), manifest).expect("written");
        std::fs::write(folder.join("src/lib.rs"), "").expect("written");
        if let Some(lock) = lock {
            std::fs::write(folder.join("Cargo.lock"), lock).expect("written");
        }
        let output = tidegate(&["policy", "build"]).current_dir(&folder).output().await.expect("the program runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(stderr.contains(expect), "{name}: {stderr}");
    }
    let file = tidegate(&["policy", "build", "src/lib.rs"]).current_dir(dir.path().join("library")).output().await;
    let stderr = String::from_utf8(file.expect("the program runs").stderr).expect("text");
    assert!(stderr.contains("build the folder that has its Cargo.toml"), "{stderr}");
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn new_rust_project_builds_and_passes_its_cases() {
    assert_new_project_passes("rust", "role").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn new_typescript_project_builds_and_passes_its_cases() {
    assert_new_project_passes("typescript", "role").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn new_python_project_builds_and_passes_its_cases() {
    assert_new_project_passes("python", "role").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn new_go_project_builds_and_passes_its_cases() {
    assert_new_project_passes("go", "role").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn new_c_project_builds_and_passes_its_cases() {
    assert_new_project_passes("c", "role").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn new_zig_project_builds_and_passes_its_cases() {
    assert_new_project_passes("zig", "role").await;
}
