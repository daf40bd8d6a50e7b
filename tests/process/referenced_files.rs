//! Files that the configuration refers to are reloaded like the configuration: secrets and keys of token profiles.

use std::os::unix::fs::symlink;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::control_port::wait_for_policy;
use crate::guests::component;
use crate::processes::{Gateway, run, wait_until, with_timeout};
use crate::rollout::{ConfigDir, request_stream};
use crate::tokens::{claims, request_with_token};

/// Waits for this generation, and asserts that the policy has this setting.
async fn wait_until_setting(gateway: &Gateway, word: &str, number: u64) -> Value {
    let reply = wait_for_policy(gateway.control, word, |reply| reply["active"]["generation"] == number).await;
    assert_eq!(request_stream(gateway, "c").await, (418, word.into()), "{reply}");
    reply
}

/// Waits until the status of the configuration has this error, or no error.
async fn wait_for_config_error(gateway: &Gateway, expected: Option<&str>) -> Value {
    wait_for_policy(gateway.control, "the status of the configuration", |reply| {
        let error = reply["configuration"]["error"].as_str();
        match expected {
            Some(expected) => error.is_some_and(|error| error.contains(expected)),
            None => error.is_none(),
        }
    })
    .await
}

#[tokio::test]
async fn replaced_secret_file_is_reloaded() {
    let config_dir = ConfigDir::new();
    config_dir.write("policy.wasm", component("settings"));
    // Like a Secret that Kubernetes mounts.
    let mount = |number: u32, word: &str| {
        std::fs::create_dir_all(config_dir.at(&format!("mnt/..{number}"))).expect("a directory");
        config_dir.write(&format!("mnt/..{number}/word"), word);
        symlink(format!("..{number}"), config_dir.at("mnt/..data_tmp")).expect("a link");
        std::fs::rename(config_dir.at("mnt/..data_tmp"), config_dir.at("mnt/..data")).expect("it is renamed");
    };
    mount(1, "one\n");
    symlink("..data/word", config_dir.at("mnt/word")).expect("a link");
    let gateway = config_dir.start("policy.wasm", "settings.word = \"${file:mnt/word}\"").await;
    assert_eq!(request_stream(&gateway, "c").await, (418, "one".into()));
    mount(2, "two\n");
    std::fs::remove_dir_all(config_dir.at("mnt/..1")).expect("it is removed");
    wait_until_setting(&gateway, "two", 2).await;
    mount(3, "three\n");
    wait_until_setting(&gateway, "three", 3).await;
    config_dir.write("mnt/..3/word", "four\n");
    wait_until_setting(&gateway, "four", 4).await;
    config_dir.replace("mnt/..3/word", "five\n");
    wait_until_setting(&gateway, "five", 5).await;

    // A missing file changes nothing, and neither does an invalid one; both are reported, without the content.
    std::fs::remove_file(config_dir.at("mnt/..3/word")).expect("it exists");
    let reply = wait_for_config_error(&gateway, Some("policy.settings.word")).await;
    assert!(reply.to_string().contains("mnt/word"), "{reply}");
    wait_until_setting(&gateway, "five", 5).await;
    let log_line = gateway.process.stderr.wait_for(|log| log.contains("the configuration has a mistake"));
    assert!(with_timeout("the log line is written", log_line).await);
    config_dir.write("mnt/..3/word", [b"hunter2".as_slice(), &[0xff]].concat());
    let reply = wait_for_config_error(&gateway, Some("must be UTF-8 text")).await;
    assert!(!reply.to_string().contains("hunter2"), "{reply}");
    wait_until_setting(&gateway, "five", 5).await;
    config_dir.write("mnt/..3/word", "six\n");
    let reply = wait_until_setting(&gateway, "six", 6).await;
    assert_eq!(reply["configuration"]["error"], Value::Null, "{reply}");
    assert!(!gateway.process.stderr.text_so_far().contains("hunter2"));
}

