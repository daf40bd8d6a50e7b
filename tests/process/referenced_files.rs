//! Files that the configuration refers to are followed as it is itself: secrets, keys of token profiles, and the set of them.

use std::os::unix::fs::symlink;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::control_port::policy_is;
use crate::guests::component;
use crate::processes::{Gateway, run, until, within};
use crate::rollout::{Desk, asks};
use crate::tokens::{claims, show};

/// Waits until what a setting refers to is in force, as the version with this number.
async fn says(gateway: &Gateway, word: &str, number: u64) -> Value {
    let told = policy_is(gateway.control, word, |told| told["active"]["generation"] == number).await;
    assert_eq!(asks(gateway, "c").await, (418, word.into()), "{told}");
    told
}

/// Waits until the configuration has a mistake in it, or none any more.
async fn mistake(gateway: &Gateway, words: Option<&str>) -> Value {
    policy_is(gateway.control, "what is told of the configuration", |told| {
        let error = told["configuration"]["error"].as_str();
        match words {
            Some(words) => error.is_some_and(|error| error.contains(words)),
            None => error.is_none(),
        }
    })
    .await
}

#[tokio::test]
async fn replaced_secret_file_is_reloaded() {
    let desk = Desk::new();
    desk.write("policy.wasm", component("settings"));
    // As Kubernetes mounts a Secret.
    let mount = |number: u32, word: &str| {
        std::fs::create_dir_all(desk.at(&format!("mnt/..{number}"))).expect("a folder");
        desk.write(&format!("mnt/..{number}/word"), word);
        symlink(format!("..{number}"), desk.at("mnt/..data_tmp")).expect("a link");
        std::fs::rename(desk.at("mnt/..data_tmp"), desk.at("mnt/..data")).expect("it is renamed");
    };
    mount(1, "one\n");
    symlink("..data/word", desk.at("mnt/word")).expect("a link");
    let gateway = desk.start("policy.wasm", "settings.word = \"${file:mnt/word}\"").await;
    assert_eq!(asks(&gateway, "c").await, (418, "one".into()));
    mount(2, "two\n");
    std::fs::remove_dir_all(desk.at("mnt/..1")).expect("it is removed");
    says(&gateway, "two", 2).await;
    mount(3, "three\n");
    says(&gateway, "three", 3).await;
    desk.write("mnt/..3/word", "four\n");
    says(&gateway, "four", 4).await;
    desk.replace("mnt/..3/word", "five\n");
    says(&gateway, "five", 5).await;

    // One that is away for a while changes nothing, nor does one that is none; both are told, and neither with what was in it.
    std::fs::remove_file(desk.at("mnt/..3/word")).expect("it is there");
    let told = mistake(&gateway, Some("policy.settings.word")).await;
    assert!(told.to_string().contains("mnt/word"), "{told}");
    says(&gateway, "five", 5).await;
    let in_log = gateway.process.stderr.wait_for(|log| log.contains("the configuration has a mistake"));
    assert!(within("a line in the log", in_log).await);
    desk.write("mnt/..3/word", [b"hunter2".as_slice(), &[0xff]].concat());
    let told = mistake(&gateway, Some("must be UTF-8 text")).await;
    assert!(!told.to_string().contains("hunter2"), "{told}");
    says(&gateway, "five", 5).await;
    desk.write("mnt/..3/word", "six\n");
    let told = says(&gateway, "six", 6).await;
    assert_eq!(told["configuration"]["error"], Value::Null, "{told}");
    assert!(!gateway.process.stderr.so_far().contains("hunter2"));
}

#[tokio::test]
async fn followed_files_change_with_the_configuration() {
    let desk = Desk::new();
    desk.write("policy.wasm", component("settings"));
    desk.write("word", "one\n");
    let gateway = desk.start("policy.wasm", "settings.word = \"${file:word}\"").await;
    assert_eq!(asks(&gateway, "c").await, (418, "one".into()));
    // A configuration may be mounted before the secret that it names.
    desk.configure("policy.wasm", "settings.word = \"${file:secrets/word}\"");
    let told = mistake(&gateway, Some("secrets/word")).await;
    assert_eq!((&told["active"]["generation"], asks(&gateway, "c").await), (&json!(1), (418, "one".into())), "{told}");
    std::fs::create_dir(desk.at("secrets")).expect("a folder");
    desk.write("secrets/word", "two\n");
    says(&gateway, "two", 2).await;
    mistake(&gateway, None).await;
    desk.replace("secrets/word", "three\n");
    says(&gateway, "three", 3).await;
    // A configuration that is gone is no reason to forget it, whatever happens to its secrets.
    std::fs::rename(desk.at("node.toml"), desk.at("away.toml")).expect("it is renamed");
    mistake(&gateway, Some("is gone")).await;
    desk.write("secrets/word", "four\n");
    gateway.process.signal("HUP").await;
    mistake(&gateway, Some("is gone")).await;
    says(&gateway, "three", 3).await;
    std::fs::rename(desk.at("away.toml"), desk.at("node.toml")).expect("it is renamed");
    says(&gateway, "four", 4).await;
}

#[tokio::test]
async fn replaced_token_keys_are_reloaded() {
    let desk = Desk::new();
    desk.write("policy.wasm", component("bearer"));
    let mut command = Command::new("sh");
    let script = "for n in 1 2; do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key$n.pem
        openssl pkey -in key$n.pem -pubout -out public$n.pem; done";
    command.args(["-ec", script]).current_dir(desk.at(""));
    assert!(run(command, None).await.status.success());
    let ec = |number: u32| {
        let pem = std::fs::read(desk.at(&format!("key{number}.pem"))).expect("a key");
        EncodingKey::from_ec_pem(&pem).expect("an EC key")
    };
    let set = |number: u32| {
        let jwk = Jwk::from_encoding_key(&ec(number), Algorithm::ES256).expect("a JWK");
        serde_json::to_vec(&JwkSet { keys: vec![jwk] }).expect("JSON")
    };
    let public = |number: u32| std::fs::read(desk.at(&format!("public{number}.pem"))).expect("a key");
    let word = |number: u32| format!("hunter{number} ").repeat(5);
    let token = |profile: &str, number: u32| {
        let (algorithm, key) = match profile {
            "secret" => (Algorithm::HS256, EncodingKey::from_secret(word(number).as_bytes())),
            _ => (Algorithm::ES256, ec(number)),
        };
        encode(&Header::new(algorithm), &claims(profile), &key).expect("a token")
    };
    let rotate = |profile: &str, number: u32| match profile {
        "secret" => desk.replace("secret", word(number)),
        "pem" => desk.replace("keys.pem", public(number)),
        _ => desk.replace("keys.json", set(number)),
    };
    let profiles =
        [("secret", "secret = '${file:secret}'"), ("pem", "pem = 'keys.pem'"), ("jwks", "jwks = 'keys.json'")];
    let mut toml = "timeout = '10s'\n".to_owned();
    for (profile, keys) in profiles {
        rotate(profile, 1);
        toml += &format!("tokens.{profile} = {{ issuer = '{profile}', audience = 'app', {keys} }}\n");
    }
    let gateway = desk.start("policy.wasm", &toml).await;
    let status = async |profile: &str, number: u32| show(gateway.data, &token(profile, number)).await.0;
    for (profile, _) in profiles {
        assert_eq!((status(profile, 1).await, status(profile, 2).await), (200, 401), "{profile}");
        rotate(profile, 2);
        until("the new key counts", async || status(profile, 2).await == 200).await;
        assert_eq!(status(profile, 1).await, 401, "{profile}");
    }
}
