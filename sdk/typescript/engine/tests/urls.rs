//! The data of the web-platform-tests for URLs that the crate `url` carries.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use tidegate_js::engine::Engine;

/// The names of the tests that fail, as the web-platform-tests name them.
const SCRIPT: &str = r#"
const failed = [];
let count = 0;
const expect = (name, work) => {
  count += 1;
  try {
    if (!work()) failed.push(name);
  } catch {
    failed.push(name);
  }
};
const refuses = (work) => {
  try {
    work();
    return false;
  } catch (error) {
    return error instanceof TypeError;
  }
};
for (const it of PARSED) {
  if (typeof it === "string") continue;
  const base = it.base ?? undefined;
  const name = `Parsing: <${it.input}> ${base === undefined ? "without base" : `against <${base}>`}`;
  if (it.failure) {
    expect(name, () => refuses(() => new URL(it.input, base)) && !URL.canParse(it.input, base) && URL.parse(it.input, base) === null);
    continue;
  }
  expect(name, () => {
    const url = new URL(it.input, base);
    return Object.keys(it).every((key) => key === "input" || key === "base" || !(key in url) || String(url[key]) === it[key]);
  });
}
for (const [key, tests] of Object.entries(SET)) {
  if (key === "comment") continue;
  for (const it of tests) {
    expect(`URL: Setting <${it.href}>.${key} = '${it.new_value}'${it.comment ? ` ${it.comment}` : ""}`, () => {
      const url = new URL(it.href);
      url[key] = it.new_value;
      return Object.entries(it.expected).every(([name, value]) => url[name] === value);
    });
  }
}
JSON.stringify([String(count), ...failed])
"#;

#[test]
#[allow(clippy::disallowed_methods, reason = "a regular file of a crate")]
fn urls_are_parsed_as_the_data_says() {
    let folder = crate_folder("url").join("tests");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("the crate contains its test data");
    let engine = Engine::start().expect("the engine starts");
    let data = format!("const PARSED = {}; const SET = {};", read("urltestdata.json"), read("setters_tests.json"));
    let failed = engine.evaluate(&format!("{data}{SCRIPT}")).expect("the script runs");
    let failed: Vec<String> = serde_json::from_str(&failed).expect("a list");
    assert!(failed[0].parse::<u32>().is_ok_and(|count| count > 1000), "{} tests", failed[0]);

    let expected = include_str!("wpt/expected.txt").lines().map(str::trim);
    let expected: BTreeSet<&str> =
        expected.filter(|line| line.starts_with("Parsing: ") || line.starts_with("URL: Setting")).collect();
    // The list has line ends as spaces.
    let failed: Vec<String> = failed[1..].iter().map(|name| name.replace(['\t', '\n', '\r'], " ")).collect();
    let new: Vec<_> = failed.iter().filter(|name| !expected.contains(name.trim())).collect();
    assert!(new.is_empty(), "not in tests/wpt/expected.txt: {new:#?}");
}

/// The folder of a dependency's source.
fn crate_folder(name: &str) -> PathBuf {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let found = packages.iter().find(|package| package["name"] == name).expect("the dependency");
    let manifest = PathBuf::from(found["manifest_path"].as_str().expect("a path"));
    manifest.parent().expect("a folder").to_owned()
}
