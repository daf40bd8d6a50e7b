//! Rollback with one command, also after restarts of the process.

use serde_json::{Value, json};
use tidegate::artifact::digest::Digest;

use crate::control_port::{JSON, WASM, policy, send_request};
use crate::guests::component;
use crate::processes::{Gateway, run, tidegate};
use crate::rollout::{ConfigDir, distinct};

fn version(number: u32) -> Vec<u8> {
    distinct(&component("allow"), number)
}

fn digest(number: u32) -> Value {
    json!(Digest::of(&version(number)))
}

async fn put(gateway: &Gateway, number: u32) {
    let (status, reply) = send_request(gateway.control, "PUT", "/v1/policy", WASM, &version(number)).await;
    assert_eq!(status, 200, "{reply}");
}

async fn roll_back(gateway: &Gateway) -> (u16, Value) {
    send_request(gateway.control, "POST", "/v1/policy/rollback", JSON, b"{}").await
}

/// The digests that were active in the previous process, newest first.
fn previous_process(reply: &Value) -> Vec<Value> {
    reply["previous_process"].as_array().expect("a list").iter().map(|policy| policy["digest"].clone()).collect()
}

/// The files of a directory of the policy store whose names contain this.
fn stored(config_dir: &ConfigDir, directory: &str, part: &str) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(config_dir.at("cache").join(directory)).expect("a directory");
    let files = files.map(|file| file.expect("a file").path());
    let files: Vec<_> = files.filter(|file| file.to_string_lossy().contains(part)).collect();
    assert!(!files.is_empty(), "no {part} in {directory}");
    files
}

#[tokio::test]
async fn rollback_continues_across_restarts() {
    let config_dir = ConfigDir::new();
    config_dir.write("policy.wasm", version(1));
    let gateway = config_dir.start("policy.wasm", "").await;
    let reply = policy(gateway.control).await;
    assert_eq!((&reply["rollback_target"], previous_process(&reply)), (&Value::Null, vec![]), "{reply}");
    put(&gateway, 2).await;
    gateway.process.kill().await;
    // The policy is replaced while no process runs.
    config_dir.replace("policy.wasm", version(3));
    let gateway = config_dir.start("policy.wasm", "").await;
    let reply = policy(gateway.control).await;
    assert_eq!((&reply["active"]["digest"], &reply["rollback_target"]), (&digest(3), &digest(2)), "{reply}");
    assert_eq!(previous_process(&reply), [digest(2), digest(1)], "{reply}");
    let mut command = tidegate(&["policy", "rollback", "--control", &format!("http://{}", gateway.control)]);
    command.current_dir(config_dir.0.path());
    let ended = run(command, None).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(std::fs::read(config_dir.at("policy.wasm")).expect("the file"), version(2));
    gateway.process.kill().await;
    // The next process rolls back further; the policy that was rolled back is not in its history.
    let gateway = config_dir.start("policy.wasm", "").await;
    let reply = policy(gateway.control).await;
    assert_eq!((&reply["active"]["digest"], &reply["rollback_target"]), (&digest(2), &digest(1)), "{reply}");
    let (status, reply) = roll_back(&gateway).await;
    assert_eq!((status, &reply["active"]["digest"]), (200, &digest(1)), "{reply}");
    gateway.process.kill().await;
    let gateway = config_dir.start("policy.wasm", "").await;
    let (status, reply) = roll_back(&gateway).await;
    assert_eq!((status, &reply["error"]["code"]), (409, &json!("no_previous_policy")), "{reply}");
}

