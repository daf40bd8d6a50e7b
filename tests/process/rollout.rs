//! A gateway activates changed files, however they are replaced, and policies that the control port receives.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::artifact::digest::Digest;

use crate::client::Wire;
use crate::control_port::{JSON, WASM, policy, send_request, wait_for_policy};
use crate::guests::component;
use crate::processes::{ChildProcess, Gateway, ProcessOutput, path, run, tidegate, with_timeout};

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// A directory with a configuration, and the files that it refers to.
pub struct ConfigDir(pub TempDir);

/// A component with the same decisions and another digest: it has an additional custom section.
pub fn distinct(component: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = component.to_vec();
    // A custom section of six bytes: a name of one letter, and a number.
    bytes.extend([0, 6, 1, b'n']);
    bytes.extend(number.to_le_bytes());
    bytes
}

impl ConfigDir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.at(name), content).expect("it is written");
    }

    /// Writes another file, and renames it over this one.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let new = format!("{name}.new");
        self.write(&new, content);
        std::fs::rename(self.at(&new), self.at(name)).expect("it is renamed");
    }

    pub fn configure(&self, policy: &str, options: &str) {
        let ports = "listen = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"\nstore = \"memory:\"\n";
        let cache = self.at("cache");
        // The port, and so the default node name, differs after a restart.
        let node = if options.contains("[fleet]") { "" } else { "fleet.node-name = \"desk\"\n" };
        let text = format!(
            "{ports}{node}cache-dir = {cache:?}\ndrain.delay = \"0s\"\n[policy]\nfile = {policy:?}\n{options}\n"
        );
        self.write("node.toml", text);
    }

    pub fn launch(&self) -> (ChildProcess, TempDir) {
        // Only the option's name, for `launch`; the value is in the configuration file.
        Gateway::launch("cache-dir = \"\"", &["--config", &path(self.0.path(), "node.toml")])
    }

    pub async fn start(&self, policy: &str, options: &str) -> Gateway {
        self.configure(policy, options);
        let (process, dir) = self.launch();
        Gateway::wait_until_ready(process, dir).await
    }

    async fn check(&self) -> ProcessOutput {
        let mut command = tidegate(&["check", "--config", &path(self.0.path(), "node.toml")]);
        command.env_remove("TIDEGATE_CACHE_DIR");
        run(command, None).await
    }
}

fn has_digest(digest: &str) -> impl Fn(&Value) -> bool {
    move |reply| reply["active"]["digest"] == digest
}

pub async fn wait_until_active(gateway: &Gateway, change: &str, component: &[u8], number: u64) {
    let reply = wait_for_policy(gateway.control, change, has_digest(&digest(component))).await;
    assert_eq!(reply["active"]["generation"], number, "{change}: activated once: {reply}");
    assert_eq!(reply["active"]["persisted"], true, "{change}: {reply}");
}

async fn wait_for_failure(gateway: &Gateway, stage: &str, text: &str) -> Value {
    wait_for_policy(gateway.control, text, |reply| {
        let reason = reply["last_failure"]["reason"].as_str().unwrap_or_default();
        reply["last_failure"]["stage"] == stage && reason.contains(text)
    })
    .await
}

/// Requests a stream, and returns the status and the body of the answer.
pub async fn request_stream(gateway: &Gateway, channel: &str) -> (u16, String) {
    let target = format!("/api/realtime?channel={channel}");
    let wire = with_timeout("an answer", Wire::get(gateway.data, &target, None, None)).await.expect("an answer");
    (wire.status, wire.body())
}

#[tokio::test]
async fn replaced_policy_file_is_activated() {
    let (config_dir, allow) = (ConfigDir::new(), component("allow"));
    let version = |number| distinct(&allow, number);
    config_dir.write("policy.wasm", version(1));
    let gateway = config_dir.start("policy.wasm", "").await;
    config_dir.write("policy.wasm", version(2));
    wait_until_active(&gateway, "a file that is written in place", &version(2), 2).await;
    config_dir.replace("policy.wasm", version(3));
    wait_until_active(&gateway, "a file that is renamed", &version(3), 3).await;
    std::fs::remove_file(config_dir.at("policy.wasm")).expect("it exists");
    gateway.process.stderr.wait_for_text("the policy's file is gone").await;
    assert!(has_digest(&digest(&version(3)))(&policy(gateway.control).await), "the policy stays active");
    config_dir.write("other.wasm", version(4));
    symlink("other.wasm", config_dir.at("policy.wasm")).expect("a link");
    wait_until_active(&gateway, "a link in place of a file", &version(4), 4).await;
    config_dir.write("other.wasm", version(5));
    wait_until_active(&gateway, "the target of a link", &version(5), 5).await;
    // Touching the file, or writing the same content, activates nothing.
    config_dir.replace("other.wasm", version(5));
    std::fs::File::options()
        .append(true)
        .open(config_dir.at("other.wasm"))
        .expect("a file")
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .expect("its time");
    config_dir.replace("policy.wasm", version(6));
    wait_until_active(&gateway, "a file in place of a link", &version(6), 6).await;
}

