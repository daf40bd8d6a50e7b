//! Keys are made, policies signed, and a gateway that has a key takes what is signed, and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::children::{Ended, Gateway, path, run, tidegate};
use crate::control_port::{JSON, ask, policy, policy_is};
use crate::guests::component;
use crate::rollout::{Desk, asks, distinct, takes_force};

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
    // A mistake in the order of files is not made into a signature.
    let ended = in_folder(dir, &["policy", "sign", "release.pem", "--key", "release.pem", "--sequence", "1"]).await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("release.pem: is not WebAssembly"), "{ended:?}");
    assert!(!dir.join("release.pem.sig").exists());
    let ended = in_folder(dir, &sign("release.pem", "-1")).await;
    assert!(ended.code() == Some(2) && ended.stderr.contains("invalid value '-1'"), "{ended:?}");
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
    assert_eq!(mode(dir.join("cache/nodes")), 0o700);
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

#[tokio::test]
async fn a_key_that_was_taken_away_signs_nothing_more() {
    let (desk, allow) = (Desk::new(), component("allow"));
    let folder = desk.at("");
    for key in ["old", "new", "other"] {
        done(&folder, &["policy", "keygen", "-o", key]).await;
    }
    // Components and signatures beside them, `1.wasm` and so on.
    let version = |number: u32| distinct(&allow, number);
    let sign = async |number: u32, key: &str| {
        let file = format!("{number}.wasm");
        desk.write(&file, version(number));
        done(&folder, &["policy", "sign", &file, "--key", &format!("{key}.pem"), "--sequence", &number.to_string()])
            .await;
    };
    let release = |number: u32| {
        for end in ["", ".sig"] {
            std::fs::copy(desk.at(&format!("{number}.wasm{end}")), desk.at(&format!("policy.wasm{end}.new")))
                .expect("a copy");
        }
        for end in [".sig", ""] {
            std::fs::rename(desk.at(&format!("policy.wasm{end}.new")), desk.at(&format!("policy.wasm{end}")))
                .expect("renamed");
        }
    };
    let bundle = |number: u32| {
        let signature = std::fs::read_to_string(desk.at(&format!("{number}.wasm.sig"))).expect("a signature");
        let component = base64::engine::general_purpose::STANDARD.encode(version(number));
        json!({ "component": component, "signature": signature }).to_string()
    };
    sign(1, "old").await;
    release(1);
    std::fs::copy(desk.at("new.pub.pem"), desk.at("next.pub.pem")).expect("a copy");
    let gateway = desk.start("policy.wasm", "trusted-keys = ['old.pub.pem']").await;
    let put = async |number: u32| ask(gateway.control, "PUT", "/v1/policy", JSON, bundle(number).as_bytes()).await;
    sign(2, "new").await;
    assert_eq!(put(2).await.0, 422, "nobody knows that key yet");
    // One more key: what is in force stays what it is.
    let read = async || policy(gateway.control).await["configuration"]["read"].clone();
    let before = read().await;
    desk.configure("policy.wasm", "trusted-keys = ['old.pub.pem', 'next.pub.pem']");
    let told = policy_is(gateway.control, "another key", |told| told["configuration"]["read"] != before).await;
    assert_eq!(told["configuration"]["needs_restart"], json!([]), "{told}");
    sign(3, "old").await;
    let (status, told) = ask(gateway.control, "PUT", "/v1/policy?dry-run", JSON, bundle(3).as_bytes()).await;
    assert_eq!(status, 200, "both may sign: {told}");
    // The old one is taken away: what it signed goes on, and the log says that a restart would not take it.
    desk.configure("policy.wasm", "trusted-keys = ['next.pub.pem']");
    let refused = async |number: u32| {
        let hash = tidegate::artifact::bundle::digest(&version(number));
        let told = policy_is(gateway.control, "what lies in the file is refused", |told| {
            let last = &told["last_refusal"];
            last["digest"] == hash && last["source"].as_str().is_some_and(|source| source.starts_with("file"))
        })
        .await;
        let why = told["last_refusal"]["why"].as_str().unwrap_or_default();
        assert!(why.contains("no trusted key made its signature"), "{told}");
        told
    };
    let told = refused(1).await;
    assert_eq!((&told["in_force"]["number"], asks(&gateway, "c").await.0), (&json!(1), 200), "{told}");
    let (status, told) = put(3).await;
    assert_eq!((status, &told["error"]["stage"]), (422, &json!("verified")), "{told}");
    release(3);
    assert_eq!(refused(3).await["in_force"]["number"], 1);
    sign(4, "new").await;
    release(4);
    takes_force(&gateway, "the new key's policy", &version(4), 2).await;
    // What is in the key's file counts, not its name.
    std::fs::copy(desk.at("other.pub.pem"), desk.at("copy.pem")).expect("a copy");
    std::fs::rename(desk.at("copy.pem"), desk.at("next.pub.pem")).expect("renamed");
    refused(4).await;
    sign(5, "new").await;
    assert_eq!(put(5).await.0, 422);
    sign(5, "other").await;
    let (status, told) = put(5).await;
    assert_eq!((status, &told["in_force"]["number"]), (200, &json!(3)), "{told}");
    // Whether there have to be signatures at all is decided at the start.
    desk.configure("policy.wasm", "");
    let told = policy_is(gateway.control, "no key", |told| told["configuration"]["needs_restart"] != json!([])).await;
    assert_eq!(told["configuration"]["needs_restart"], json!(["policy.trusted-keys"]), "{told}");
    assert_eq!(put(4).await.0, 422);
}
