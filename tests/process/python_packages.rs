//! The packages of policies in Python: which releases are installed, and what the error says about those that a component cannot use.
//! The index is a folder of `tests/fixtures/python-index/make.py`. `packages.rs` tries packages of the real one.

use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use crate::processes::{ProcessOutput, path, run_unlimited, tidegate};

/// A folder with packages.
async fn index() -> TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/python-index/make.py");
    let made = Command::new("python3").arg(script).arg(folder.path()).status().await.expect("Python is installed");
    assert!(made.success());
    folder
}

/// Builds a policy with these requirements from the index. `--find-links` has the name of a new directory, so no installed packages
/// of another test are used.
async fn build(index: &TempDir, requirements: &[&str], source: &str) -> (TempDir, ProcessOutput) {
    let dir = tempfile::tempdir().expect("a directory");
    let links = format!("--no-index\n--find-links {}\n", path(index.path(), "index.html"));
    std::fs::write(dir.path().join("requirements.txt"), links + &requirements.join("\n")).expect("written");
    std::fs::write(dir.path().join("app.py"), source).expect("written");
    let mut command = tidegate(&["policy", "build", "."]);
    command.current_dir(dir.path());
    let ended = run_unlimited(command).await;
    (dir, ended)
}

#[tokio::test]
async fn package_that_a_component_cannot_run_is_named_with_those_that_need_it() {
    let index = index().await;
    for (requirement, expected) in [
        ("engine", "engine has compiled parts (there is no wheel of pure Python of engine 1.0)"),
        ("middle", "middle needs engine, which has compiled parts"),
        ("outer", "outer needs middle, which needs engine, which has compiled parts"),
        ("outer", "or pin an old release without it (outer==1.0)"),
        ("aged", "aged has compiled parts (there is no wheel of pure Python of aged 2.0)"),
        ("aged", "or pin an old release without it (aged==1.0)"),
        ("aged>1,<3", "aged has compiled parts"),
        ("source", "source has no wheel, only a source distribution (source 2.0)"),
        ("onlysource", "python3 -m venv .venv && .venv/bin/pip install onlysource"),
        ("extended[fast]", "extended needs engine, which has compiled parts"),
        ("extended[fast]", "or extended without [fast]"),
        ("capped>=2", "capped has no release >=2 for Python 3.14"),
        ("both>=7", "both has no release >=7; the newest is 1.0"),
        ("both\nboht", "boht is not on the index of packages: check the name"),
        ("lonely", "lonely needs nowhere, which is not on the index of packages"),
    ] {
        let (dir, ended) = build(&index, &[requirement], "def authorize(request, channels):\n    pass\n").await;
        assert_eq!(ended.code(), Some(1), "{requirement}: {}", ended.all());
        let last = ended.stderr.trim_end().lines().next_back().expect("a line");
        let begin = "tidegate: cannot install the policy's packages: ";
        assert!(last.starts_with(begin) && last.contains(expected), "{requirement}: {expected}: {}", ended.all());
        assert!(!ended.all().contains("setup.py ran") && !dir.path().join("policy.wasm").exists(), "{}", ended.all());
    }
}

#[tokio::test]
async fn old_releases_that_the_project_chose_are_installed_and_named() {
    let index = index().await;
    let names = ["aged<2", "outer==1.0", "both", "capped", "limiting", "marked", "extended", "withdrawn"];
    let modules = "aged, outer, both, capped, limiting, limited, marked, extended, withdrawn";
    let source = format!(
        "import {modules}\nfrom tidegate_policy import Response\n\n\ndef authorize(request, channels):\n    \
         return Response(' '.join(f'{{one.__name__}} {{one.VERSION}} {{one.TAG}}' for one in ({modules})), 403)\n"
    );
    let (dir, ended) = build(&index, &names, &source).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.all());
    let lines = |ended: &ProcessOutput| -> Vec<String> {
        let about = ended.stderr.lines().filter(|line| line.contains("is installed;"));
        about.map(|line| line.trim_start_matches("policy build: ").to_owned()).collect()
    };
    let expected = [
        "aged 1.0 is installed; the current release is 2.0 (the project needs aged<2)",
        "capped 1.0 is installed; the current release is 2.0, which is not for Python 3.14",
        "limited 1.0 is installed; the current release is 2.0 (limiting needs limited<2)",
        "outer 1.0 is installed; the current release is 2.0 (the project needs outer==1.0)",
    ];
    assert_eq!(lines(&ended), expected, "{}", ended.all());
    let versions = "aged 1.0 py3-none-any outer 1.0 py3-none-any both 1.0 py3-none-any capped 1.0 py3-none-any limiting 1.0 \
                    py3-none-any limited 1.0 py3-none-any marked 1.0 py3-none-any extended 1.0 py3-none-any withdrawn 1.0 py3-none-any";
    let case = format!("[[case]]\nname = \"versions\"\nexpect = {{ status = 403, body = \"{versions}\" }}\n");
    std::fs::write(dir.path().join("cases.toml"), case).expect("written");
    let tested = tidegate(&["policy", "test", "policy.wasm"]).current_dir(dir.path()).output().await.expect("it runs");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&[tested.stdout, tested.stderr].concat()));
}

#[tokio::test]
async fn index_that_does_not_answer_is_not_taken_for_a_missing_package() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("app.py"), "def authorize(request, channels):\n    pass\n").expect("written");
    let requirements = "--index-url http://127.0.0.1:9/simple\nunreachable-package\n";
    std::fs::write(dir.path().join("requirements.txt"), requirements).expect("written");
    let mut command = tidegate(&["policy", "build", "."]);
    command.env("PIP_RETRIES", "0").env_remove("PIP_FIND_LINKS").current_dir(dir.path());
    let output = command.output().await.expect("the program runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    let last = printed.trim_end().lines().next_back().expect("a line");
    assert!(last.contains("the index of packages cannot be read: "), "{printed}");
}
