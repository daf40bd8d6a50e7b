//! A gateway follows the files that it is made of, in whatever way they are replaced, and takes another policy at its control port.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::artifact::bundle::digest;

use crate::children::{Ended, Gateway, Running, path, run, tidegate, within};
use crate::client::Wire;
use crate::control_port::{JSON, WASM, ask, policy, policy_is};
use crate::guests::component;

/// A folder with a configuration, and what it speaks of.
pub struct Desk(pub TempDir);

/// Components that decide alike and are not the same: a section of no meaning tells them apart.
pub fn distinct(component: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = component.to_vec();
    // A custom section of six bytes: a name of one letter, and a number.
    bytes.extend([0, 6, 1, b'n']);
    bytes.extend(number.to_le_bytes());
    bytes
}

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.at(name), content).expect("it is written");
    }

    /// Beside the file, and then over it, as careful programs do it.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let new = format!("{name}.new");
        self.write(&new, content);
        std::fs::rename(self.at(&new), self.at(name)).expect("it is renamed");
    }

    pub fn configure(&self, policy: &str, more: &str) {
        let ports = "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\nstore = \"memory:\"\n";
        let cache = self.at("cache");
        let text = format!("{ports}cache-dir = {cache:?}\ndrain.delay = \"0s\"\n[policy]\nfile = {policy:?}\n{more}\n");
        self.write("node.toml", text);
    }

    pub fn launch(&self) -> (Running, TempDir) {
        // The name alone: what it is stands in the file.
        Gateway::launch("cache-dir = \"\"", &["--config", &path(self.0.path(), "node.toml")])
    }

    pub async fn start(&self, policy: &str, more: &str) -> Gateway {
        self.configure(policy, more);
        let (process, dir) = self.launch();
        Gateway::when_up(process, dir).await
    }

    async fn check(&self) -> Ended {
        let mut command = tidegate(&["check", "--config", &path(self.0.path(), "node.toml")]);
        command.env_remove("TIDEGATE_CACHE_DIR");
        run(command, None).await
    }
}

fn is(digest: &str) -> impl Fn(&Value) -> bool {
    move |told| told["in_force"]["digest"] == digest
}

pub async fn takes_force(gateway: &Gateway, what: &str, component: &[u8], number: u64) {
    let told = policy_is(gateway.control, what, is(&digest(component))).await;
    assert_eq!(told["in_force"]["number"], number, "{what}: once each: {told}");
    assert_eq!(told["in_force"]["until_restart"], false, "{what}: {told}");
}

async fn refused(gateway: &Gateway, stage: &str, words: &str) -> Value {
    policy_is(gateway.control, words, |told| {
        let why = told["last_refusal"]["why"].as_str().unwrap_or_default();
        told["last_refusal"]["stage"] == stage && why.contains(words)
    })
    .await
}

/// The answer to a client that wants a channel: status and body.
pub async fn asks(gateway: &Gateway, channel: &str) -> (u16, String) {
    let target = format!("/api/realtime?channel={channel}");
    let wire = within("an answer", Wire::get(gateway.data, &target, None, None)).await.expect("an answer");
    (wire.status, wire.body())
}

