//! Policies are compiled in a process of their own, within bounds, and once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::children::{Ended, path, run, tidegate};
use crate::guests;

/// Checks a policy with its compiled form kept below `cache`, and with more variables.
async fn check(policy: &str, cache: &Path, more: &[(&str, &str)]) -> Ended {
    let mut command = tidegate(&["check", "--store=memory:", "--policy", policy]);
    command.env("TIDEGATE_CACHE_DIR", cache).envs(more.iter().copied());
    run(command, None).await
}

fn kept(cache: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache.join("blobs")).expect("the folder is there");
    files.map(|file| file.expect("a file").path()).collect()
}

#[tokio::test]
async fn what_was_compiled_is_kept_for_this_user_alone_and_made_again_when_it_is_broken() {
    let dir = tempfile::tempdir().expect("a folder");
    let (policy, cache) = (path(dir.path(), "policy.wasm"), dir.path().join("cache"));
    fs::write(&policy, guests::component("allow")).expect("the policy is written");
    assert_eq!(check(&policy, &cache, &[]).await.code(), Some(0));
    let [file] = &kept(&cache)[..] else { panic!("one file: {:?}", kept(&cache)) };
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&cache.join("blobs")), mode(file)), (0o700, 0o600));
    let first = fs::metadata(file).expect("it is there").modified().expect("a time");
    assert_eq!(check(&policy, &cache, &[]).await.code(), Some(0));
    assert_eq!(fs::metadata(file).expect("it is there").modified().expect("a time"), first, "it was not made again");

    let whole = fs::read(file).expect("it is read");
    for broken in [&whole[..whole.len() / 2], b"", b"\x7fELF"] {
        fs::write(file, broken).expect("it is broken");
        let ended = check(&policy, &cache, &[]).await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(fs::read(file).expect("it is read").len(), whole.len(), "it was made again");
    }
    // What somebody else may write to is not run.
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("a mode");
    assert_eq!(check(&policy, &cache, &[]).await.code(), Some(0));
    assert_eq!(mode(file), 0o600, "it was made again");
}

#[tokio::test]
async fn a_component_that_compiles_for_ever_is_given_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let (policy, cache) = (path(dir.path(), "policy.wasm"), dir.path().join("cache"));
    // Straight code keeps a compiler busy for some seconds.
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
    assert!(ended.stderr.contains("was not compiled after 50ms"), "{}", ended.stderr);
    assert!(!cache.join("blobs").exists(), "nothing is kept of it");
}

#[tokio::test]
async fn where_nothing_can_be_kept_policies_run_all_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let policy = path(dir.path(), "policy.wasm");
    fs::write(&policy, guests::component("allow")).expect("the policy is written");
    fs::write(dir.path().join("file"), "").expect("a file");
    let ended = check(&policy, &dir.path().join("file"), &[]).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}
