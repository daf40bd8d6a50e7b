//! The web-platform-tests of the interfaces that the platform script has.
//!
//! The tests are in the source package `nodejs` of Debian, which `data` downloads once: `cargo test --test wpt -- --ignored`. `expected.txt` lists
//! those that fail, with the reason.

mod data;
#[path = "../support/gateway.rs"]
mod gateway;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tidegate_js::engine::Engine;

/// Runs the tests in `folder`, without those that need a browser, and compares the failures with `expected.txt`.
fn run(folder: &str) {
    let root = data::root();
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    assert!(!files.is_empty(), "no tests in {folder}");
    files.sort();
    let expected = expected();
    let (mut passed, mut failed, mut wrong) = (0, 0, Vec::new());
    for file in files {
        let name = file.strip_prefix(&root).expect("a file below the root").display().to_string();
        if name.ends_with("idlharness.any.js") || expected.get(&name).is_some_and(|tests| tests.contains_key("*")) {
            continue;
        }
        let nothing = BTreeMap::new();
        let known = expected.get(&name).unwrap_or(&nothing);
        let results = run_file(&root, &file);
        let mut seen = Vec::new();
        for (status, test, message) in &results {
            if known.keys().any(|name| is_pattern(name) && test.contains(name.trim_matches('*'))) {
                continue;
            }
            let is_known = known.contains_key(test);
            match (*status == "0", is_known) {
                (true, false) => passed += 1,
                (false, true) => failed += 1,
                (true, true) => wrong.push(format!("{name} | {test} | passes, but is listed")),
                (false, false) => wrong.push(format!("{name} | {test} | {message}")),
            }
            seen.push(test.clone());
        }
        wrong.extend(
            known
                .keys()
                .filter(|test| !seen.contains(test) && !is_pattern(test))
                .map(|test| format!("{name} | {test} | is listed, but did not run")),
        );
    }
    println!("web-platform-tests {folder}: {passed} passed, {failed} failed as expected, {} unexpected", wrong.len());
    assert!(wrong.is_empty(), "{folder}: {} differ from expected.txt:\n{}", wrong.len(), wrong.join("\n"));
}

/// Status, name and message of each test of a file.
fn run_file(root: &Path, file: &Path) -> Vec<(String, String, String)> {
    // Elements of pages parse URLs, too.
    let source = read(file).replace(r#"["url", "a", "area"]"#, r#"["url"]"#);
    let folder = file.parent().expect("a file has a folder");
    let script = |address: &str| match address.strip_prefix('/') {
        Some(absolute) => root.join(absolute),
        None => folder.join(address),
    };
    let mut resources = BTreeMap::new();
    for (at, _) in source.match_indices("fetch(\"") {
        let address = source[at + 7..].split('"').next().unwrap_or_default();
        if address.ends_with(".json") {
            resources.insert(address.to_owned(), read(&script(address)));
        }
    }
    let mut scripts = vec![
        format!("const FILES = {};", serde_json::to_string(&resources).expect("strings")),
        include_str!("prelude.js").to_owned(),
        read(&root.join("resources/testharness.js")),
        include_str!("results.js").to_owned(),
    ];
    let metas = source.lines().filter_map(|line| line.strip_prefix("// META: script="));
    scripts.extend(metas.map(|address| read(&script(address.trim()))));
    // A test that asks for strict code gets it, although it is not the first script.
    let is_strict = source.lines().any(|line| line.starts_with("'use strict'") || line.starts_with("\"use strict\""));
    scripts.push(if is_strict { format!("(function () {{ 'use strict';\n{source}\n}})()") } else { source });

    gateway::install();
    let engine = Engine::start().expect("the engine starts");
    // One script: the harness takes the first pause for the end of the tests.
    scripts.push("done(); COMPLETED".into());
    let script = serde_json::to_string(&scripts.join(";\n")).expect("a string");
    // Scripts of pages are sloppy, which an indirect `eval` makes them.
    let results = engine
        .evaluate(&format!("(0, eval)({script})"))
        .unwrap_or_else(|error| format!("1\t(script)\t{}", error.replace('\n', " ")));
    let fields = |line: &str| {
        let mut fields = line.splitn(3, '\t').map(str::to_owned);
        (fields.next().unwrap_or_default(), fields.next().unwrap_or_default(), fields.next().unwrap_or_default())
    };
    results.lines().map(fields).collect()
}

/// The tests at a path: a file, or all in a folder.
fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    if folder.is_file() {
        files.push(folder.to_owned());
        return;
    }
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry of a folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.to_string_lossy().ends_with(".any.js") {
            files.push(path);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a regular file of the download")]
fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a name in `expected.txt` stands for all tests whose names contain a text. They are not run: some pass by accident.
fn is_pattern(name: &str) -> bool {
    name.len() > 2 && name.starts_with('*') && name.ends_with('*')
}

/// The failing tests of each file, with the reason. The name `*` skips the file, `*text*` all tests with that text.
fn expected() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let (mut file, mut reason) = (String::new(), String::new());
    for line in include_str!("expected.txt").lines() {
        if let Some(text) = line.strip_prefix("# ") {
            text.clone_into(&mut reason);
        } else if let Some(test) = line.strip_prefix("  ") {
            all.entry(file.clone()).or_default().insert(test.to_owned(), reason.clone());
        } else if !line.is_empty() {
            line.clone_into(&mut file);
        }
    }
    all
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn url() {
    run("url");
    run("url/toascii.window.js");
    run("url/IdnaTestV2.window.js");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn encoding() {
    run("encoding");
    run("encoding/single-byte-decoder.window.js");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn readable_streams() {
    run("streams/readable-streams");
    run("streams/readable-byte-streams");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn writable_and_transform_streams() {
    run("streams/writable-streams");
    run("streams/transform-streams");
    run("streams/piping");
    run("streams/queuing-strategies.any.js");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn events_and_abortion() {
    run("dom");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn files() {
    run("FileAPI/blob");
    run("FileAPI/file");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn base64_timers_and_clones() {
    run("html/webappapis");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn exceptions_and_messages() {
    run("webidl");
    run("webmessaging/broadcastchannel");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn crypto_digests_and_ciphers() {
    run("WebCryptoAPI/digest");
    run("WebCryptoAPI/encrypt_decrypt");
    run("WebCryptoAPI/getRandomValues.any.js");
    run("WebCryptoAPI/randomUUID.https.any.js");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn crypto_signatures() {
    run("WebCryptoAPI/sign_verify");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn crypto_derivation() {
    run("WebCryptoAPI/derive_bits_keys");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn crypto_keys() {
    run("WebCryptoAPI/import_export");
    run("WebCryptoAPI/wrapKey_unwrapKey");
}

#[test]
#[ignore = "full run: downloads 29 MB"]
fn crypto_generated_keys() {
    run("WebCryptoAPI/generateKey");
}