#[tokio::test]
async fn policy_path_that_is_not_a_regular_file_is_rejected_without_blocking() {
    let (config_dir, allow) = (ConfigDir::new(), component("allow"));
    config_dir.write("policy.wasm", distinct(&allow, 1));
    let gateway = config_dir.start("policy.wasm", "").await;
    let path_of_policy = config_dir.at("policy.wasm");
    let clear =
        || std::fs::remove_file(&path_of_policy).or_else(|_| std::fs::remove_dir(&path_of_policy)).expect("it exists");
    // Reading a pipe without a writer would never end.
    clear();
    let mut command = tokio::process::Command::new("mkfifo");
    command.arg(&path_of_policy);
    assert!(run(command, None).await.status.success());
    wait_for_failure(&gateway, "fetched", "not a regular file").await;
    clear();
    config_dir.write("policy.wasm", distinct(&allow, 2));
    wait_until_active(&gateway, "a file after a pipe", &distinct(&allow, 2), 2).await;
    clear();
    std::fs::create_dir(&path_of_policy).expect("a directory");
    let has_two_failures = |reply: &Value| reply["failures"].as_array().is_some_and(|failures| failures.len() == 2);
    let reply = wait_for_policy(gateway.control, "a directory is rejected", has_two_failures).await;
    assert_eq!(reply["failures"][0]["reason"], reply["failures"][1]["reason"], "{reply}");
    clear();
    // The file is sparse.
    std::fs::File::create(&path_of_policy).and_then(|file| file.set_len(300 << 20)).expect("a large file");
    wait_for_failure(&gateway, "fetched", "larger than 67108864 bytes").await;
    assert!(has_digest(&digest(&distinct(&allow, 2)))(&policy(gateway.control).await), "the active policy stays");
    config_dir.write("policy.wasm", distinct(&allow, 3));
    wait_until_active(&gateway, "a file after a large file", &distinct(&allow, 3), 3).await;
}

#[tokio::test]
async fn replaced_symbolic_link_in_the_path_is_followed() {
    let (config_dir, allow) = (ConfigDir::new(), component("allow"));
    let version = |number| distinct(&allow, number);
    // Like a ConfigMap that Kubernetes mounts: replacing one link changes all files.
    for folder in ["map/..1", "map/..2", "releases/1", "releases/2"] {
        std::fs::create_dir_all(config_dir.at(folder)).expect("a directory");
    }
    config_dir.write("map/..1/policy.wasm", version(1));
    config_dir.write("map/..2/policy.wasm", version(2));
    symlink("..1", config_dir.at("map/..data")).expect("a link");
    symlink("..data/policy.wasm", config_dir.at("map/policy.wasm")).expect("a link");
    let gateway = config_dir.start("map/policy.wasm", "").await;
    symlink("..2", config_dir.at("map/..data_tmp")).expect("a link");
    std::fs::rename(config_dir.at("map/..data_tmp"), config_dir.at("map/..data")).expect("it is renamed");
    std::fs::remove_dir_all(config_dir.at("map/..1")).expect("it is removed");
    wait_until_active(&gateway, "a ConfigMap", &version(2), 2).await;
    // A second time, from the new target of the link.
    std::fs::create_dir_all(config_dir.at("map/..3")).expect("a directory");
    config_dir.write("map/..3/policy.wasm", version(3));
    symlink("..3", config_dir.at("map/..data_tmp")).expect("a link");
    std::fs::rename(config_dir.at("map/..data_tmp"), config_dir.at("map/..data")).expect("it is renamed");
    wait_until_active(&gateway, "a ConfigMap, the second time", &version(3), 3).await;

    let config_dir = ConfigDir::new();
    for (number, folder) in [(1, "releases/1"), (2, "releases/2")] {
        std::fs::create_dir_all(config_dir.at(folder)).expect("a directory");
        config_dir.write(&format!("{folder}/policy.wasm"), version(number));
    }
    symlink("releases/1", config_dir.at("current")).expect("a link");
    let gateway = config_dir.start("current/policy.wasm", "").await;
    // Like `ln -sfn`.
    symlink("releases/2", config_dir.at("current.new")).expect("a link");
    std::fs::rename(config_dir.at("current.new"), config_dir.at("current")).expect("it is renamed");
    wait_until_active(&gateway, "a folder's link", &version(2), 2).await;
}

