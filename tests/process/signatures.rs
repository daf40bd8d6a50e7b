//! Key generation and signing: a gateway with trusted keys activates only signed policies.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::control_port::{JSON, policy, send_request, wait_for_policy};
use crate::guests::component;
use crate::processes::{Gateway, ProcessOutput, path, run, tidegate};
use crate::rollout::{ConfigDir, distinct, request_stream, wait_until_active};

/// Runs a command in a directory.
async fn in_folder(dir: &Path, args: &[&str]) -> ProcessOutput {
    let mut command = tidegate(args);
    command.current_dir(dir).env("TIDEGATE_CACHE_DIR", dir.join("cache"));
    run(command, None).await
}

async fn succeeds(dir: &Path, args: &[&str]) -> String {
    let ended = in_folder(dir, args).await;
    assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
    ended.stdout
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

#[tokio::test]
async fn only_a_signed_policy_is_activated() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    std::fs::write(dir.join("policy.wasm"), component("allow")).expect("written");
    succeeds(dir, &["policy", "keygen", "-o", "release"]).await;
    assert_eq!(mode(dir.join("release.pem")), 0o600);
    let again = in_folder(dir, &["policy", "keygen", "-o", "release"]).await;
    assert!(again.code() == Some(1) && again.stderr.contains("are not overwritten"), "{again:?}");
    succeeds(dir, &["policy", "keygen", "-o", "other"]).await;

    std::fs::write(dir.join("tidegate.toml"), "store = \"memory:\"\npolicy = { file = \"policy.wasm\" }\n")
        .expect("written");
    let check = async || in_folder(dir, &["check"]).await;
    let refused = async |reason: &str| {
        let ended = check().await;
        assert!(ended.code() == Some(1) && ended.stderr.contains(reason), "{reason}: {ended:?}");
    };
    assert_eq!(check().await.code(), Some(0), "without a key no signature is needed");
    let sign = |key: &'static str, sequence: &'static str| {
        ["policy", "sign", "policy.wasm", "--key", key, "--sequence", sequence, "--json"]
    };
    // Swapped arguments do not produce a signature.
    let ended = in_folder(dir, &["policy", "sign", "release.pem", "--key", "release.pem", "--sequence", "1"]).await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("release.pem: is not WebAssembly"), "{ended:?}");
    assert!(!dir.join("release.pem.sig").exists());
    let ended = in_folder(dir, &sign("release.pem", "-1")).await;
    assert!(ended.code() == Some(2) && ended.stderr.contains("for '--sequence <SEQUENCE>'"), "{ended:?}");
    let signed: Value = serde_json::from_str(&succeeds(dir, &sign("other.pem", "1")).await).expect("JSON");
    assert_eq!(signed["signature"]["sequence"], 1, "{signed}");
    refused("no trusted key is configured").await;
    let toml = "store = \"memory:\"\npolicy = { file = \"policy.wasm\", trusted-keys = [\"release.pub.pem\"] }\nfleet.node-name = \"n\"\n";
    std::fs::write(dir.join("tidegate.toml"), toml).expect("written");
    refused("no trusted key").await;
    std::fs::remove_file(dir.join("policy.wasm.sig")).expect("it exists");
    refused("the policy is not signed").await;
    succeeds(dir, &sign("release.pem", "2")).await;
    assert_eq!(check().await.code(), Some(0), "the policy has a signature of a trusted key");
    std::fs::write(dir.join("policy.wasm"), component("deny")).expect("written");
    refused("another component").await;

    // After its activation no older policy is activated.
    let toml = |dir: &Path| {
        format!(
            "store = \"memory:\"\nfleet.node-name = \"n\"\ncache-dir = {:?}\npolicy = {{ file = {:?}, trusted-keys = [{:?}] }}",
            dir.join("cache"),
            dir.join("policy.wasm"),
            dir.join("release.pub.pem")
        )
    };
    succeeds(dir, &sign("release.pem", "3")).await;
    Gateway::start(&toml(dir)).await.process.kill().await;
    succeeds(dir, &sign("release.pem", "2")).await;
    let (process, _dir) = Gateway::launch(&toml(dir), &[]);
    let ended = process.end().await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("sequence number 2 is less than 3"), "{ended:?}");
    assert_eq!(mode(dir.join("cache/nodes")), 0o700);
}

#[tokio::test]
async fn openssl_keys_are_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let script = "openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub.pem";
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(dir);
    let generated = run(command, None).await;
    assert_eq!(generated.code(), Some(0), "{generated:?}");
    std::fs::write(dir.join("policy.wasm"), component("allow")).expect("written");
    let cases = "[[case]]\nname = \"the channel is allowed\"\nchannels = [\"c\"]\nexpect.allow = true\n";
    std::fs::write(dir.join("policy.cases.toml"), cases).expect("written");
    succeeds(dir, &["policy", "sign", "policy.wasm", "--key", "key.pem", "--sequence", "1"]).await;
    let toml = "store = \"memory:\"\npolicy = { file = \"policy.wasm\", trusted-keys = [\"key.pub.pem\"] }\n";
    std::fs::write(dir.join("tidegate.toml"), toml).expect("written");
    assert_eq!(in_folder(dir, &["check"]).await.code(), Some(0));
    // OpenSSL reads generated keys, too, and derives the public key from the private one.
    succeeds(dir, &["policy", "keygen"]).await;
    let mut command = Command::new("openssl");
    command.args(["pkey", "-pubout", "-in", &path(dir, "tidegate-policy.pem")]);
    let public = run(command, None).await;
    assert_eq!(public.stdout, std::fs::read_to_string(dir.join("tidegate-policy.pub.pem")).expect("it exists"));
    // The cases are signed too.
    std::fs::write(dir.join("policy.cases.toml"), cases.replace("true", "false")).expect("written");
    let ended = in_folder(dir, &["check"]).await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("another table of cases"), "{ended:?}");
}