#[tokio::test]
async fn a_file_is_followed_in_whatever_way_it_is_replaced() {
    let (desk, allow) = (Desk::new(), component("allow"));
    let version = |number| distinct(&allow, number);
    desk.write("policy.wasm", version(1));
    let gateway = desk.start("policy.wasm", "").await;
    desk.write("policy.wasm", version(2));
    takes_force(&gateway, "a file that is written in place", &version(2), 2).await;
    desk.replace("policy.wasm", version(3));
    takes_force(&gateway, "a file that is renamed", &version(3), 3).await;
    std::fs::remove_file(desk.at("policy.wasm")).expect("it is there");
    gateway.process.stderr.says("the policy's file is gone").await;
    assert!(is(&digest(&version(3)))(&policy(gateway.control).await), "it decides all the same");
    desk.write("other.wasm", version(4));
    symlink("other.wasm", desk.at("policy.wasm")).expect("a link");
    takes_force(&gateway, "a link in place of a file", &version(4), 4).await;
    desk.write("other.wasm", version(5));
    takes_force(&gateway, "what a link points to", &version(5), 5).await;
    // Nothing happens to who only touches it, or writes the same again.
    desk.replace("other.wasm", version(5));
    std::fs::File::options()
        .append(true)
        .open(desk.at("other.wasm"))
        .expect("a file")
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .expect("its time");
    desk.replace("policy.wasm", version(6));
    takes_force(&gateway, "a file in place of a link", &version(6), 6).await;
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_holds_up_nobody() {
    let (desk, allow) = (Desk::new(), component("allow"));
    desk.write("policy.wasm", distinct(&allow, 1));
    let gateway = desk.start("policy.wasm", "").await;
    let place = desk.at("policy.wasm");
    let clear = || std::fs::remove_file(&place).or_else(|_| std::fs::remove_dir(&place)).expect("it is there");
    // A pipe that nobody writes to would be read for ever.
    clear();
    let mut command = tokio::process::Command::new("mkfifo");
    command.arg(&place);
    assert!(run(command, None).await.status.success());
    refused(&gateway, "fetched", "not a regular file").await;
    clear();
    desk.write("policy.wasm", distinct(&allow, 2));
    takes_force(&gateway, "behind a pipe", &distinct(&allow, 2), 2).await;
    clear();
    std::fs::create_dir(&place).expect("a folder");
    let both = |told: &Value| told["refusals"].as_array().is_some_and(|refusals| refusals.len() == 2);
    let told = policy_is(gateway.control, "a folder is refused", both).await;
    assert_eq!(told["refusals"][0]["why"], told["refusals"][1]["why"], "{told}");
    clear();
    // It has holes only.
    std::fs::File::create(&place).and_then(|file| file.set_len(300 << 20)).expect("a large file");
    refused(&gateway, "fetched", "larger than 67108864 bytes").await;
    assert!(is(&digest(&distinct(&allow, 2)))(&policy(gateway.control).await), "nothing of that changed anything");
    desk.write("policy.wasm", distinct(&allow, 3));
    takes_force(&gateway, "behind all of that", &distinct(&allow, 3), 3).await;
}

#[tokio::test]
async fn links_on_the_way_are_followed_too() {
    let (desk, allow) = (Desk::new(), component("allow"));
    let version = |number| distinct(&allow, number);
    // As Kubernetes mounts a ConfigMap: all files change when one link does.
    for folder in ["map/..1", "map/..2", "releases/1", "releases/2"] {
        std::fs::create_dir_all(desk.at(folder)).expect("a folder");
    }
    desk.write("map/..1/policy.wasm", version(1));
    desk.write("map/..2/policy.wasm", version(2));
    symlink("..1", desk.at("map/..data")).expect("a link");
    symlink("..data/policy.wasm", desk.at("map/policy.wasm")).expect("a link");
    let gateway = desk.start("map/policy.wasm", "").await;
    symlink("..2", desk.at("map/..data_tmp")).expect("a link");
    std::fs::rename(desk.at("map/..data_tmp"), desk.at("map/..data")).expect("it is renamed");
    std::fs::remove_dir_all(desk.at("map/..1")).expect("it is removed");
    takes_force(&gateway, "a ConfigMap", &version(2), 2).await;
    // And once more, from where it points to now.
    std::fs::create_dir_all(desk.at("map/..3")).expect("a folder");
    desk.write("map/..3/policy.wasm", version(3));
    symlink("..3", desk.at("map/..data_tmp")).expect("a link");
    std::fs::rename(desk.at("map/..data_tmp"), desk.at("map/..data")).expect("it is renamed");
    takes_force(&gateway, "a ConfigMap, the second time", &version(3), 3).await;

    let desk = Desk::new();
    for (number, folder) in [(1, "releases/1"), (2, "releases/2")] {
        std::fs::create_dir_all(desk.at(folder)).expect("a folder");
        desk.write(&format!("{folder}/policy.wasm"), version(number));
    }
    symlink("releases/1", desk.at("current")).expect("a link");
    let gateway = desk.start("current/policy.wasm", "").await;
    // As `ln -sfn` does it.
    symlink("releases/2", desk.at("current.new")).expect("a link");
    std::fs::rename(desk.at("current.new"), desk.at("current")).expect("it is renamed");
    takes_force(&gateway, "a folder's link", &version(2), 2).await;
}

#[tokio::test]
async fn half_a_file_never_takes_force() {
    let (desk, allow, deny) = (Desk::new(), component("allow"), component("deny"));
    desk.write("policy.wasm", &allow);
    let gateway = desk.start("policy.wasm", "").await;
    for half in [0, 1, 8, deny.len() / 2, deny.len() - 1] {
        desk.write("policy.wasm", &deny[..half]);
        let words = match half {
            0..8 => "is not WebAssembly",
            8 => "it exports nothing",
            _ => "is not a valid component",
        };
        let hash = digest(&deny[..half]);
        let told = policy_is(gateway.control, words, |told| told["last_refusal"]["digest"] == hash).await;
        assert!(told["last_refusal"]["why"].as_str().is_some_and(|why| why.contains(words)), "{half}: {told}");
        assert_eq!((&told["in_force"]["number"], asks(&gateway, "c").await.0), (&json!(1), 200), "{half}: {told}");
    }
    desk.write("policy.wasm", &deny);
    takes_force(&gateway, "the whole", &deny, 2).await;
    assert_eq!(asks(&gateway, "c").await.0, 418);
}

const ALLOWS: &str = "[[case]]\nname = \"anybody\"\nexpect.allow = true\n";

#[tokio::test]
async fn cases_are_the_last_gate() {
    let (desk, allow, deny) = (Desk::new(), component("allow"), component("deny"));
    desk.write("policy.wasm", &deny);
    desk.write("policy.cases.toml", ALLOWS);
    desk.configure("policy.wasm", "");
    let (process, _dir) = desk.launch();
    for ended in [process.end().await, desk.check().await] {
        assert_eq!((ended.code(), &*ended.stdout), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains("policy.wasm") && ended.stderr.contains("\"anybody\""), "{ended:?}");
    }
    desk.write("policy.cases.toml", format!("requires.settings = [\"word\"]\n{ALLOWS}"));
    desk.write("policy.wasm", &allow);
    let ended = desk.check().await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("policy.settings.word"), "{ended:?}");
    desk.write("policy.cases.toml", ALLOWS);
    let ended = desk.check().await;
    assert!(ended.code() == Some(0) && ended.stdout.contains("passes 1 case"), "{ended:?}");

    let gateway = desk.start("policy.wasm", "").await;
    desk.write("policy.wasm", &deny);
    refused(&gateway, "tested", "\"anybody\"").await;
    assert_eq!(asks(&gateway, "c").await.0, 200);
    // With cases that it passes it takes force, though it was refused before.
    desk.write("policy.cases.toml", ALLOWS.replace("allow = true", "status = 418"));
    takes_force(&gateway, "other cases", &deny, 2).await;
    // Cases alone are a change, too.
    desk.write("policy.cases.toml", "requires.settings = [\"word\"]");
    refused(&gateway, "linked", "policy.settings.word").await;
    assert_eq!(policy(gateway.control).await["in_force"]["number"], 2);
}