#[tokio::test]
async fn partially_written_file_is_never_activated() {
    let (config_dir, allow, deny) = (ConfigDir::new(), component("allow"), component("deny"));
    config_dir.write("policy.wasm", &allow);
    let gateway = config_dir.start("policy.wasm", "").await;
    for length in [0, 1, 8, deny.len() / 2, deny.len() - 1] {
        config_dir.write("policy.wasm", &deny[..length]);
        let words = match length {
            0..8 => "is not WebAssembly",
            8 => "it exports nothing",
            _ => "is not a valid component",
        };
        let hash = digest(&deny[..length]);
        let reply = wait_for_policy(gateway.control, words, |reply| reply["last_failure"]["digest"] == hash).await;
        assert!(
            reply["last_failure"]["reason"].as_str().is_some_and(|reason| reason.contains(words)),
            "{length} bytes: {reply}"
        );
        assert_eq!(
            (&reply["active"]["generation"], request_stream(&gateway, "c").await.0),
            (&json!(1), 200),
            "{length} bytes: {reply}"
        );
    }
    config_dir.write("policy.wasm", &deny);
    wait_until_active(&gateway, "the complete file", &deny, 2).await;
    assert_eq!(request_stream(&gateway, "c").await.0, 418);
}

const ALLOWS: &str = "[[case]]\nname = \"any request is allowed\"\nexpect.allow = true\n";

#[tokio::test]
async fn failing_cases_prevent_activation() {
    let (config_dir, allow, deny) = (ConfigDir::new(), component("allow"), component("deny"));
    config_dir.write("policy.wasm", &deny);
    config_dir.write("policy.cases.toml", ALLOWS);
    config_dir.configure("policy.wasm", "");
    let (process, _dir) = config_dir.launch();
    for ended in [process.end().await, config_dir.check().await] {
        assert_eq!((ended.code(), &*ended.stdout), (Some(1), ""), "{ended:?}");
        assert!(
            ended.stderr.contains("policy.wasm") && ended.stderr.contains("\"any request is allowed\""),
            "{ended:?}"
        );
    }
    config_dir.write("policy.cases.toml", format!("requires.settings = [\"word\"]\n{ALLOWS}"));
    config_dir.write("policy.wasm", &allow);
    let ended = config_dir.check().await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("policy.settings.word"), "{ended:?}");
    config_dir.write("policy.cases.toml", ALLOWS);
    let ended = config_dir.check().await;
    assert!(ended.code() == Some(0) && ended.stdout.contains("1 test cases passed"), "{ended:?}");

    let gateway = config_dir.start("policy.wasm", "").await;
    config_dir.write("policy.wasm", &deny);
    wait_for_failure(&gateway, "tested", "\"any request is allowed\"").await;
    assert_eq!(request_stream(&gateway, "c").await.0, 200);
    // The policy that failed is activated once its cases pass.
    config_dir.write("policy.cases.toml", ALLOWS.replace("allow = true", "status = 418"));
    wait_until_active(&gateway, "other cases", &deny, 2).await;
    // A change of the cases alone starts an activation, too.
    config_dir.write("policy.cases.toml", "requires.settings = [\"word\"]");
    wait_for_failure(&gateway, "linked", "policy.settings.word").await;
    assert_eq!(policy(gateway.control).await["active"]["generation"], 2);
}

