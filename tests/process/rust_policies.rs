//! `tidegate policy build` of policies in Rust: crates that need randomness or a clock, diagnoses, and the target that is selected. The
//! ignored tests compile with the real toolchain.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::guests;
use crate::processes::{ProcessOutput, run_unlimited};
use crate::projects::command;

/// A policy that compiles without any crate.
const ALLOWS: &str = "Ok(Grant::to(\"anybody\"))";

async fn tidegate(dir: &Path, args: &[&str]) -> ProcessOutput {
    let mut command = command(dir, args);
    // Also where the target with WASI is installed.
    command.env("CARGO_BUILD_TARGET", "wasm32-unknown-unknown");
    run_unlimited(command).await
}

/// Writes a new project, whose policy depends on these lines of a manifest and has this body.
async fn new_project(dir: &Path, name: &str, dependencies: &str, body: &str) {
    let new = tidegate(dir, &["policy", "new", name, "--lang", "rust"]).await;
    assert!(new.succeeded(), "{}", new.all());
    let manifest = dir.join(name).join("Cargo.toml");
    let text = fs::read_to_string(&manifest).expect("the manifest");
    let text = text.replace("[dependencies]\n", &format!("[dependencies]\n{dependencies}\n"));
    fs::write(manifest, text).expect("written");
    let source = format!(
        "use tidegate_policy::{{Grant, Request, Result}};\n\ntidegate_policy::policy!(authorize);\n\n\
         fn authorize(_request: &Request, _channels: &[String]) -> Result<Grant> {{\n{body}\n}}\n"
    );
    fs::write(dir.join(name).join("src/lib.rs"), source).expect("written");
}

/// Builds a project and runs these cases.
async fn build_and_test(dir: &Path, name: &str, cases: &str) -> ProcessOutput {
    let built = tidegate(dir, &["policy", "build", name]).await;
    assert!(built.succeeded(), "{}", built.all());
    fs::write(dir.join(name).join("cases.toml"), cases).expect("written");
    let tested = tidegate(dir, &["policy", "test", "--log", &format!("{name}/policy.wasm")]).await;
    ProcessOutput { stdout: built.stdout + &tested.stdout, stderr: built.stderr + &tested.stderr, ..tested }
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn panic_text_and_place_reach_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let body = "let team = _channels[0].strip_prefix(\"team-\").expect(\"not a \\\"team\\\"\");\nif team == \"long\" { panic!(\"{}\", \
                \"ü\".repeat(9000)) }\nlet _ = std::time::SystemTime::now();\nOk(Grant::to(team))";
    new_project(dir.path(), "panicking-policy", "", body).await;
    let cases = "[[case]]\nname = \"none\"\nchannels = [\"news\"]\nexpect = { error = \"trap\" }\n\
                 [[case]]\nname = \"long\"\nchannels = [\"team-long\"]\nexpect = { error = \"trap\" }\n\
                 [[case]]\nname = \"clock\"\nchannels = [\"team-red\"]\nexpect = { error = \"trap\" }\n";
    let tested = build_and_test(dir.path(), "panicking-policy", cases).await;
    let printed = tested.all();
    assert!(tested.succeeded(), "{printed}");
    assert!(printed.contains("ERROR") && printed.contains("panicked at src/lib.rs:6:"), "{printed}");
    assert!(printed.contains("not a \\\"team\\\""), "{printed}");
    assert!(printed.contains("panicked at src/lib.rs:7:") && printed.contains("üü"), "long text is cut: {printed}");
    let warning = "warning: the policy may call `SystemTime::now` or `Instant::now` (panicking-policy)";
    assert!(printed.contains(warning), "of the build: {printed}");
    assert!(
        printed.contains("unsupported.rs") && printed.contains("system_time()`, or compile"),
        "the remedy: {printed}"
    );
}

/// `uuid` and all versions of `getrandom` get different bytes each time, from the gateway.
#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn crates_get_the_randomness_of_the_gateway() {
    let dir = tempfile::tempdir().expect("a directory");
    let dependencies = "uuid = { version = \"=1.29.3\", features = [\"v4\"] }\n\
                        random2 = { package = \"getrandom\", version = \"0.2\" }\n\
                        random3 = { package = \"getrandom\", version = \"0.3\" }\n\
                        random4 = { package = \"getrandom\", version = \"0.4\" }";
    let body = "let mut all = vec![uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()];\n\
                type Fill = fn(&mut [u8]);\nlet fills: [Fill; 3] = [|b| random2::getrandom(b).unwrap(), |b| random3::fill(b).unwrap(), |b| \
                random4::fill(b).unwrap()];\nfor fill in fills {\n\
                    for _ in 0..2 {\n        let mut bytes = [0; 16];\n        fill(&mut bytes[..15]);\n        all.push(bytes);\n    }\n}\n\
                let count = all.len();\nall.sort();\nall.dedup();\nassert_eq!(all.len(), count);\n\
                Ok(Grant::to(\"anybody\"))";
    new_project(dir.path(), "random-policy", dependencies, body).await;
    let cases = "[[case]]\nname = \"differ\"\nexpect = { allow = true }\n";
    let tested = build_and_test(dir.path(), "random-policy", cases).await;
    assert!(tested.succeeded() && !tested.all().contains("warning: the policy may call"), "{}", tested.all());
}

