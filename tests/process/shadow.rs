//! The commands for a shadow policy of a running gateway: start, report, promote.

use std::path::Path;

use serde_json::Value;

use crate::client::Wire;
use crate::guests::component;
use crate::processes::{Gateway, ProcessOutput, path, run, tidegate, wait_until};

/// Runs `tidegate policy …` against a gateway, in a directory.
async fn policy(gateway: &Gateway, dir: &Path, args: &[&str]) -> ProcessOutput {
    let control = gateway.control.to_string();
    let mut command = tidegate(&[&["policy"], args, &["--control", &control]].concat());
    command.current_dir(dir);
    run(command, None).await
}

async fn status(gateway: &Gateway) -> u16 {
    Wire::get(gateway.data, "/api/realtime?channel=c", None, None).await.expect("an answer").status
}

/// The counts of the shadow policy, after this many decisions.
async fn counts(gateway: &Gateway, dir: &Path, decisions: u64) -> Value {
    let mut counts = Value::Null;
    wait_until("the shadow policy was evaluated", async || {
        let ended = policy(gateway, dir, &["shadow", "--json"]).await;
        let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        counts = report["counts"].clone();
        counts.as_object().expect("counts").values().filter_map(Value::as_u64).sum::<u64>() >= decisions
    })
    .await;
    counts
}

#[tokio::test]
async fn shadow_policy_is_evaluated_and_promoted() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    std::fs::write(dir.join("policy.wasm"), component("deny")).expect("written");
    std::fs::write(dir.join("new.wasm"), component("allow")).expect("written");
    std::fs::write(dir.join("trap.wasm"), component("trap")).expect("written");
    let file = path(dir, "policy.wasm");
    let gateway = Gateway::start(&format!(
        "store = \"memory:\"\npolicy = {{ file = \"{file}\", shadow = {{ file = \"{}\", share = 1.0 }} }}",
        path(dir, "trap.wasm")
    ))
    .await;
    // The configured shadow policy is loaded in the background during the start.
    wait_until("a shadow policy is active", async || policy(&gateway, dir, &["shadow"]).await.code() == Some(0)).await;
    assert_eq!(status(&gateway).await, 418);
    assert_eq!(counts(&gateway, dir, 1).await["error"], 1);
    let output = policy(&gateway, dir, &["shadow", "--json"]).await;
    assert!(output.stdout.contains("\"persisted\":true"), "the configuration names the shadow policy: {output:?}");

    let started = policy(&gateway, dir, &["shadow", "new.wasm", "--share", "1"]).await;
    assert_eq!(started.code(), Some(0), "{started:?}");
    assert!(started.stdout.contains("evaluated for 100 % of clients"), "{started:?}");
    assert_eq!(status(&gateway).await, 418, "the shadow policy has no effect");
    assert_eq!(counts(&gateway, dir, 1).await["reject_to_allow"], 1);
    let output = policy(&gateway, dir, &["shadow"]).await;
    assert!(output.stdout.contains("reject to allow, [\"c\"]"), "{output:?}");
    let output = policy(&gateway, dir, &["shadow", "--json"]).await;
    assert!(output.stdout.contains("\"persisted\":false"), "the shadow policy does not survive a restart: {output:?}");

    let other = policy(&gateway, dir, &["promote", "--digest", "sha256:other"]).await;
    assert!(other.code() == Some(1) && other.stderr.contains("the shadow policy is sha256:"), "{other:?}");
    let promoted = policy(&gateway, dir, &["promote"]).await;
    assert_eq!(promoted.code(), Some(0), "{promoted:?}");
    assert!(promoted.stdout.ends_with("is active, generation 2\n"), "{promoted:?}");
    assert_eq!(status(&gateway).await, 200);
    assert_eq!(std::fs::read(&file).expect("it exists"), component("allow"), "the policy is persisted");
    let output = crate::control_port::policy(gateway.control).await;
    assert_eq!(output["active"]["persisted"], true, "{output}");
    let none = policy(&gateway, dir, &["promote"]).await;
    assert!(none.code() == Some(1) && none.stderr.contains("there is no shadow policy"), "{none:?}");
}

#[tokio::test]
async fn invalid_shadow_policy_is_rejected_and_the_previous_one_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    std::fs::write(dir.join("policy.wasm"), component("allow")).expect("written");
    std::fs::write(dir.join("deny.wasm"), component("deny")).expect("written");
    std::fs::write(dir.join("none.wasm"), "not a component").expect("written");
    std::fs::write(dir.join("strict.wasm"), component("deny")).expect("written");
    let case = "[[case]]\nname = \"all are allowed\"\nchannels = [\"c\"]\nexpect = { allow = true }\n";
    std::fs::write(dir.join("strict.cases.toml"), case).expect("written");
    let gateway = Gateway::start(&format!("store = \"memory:\"\npolicy.file = \"{}\"", path(dir, "policy.wasm"))).await;
    let absent = policy(&gateway, dir, &["shadow"]).await;
    assert!(absent.code() == Some(1) && absent.stderr.contains("there is no shadow policy"), "{absent:?}");
    assert_eq!(policy(&gateway, dir, &["shadow", "deny.wasm"]).await.code(), Some(0));
    for (file, reason) in [("none.wasm", "is not WebAssembly"), ("strict.wasm", "all are allowed")] {
        let refused = policy(&gateway, dir, &["shadow", file]).await;
        assert!(refused.code() == Some(1) && refused.stderr.contains(reason), "{refused:?}");
    }
    let output = policy(&gateway, dir, &["shadow", "--json"]).await;
    assert!(output.stdout.contains("\"share\":0.1"), "{output:?}");
    assert_eq!(policy(&gateway, dir, &["shadow", "--stop"]).await.code(), Some(0));
    assert_eq!(policy(&gateway, dir, &["shadow", "--stop"]).await.code(), Some(1));
    assert_eq!(status(&gateway).await, 200);
}