#[tokio::test]
async fn changed_configuration_is_activated_like_a_policy() {
    let config_dir = ConfigDir::new();
    config_dir.write("policy.wasm", component("settings"));
    config_dir.write("word", "one\n");
    let settings = "settings.word = \"${file:word}\"";
    let gateway = config_dir.start("policy.wasm", settings).await;
    assert_eq!(request_stream(&gateway, "k:1").await, (418, "one".into()));
    // Referenced files are read again on SIGHUP.
    config_dir.write("word", "two\n");
    gateway.process.signal("HUP").await;
    wait_for_policy(gateway.control, "another setting", |reply| reply["active"]["generation"] == 2).await;
    assert_eq!(request_stream(&gateway, "k:1").await, (418, "two".into()));
    // The configuration file is reloaded, too; keys under look-up prefixes are not channels any more.
    config_dir.configure(
        "policy.wasm",
        &format!("{settings}\nlookup.prefixes = [\"k:\"]\nconcurrency = 7\ncache-size = \"0\""),
    );
    let reply = wait_for_policy(gateway.control, "a prefix", |reply| reply["active"]["generation"] == 3).await;
    assert_eq!(reply["configuration"]["needs_restart"], json!(["policy.concurrency"]), "{reply}");
    assert_eq!(request_stream(&gateway, "k:1").await.0, 403);
    let is_logged =
        |log: &str| log.lines().any(|line| line.contains("policy.concurrency") && line.contains("next start"));
    assert!(with_timeout("the log line is written", gateway.process.stderr.wait_for(is_logged)).await);
    // An error in the configuration changes nothing.
    config_dir.configure("policy.wasm", "timeout = \"soon\"");
    let reply = wait_for_policy(gateway.control, "an error in the configuration", |reply| {
        reply["configuration"]["error"].is_string()
    })
    .await;
    assert!(reply["configuration"]["error"].as_str().is_some_and(|reason| reason.contains("timeout")), "{reply}");
    assert_eq!(
        (&reply["active"]["generation"], request_stream(&gateway, "c").await),
        (&json!(3), (418, "two".into())),
        "{reply}"
    );
    // An error that only the pipeline finds changes nothing, either.
    config_dir.write("policy.cases.toml", "requires.settings = [\"word\"]\n");
    wait_for_policy(gateway.control, "cases", |reply| reply["active"]["generation"] == 4).await;
    config_dir.configure("policy.wasm", "");
    let reply = wait_for_failure(&gateway, "linked", "policy.settings.word").await;
    assert_eq!(
        (&reply["active"]["generation"], request_stream(&gateway, "c").await),
        (&json!(4), (418, "two".into())),
        "{reply}"
    );
    // The configuration may name another file.
    config_dir.write("next.wasm", component("allow"));
    config_dir.configure("next.wasm", "");
    wait_until_active(&gateway, "another file", &component("allow"), 5).await;
    assert_eq!(request_stream(&gateway, "k:1").await.0, 200, "the new configuration has no prefix");
}

