//! Modules of packages without side effects that the app does not seem to use: their code is in the component only compressed, and they are
//! evaluated at their first use.

use std::fs;
use std::path::Path;

use crate::processes::{ProcessOutput, run_unlimited};
use crate::projects::command;

/// A package whose exports are those of its modules, as properties of one object, as those of zod. Each module tells that it was evaluated.
const FILES: &[(&str, &str)] = &[
    ("package.json", r#"{"private":true}"#),
    (
        "policy.ts",
        r#"import { kit } from "kit";
           const atBuild = kit.used();
           export const middleware = ({ channels }: { channels: string[] }) => {
             const [channel, property] = channels;
             const before = String(globalThis.evaluated);
             const found = channel === "nothing" ? "" : kit[channel];
             const text = typeof found === "function" ? found() : property ? found[property]() : typeof found;
             return new Response(`${atBuild} ${before} ${globalThis.evaluated} ${text}`, { status: 403 });
           };"#,
    ),
    (
        "node_modules/kit/package.json",
        r#"{"name":"kit","type":"module","main":"index.js","sideEffects":["./setup.js"]}"#,
    ),
    ("node_modules/kit/index.js", "import * as kit from \"./all.js\";\nexport { kit };"),
    (
        "node_modules/kit/all.js",
        r#"import "./setup.js";
           export { used } from "./used.js";
           export * from "./star.js";
           export * as shapes from "./shapes.js";
           export { default as chosen } from "./default.js";
           export { ping } from "./ping.js";
           export { broken } from "./broken.js";
           export { random } from "./random.js";
           export { set } from "./setup.js";"#,
    ),
    ("node_modules/kit/setup.js", "(globalThis.evaluated ??= []).push(\"setup\"); export const set = () => \"set\";"),
    ("node_modules/kit/used.js", "globalThis.evaluated.push(\"used\"); export const used = () => \"text-of-used\";"),
    (
        "node_modules/kit/star.js",
        "globalThis.evaluated.push(\"star\"); export * from \"./inner.js\"; export const star = () => \"text-of-star\";",
    ),
    (
        "node_modules/kit/inner.js",
        "globalThis.evaluated.push(\"inner\"); export const inner = () => \"text-of-inner\";",
    ),
    (
        "node_modules/kit/shapes.js",
        "globalThis.evaluated.push(\"shapes\"); export const round = () => \"text-of-round\"; export default 1;",
    ),
    (
        "node_modules/kit/default.js",
        "globalThis.evaluated.push(\"default\"); export default () => \"text-of-default\";",
    ),
    // They import each other.
    (
        "node_modules/kit/ping.js",
        "import { pong } from \"./pong.js\"; globalThis.evaluated.push(\"ping\"); pong(1); export function ping() { return pong(2); }",
    ),
    (
        "node_modules/kit/pong.js",
        "import { ping } from \"./ping.js\"; globalThis.evaluated.push(`pong ${typeof ping}`); export const pong = (n) => `pong ${n} ${ping.name}`;",
    ),
    ("node_modules/kit/broken.js", "export const broken = () => 1; throw new TypeError(\"broken at its first use\");"),
    ("node_modules/kit/random.js", "const id = process.env.KIT; export const random = () => `set to ${id}`;"),
];

/// The channels of a request with the body of the response, and the status.
const CASES: &[(&str, &str, u16)] = &[
    (r#"["nothing"]"#, "text-of-used setup,used setup,used string", 403),
    (r#"["star"]"#, "text-of-used setup,used setup,used,star text-of-star", 403),
    (r#"["inner"]"#, "text-of-used setup,used setup,used,star,inner text-of-inner", 403),
    (r#"["shapes"]"#, "text-of-used setup,used setup,used object", 403),
    (r#"["shapes", "round"]"#, "text-of-used setup,used setup,used,shapes text-of-round", 403),
    (r#"["chosen"]"#, "text-of-used setup,used setup,used,default text-of-default", 403),
    (r#"["ping"]"#, "text-of-used setup,used setup,used,ping,pong function pong 2 ping", 403),
    (r#"["set"]"#, "text-of-used setup,used setup,used set", 403),
    (r#"["random"]"#, "text-of-used setup,used setup,used set to 5", 403),
    (r#"["broken"]"#, "Internal Server Error", 500),
];

async fn tidegate(dir: &Path, args: &[&str]) -> ProcessOutput {
    run_unlimited(command(dir, args)).await
}

fn write_project(folder: &Path) {
    for (name, text) in FILES {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }
    let case = |(channels, body, status): &(&str, &str, u16)| {
        format!(
            "[[case]]\nname = '{channels}'\nchannels = {channels}\nexpect = {{ status = {status}, body = \"{body}\" }}\n"
        )
    };
    let cases: String = CASES.iter().map(case).collect();
    fs::write(folder.join("cases.toml"), format!("[settings]\nKIT = \"5\"\n{cases}")).expect("written");
}

fn has(component: &[u8], text: &str) -> bool {
    component.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn modules_that_nothing_uses_are_evaluated_at_their_first_use() {
    let dir = tempfile::tempdir().expect("a directory");
    write_project(dir.path());
    let built = tidegate(dir.path(), &["policy", "build"]).await;
    assert!(built.succeeded(), "{}", built.all());
    let component = fs::read(dir.path().join("policy.wasm")).expect("a component");
    assert!(has(&component, "text-of-used"));
    for text in ["text-of-star", "text-of-inner", "text-of-round", "text-of-default", "broken at its first use"] {
        assert!(!has(&component, text), "the component has {text}");
    }
    let tested = tidegate(dir.path(), &["policy", "test", "policy.wasm"]).await;
    assert!(tested.succeeded(), "{}", tested.all());

    // Without the package's promise they are evaluated at build. Then the error is one of the build, too.
    fs::write(dir.path().join("node_modules/kit/package.json"), r#"{"name":"kit","type":"module"}"#).expect("written");
    let built = tidegate(dir.path(), &["policy", "build"]).await;
    assert!(built.all().contains("broken.js:1: error: top-level code failed: TypeError: broken"), "{}", built.all());
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn spare_module_that_the_top_level_uses_is_that_of_the_build() {
    let dir = tempfile::tempdir().expect("a directory");
    write_project(dir.path());
    // No code has the name of the export.
    let policy = "import { kit } from \"kit\";
        const name = [\"s\", \"tar\"].join(\"\");
        const text = kit[name]();
        const read = kit[\"ran\" + \"dom\"]();
        export const middleware = () => new Response(`${text} ${globalThis.evaluated} ${read}`, { status: 403 });";
    fs::write(dir.path().join("policy.ts"), policy).expect("written");
    let case = "[settings]\nKIT = \"5\"\n[[case]]\nname = \"a\"\nexpect = { status = 403, body = \"text-of-star setup,star set to 5\" }\n";
    fs::write(dir.path().join("cases.toml"), case).expect("written");
    let built = tidegate(dir.path(), &["policy", "build"]).await;
    let printed = built.all();
    let note = "node_modules/kit/random.js:1: note: top-level code reads process.env.KIT: evaluated in every instance";
    assert!(built.succeeded() && printed.contains(note), "{printed}");
    let tested = tidegate(dir.path(), &["policy", "test", "policy.wasm"]).await;
    assert!(tested.succeeded(), "{}", tested.all());
}
