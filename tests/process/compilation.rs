//! Compilation of policies: in a separate process, within limits, and cached.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::guests;
use crate::processes::{ProcessOutput, path, run, tidegate};

/// Runs `tidegate check` with this cache directory and these environment variables.
async fn check(policy: &str, cache: &Path, variables: &[(&str, &str)]) -> ProcessOutput {
    let mut command = tidegate(&["check", "--store=memory:", "--policy", policy]);
    command.env("TIDEGATE_CACHE_DIR", cache).envs(variables.iter().copied());
    run(command, None).await
}

fn compiled_files(cache: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache.join("blobs")).expect("the directory exists");
    files.map(|file| file.expect("a file").path()).collect()
}

#[tokio::test]
async fn compiled_policy_is_cached_privately_and_rebuilt_when_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let (policy, cache) = (path(dir.path(), "policy.wasm"), dir.path().join("cache"));
    fs::write(&policy, guests::component("allow")).expect("the policy is written");
    assert_eq!(check(&policy, &cache, &[]).await.code(), Some(0));
    let [file] = &compiled_files(&cache)[..] else { panic!("one file: {:?}", compiled_files(&cache)) };
    let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!((mode(&cache.join("blobs")), mode(file)), (0o700, 0o600));
    let first = fs::metadata(file).expect("it exists").modified().expect("a time");
    assert_eq!(check(&policy, &cache, &[]).await.code(), Some(0));
    assert_eq!(fs::metadata(file).expect("it exists").modified().expect("a time"), first, "it was not compiled again");

    let whole = fs::read(file).expect("it is read");
    for damaged in [&whole[..whole.len() / 2], b"", b"\x7fELF"] {
        fs::write(file, damaged).expect("the file is damaged");
        let ended = check(&policy, &cache, &[]).await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(fs::read(file).expect("it is read").len(), whole.len(), "it was compiled again");
    }
    // A file that other users may write is not loaded.
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("a mode");
    assert_eq!(check(&policy, &cache, &[]).await.code(), Some(0));
    assert_eq!(mode(file), 0o600, "it was compiled again");
}

#[tokio::test]
async fn compilation_is_aborted_after_its_timeout() {
    let dir = tempfile::tempdir().expect("a directory");
    let (policy, cache) = (path(dir.path(), "policy.wasm"), dir.path().join("cache"));
    // Long functions without branches keep the compiler busy for some seconds.
    let body = "local.get 0 i32.const 7 i32.mul local.set 0 ".repeat(3_000);
    let functions = format!("(func (param i32) {body})").repeat(300);
    let memory = r#"(memory (export "memory") 1)"#;
    let realloc = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)"#;
    let authorize = r#"(func (export "tidegate:policy/authorizer@0.1.0#authorize")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)"#;
    let component = guests::authorizer(&format!("(module {memory} {realloc} {authorize} {functions})"));
    fs::write(&policy, component).expect("the policy is written");
    let ended = check(&policy, &cache, &[("TIDEGATE_POLICY_COMPILE_TIMEOUT", "50ms")]).await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("was not compiled within policy.compile-timeout (50ms)"), "{}", ended.stderr);
    assert!(!cache.join("blobs").exists(), "nothing is cached");
}

#[tokio::test]
async fn policies_run_without_a_writable_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    let policy = path(dir.path(), "policy.wasm");
    fs::write(&policy, guests::component("allow")).expect("the policy is written");
    fs::write(dir.path().join("file"), "").expect("a file");
    let ended = check(&policy, &dir.path().join("file"), &[]).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}
