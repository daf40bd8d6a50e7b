//! Going back is one command, whatever happened to the process in between.

use serde_json::{Value, json};
use tidegate::artifact::bundle::digest;

use crate::children::{Gateway, run, tidegate};
use crate::control_port::{JSON, WASM, ask, policy};
use crate::guests::component;
use crate::rollout::{Desk, distinct};

fn version(number: u32) -> Vec<u8> {
    distinct(&component("allow"), number)
}

fn named(number: u32) -> Value {
    json!(digest(&version(number)))
}

async fn put(gateway: &Gateway, number: u32) {
    let (status, told) = ask(gateway.control, "PUT", "/v1/policy", WASM, &version(number)).await;
    assert_eq!(status, 200, "{told}");
}

async fn back(gateway: &Gateway) -> (u16, Value) {
    ask(gateway.control, "POST", "/v1/policy/rollback", JSON, b"{}").await
}

/// What was in force before the process began, the latest first.
fn earlier(told: &Value) -> Vec<Value> {
    told["earlier"].as_array().expect("a list").iter().map(|past| past["digest"].clone()).collect()
}

/// The files of a directory of the policy store whose names contain this.
fn stored(desk: &Desk, directory: &str, part: &str) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(desk.at("cache").join(directory)).expect("a directory");
    let files = files.map(|file| file.expect("a file").path());
    let files: Vec<_> = files.filter(|file| file.to_string_lossy().contains(part)).collect();
    assert!(!files.is_empty(), "no {part} in {directory}");
    files
}

#[tokio::test]
async fn a_restart_is_no_end_of_the_way_back() {
    let desk = Desk::new();
    desk.write("policy.wasm", version(1));
    let gateway = desk.start("policy.wasm", "").await;
    let told = policy(gateway.control).await;
    assert_eq!((&told["rolls_back_to"], earlier(&told)), (&Value::Null, vec![]), "{told}");
    put(&gateway, 2).await;
    gateway.process.kill().await;
    // Deployed with a restart: nobody saw the file change.
    desk.replace("policy.wasm", version(3));
    let gateway = desk.start("policy.wasm", "").await;
    let told = policy(gateway.control).await;
    assert_eq!((&told["in_force"]["digest"], &told["rolls_back_to"]), (&named(3), &named(2)), "{told}");
    assert_eq!(earlier(&told), [named(2), named(1)], "{told}");
    let mut command = tidegate(&["policy", "rollback", "--control", &format!("http://{}", gateway.control)]);
    command.current_dir(desk.0.path());
    let ended = run(command, None).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(std::fs::read(desk.at("policy.wasm")).expect("the file"), version(2));
    gateway.process.kill().await;
    // And further, in the next process; what was gone back from is no part of it.
    let gateway = desk.start("policy.wasm", "").await;
    let told = policy(gateway.control).await;
    assert_eq!((&told["in_force"]["digest"], &told["rolls_back_to"]), (&named(2), &named(1)), "{told}");
    let (status, told) = back(&gateway).await;
    assert_eq!((status, &told["in_force"]["digest"]), (200, &named(1)), "{told}");
    gateway.process.kill().await;
    let gateway = desk.start("policy.wasm", "").await;
    let (status, told) = back(&gateway).await;
    assert_eq!((status, &told["error"]["code"]), (409, &json!("nothing_before")), "{told}");
}

#[tokio::test]
async fn nobody_goes_back_to_what_was_in_force_elsewhere() {
    let (desk, node) = (Desk::new(), "\n[fleet]\nnode = \"two\"");
    desk.write("policy.wasm", version(1));
    desk.write("other.wasm", version(1));
    let gateway = desk.start("policy.wasm", "").await;
    put(&gateway, 2).await;
    let same_node = desk.start("other.wasm", "").await;
    let same_file = desk.start("policy.wasm", node).await;
    for other in [&same_node, &same_file] {
        let told = policy(other.control).await;
        assert_eq!((&told["rolls_back_to"], earlier(&told)), (&Value::Null, vec![]), "{told}");
    }
    assert_eq!(policy(gateway.control).await["rolls_back_to"], named(1));
}

#[tokio::test]
async fn what_is_damaged_is_told_and_no_reason_not_to_start() {
    let desk = Desk::new();
    desk.write("policy.wasm", version(1));
    let gateway = desk.start("policy.wasm", "").await;
    put(&gateway, 2).await;
    gateway.process.kill().await;
    for file in stored(&desk, "nodes", ".history-") {
        std::fs::write(file, "[{\"digest\":").expect("it is damaged");
    }
    let gateway = desk.start("policy.wasm", "").await;
    let told = policy(gateway.control).await;
    assert_eq!((&told["in_force"]["digest"], &told["rolls_back_to"]), (&named(2), &Value::Null), "{told}");
    gateway.process.stderr.says("the rollback history cannot be read").await;
    let log = gateway.process.stderr.so_far();
    assert!(log.contains("the rollback history cannot be read"), "{log}");
    // From here on it is remembered again.
    put(&gateway, 3).await;
    gateway.process.kill().await;
    let gateway = desk.start("policy.wasm", "").await;
    assert_eq!(policy(gateway.control).await["rolls_back_to"], named(2));
    // A copy that somebody changed does not come back.
    for file in stored(&desk, "blobs", "").iter().filter(|file| file.extension().is_none()) {
        std::fs::write(file, component("deny")).expect("it is changed");
    }
    let (status, told) = back(&gateway).await;
    assert!(told["error"]["message"].as_str().is_some_and(|why| why.contains("the content was changed")), "{told}");
    assert_eq!((status, &policy(gateway.control).await["in_force"]["digest"]), (409, &named(3)), "{told}");
    gateway.process.kill().await;
    // Nor is a folder needed that can be written to.
    std::fs::remove_dir_all(desk.at("cache/nodes")).expect("it is removed");
    desk.write("cache/nodes", "no folder");
    let gateway = desk.start("policy.wasm", "").await;
    gateway.process.stderr.says("the rollback history cannot be read").await;
    let log = gateway.process.stderr.so_far();
    assert!(log.contains("the rollback history cannot be read"), "{log}");
}

#[tokio::test]
async fn directories_of_an_earlier_build_are_named_once_and_ignored() {
    let desk = Desk::new();
    desk.write("policy.wasm", version(1));
    for directory in ["policies", "past", "fleet/node-n", "compiled", "sequence"] {
        std::fs::create_dir_all(desk.at("cache").join(directory)).expect("created");
    }
    desk.write("cache/sequence/n.json", "not JSON");
    let gateway = desk.start("policy.wasm", "").await;
    put(&gateway, 2).await;
    gateway.process.stderr.says("an earlier build").await;
    let log = gateway.process.stderr.so_far();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("an earlier build")).collect();
    let [line] = lines[..] else { panic!("one line: {log}") };
    assert!(line.contains("compiled, fleet, past, policies, sequence") && line.contains("may be deleted"), "{line}");
    gateway.process.kill().await;
    for directory in ["policies", "past", "fleet", "compiled", "sequence"] {
        std::fs::remove_dir_all(desk.at("cache").join(directory)).expect("it is left as it was");
    }
    let gateway = desk.start("policy.wasm", "").await;
    assert_eq!(policy(gateway.control).await["rolls_back_to"], named(1));
    assert!(!gateway.process.stderr.so_far().contains("an earlier build"));
}