#[tokio::test]
async fn a_configuration_takes_force_as_a_policy_does() {
    let desk = Desk::new();
    desk.write("policy.wasm", component("settings"));
    desk.write("word", "one\n");
    let settings = "settings.word = \"${file:word}\"";
    let gateway = desk.start("policy.wasm", settings).await;
    assert_eq!(asks(&gateway, "k:1").await, (418, "one".into()));
    // What a setting refers to is read when that is asked for.
    desk.write("word", "two\n");
    gateway.process.signal("HUP").await;
    policy_is(gateway.control, "another word", |told| told["in_force"]["number"] == 2).await;
    assert_eq!(asks(&gateway, "k:1").await, (418, "two".into()));
    // The file of the configuration is followed as well; keys that can be looked up are no channels from then on.
    desk.configure("policy.wasm", &format!("{settings}\nlookup.prefixes = [\"k:\"]\nconcurrency = 7\ncache = \"0\""));
    let told = policy_is(gateway.control, "a prefix", |told| told["in_force"]["number"] == 3).await;
    assert_eq!(told["configuration"]["needs_restart"], json!(["policy.concurrency"]), "{told}");
    assert_eq!(asks(&gateway, "k:1").await.0, 403);
    let told = |log: &str| log.lines().any(|line| line.contains("policy.concurrency") && line.contains("next start"));
    assert!(within("a line in the log", gateway.process.stderr.wait_for(told)).await);
    // A mistake changes nothing.
    desk.configure("policy.wasm", "timeout = \"soon\"");
    let told = policy_is(gateway.control, "a mistake", |told| told["configuration"]["error"].is_string()).await;
    assert!(told["configuration"]["error"].as_str().is_some_and(|why| why.contains("timeout")), "{told}");
    assert_eq!((&told["in_force"]["number"], asks(&gateway, "c").await), (&json!(3), (418, "two".into())), "{told}");
    // Nor does one that only the stages find.
    desk.write("policy.cases.toml", "requires.settings = [\"word\"]\n");
    policy_is(gateway.control, "cases", |told| told["in_force"]["number"] == 4).await;
    desk.configure("policy.wasm", "");
    let told = refused(&gateway, "linked", "policy.settings.word").await;
    assert_eq!((&told["in_force"]["number"], asks(&gateway, "c").await), (&json!(4), (418, "two".into())), "{told}");
    // The configuration may name another file.
    desk.write("next.wasm", component("allow"));
    desk.configure("next.wasm", "");
    takes_force(&gateway, "another file", &component("allow"), 5).await;
    assert_eq!(asks(&gateway, "k:1").await.0, 200, "nothing is looked up any more");
}

