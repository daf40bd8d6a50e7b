//! `tidegate policy test` and `bench`, and the suite of cases of each pattern, which its examples in all languages must pass.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::guests;
use crate::processes::{ProcessOutput, path, run_unlimited, tidegate};

async fn run_in(dir: &Path, args: &[&str]) -> ProcessOutput {
    let mut command = tidegate(args);
    command.current_dir(dir);
    run_unlimited(command).await
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with these files; a name that ends in `.wasm` is that of a fixture.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let component = name.strip_suffix(".wasm").map(|_| guests::component(text));
        std::fs::write(dir.path().join(name), component.as_deref().unwrap_or(text.as_bytes())).expect("written");
    }
    dir
}

async fn passes_suite(component: &Path, pattern: &str) {
    let cases = root().join(format!("guest-examples/cases/{pattern}.toml"));
    let count = std::fs::read_to_string(&cases).expect("the cases").matches("[[case]]").count();
    let names = [component, &cases].map(|path| path.to_str().expect("a path"));
    let ended = run_in(root(), &["policy", "test", names[0], names[1], "--json"]).await;
    assert_eq!(ended.code(), Some(0), "{} with {}: {}", names[0], names[1], ended.all());
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((report["passed"].as_u64(), report["failed"].as_u64()), (Some(count as u64), Some(0)));
}

