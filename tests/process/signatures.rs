//! Keys are made, policies signed, and a gateway that has a key takes what is signed, and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::children::{Ended, Gateway, path, run, tidegate};
use crate::guests::component;

/// Runs a command in a folder.
async fn in_folder(dir: &Path, args: &[&str]) -> Ended {
    let mut command = tidegate(args);
    command.current_dir(dir).env("TIDEGATE_CACHE_DIR", dir.join("cache"));
    run(command, None).await
}

async fn done(dir: &Path, args: &[&str]) -> String {
    let ended = in_folder(dir, args).await;
    assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
    ended.stdout
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn only_what_is_signed_takes_force() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    std::fs::write(dir.join("policy.wasm"), component("allow")).expect("written");
    done(dir, &["policy", "keygen", "-o", "release"]).await;
    assert_eq!(mode(dir.join("release.pem")), 0o600);
    let again = in_folder(dir, &["policy", "keygen", "-o", "release"]).await;
    assert!(again.code() == Some(1) && again.stderr.contains("never written over"), "{again:?}");
    done(dir, &["policy", "keygen", "-o", "other"]).await;

    std::fs::write(dir.join("tidegate.toml"), "store = \"memory:\"\npolicy = { file = \"policy.wasm\" }\n")
        .expect("written");
    let check = async || in_folder(dir, &["check"]).await;
    let refused = async |why: &str| {
        let ended = check().await;
        assert!(ended.code() == Some(1) && ended.stderr.contains(why), "{why}: {ended:?}");
    };
    assert_eq!(check().await.code(), Some(0), "no key, no signature");
    let sign = |key: &'static str, sequence: &'static str| {
        ["policy", "sign", "policy.wasm", "--key", key, "--sequence", sequence, "--json"]
    };
    let signed: Value = serde_json::from_str(&done(dir, &sign("other.pem", "1")).await).expect("JSON");
    assert_eq!(signed["signature"]["sequence"], 1, "{signed}");
    refused("no key to check that with").await;
    let toml = "store = \"memory:\"\npolicy = { file = \"policy.wasm\", trusted-keys = [\"release.pub.pem\"] }\nfleet.node = \"n\"\n";
    std::fs::write(dir.join("tidegate.toml"), toml).expect("written");
    refused("no trusted key").await;
    std::fs::remove_file(dir.join("policy.wasm.sig")).expect("it is there");
    refused("it is not signed").await;
    done(dir, &sign("release.pem", "2")).await;
    assert_eq!(check().await.code(), Some(0), "a key, and its signature");
    std::fs::write(dir.join("policy.wasm"), component("deny")).expect("written");
    refused("another component").await;

    // It takes force once, and then nothing older does.
    let toml = |dir: &Path| {
        format!(
            "store = \"memory:\"\nfleet.node = \"n\"\ncache-dir = {:?}\npolicy = {{ file = {:?}, trusted-keys = [{:?}] }}",
            dir.join("cache"),
            dir.join("policy.wasm"),
            dir.join("release.pub.pem")
        )
    };
    done(dir, &sign("release.pem", "3")).await;
    Gateway::start(&toml(dir)).await.process.kill().await;
    done(dir, &sign("release.pem", "2")).await;
    let (process, _dir) = Gateway::launch(&toml(dir), &[]);
    let ended = process.end().await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("sequence number 2 is behind 3"), "{ended:?}");
    assert_eq!(mode(dir.join("cache/sequence")), 0o700);
}

#[tokio::test]
async fn keys_of_openssl_are_keys() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let script = "openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub.pem";
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(dir);
    let made = run(command, None).await;
    assert_eq!(made.code(), Some(0), "{made:?}");
    std::fs::write(dir.join("policy.wasm"), component("allow")).expect("written");
    let cases = "[[case]]\nname = \"in\"\nchannels = [\"c\"]\nexpect.allow = true\n";
    std::fs::write(dir.join("policy.cases.toml"), cases).expect("written");
    done(dir, &["policy", "sign", "policy.wasm", "--key", "key.pem", "--sequence", "1"]).await;
    let toml = "store = \"memory:\"\npolicy = { file = \"policy.wasm\", trusted-keys = [\"key.pub.pem\"] }\n";
    std::fs::write(dir.join("tidegate.toml"), toml).expect("written");
    assert_eq!(in_folder(dir, &["check"]).await.code(), Some(0));
    // And OpenSSL reads ours, and finds the public half in the private one.
    done(dir, &["policy", "keygen"]).await;
    let mut command = Command::new("openssl");
    command.args(["pkey", "-pubout", "-in", &path(dir, "tidegate-policy.pem")]);
    let public = run(command, None).await;
    assert_eq!(public.stdout, std::fs::read_to_string(dir.join("tidegate-policy.pub.pem")).expect("it is there"));
    // The cases are signed too.
    std::fs::write(dir.join("policy.cases.toml"), cases.replace("true", "false")).expect("written");
    let ended = in_folder(dir, &["check"]).await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("another table of cases"), "{ended:?}");
}