#[tokio::test]
async fn what_is_sent_replaces_the_file() {
    let (desk, allow, deny) = (Desk::new(), component("allow"), component("deny"));
    desk.write("policy.wasm", &allow);
    let gateway = desk.start("policy.wasm", "").await;
    let control = gateway.control;
    let (status, told) = ask(control, "PUT", "/v1/policy?dry-run", WASM, &deny).await;
    assert_eq!((status, &told["digest"]), (200, &json!(digest(&deny))), "{told}");
    assert_eq!(std::fs::read(desk.at("policy.wasm")).expect("the file"), allow, "nothing changed");
    let (status, told) = ask(control, "PUT", "/v1/policy", WASM, b"none").await;
    assert_eq!((status, &told["error"]["stage"]), (422, &json!("compiled")), "{told}");
    let other = format!("{WASM}if-match: \"{}\"\r\n", digest(&deny));
    assert_eq!(ask(control, "PUT", "/v1/policy", &other, &deny).await.0, 412);
    let seen = format!("{WASM}if-match: \"{}\"\r\n", digest(&allow));
    let (status, told) = ask(control, "PUT", "/v1/policy", &seen, &deny).await;
    assert_eq!((status, &told["in_force"]["until_restart"]), (200, &json!(false)), "{told}");
    assert_eq!(std::fs::read(desk.at("policy.wasm")).expect("the file"), deny);
    assert_eq!(asks(&gateway, "c").await.0, 418);
    // Cases go with it, and from then on they are asked of whatever comes without.
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let third = distinct(&allow, 3);
    let bundle = json!({ "component": base64(&third), "cases": ALLOWS }).to_string();
    let (status, told) = ask(control, "PUT", "/v1/policy", JSON, bundle.as_bytes()).await;
    assert_eq!((status, &told["in_force"]["number"]), (200, &json!(3)), "{told}");
    assert_eq!(std::fs::read_to_string(desk.at("policy.cases.toml")).expect("the cases"), ALLOWS);
    let (status, told) = ask(control, "PUT", "/v1/policy", WASM, &deny).await;
    assert_eq!((status, &told["error"]["stage"]), (422, &json!("tested")), "{told}");
    // Back, with the file as it was: without cases.
    let (status, told) = ask(control, "POST", "/v1/policy/rollback", JSON, b"{}").await;
    assert_eq!((status, &told["in_force"]["digest"]), (200, &json!(digest(&deny))), "{told}");
    assert_eq!(std::fs::read(desk.at("policy.wasm")).expect("the file"), deny);
    assert!(!desk.at("policy.cases.toml").exists());
    // What was written here is not loaded once more by who follows the file.
    desk.replace("policy.wasm", distinct(&allow, 5));
    takes_force(&gateway, "a file behind all that", &distinct(&allow, 5), 5).await;
    let left: Vec<_> =
        std::fs::read_dir(desk.0.path()).expect("a folder").map(|file| file.expect("a file").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("tidegate-")), "{left:?}");
}

