//! A FIFO in place of a file is an error that names it, and never a hang: no process writes to it.

use std::fs;
use std::path::Path;

use crate::guests;
use crate::processes::{path, run, tidegate};

/// What a command line or an option reads.
#[tokio::test]
async fn fifo_in_place_of_a_file_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| path(dir.path(), name);
    let pipe = at("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).expect("a FIFO");
    let link = |name: &str| std::os::unix::fs::symlink("pipe", dir.path().join(name)).expect("a link");
    let policy =
        |name: &str| fs::write(dir.path().join(format!("{name}.wasm")), guests::component("allow")).expect("written");
    policy("policy");
    // Files that are found by the name of the policy.
    policy("tested");
    link("tested.cases.toml");
    policy("signed");
    link("signed.wasm.sig");
    fs::write(at("cases.toml"), "[[case]]\nname = \"a\"\nexpect = { allow = true }\n").expect("written");
    let (policy, tested, signed) = (at("policy.wasm"), at("tested.wasm"), at("signed.wasm"));
    let check = |options: &str| {
        let name = format!("{}.toml", options.len());
        let toml = format!("store = \"memory:\"\npolicy.file = {policy:?}\n{options}\n");
        fs::write(dir.path().join(&name), toml).expect("written");
        ["check".into(), "--config".into(), at(&name)].to_vec()
    };
    let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let commands = [
        args(&["check", "--config", &pipe]),
        args(&["serve", "--config", &pipe]),
        args(&["check", "--store=memory:", "--policy", &pipe]),
        args(&["serve", "--store=memory:", "--listen=127.0.0.1:0", "--control=127.0.0.1:0", "--policy", &pipe]),
        args(&["check", "--store=memory:", "--policy", &tested]),
        args(&["check", "--store=memory:", "--policy", &signed]),
        check(&format!("policy.cases = {pipe:?}")),
        check(&format!("policy.trusted-keys = [{pipe:?}]")),
        check(&format!("policy.settings.a = \"${{file:{pipe}}}\"")),
        check(&format!("policy.tokens.a.secret = \"${{file:{pipe}}}\"")),
        check(&format!("policy.tokens.app.pem = {pipe:?}")),
        check(&format!("policy.tokens.appl.jwks = {pipe:?}")),
        args(&["revoke", "--list", "--store=rediss://127.0.0.1:1", "--store-ca", &pipe]),
        args(&["policy", "test", &pipe]),
        args(&["policy", "test", &policy, &pipe]),
        args(&["policy", "bench", &pipe]),
        args(&["policy", "inspect", &pipe]),
        args(&["policy", "replay", &pipe, &policy]),
        args(&["policy", "sign", &policy, "--sequence=1", "--key", &pipe]),
        args(&["policy", "push", &policy, "--key", &pipe, "--control=127.0.0.1:1"]),
    ];
    for args in commands {
        let mut command = tidegate(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.current_dir(dir.path());
        let ended = run(command, None).await;
        let is_named = ended.stderr.contains("not a regular file");
        assert!(matches!(ended.code(), Some(1 | 2)) && is_named, "{args:?}: {ended:?}");
    }
    let recording =
        format!("allow-all = true\nstore = \"memory:\"\ndecisions.recording = {{ file = {pipe:?}, share = 1 }}\n");
    fs::write(
        dir.path().join("recording.toml"),
        format!("listen = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"\n{recording}"),
    )
    .expect("written");
    let ended = run(tidegate(&["serve", "--config", &at("recording.toml")]), None).await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("not a regular file"), "{ended:?}");
    assert!(Path::new(&pipe).exists());
}
