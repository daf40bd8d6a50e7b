//! Policies in C and Zig: what there is instead of a C library, and where a failed assertion or a panic is written.

use std::fs;

use crate::processes::{path, run_unlimited, tidegate};

/// Builds a policy of one file and tests it with one case, which expects `expected`. Returns whether both succeeded, and their output.
async fn build_and_test(file: &str, source: &str, expected: &str) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let (component, cases) = (path(dir.path(), "policy.wasm"), path(dir.path(), "cases.toml"));
    fs::write(dir.path().join(file), source).expect("written");
    fs::write(&cases, format!("[[case]]\nname = \"a client\"\nexpect = {expected}\n")).expect("written");
    let mut printed = String::new();
    for args in [
        &["policy", "build", &path(dir.path(), file), "-o", &component] as &[&str],
        &["policy", "test", &component, &cases, "--log"],
    ] {
        let ended = run_unlimited(tidegate(args)).await;
        printed += &ended.all();
        if !ended.succeeded() {
            return (false, printed);
        }
    }
    (true, printed)
}

const AUTHORIZE: &str =
    "tg_answer authorize(const tg_request *request, tg_list channels) { (void)request, (void)channels;";

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn failed_assertion_in_c_reaches_the_log_with_its_place() {
    let source = format!(
        "#include <assert.h>\n#include \"tidegate.h\"\n{AUTHORIZE}\nassert(channels.len == 2);\nreturn tg_allow(tg(\"\")); }}\n"
    );
    let (passed, printed) = build_and_test("policy.c", &source, "{ error = \"trap\" }").await;
    assert!(passed && printed.contains("policy.c:4: assertion failed: channels.len == 2"), "{printed}");
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn missing_headers_of_the_c_library_name_the_alternative() {
    for (header, alternative) in [
        ("stdio.h", "log with tg_log"),
        ("math.h", "parse JSON with tg_json_parse"),
        ("time.h", "tg_now is the gateway's clock"),
        ("unistd.h", "read Redis with tg_get"),
    ] {
        let source =
            format!("#include <{header}>\n#include \"tidegate.h\"\n{AUTHORIZE} return tg_allow(tg(\"\")); }}\n");
        let (passed, printed) = build_and_test("policy.c", &source, "{ allow = true }").await;
        assert!(
            !passed && printed.contains("a policy has no ") && printed.contains(alternative),
            "{header}: {printed}"
        );
    }
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn panic_in_zig_reaches_the_log() {
    let example = include_str!("../../guest-examples/zig-role-based/policy.zig");
    let source = example.replace(
        "    var rejection: c.tg_answer = undefined;\n",
        "    if (channels.len == 1) @panic(\"the key is missing\");\n    var rejection: c.tg_answer = undefined;\n",
    );
    let (passed, printed) = build_and_test("policy.zig", &source, "{ error = \"trap\" }").await;
    assert!(passed && printed.contains("ERROR \"the key is missing\""), "{printed}");
}
