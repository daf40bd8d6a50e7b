//! Policies in Go: what a component has no counterpart of, such as a network, and where the errors of Go's runtime are written.

use std::path::Path;

use crate::processes::{path, run_unlimited, tidegate};

/// Builds a fixture, and runs its cases, which must pass. Returns the output of both.
async fn build_and_test(fixture: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let component = path(dir.path(), "policy.wasm");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
    let cases = path(&fixture, "cases.toml");
    let mut printed = String::new();
    for args in [
        &["policy", "build", path(&fixture, "").as_str(), "-o", &component] as &[&str],
        &["policy", "test", &component, &cases, "--log"],
    ] {
        let ended = run_unlimited(tidegate(args)).await;
        printed += &ended.all();
        assert!(ended.succeeded(), "{printed}");
    }
    printed
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn connections_and_files_fail_with_an_error_that_names_the_alternative() {
    let printed = build_and_test("go-network").await;
    for text in [
        "note: net or net/http is imported by go-network. Their types work, but a policy has no network: use policy.VerifyToken",
        "open key.pem: No such file or directory; a policy has no files: embed them with //go:embed, or use policy.Setting",
    ] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn panic_before_the_sdk_is_initialized_reaches_the_log() {
    let printed = build_and_test("go-early-panic").await;
    for text in ["panic: the key set is missing", "go-early-panic/early/early.go:6"] {
        let line = printed.lines().find(|line| line.contains(text));
        assert!(line.is_some_and(|line| line.contains("ERROR")), "{text}: {printed}");
    }
}
