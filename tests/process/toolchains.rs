//! Components that toolchains build from `wit/` alone, as their own documentation says, without an SDK of this project: each loads and
//! decides.
//!
//! `cargo xtask test` tries componentize-qjs, and `cargo xtask test --full packages` all of them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;
use wit_component::ComponentEncoder;

use crate::processes::{is_full_soak, run_unlimited, tidegate};

/// A way to build `policy.wasm`, or `core.wasm`, which `wasm-tools component new` makes a component of.
struct Toolchain {
    name: &'static str,
    /// Files of `tests/fixtures/toolchains`, and their names in the project. The project has the folder `wit` too.
    files: &'static [(&'static str, &'static str)],
    /// A shell script. `$CACHE` is a folder for installed tools.
    build: &'static str,
    /// Whether the ordinary tests try it too: it takes seconds.
    quick: bool,
}

const TOOLCHAINS: [Toolchain; 10] = [
    qjs("componentize-qjs", "npm install --silent componentize-qjs@0.4.5 && npx componentize-qjs --wit wit --js policy.js -o policy.wasm"),
    qjs(
        "componentize-qjs --stub-wasi",
        "npm install --silent componentize-qjs@0.4.5 && npx componentize-qjs --stub-wasi --wit wit --js policy.js -o policy.wasm",
    ),
    qjs(
        "componentize-qjs --sync",
        "npm install --silent componentize-qjs@0.4.5 && npx componentize-qjs --sync --wit wit --js policy.js -o policy.wasm",
    ),
    qjs(
        "componentize-qjs --sync --stub-wasi",
        "npm install --silent componentize-qjs@0.4.5 && npx componentize-qjs --sync --stub-wasi --wit wit --js policy.js -o policy.wasm",
    ),
    Toolchain {
        name: "componentize-js",
        files: &[("policy.js", "policy.js"), ("componentize.mjs", "componentize.mjs")],
        build: "npm install --silent @bytecodealliance/componentize-js@0.23.0 && node componentize.mjs",
        quick: false,
    },
    componentize_py("componentize-py", "test -x \"$CACHE/py/bin/pip\" || python3 -m venv \"$CACHE/py\"
            \"$CACHE/py/bin/pip\" install --quiet componentize-py==0.25.1
            \"$CACHE/py/bin/componentize-py\" -d wit -w policy componentize app -o policy.wasm"),
    componentize_py(
        "componentize-py --stub-wasi",
        "\"$CACHE/py/bin/componentize-py\" -d wit -w policy componentize --stub-wasi app -o policy.wasm",
    ),
    Toolchain {
        name: "wit-bindgen c",
        files: &[("policy.c", "main.c")],
        build: "cargo install --quiet --locked wit-bindgen-cli@0.63.0 --no-default-features --features c --root \"$CACHE/wit-bindgen\"
            \"$CACHE/wit-bindgen/bin/wit-bindgen\" c wit --world policy
            test -x \"$CACHE/zig/bin/python\" || python3 -m venv \"$CACHE/zig\"
            \"$CACHE/zig/bin/pip\" install --quiet ziglang==0.16.0
            \"$CACHE/zig/bin/python\" -m ziglang cc --target=wasm32-wasi -Oz -mexec-model=reactor main.c policy.c policy_component_type.o -o core.wasm",
        quick: false,
    },
    rust("wit-bindgen for Rust", ""),
    rust(
        "wit-bindgen for Rust, asynchronous",
        "sed -i 's/    authorize: func/    authorize: async func/' wit/policy.wit
            sed -i 's/    fn authorize/    async fn authorize/' src/lib.rs",
    ),
];

const fn qjs(name: &'static str, build: &'static str) -> Toolchain {
    Toolchain { name, files: &[("policy.js", "policy.js")], build, quick: true }
}

const fn componentize_py(name: &'static str, build: &'static str) -> Toolchain {
    Toolchain { name, files: &[("app.py", "app.py")], build, quick: false }
}

const fn rust(name: &'static str, prepare: &'static str) -> Toolchain {
    Toolchain { name, files: &[("package.toml", "Cargo.toml"), ("lib.rs", "src/lib.rs")], build: prepare, quick: false }
}

const CASES: &str = r#"
[[case]]
name = "the channel `here`"
channels = ["here"]
expect = { allow = true }

[[case]]
name = "another channel"
channels = ["there"]
expect = { status = 403, body = "no" }
"#;

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn components_of_other_toolchains_load_and_decide() {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/toolchains");
    fs::create_dir_all(&cache).expect("a directory");
    for toolchain in TOOLCHAINS.iter().filter(|toolchain| toolchain.quick || is_full_soak()) {
        let dir = tempfile::tempdir().expect("a directory");
        build(toolchain, dir.path(), &cache).await;
        let printed = inspect(dir.path()).await;
        println!("{}: {} bytes", toolchain.name, fs::metadata(dir.path().join("policy.wasm")).expect("built").len());
        assert_eq!(printed["refused"], Value::Null, "{}: {printed}", toolchain.name);
        let mut test = tidegate(&["policy", "test", "policy.wasm", "cases.toml"]);
        test.current_dir(dir.path());
        let tested = run_unlimited(test).await;
        assert!(tested.succeeded() && tested.stdout.contains("2 passed"), "{}: {}", toolchain.name, tested.all());
    }
}

async fn build(toolchain: &Toolchain, dir: &Path, cache: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(dir.join("wit")).expect("a directory");
    fs::create_dir_all(dir.join("src")).expect("a directory");
    fs::copy(root.join("wit/policy.wit"), dir.join("wit/policy.wit")).expect("copied");
    for (from, to) in toolchain.files {
        fs::copy(root.join("tests/fixtures/toolchains").join(from), dir.join(to)).expect("copied");
    }
    fs::write(dir.join("cases.toml"), CASES).expect("written");
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", toolchain.build]).current_dir(dir).env("CACHE", cache);
    let built = run_unlimited(shell).await;
    assert!(built.succeeded(), "{}: {}", toolchain.name, built.all());
    if dir.join("Cargo.toml").exists() {
        // With the target that the machine has, which needs other settings of cargo than a project knows.
        let mut build = tidegate(&["policy", "build", ".", "--output", "policy.wasm"]);
        build.current_dir(dir).env("CARGO_TARGET_DIR", root.join("target/projects"));
        build.env("CARGO_BUILD_TARGET", "wasm32-unknown-unknown");
        let built = run_unlimited(build).await;
        assert!(built.succeeded(), "{}: {}", toolchain.name, built.all());
    }
    if let Ok(module) = fs::read(dir.join("core.wasm")) {
        let encoded = ComponentEncoder::default().module(&module).and_then(|encoder| encoder.validate(true).encode());
        fs::write(dir.join("policy.wasm"), encoded.expect("it has the section of its world")).expect("written");
    }
}

async fn inspect(dir: &Path) -> Value {
    let mut inspect = tidegate(&["policy", "inspect", "policy.wasm", "--json"]);
    inspect.current_dir(dir);
    let inspected = run_unlimited(inspect).await;
    serde_json::from_str(&inspected.stdout).unwrap_or_else(|error| panic!("{error}: {}", inspected.all()))
}