#[tokio::test]
async fn rollback_ignores_the_history_of_other_nodes_and_files() {
    let (config_dir, node) = (ConfigDir::new(), "\n[fleet]\nnode-name = \"two\"");
    config_dir.write("policy.wasm", version(1));
    config_dir.write("other.wasm", version(1));
    let gateway = config_dir.start("policy.wasm", "").await;
    put(&gateway, 2).await;
    assert_eq!(policy(gateway.control).await["rollback_target"], digest(1));
    gateway.process.kill().await;
    // The same node with another file, and another node with the same file. One at a time: each start writes the configuration, which
    // a gateway that runs would reload.
    for (file, node) in [("other.wasm", ""), ("policy.wasm", node)] {
        let gateway = config_dir.start(file, node).await;
        let reply = policy(gateway.control).await;
        assert_eq!((&reply["rollback_target"], previous_process(&reply)), (&Value::Null, vec![]), "{reply}");
        gateway.process.kill().await;
    }
    let gateway = config_dir.start("policy.wasm", "").await;
    assert_eq!(policy(gateway.control).await["rollback_target"], digest(1));
}

#[tokio::test]
async fn damaged_rollback_history_is_reported_and_does_not_prevent_the_start() {
    let config_dir = ConfigDir::new();
    config_dir.write("policy.wasm", version(1));
    let gateway = config_dir.start("policy.wasm", "").await;
    put(&gateway, 2).await;
    gateway.process.kill().await;
    for file in stored(&config_dir, "nodes", ".history-") {
        std::fs::write(file, "[{\"digest\":").expect("the file is damaged");
    }
    let gateway = config_dir.start("policy.wasm", "").await;
    let reply = policy(gateway.control).await;
    assert_eq!((&reply["active"]["digest"], &reply["rollback_target"]), (&digest(2), &Value::Null), "{reply}");
    gateway.process.stderr.wait_for_text("the rollback history cannot be read").await;
    let log = gateway.process.stderr.text_so_far();
    assert!(log.contains("the rollback history cannot be read"), "{log}");
    // The next activation is recorded again.
    put(&gateway, 3).await;
    gateway.process.kill().await;
    let gateway = config_dir.start("policy.wasm", "").await;
    assert_eq!(policy(gateway.control).await["rollback_target"], digest(2));
    // A modified copy is not activated.
    for file in stored(&config_dir, "blobs", "").iter().filter(|file| file.extension().is_none()) {
        std::fs::write(file, component("deny")).expect("the file is changed");
    }
    let (status, reply) = roll_back(&gateway).await;
    assert!(
        reply["error"]["message"].as_str().is_some_and(|reason| reason.contains("the content was changed")),
        "{reply}"
    );
    assert_eq!((status, &policy(gateway.control).await["active"]["digest"]), (409, &digest(3)), "{reply}");
    gateway.process.kill().await;
    // A writable history directory is not required.
    std::fs::remove_dir_all(config_dir.at("cache/nodes")).expect("it is removed");
    config_dir.write("cache/nodes", "not a directory");
    let gateway = config_dir.start("policy.wasm", "").await;
    gateway.process.stderr.wait_for_text("the rollback history cannot be read").await;
    let log = gateway.process.stderr.text_so_far();
    assert!(log.contains("the rollback history cannot be read"), "{log}");
}

#[tokio::test]
async fn directories_of_an_earlier_build_are_named_once_and_ignored() {
    let config_dir = ConfigDir::new();
    config_dir.write("policy.wasm", version(1));
    for directory in ["policies", "past", "fleet/node-n", "compiled", "sequence"] {
        std::fs::create_dir_all(config_dir.at("cache").join(directory)).expect("created");
    }
    config_dir.write("cache/sequence/n.json", "not JSON");
    let gateway = config_dir.start("policy.wasm", "").await;
    put(&gateway, 2).await;
    gateway.process.stderr.wait_for_text("an earlier build").await;
    let log = gateway.process.stderr.text_so_far();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("an earlier build")).collect();
    let [line] = lines[..] else { panic!("one line: {log}") };
    assert!(line.contains("compiled, fleet, past, policies, sequence") && line.contains("may be deleted"), "{line}");
    gateway.process.kill().await;
    for directory in ["policies", "past", "fleet", "compiled", "sequence"] {
        std::fs::remove_dir_all(config_dir.at("cache").join(directory)).expect("it is unchanged");
    }
    let gateway = config_dir.start("policy.wasm", "").await;
    assert_eq!(policy(gateway.control).await["rollback_target"], digest(1));
    assert!(!gateway.process.stderr.text_so_far().contains("an earlier build"));
}