#[tokio::test]
async fn followed_files_change_with_the_configuration() {
    let config_dir = ConfigDir::new();
    config_dir.write("policy.wasm", component("settings"));
    config_dir.write("word", "one\n");
    let gateway = config_dir.start("policy.wasm", "settings.word = \"${file:word}\"").await;
    assert_eq!(request_stream(&gateway, "c").await, (418, "one".into()));
    // A configuration may be mounted before the secret that it names.
    config_dir.configure("policy.wasm", "settings.word = \"${file:secrets/word}\"");
    let reply = wait_for_config_error(&gateway, Some("secrets/word")).await;
    assert_eq!(
        (&reply["active"]["generation"], request_stream(&gateway, "c").await),
        (&json!(1), (418, "one".into())),
        "{reply}"
    );
    std::fs::create_dir(config_dir.at("secrets")).expect("a directory");
    config_dir.write("secrets/word", "two\n");
    wait_until_setting(&gateway, "two", 2).await;
    wait_for_config_error(&gateway, None).await;
    config_dir.replace("secrets/word", "three\n");
    wait_until_setting(&gateway, "three", 3).await;
    // A removed configuration stays active, whatever happens to its secrets.
    std::fs::rename(config_dir.at("node.toml"), config_dir.at("removed.toml")).expect("it is renamed");
    wait_for_config_error(&gateway, Some("is gone")).await;
    config_dir.write("secrets/word", "four\n");
    gateway.process.signal("HUP").await;
    wait_for_config_error(&gateway, Some("is gone")).await;
    wait_until_setting(&gateway, "three", 3).await;
    std::fs::rename(config_dir.at("removed.toml"), config_dir.at("node.toml")).expect("it is renamed");
    wait_until_setting(&gateway, "four", 4).await;
}

#[tokio::test]
async fn replaced_token_keys_are_reloaded() {
    let config_dir = ConfigDir::new();
    config_dir.write("policy.wasm", component("bearer"));
    let mut command = Command::new("sh");
    let script = "for n in 1 2; do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key$n.pem
        openssl pkey -in key$n.pem -pubout -out public$n.pem; done";
    command.args(["-ec", script]).current_dir(config_dir.at(""));
    assert!(run(command, None).await.status.success());
    let ec = |number: u32| {
        let pem = std::fs::read(config_dir.at(&format!("key{number}.pem"))).expect("a key");
        EncodingKey::from_ec_pem(&pem).expect("an EC key")
    };
    let jwks = |number: u32| {
        let jwk = Jwk::from_encoding_key(&ec(number), Algorithm::ES256).expect("a JWK");
        serde_json::to_vec(&JwkSet { keys: vec![jwk] }).expect("JSON")
    };
    let public = |number: u32| std::fs::read(config_dir.at(&format!("public{number}.pem"))).expect("a key");
    let secret = |number: u32| format!("hunter{number} ").repeat(5);
    let token = |profile: &str, number: u32| {
        let (algorithm, key) = match profile {
            "secret" => (Algorithm::HS256, EncodingKey::from_secret(secret(number).as_bytes())),
            _ => (Algorithm::ES256, ec(number)),
        };
        encode(&Header::new(algorithm), &claims(profile), &key).expect("a token")
    };
    let rotate = |profile: &str, number: u32| match profile {
        "secret" => config_dir.replace("secret", secret(number)),
        "pem" => config_dir.replace("keys.pem", public(number)),
        _ => config_dir.replace("keys.json", jwks(number)),
    };
    let profiles =
        [("secret", "secret = '${file:secret}'"), ("pem", "pem = 'keys.pem'"), ("jwks", "jwks = 'keys.json'")];
    let mut toml = "timeout = '10s'\n".to_owned();
    for (profile, keys) in profiles {
        rotate(profile, 1);
        toml += &format!("tokens.{profile} = {{ issuer = '{profile}', audience = 'app', {keys} }}\n");
    }
    let gateway = config_dir.start("policy.wasm", &toml).await;
    let status = async |profile: &str, number: u32| request_with_token(gateway.data, &token(profile, number)).await.0;
    for (profile, _) in profiles {
        assert_eq!((status(profile, 1).await, status(profile, 2).await), (200, 401), "{profile}");
        rotate(profile, 2);
        wait_until("the new key is active", async || status(profile, 2).await == 200).await;
        assert_eq!(status(profile, 1).await, 401, "{profile}");
    }
}