#[tokio::test]
async fn where_the_file_cannot_be_replaced_it_is_said_to_last_until_the_restart() {
    let (desk, allow, deny) = (Desk::new(), component("allow"), component("deny"));
    desk.write("mounted.wasm", &allow);
    symlink("mounted.wasm", desk.at("policy.wasm")).expect("a link");
    let gateway = desk.start("policy.wasm", "").await;
    let (status, told) = ask(gateway.control, "PUT", "/v1/policy", WASM, &deny).await;
    assert_eq!((status, &told["in_force"]["until_restart"]), (200, &json!(true)), "{told}");
    assert!(told["until_restart_because"].as_str().is_some_and(|why| why.contains("is a symbolic link")), "{told}");
    assert_eq!(std::fs::read(desk.at("mounted.wasm")).expect("the file"), allow);
    // Another configuration does not bring the file's back, and the file's own change does.
    gateway.process.signal("HUP").await;
    policy_is(gateway.control, "the configuration is read", |told| told["configuration"]["read"].is_u64()).await;
    assert_eq!(asks(&gateway, "c").await.0, 418);
    desk.write("mounted.wasm", distinct(&allow, 3));
    takes_force(&gateway, "what the link points to", &distinct(&allow, 3), 3).await;
}

#[tokio::test]
async fn dev_follows_its_policy_too() {
    let (desk, allow, deny) = (Desk::new(), component("allow"), component("deny"));
    desk.write("policy.wasm", &allow);
    let ports = ["dev", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--policy"];
    let mut command = tidegate(&ports);
    command.arg(desk.at("policy.wasm")).current_dir(desk.0.path()).stdin(std::process::Stdio::null());
    let gateway = Gateway::when_up(Running::start(command), tempfile::tempdir().expect("a folder")).await;
    desk.write("policy.wasm", &deny);
    takes_force(&gateway, "a policy that is built anew", &deny, 2).await;
}

#[tokio::test]
async fn what_is_in_force_last_is_what_starts_next() {
    let (desk, allow, deny) = (Desk::new(), component("allow"), component("deny"));
    desk.write("policy.wasm", &allow);
    let gateway = desk.start("policy.wasm", "").await;
    assert_eq!(ask(gateway.control, "PUT", "/v1/policy", WASM, &deny).await.0, 200);
    gateway.process.kill().await;
    let gateway = desk.start("policy.wasm", "").await;
    takes_force(&gateway, "the start", &deny, 1).await;
    assert!(Path::new(&desk.at("cache/blobs")).exists());
}