/// The crate is a local one with the name of a real one, because only the name counts.
#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn crate_that_cannot_be_part_of_a_policy_is_reported_before_compilation() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, features, expected) in [
        (
            "openssl-sys",
            "",
            "`openssl-sys` cannot be part of a policy (my-policy → middle → openssl-sys): use a crate in Rust",
        ),
        ("socket2", "", "a policy has no sockets"),
        ("tokio", "net = []\nsync = []", "its features `net` need an operating system"),
        ("redis", "", ""),
    ] {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).expect("a directory");
        let features =
            if features.is_empty() { String::new() } else { format!("default = [\"net\", \"sync\"]\n{features}\n") };
        library(&folder, name, &format!("[features]\n{features}"), "");
        let middle = folder.join("middle");
        fs::create_dir(&middle).expect("a directory");
        library(&middle, "middle", &format!("[dependencies]\n{name} = {{ path = \"..\" }}\n"), "");
        new_project(&folder, "my-policy", "middle = { path = \"../middle\" }", ALLOWS).await;
        if expected.is_empty() {
            // A crate that compiles is no fault of a crate that merely depends on it; a policy that names it wants to use it.
            let manifest = folder.join("my-policy/Cargo.toml");
            let text = fs::read_to_string(&manifest).expect("the manifest");
            fs::write(&manifest, text.replace("middle = { path = \"../middle\" }", "redis = { path = \"..\" }"))
                .expect("written");
        }
        let built = tidegate(&folder, &["policy", "build", "my-policy"]).await;
        let expected =
            if expected.is_empty() { "(my-policy → redis): use `tidegate_policy::lookup`" } else { expected };
        assert!(!built.succeeded() && built.all().contains(expected), "{name}: {}", built.all());
        assert!(!built.all().contains("Compiling"), "{name}: {}", built.all());
    }
}

/// Crates of build scripts and of macros run on this machine.
#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn crate_that_fails_to_compile_is_named_with_its_route() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, section, code) in [
        ("socket2", "", ""),
        ("native", "", "compile_error!(\"not for this target\");"),
        (
            "middle",
            "[dependencies]\nnative = { path = \"../native\" }\n[build-dependencies]\nsocket2 = { path = \"../socket2\" }\n",
            "",
        ),
    ] {
        fs::create_dir(dir.path().join(name)).expect("a directory");
        library(&dir.path().join(name), name, section, code);
    }
    new_project(dir.path(), "unlucky-policy", "middle = { path = \"../middle\" }", ALLOWS).await;
    let built = tidegate(dir.path(), &["policy", "build", "unlucky-policy"]).await;
    let expected = ["not for this target", "the crate `native` does not compile", "(unlucky-policy → middle → native)"];
    assert!(!built.succeeded() && expected.iter().all(|text| built.all().contains(text)), "{}", built.all());
    assert!(!built.all().contains("socket2` cannot"), "{}", built.all());
}

fn library(folder: &Path, name: &str, section: &str, code: &str) {
    let manifest = format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n{section}");
    fs::create_dir_all(folder.join("src")).expect("a directory");
    fs::write(folder.join("Cargo.toml"), manifest).expect("written");
    fs::write(folder.join("src/lib.rs"), code).expect("written");
}

/// The compiler and cargo are stand-ins, because rustup is not everywhere: they have the target, and make a component that imports WASI.
#[tokio::test]
async fn build_uses_the_target_wasip2_if_the_toolchain_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let component = wasi_component();
    fs::write(dir.path().join("linked.wasm"), &component).expect("written");
    new_project(dir.path(), "my-policy", "", ALLOWS).await;
    let here = dir.path().display();
    script(
        &dir.path().join("rustc"),
        &format!("case \"$*\" in *target-libdir*wasm32-wasip2*) echo {here};; *) exec rustc \"$@\";; esac"),
    );
    let link = format!(
        "echo \"$@\" > {here}/options; mkdir -p {here}/target/wasm32-wasip2/release; cp {here}/linked.wasm \
                         {here}/target/wasm32-wasip2/release/my_policy.wasm"
    );
    script(&dir.path().join("cargo"), &format!("case \"$1\" in build) {link};; *) exec cargo \"$@\";; esac"));
    let mut build = command(dir.path(), &["policy", "build", "my-policy"]);
    build.env("RUSTC", dir.path().join("rustc")).env("CARGO", dir.path().join("cargo"));
    build.env("CARGO_TARGET_DIR", dir.path().join("target"));
    let built = run_unlimited(build).await;
    assert!(built.succeeded(), "{}", built.all());
    assert_eq!(fs::read(dir.path().join("my-policy/policy.wasm")).expect("it was built"), component);
    let options = fs::read_to_string(dir.path().join("options")).expect("cargo ran");
    assert!(
        options.contains("--target wasm32-wasip2") && options.contains("target.wasm32-wasip2.rustflags"),
        "{options}"
    );
    assert!(!options.contains("getrandom_backend"), "the target has randomness: {options}");

    fs::write(dir.path().join("my-policy/cases.toml"), "[[case]]\nname = \"loads\"\nexpect = { allow = true }\n")
        .expect("written");
    let tested = tidegate(dir.path(), &["policy", "test", "my-policy/policy.wasm"]).await;
    assert!(tested.succeeded(), "{}", tested.all());
}

/// A policy that takes time, randomness and environment from WASI, as Rust's standard library does on this target.
fn wasi_component() -> Vec<u8> {
    guests::authorizer(
        r#"(module
          (import "wasi:clocks/wall-clock@0.2.0" "now" (func $now (param i32)))
          (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
          (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
          (memory (export "memory") 2)
          (global $heap (mut i32) (i32.const 0x10000))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
            (global.get $heap)
            (global.set $heap (i32.add (global.get $heap) (local.get 3))))
          (func (export "tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (call $now (i32.const 128))
            (if (i64.lt_u (i64.load (i32.const 128)) (i64.const 1700000000)) (then unreachable))
            (if (i64.eq (call $random) (call $random)) (then unreachable))
            (call $environment (i32.const 160))
            (if (i32.load (i32.const 164)) (then unreachable))
            (i32.const 64)))"#,
    )
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}