#[tokio::test]
async fn activation_over_http_replaces_the_policy_file() {
    let (config_dir, allow, deny) = (ConfigDir::new(), component("allow"), component("deny"));
    config_dir.write("policy.wasm", &allow);
    let gateway = config_dir.start("policy.wasm", "").await;
    let control = gateway.control;
    let (status, reply) = send_request(control, "PUT", "/v1/policy?dry-run", WASM, &deny).await;
    assert_eq!((status, &reply["digest"]), (200, &json!(digest(&deny))), "{reply}");
    assert_eq!(std::fs::read(config_dir.at("policy.wasm")).expect("the file"), allow, "nothing changed");
    let (status, reply) = send_request(control, "PUT", "/v1/policy", WASM, b"none").await;
    assert_eq!((status, &reply["error"]["stage"]), (422, &json!("compiled")), "{reply}");
    let mismatching = format!("{WASM}if-match: \"{}\"\r\n", digest(&deny));
    assert_eq!(send_request(control, "PUT", "/v1/policy", &mismatching, &deny).await.0, 412);
    let matching = format!("{WASM}if-match: \"{}\"\r\n", digest(&allow));
    let (status, reply) = send_request(control, "PUT", "/v1/policy", &matching, &deny).await;
    assert_eq!((status, &reply["active"]["persisted"]), (200, &json!(true)), "{reply}");
    assert_eq!(std::fs::read(config_dir.at("policy.wasm")).expect("the file"), deny);
    assert_eq!(request_stream(&gateway, "c").await.0, 418);
    // The gateway stores the cases of a bundle, and runs them for later components that arrive without cases.
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let third = distinct(&allow, 3);
    let bundle = json!({ "component": base64(&third), "cases": ALLOWS }).to_string();
    let (status, reply) = send_request(control, "PUT", "/v1/policy", JSON, bundle.as_bytes()).await;
    assert_eq!((status, &reply["active"]["generation"]), (200, &json!(3)), "{reply}");
    assert_eq!(std::fs::read_to_string(config_dir.at("policy.cases.toml")).expect("the cases"), ALLOWS);
    let (status, reply) = send_request(control, "PUT", "/v1/policy", WASM, &deny).await;
    assert_eq!((status, &reply["error"]["stage"]), (422, &json!("tested")), "{reply}");
    // The rollback restores the component and removes the cases, as before.
    let (status, reply) = send_request(control, "POST", "/v1/policy/rollback", JSON, b"{}").await;
    assert_eq!((status, &reply["active"]["digest"]), (200, &json!(digest(&deny))), "{reply}");
    assert_eq!(std::fs::read(config_dir.at("policy.wasm")).expect("the file"), deny);
    assert!(!config_dir.at("policy.cases.toml").exists());
    // The file watcher does not activate again what the gateway itself wrote.
    config_dir.replace("policy.wasm", distinct(&allow, 5));
    wait_until_active(&gateway, "a file after a rollback", &distinct(&allow, 5), 5).await;
    let files: Vec<_> = std::fs::read_dir(config_dir.0.path())
        .expect("a directory")
        .map(|file| file.expect("a file").file_name())
        .collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().contains("tidegate-")), "{files:?}");
}

#[tokio::test]
async fn activation_is_reported_as_not_persisted_when_the_file_is_a_link() {
    let (config_dir, allow, deny) = (ConfigDir::new(), component("allow"), component("deny"));
    config_dir.write("mounted.wasm", &allow);
    symlink("mounted.wasm", config_dir.at("policy.wasm")).expect("a link");
    let gateway = config_dir.start("policy.wasm", "").await;
    let (status, reply) = send_request(gateway.control, "PUT", "/v1/policy", WASM, &deny).await;
    assert_eq!((status, &reply["active"]["persisted"]), (200, &json!(false)), "{reply}");
    assert!(
        reply["not_persisted_reason"].as_str().is_some_and(|reason| reason.contains("is a symbolic link")),
        "{reply}"
    );
    assert_eq!(std::fs::read(config_dir.at("mounted.wasm")).expect("the file"), allow);
    // A changed configuration does not activate the file's policy again, and a changed file does.
    gateway.process.signal("HUP").await;
    wait_for_policy(gateway.control, "the configuration is read", |reply| reply["configuration"]["read_at"].is_u64())
        .await;
    assert_eq!(request_stream(&gateway, "c").await.0, 418);
    config_dir.write("mounted.wasm", distinct(&allow, 3));
    wait_until_active(&gateway, "the target of the link", &distinct(&allow, 3), 3).await;
}

#[tokio::test]
async fn dev_command_activates_a_changed_policy() {
    let (config_dir, allow, deny) = (ConfigDir::new(), component("allow"), component("deny"));
    config_dir.write("policy.wasm", &allow);
    let ports = ["dev", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--policy"];
    let mut command = tidegate(&ports);
    command.arg(config_dir.at("policy.wasm")).current_dir(config_dir.0.path()).stdin(std::process::Stdio::null());
    let gateway =
        Gateway::wait_until_ready(ChildProcess::start(command), tempfile::tempdir().expect("a directory")).await;
    config_dir.write("policy.wasm", &deny);
    wait_until_active(&gateway, "a rebuilt policy", &deny, 2).await;
}

#[tokio::test]
async fn restart_activates_the_last_active_policy() {
    let (config_dir, allow, deny) = (ConfigDir::new(), component("allow"), component("deny"));
    config_dir.write("policy.wasm", &allow);
    let gateway = config_dir.start("policy.wasm", "").await;
    assert_eq!(send_request(gateway.control, "PUT", "/v1/policy", WASM, &deny).await.0, 200);
    gateway.process.kill().await;
    let gateway = config_dir.start("policy.wasm", "").await;
    wait_until_active(&gateway, "a restart", &deny, 1).await;
    assert!(Path::new(&config_dir.at("cache/blobs")).exists());
}
