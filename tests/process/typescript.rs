//! `tidegate policy build` of policies in TypeScript: packages that mention modules of Node, refusals with the chain of imports, `NODE_ENV`,
//! and that the component depends on the sources only. `tests/e2e/policies.test.js` has the mistakes in route files.

use std::fs;
use std::path::Path;

use crate::processes::{ProcessOutput, run_unlimited};
use crate::projects::command;

/// The files of a project with packages that use Node in several ways.
const FILES: &[(&str, &str)] = &[
    ("package.json", r#"{"private":true}"#),
    (
        "policy.ts",
        r#"import * as careful from "careful";
           import { kind } from "mapped";
           import { connect } from "orm";
           import { mode } from "moded";
           export const middleware = ({ channels }: { channels: string[] }) => {
             const [channel] = channels;
             if (channel === "packages") return new Response(`${kind} ${careful.sign()} ${connect("x")} ${mode}`, { status: 403 });
             if (channel === "pg") return connect("pg");
             // More than an instance has at its start.
             if (channel === "memory") return new Response(Array.from({ length: 40 }, () => new Uint8Array(100_000)).length.toString(), { status: 403 });
             if (channel === "env") return new Response(process.env.NODE_ENV, { status: 403 });
           };"#,
    ),
    // Tests for Node, and works without.
    (
        "node_modules/careful/index.js",
        r#"let net;
           try { net = require("node:net"); } catch {}
           const hasNode = typeof process !== "undefined" && process.versions && process.versions.node;
           exports.sign = () => (hasNode ? net.connect(1) : "web");
           exports.later = async () => (await import("node:fs")).readFileSync("x");"#,
    ),
    // Has no module of Node and another file in a browser.
    ("node_modules/mapped/package.json", r#"{"name":"mapped","browser":{"crypto":false,"./node.js":"./browser.js"}}"#),
    (
        "node_modules/mapped/index.js",
        r#"const crypto = require("crypto");
           exports.kind = crypto.randomBytes ? "node" : require("./node.js");"#,
    ),
    ("node_modules/mapped/node.js", "module.exports = \"node\";"),
    ("node_modules/mapped/browser.js", "module.exports = \"browser\";"),
    // Requires a database client when it is asked for one.
    ("node_modules/orm/index.js", "exports.connect = (kind) => (kind === \"pg\" ? require(\"pg\") : null);"),
    // Has two builds.
    (
        "node_modules/moded/index.js",
        "if (process.env.NODE_ENV === \"production\") module.exports = require(\"./fast.js\");\nelse module.exports = require(\"./slow.js\");",
    ),
    ("node_modules/moded/fast.js", "exports.mode = \"fast: see process.env.NODE_ENV\";"),
    ("node_modules/moded/slow.js", "exports.mode = \"slow\"; require(\"inspector\");"),
    // Use what a policy does not have.
    ("node_modules/eager/index.js", "const net = require(\"net\");\nexports.server = net.createServer(() => {});"),
    ("node_modules/client/index.js", "const pg = require(\"pg\");\nexports.connect = () => new pg.Pool();"),
    ("eager.ts", "import { server } from \"./lib/net\";\nexport const middleware = () => server;"),
    ("lib/net.ts", "export { server } from \"eager\";"),
    ("client.ts", "import { connect } from \"client\";\nexport const middleware = () => connect();"),
    ("database.ts", "import { db } from \"./lib/db\";\nexport const middleware = () => db;"),
    ("lib/db.ts", "// The database.\nimport { Pool } from \"pg\";\nexport const db = new Pool();"),
    ("files.ts", "import { words } from \"./lib/words\";\nexport const middleware = () => words;"),
    ("lib/words.ts", "import { readFileSync } from \"fs\";\nexport const words = readFileSync(\"words\");"),
    (
        "counting.ts",
        r#"import { key } from "./lib/key";
           let sum = 0;
           for (let n = 0; n < 100_000; n++) sum += n;
           const objects = Array.from({ length: 1000 }, (_, n) => ({ n, text: `${key} ${n}` }));
           let asked = 0;
           export const middleware = () => new Response(`${objects.at(-1)!.text} ${sum} ${++asked}`, { status: 403 });"#,
    ),
    ("lib/key.ts", "export const key = process.env.KEY;\nif (process.env.RANDOM) Math.random();"),
    (
        "endless.ts",
        "export const middleware = () => undefined;\nconst spin = () => {\n  for (let n = 0; ; ) n++;\n};\nspin();",
    ),
];

fn write_project(folder: &Path) {
    for (name, text) in FILES {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }
}

async fn tidegate(dir: &Path, args: &[&str]) -> ProcessOutput {
    run_unlimited(command(dir, args)).await
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn packages_that_only_mention_node_work() {
    let dir = tempfile::tempdir().expect("a directory");
    write_project(dir.path());
    for (flag, mode) in [("production", "fast: see process.env.NODE_ENV"), ("development", "slow")] {
        let built = tidegate(dir.path(), &["policy", "build", "--node-env", flag]).await;
        let printed = built.all();
        assert!(built.succeeded(), "{printed}");
        let chain = "node_modules/orm/index.js: warning: code that uses pg throws: \"pg\" connects to a database";
        assert!(printed.contains(chain) && printed.contains("imported by policy.ts → orm → pg"), "{printed}");
        assert!(printed.contains(&format!("note: NODE_ENV is \"{flag}\" in the code of moded")), "{printed}");
        // The one that is not selected is not there.
        assert_eq!(printed.contains("inspector"), flag == "development", "{printed}");
        let cases = format!(
            "[[case]]\nname = \"packages\"\nchannels = [\"packages\"]\nexpect = {{ status = 403, body = \"browser web null {mode}\" }}\n\
             [[case]]\nname = \"env\"\nchannels = [\"env\"]\nexpect = {{ status = 403, body = \"{flag}\" }}\n\
             [[case]]\nname = \"memory\"\nchannels = [\"memory\"]\nexpect = {{ status = 403, body = \"40\" }}\n\
             [[case]]\nname = \"pg\"\nchannels = [\"pg\"]\nexpect = {{ status = 500 }}\n"
        );
        fs::write(dir.path().join("cases.toml"), cases).expect("written");
        let tested = tidegate(dir.path(), &["policy", "test", "policy.wasm"]).await;
        assert!(tested.succeeded(), "{flag}: {}", tested.all());
    }
    let setting = "[settings]\nNODE_ENV = \"test\"\n[[case]]\nname = \"a\"\nchannels = [\"env\"]\nexpect = { status = 403, body = \"test\" }\n";
    fs::write(dir.path().join("cases.toml"), setting).expect("written");
    let tested = tidegate(dir.path(), &["policy", "test", "policy.wasm"]).await;
    assert!(tested.succeeded(), "{}", tested.all());
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn code_that_cannot_work_is_refused_with_the_chain_of_imports() {
    let dir = tempfile::tempdir().expect("a directory");
    write_project(dir.path());
    for (file, expected) in [
        ("eager.ts", "node_modules/eager/index.js:2: error: createServer of \"node:net\" is a module of Node"),
        ("eager.ts", "imported by eager.ts → lib/net.ts → eager → node:net"),
        ("client.ts", "node_modules/client/index.js:1: error: \"pg\" connects to a database"),
        (
            "database.ts",
            "lib/db.ts:2: error: \"pg\" connects to a database, and a policy has no sockets: read the gateway's store with `lookup`",
        ),
        ("database.ts", "imported by database.ts → lib/db.ts → pg"),
        ("files.ts", "lib/words.ts:1: error: \"node:fs\" is a module of Node"),
        ("endless.ts", "endless.ts:2: error: top-level code does not end"),
    ] {
        let built = tidegate(dir.path(), &["policy", "build", file, "-o", "none.wasm"]).await;
        let printed = built.all();
        assert_eq!(built.status.code(), Some(1), "{file}: {printed}");
        assert!(printed.contains(expected), "{file}: {expected:?} is not in {printed}");
        assert!(!dir.path().join("none.wasm").exists(), "{file}: {printed}");
    }
}

/// What the loop in `counting.ts` costs at least.
const LOOP_FUEL: u64 = 2_000_000;

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn top_level_code_that_reads_only_settings_runs_once_per_activation() {
    let dir = tempfile::tempdir().expect("a directory");
    write_project(dir.path());
    let built = tidegate(dir.path(), &["policy", "build", "counting.ts", "-o", "policy.wasm"]).await;
    assert!(built.succeeded() && built.all().contains("process.env.KEY"), "{}", built.all());
    let case = |key: &str, more: &str| {
        let expected = format!("{key} 999 4999950000 1");
        format!(
            "[[case]]\nname = \"{key}\"\nchannels = [\"c\"]\nsettings = {{ KEY = \"{key}\"{more} }}\nexpect = {{ status = 403, body = \"{expected}\" }}\n"
        )
    };
    // With randomness at top level each instance has a state of its own.
    let cases = format!("{}{}{}", case("a", ""), case("b", ""), case("c", ", RANDOM = \"1\""));
    fs::write(dir.path().join("cases.toml"), cases).expect("written");
    let tested = tidegate(dir.path(), &["policy", "test", "policy.wasm"]).await;
    assert!(tested.succeeded(), "{}", tested.all());
    let measured =
        tidegate(dir.path(), &["policy", "bench", "policy.wasm", "cases.toml", "--count", "3", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&measured.stdout).expect("JSON");
    let fuel = |name: &str| report["fuel"][name].as_u64().expect("fuel");
    assert!(fuel("min") < LOOP_FUEL && fuel("max") > LOOP_FUEL, "{report}");
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn component_depends_only_on_the_sources() {
    let (here, there) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let projects = [here.path().join("app"), there.path().join("deeper/app")];
    let mut components = Vec::new();
    for project in &projects {
        write_project(project);
        let built = tidegate(project, &["policy", "build"]).await;
        assert!(built.succeeded(), "{}", built.all());
        components.push(fs::read(project.join("policy.wasm")).expect("built"));
    }
    let built = tidegate(here.path(), &["policy", "build", "app/policy.ts", "-o", "again.wasm"]).await;
    assert!(built.succeeded(), "{}", built.all());
    components.push(fs::read(here.path().join("again.wasm")).expect("built"));
    assert!(components.iter().all(|component| *component == components[0]), "the component depends on folders");
    for folder in [here.path(), Path::new(env!("CARGO_MANIFEST_DIR"))] {
        let text = folder.to_str().expect("text").as_bytes();
        assert!(
            !components[0].windows(text.len()).any(|part| part == text),
            "the component contains {}",
            folder.display()
        );
    }
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn build_without_npm_says_what_to_install() {
    let dir = tempfile::tempdir().expect("a directory");
    write_project(dir.path());
    let mut build = command(dir.path(), &["policy", "build"]);
    build.env("PATH", dir.path()).env("TIDEGATE_CACHE_DIR", dir.path().join("cache"));
    let built = run_unlimited(build).await;
    assert_eq!(built.status.code(), Some(1), "{}", built.all());
    assert!(
        built.stderr.contains("npm is not installed: the build needs npm once, to install esbuild"),
        "{}",
        built.stderr
    );
}