/// The examples, each with its folder and its pattern.
fn examples() -> Vec<(String, String)> {
    let folders = std::fs::read_dir(root().join("guest-examples")).expect("the examples");
    let names = folders.map(|entry| entry.expect("a directory").file_name().into_string().expect("its name"));
    let mut all: Vec<_> = names
        .filter_map(|name| {
            let pattern = name.strip_suffix("-based")?.rsplit_once('-')?.1.to_owned();
            Some((name, pattern))
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
#[ignore = "needs the built examples: cargo xtask guests"]
async fn every_example_passes_the_suite_of_its_pattern() {
    let built = std::env::var_os("TIDEGATE_FRESH_GUESTS").map_or_else(|| root().join("target/guests"), PathBuf::from);
    let all = examples();
    assert!(all.iter().any(|(name, _)| name == "rust-role-based"), "{all:?}");
    for (name, pattern) in all {
        passes_suite(&built.join(format!("{name}.wasm")), &pattern).await;
    }
}

#[tokio::test]
async fn component_built_before_later_additions_to_the_interface_still_decides() {
    // It was built before `cache-for`, `cache-any-address` and `preparation` were added to 0.1.0.
    passes_suite(&root().join("tests/fixtures/components/role-based-0.1.0.wasm"), "role").await;
}

const ALLOW: &str = "[[case]]\nname = \"any request is allowed\"\nexpect.allow = true\n";

#[tokio::test]
async fn cases_next_to_a_component_are_run() {
    let dir = folder(&[("policy.wasm", "allow"), ("cases.toml", ALLOW)]);
    let ended = run_in(dir.path(), &["policy", "test", "policy.wasm"]).await;
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{ended:?}");
    assert!(
        ended.stdout.starts_with("ok    any request is allowed\n\n1 passed, 0 failed: policy.wasm (sha256:"),
        "{}",
        ended.stdout
    );
    // The same from another directory, by a path.
    let component = path(dir.path(), "policy.wasm");
    let ended = run_in(root(), &["policy", "test", &component]).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[tokio::test]
async fn failed_case_is_printed_and_sets_the_exit_code() {
    let cases = format!("{ALLOW}[[case]]\nname = \"anonymous\"\nexpect = {{ status = 403, body = \"no\" }}\n");
    let dir = folder(&[("policy.wasm", "allow"), ("other.toml", &cases)]);
    let ended = run_in(dir.path(), &["policy", "test", "policy.wasm", "other.toml"]).await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("1 of 2 test cases failed"), "{}", ended.stderr);
    assert!(ended.stdout.contains("FAIL  anonymous  (other.toml:4)\n      - status       403\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("      + allow        true\n"), "{}", ended.stdout);
    let ended = run_in(dir.path(), &["policy", "test", "policy.wasm", "other.toml", "--filter", "any"]).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!ended.stdout.contains("anonymous"), "{}", ended.stdout);
    let ended = run_in(dir.path(), &["policy", "test", "policy.wasm", "other.toml", "--json"]).await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(report["results"][1]["differences"][0], "status", "{report}");
}

#[tokio::test]
async fn invalid_cases_are_reported_with_file_and_line() {
    let dir = folder(&[
        ("policy.wasm", "allow"),
        ("typo.toml", "[[case]]\nname = \"a\"\nexpect.allow = true\n\n[[case]]\nname = \"b\"\nchanel = \"x\"\n"),
        ("none.toml", "now = 1\n"),
        ("one.toml", ALLOW),
    ]);
    for (args, words) in [
        (&["policy.wasm"][..], &["no test cases", "cases.toml does not exist"][..]),
        (&["policy.wasm", "missing.toml"], &["missing.toml", "cannot be read"]),
        (&["policy.wasm", "typo.toml"], &["typo.toml:7", "\"b\"", "chanel", "channels"]),
        (&["policy.wasm", "none.toml"], &["none.toml", "no case", "[[case]]"]),
        (&["policy.wasm", "one.toml", "--filter", "x"], &["one.toml", "\"x\""]),
        (&["policy.wasm", "one.toml", "--config", "missing.toml"], &["missing.toml"]),
    ] {
        let ended = run_in(dir.path(), &[&["policy", "test"], args].concat()).await;
        assert_eq!((ended.code(), &*ended.stdout), (Some(2), ""), "{args:?}: {ended:?}");
        assert!(words.iter().all(|word| ended.stderr.contains(word)), "{args:?}: {}", ended.stderr);
    }
    // The error says what the missing file would be.
    for (args, says) in [
        (&["test", "missing.wasm", "one.toml"][..], "policy missing.wasm: cannot be read"),
        (&["test", "missing.wasm"], "policy missing.wasm: cannot be read"),
        (&["inspect", "missing.wasm"], "component missing.wasm: cannot be read"),
        (&["push", "missing.wasm"], "component missing.wasm: cannot be read"),
        (&["push", "policy.wasm", "--cases", "missing.toml"], "test cases missing.toml: cannot be read"),
        (&["replay", "missing.jsonl", "policy.wasm"], "recording missing.jsonl: cannot be read"),
    ] {
        let ended = run_in(dir.path(), &[&["policy"], args].concat()).await;
        assert_eq!(ended.code(), Some(1), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{args:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn expected_errors_match_by_kind_under_the_configured_limits() {
    for (fixture, kind) in [("trap", "trap"), ("spin", "cpu"), ("grow", "memory"), ("no-channels", "invalid-answer")] {
        let cases = format!("[[case]]\nname = \"the decision fails\"\nexpect.error = \"{kind}\"\n");
        let dir = folder(&[("policy.wasm", fixture), ("cases.toml", &cases)]);
        let ended = run_in(dir.path(), &["policy", "test", "policy.wasm"]).await;
        assert_eq!(ended.code(), Some(0), "{fixture}: {}", ended.all());
    }
    let cases = "[[case]]\nname = \"the decision fails\"\nexpect.error = \"timeout\"\n";
    let config = "store = \"memory:\"\nallow-all = true\n[policy]\ntimeout = \"50ms\"\ncpu-time = \"10s\"\n";
    let dir = folder(&[("policy.wasm", "spin"), ("cases.toml", cases), ("gateway.toml", config)]);
    let ended = run_in(dir.path(), &["policy", "test", "policy.wasm", "--config", "gateway.toml"]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.all());
}

#[tokio::test]
async fn tokens_are_verified_with_the_profiles_of_a_case() {
    let cases = r#"
        [[case]]
        name = "without a profile keys are unavailable"
        expect.status = 503

        [[case]]
        name = "with a profile the token is malformed"
        tokens.app = { secret = "a secret of thirty-two bytes, or more", audience = "app" }
        expect.allow = true
    "#;
    let bad = "[tokens.app]\nsecret = \"s\"\naudiences = \"app\"\n[[case]]\nname = \"a\"\nexpect.allow = true\n";
    let dir = folder(&[("policy.wasm", "tokens"), ("cases.toml", cases), ("bad.toml", bad)]);
    let ended = run_in(dir.path(), &["policy", "test", "policy.wasm"]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.all());
    let ended = run_in(dir.path(), &["policy", "test", "policy.wasm", "bad.toml"]).await;
    assert_eq!(ended.code(), Some(2), "{}", ended.all());
    assert!(ended.stderr.contains("bad.toml") && ended.stderr.contains("audiences"), "{}", ended.stderr);
}

#[tokio::test]
async fn bench_reports_the_cost_of_a_decision() {
    let dir = folder(&[("policy.wasm", "allow"), ("cases.toml", ALLOW)]);
    let args = ["policy", "bench", "policy.wasm", "--count", "20", "--json"];
    let fuel = async || {
        let ended = run_in(dir.path(), &args).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.all());
        let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!((report["cases"].as_str(), report["fresh"]["count"].as_u64()), (Some("cases.toml"), Some(20)));
        for field in ["component_bytes", "compile_us", "load_us", "cold_us", "instance_bytes"] {
            assert!(report[field].as_f64().is_some_and(|n| n > 0.0), "{field}: {report}");
        }
        for (group, field) in [
            ("prewarmed", "p50_us"),
            ("prewarmed", "creation_us"),
            ("fresh", "p50_us"),
            ("fresh", "p99_us"),
            ("fresh", "max_us"),
            ("throughput", "per_second"),
        ] {
            assert!(report[group][field].as_f64().is_some_and(|n| n > 0.0), "{group}.{field}: {report}");
        }
        report["fuel"].clone()
    };
    let first = fuel().await;
    assert!(first["mean"].as_u64().is_some_and(|n| n > 0), "{first}");
    assert_eq!(first, fuel().await, "fuel is the same in every run");
}

#[tokio::test]
async fn fuel_is_that_of_the_decision_that_the_case_expects() {
    // The policy executes more instructions if its look-up fails.
    let fuel = async |prefixes: &str, expect: &str| {
        let cases = format!("lookup.prefixes = [{prefixes}]\n[[case]]\nname = \"a\"\nexpect = {{ {expect} }}\n");
        let dir = folder(&[("policy.wasm", "lookup"), ("cases.toml", &cases)]);
        let ended = run_in(dir.path(), &["policy", "bench", "policy.wasm", "--count", "1", "--json"]).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.all());
        let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        report["fuel"]["mean"].as_u64().expect("a number")
    };
    let (found, denied) = (fuel("'forbidden:'", "allow = true").await, fuel("", "status = 403").await);
    assert!(found < denied, "{found} and {denied}");
}

#[tokio::test]
async fn failing_policy_is_not_benchmarked() {
    let dir = folder(&[("policy.wasm", "trap")]);
    let ended = run_in(dir.path(), &["policy", "bench", "policy.wasm", "--count", "3"]).await;
    assert_eq!((ended.code(), &*ended.stdout), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("policy.wasm") && ended.stderr.contains("trap"), "{}", ended.stderr);
}