#[tokio::test]
async fn removed_trusted_key_is_no_longer_accepted() {
    let (config_dir, allow) = (ConfigDir::new(), component("allow"));
    let folder = config_dir.at("");
    for key in ["old", "new", "other"] {
        succeeds(&folder, &["policy", "keygen", "-o", key]).await;
    }
    // Components and their signatures, `1.wasm` and so on.
    let version = |number: u32| distinct(&allow, number);
    let sign = async |number: u32, key: &str| {
        let file = format!("{number}.wasm");
        config_dir.write(&file, version(number));
        succeeds(
            &folder,
            &["policy", "sign", &file, "--key", &format!("{key}.pem"), "--sequence", &number.to_string()],
        )
        .await;
    };
    let release = |number: u32| {
        for end in ["", ".sig"] {
            std::fs::copy(
                config_dir.at(&format!("{number}.wasm{end}")),
                config_dir.at(&format!("policy.wasm{end}.new")),
            )
            .expect("a copy");
        }
        for end in [".sig", ""] {
            std::fs::rename(
                config_dir.at(&format!("policy.wasm{end}.new")),
                config_dir.at(&format!("policy.wasm{end}")),
            )
            .expect("renamed");
        }
    };
    let bundle = |number: u32| {
        let signature = std::fs::read_to_string(config_dir.at(&format!("{number}.wasm.sig"))).expect("a signature");
        let component = base64::engine::general_purpose::STANDARD.encode(version(number));
        json!({ "component": component, "signature": signature }).to_string()
    };
    sign(1, "old").await;
    release(1);
    std::fs::copy(config_dir.at("new.pub.pem"), config_dir.at("next.pub.pem")).expect("a copy");
    let gateway = config_dir.start("policy.wasm", "trusted-keys = ['old.pub.pem']").await;
    let put =
        async |number: u32| send_request(gateway.control, "PUT", "/v1/policy", JSON, bundle(number).as_bytes()).await;
    sign(2, "new").await;
    assert_eq!(put(2).await.0, 422, "the key is not trusted yet");
    // One more trusted key keeps the active policy.
    let read = async || policy(gateway.control).await["configuration"]["read_at"].clone();
    let before = read().await;
    config_dir.configure("policy.wasm", "trusted-keys = ['old.pub.pem', 'next.pub.pem']");
    let reply = wait_for_policy(gateway.control, "the new configuration is read", |reply| {
        reply["configuration"]["read_at"] != before
    })
    .await;
    assert_eq!(reply["configuration"]["needs_restart"], json!([]), "{reply}");
    sign(3, "old").await;
    let (status, reply) = send_request(gateway.control, "PUT", "/v1/policy?dry-run", JSON, bundle(3).as_bytes()).await;
    assert_eq!(status, 200, "both keys are trusted: {reply}");
    // After the removal of the old key its policy stays active, and a failure reports that a restart would not accept it.
    config_dir.configure("policy.wasm", "trusted-keys = ['next.pub.pem']");
    let refused = async |number: u32| {
        let hash = tidegate::artifact::digest::Digest::of(&version(number)).to_string();
        let reply = wait_for_policy(gateway.control, "the policy in the file is rejected", |reply| {
            let last = &reply["last_failure"];
            last["digest"] == hash && last["source"].as_str().is_some_and(|source| source.starts_with("file"))
        })
        .await;
        let reason = reply["last_failure"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("no trusted key made the signature"), "{reply}");
        reply
    };
    let reply = refused(1).await;
    assert_eq!((&reply["active"]["generation"], request_stream(&gateway, "c").await.0), (&json!(1), 200), "{reply}");
    let (status, reply) = put(3).await;
    assert_eq!((status, &reply["error"]["stage"]), (422, &json!("verified")), "{reply}");
    release(3);
    assert_eq!(refused(3).await["active"]["generation"], 1);
    sign(4, "new").await;
    release(4);
    wait_until_active(&gateway, "the new key's policy", &version(4), 2).await;
    // The content of the key file counts, not its name.
    std::fs::copy(config_dir.at("other.pub.pem"), config_dir.at("copy.pem")).expect("a copy");
    std::fs::rename(config_dir.at("copy.pem"), config_dir.at("next.pub.pem")).expect("renamed");
    refused(4).await;
    sign(5, "new").await;
    assert_eq!(put(5).await.0, 422);
    sign(5, "other").await;
    let (status, reply) = put(5).await;
    assert_eq!((status, &reply["active"]["generation"]), (200, &json!(3)), "{reply}");
    // Whether signatures are required is decided at the start.
    config_dir.configure("policy.wasm", "");
    let reply = wait_for_policy(gateway.control, "the configuration needs a restart", |reply| {
        reply["configuration"]["needs_restart"] != json!([])
    })
    .await;
    assert_eq!(reply["configuration"]["needs_restart"], json!(["policy.trusted-keys"]), "{reply}");
    assert_eq!(put(4).await.0, 422);
}
