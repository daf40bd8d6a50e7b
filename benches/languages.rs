//! Times and sizes of the same policy in each language: `cargo bench --bench languages` prints the table of docs/benchmarks.md.
//!
//! `cargo xtask guests` builds the components. `tidegate policy bench` measures each in a process of its own, so that none runs in memory
//! that another one has warmed up. `TIDEGATE_BIN` names another program than the one that cargo built. `-- --all` measures all patterns;
//! `-- --time 1s` shortens the measurements.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot run ends with the reason")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The usual work of a policy: a cookie, one look-up of its session, JSON.
const CASE: &str = "alice reads the channel `default`";

const LANGUAGES: [(&str, &str); 6] =
    [("rust", "Rust"), ("c", "C"), ("zig", "Zig"), ("go", "Go"), ("typescript", "TypeScript"), ("python", "Python")];

fn main() {
    // Cargo passes `--bench` to every benchmark.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if cfg!(debug_assertions) {
        eprintln!("built without optimisation: the times are not representative");
    }
    let all = args.iter().any(|arg| arg == "--all");
    let time = args.iter().skip_while(|arg| *arg != "--time").nth(1).map_or("5s", String::as_str);
    let patterns: &[&str] = if all { &["session", "user", "role"] } else { &["role"] };
    let mut machine = String::new();
    println!(
        "| policy | size | compile | load, compiled before | first decision | fresh p50 / p99 | prewarmed p50 / p99 | per second | memory |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (folder, language) in LANGUAGES {
        for pattern in patterns {
            let component = root().join(format!("target/guests/{folder}-{pattern}-based.wasm"));
            if !component.exists() {
                eprintln!("{} is missing: cargo xtask guests builds it", component.display());
                continue;
            }
            let costs = bench(&component, pattern, time);
            let name = if all { format!("{language}, {pattern}-based") } else { language.to_owned() };
            println!("{}", row(&name, &costs));
            machine = costs["machine"].as_str().unwrap_or_default().to_owned();
        }
    }
    if let Some(component) = route() {
        println!("{}", row("TypeScript, a route", &bench(&component, "role", time)));
    }
    println!(
        "\n{machine}; one decision at a time, each on an instance of its own, with a cookie, one look-up in an embedded store, its JSON."
    );
}

/// The same rules in the route file of an app with zod and @upstash/redis, whose top-level code reads settings.
fn route() -> Option<PathBuf> {
    if !root().join("tests/e2e/node_modules").exists() {
        eprintln!("a route of TypeScript needs its packages: npm ci in tests/e2e");
        return None;
    }
    let component = root().join("target/guests/route.wasm");
    let built = Command::new(program())
        .args(["policy", "build", "tests/e2e/routes/role-based/route.ts", "-o"])
        .arg(&component)
        .current_dir(root())
        .output()
        .expect("the program runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(component)
}

fn program() -> OsString {
    std::env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into())
}

fn bench(component: &Path, pattern: &str, time: &str) -> Value {
    let cases = root().join(format!("guest-examples/cases/{pattern}.toml"));
    let case = if pattern == "session" { "without a channel the channel is `default`" } else { CASE };
    let mut command = Command::new(program());
    command.args(["policy", "bench"]).args([component, &cases]).args(["--filter", case, "--time", time, "--json"]);
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn row(name: &str, costs: &Value) -> String {
    let number =
        |pointer: &str| costs.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {costs}"));
    let pair = |group: &str| {
        format!("{} / {}", time(number(&format!("/{group}/p50_us"))), time(number(&format!("/{group}/p99_us"))))
    };
    let prewarmed = if costs["prewarmed"]["enabled"] == true { pair("prewarmed") } else { "–".into() };
    format!(
        "| {name} | {} | {} | {} | {} | {} | {prewarmed} | {:.0} | {} |",
        size(number("/component_bytes")),
        time(number("/compile_us")),
        time(number("/load_us")),
        time(number("/cold_us")),
        pair("fresh"),
        number("/throughput/per_second"),
        size(number("/instance_bytes")),
    )
}

fn time(us: f64) -> String {
    match us {
        ..100.0 => format!("{us:.1} µs"),
        ..1000.0 => format!("{us:.0} µs"),
        ..100_000.0 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

fn size(bytes: f64) -> String {
    if bytes < 1e6 { format!("{:.0} kB", bytes / 1e3) } else { format!("{:.1} MB", bytes / 1e6) }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
