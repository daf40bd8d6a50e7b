//! The packages of `tests/packages`, each in a new project that `tidegate policy build` builds with the real toolchain.
//!
//! A folder `tests/packages/<language>/<package>` has `package.toml`, a [`Package`], and the files that replace those of the new
//! project. The files of `tests/packages/<language>` are in each of its projects. The tables of `docs/policies/packages.md` are written from these files by `cargo xtask bless`. One package of each kind
//! is tried by `cargo xtask test`, all of them by `cargo xtask test --full packages`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::process::Command;

use crate::processes::{ProcessOutput, is_full_soak, run_unlimited, tidegate};
use crate::projects::in_project;

/// The languages, as in `--lib`, with their titles in the page.
const LANGUAGES: [(&str, &str); 6] =
    [("rust", "Rust"), ("typescript", "TypeScript"), ("python", "Python"), ("go", "Go"), ("c", "C"), ("zig", "Zig")];

/// A package, and how it behaves in a policy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Package {
    name: String,
    /// The version that the project's files pin.
    version: String,
    /// What policies use it for, in a few words.
    purpose: String,
    result: Behaviour,
    /// The setting, or the alternative to a package that does not work. Markdown.
    #[serde(default)]
    note: String,
    /// Texts that a failed build or failed cases must print. Only for packages that do not work.
    #[serde(default)]
    error: Vec<String>,
    /// Whether the ordinary tests try it too.
    #[serde(default)]
    representative: bool,
    /// A shell command before the build, such as an installation.
    prepare: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    Works,
    WorksWithSetting,
    DoesNotWork,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages of a language with their folders, by name.
fn packages(language: &str) -> Vec<(PathBuf, Package)> {
    let folder = root().join("tests/packages").join(language);
    let mut all: Vec<_> = entries(&folder)
        .filter(|path| path.is_dir())
        .map(|folder| {
            let file = folder.join("package.toml");
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let package: Package = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(
                package.result == Behaviour::DoesNotWork,
                !package.error.is_empty(),
                "{}: `error` is for packages that do not work, and all of them have it",
                file.display()
            );
            (folder, package)
        })
        .collect();
    all.sort_by_key(|(_, package)| (package.name.to_lowercase(), package.version.clone()));
    all
}

/// Tries the representative packages of a language, or all of them in a full run.
async fn assert_packages_behave_as_documented(language: &str) {
    let all = packages(language);
    assert!(all.iter().any(|(_, package)| package.representative), "{language}: no package is representative");
    let mut wrong = Vec::new();
    for (folder, package) in all.iter().filter(|(_, package)| package.representative || is_full_soak()) {
        match try_package(language, folder, package).await {
            Ok(()) => println!("{language}: {} {} behaves as documented", package.name, package.version),
            Err(difference) => wrong.push(format!("{}: {difference}", folder.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Builds a project with the package, runs its cases, and returns the difference from the documents.
async fn try_package(language: &str, folder: &Path, package: &Package) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a directory");
    let project = dir.path().join("my-policy");
    let created = run(dir.path(), tidegate(&["policy", "new", "my-policy", "--lang", language])).await;
    assert!(created.succeeded(), "{}", created.all());
    copy_files(folder.parent().expect("the language's folder"), &project);
    copy(folder, &project);
    if let Some(prepare) = &package.prepare {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", prepare]);
        let prepared = run(&project, shell).await;
        assert!(prepared.succeeded(), "{}: {prepare}\n{}", folder.display(), prepared.all());
    }
    let mut ended = run(&project, tidegate(&["policy", "build"])).await;
    let mut printed = ended.all();
    if ended.succeeded() {
        ended = run(&project, tidegate(&["policy", "test", "policy.wasm", "--log"])).await;
        printed += &ended.all();
    }
    if ended.succeeded() == (package.result == Behaviour::DoesNotWork) {
        let difference = if ended.succeeded() { "it works" } else { "it does not work" };
        return Err(format!("{difference}:\n{printed}"));
    }
    match package.error.iter().find(|text| !printed.contains(&**text)) {
        Some(missing) => Err(format!("the output does not have {missing:?}:\n{printed}")),
        None => Ok(()),
    }
}

async fn run(dir: &Path, command: Command) -> ProcessOutput {
    let mut command = in_project(dir, command);
    // Also where Rust's target with WASI is installed, for which other settings are needed.
    command.env("CARGO_BUILD_TARGET", "wasm32-unknown-unknown");
    run_unlimited(command).await
}

/// Copies the files of a package over those of a project.
fn copy(from: &Path, to: &Path) {
    copy_files(from, to);
    for path in entries(from).filter(|path| path.is_dir()) {
        let to = to.join(path.file_name().expect("a name"));
        fs::create_dir_all(&to).expect("created");
        copy(&path, &to);
    }
}

/// Copies the files of a folder, without its folders.
fn copy_files(from: &Path, to: &Path) {
    for path in entries(from).filter(|path| path.is_file() && !path.ends_with("package.toml")) {
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path())
}

/// The table of a language.
fn table(title: &str, packages: &[(PathBuf, Package)]) -> String {
    let header = format!("## {title}\n\n| package | for | in a policy |\n| --- | --- | --- |\n");
    packages.iter().fold(header, |table, (_, package)| {
        let result = match package.result {
            Behaviour::Works => "works",
            Behaviour::WorksWithSetting => "works with a setting",
            Behaviour::DoesNotWork => "does not work",
        };
        let note = if package.note.is_empty() { String::new() } else { format!(": {}", package.note) };
        table + &format!("| {} {} | {} | {result}{note} |\n", package.name, package.version, package.purpose)
    })
}

/// `cargo xtask bless` writes the tables.
#[test]
fn golden_tables_of_packages() {
    let (start, end) = ("<!-- packages -->\n", "<!-- /packages -->");
    let tables = LANGUAGES.map(|(name, title)| table(title, &packages(name))).join("\n");
    let path = root().join("docs/policies/packages.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(start).expect("the start of the tables");
    let (present, after) = rest.split_once(end).expect("the end of the tables");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, format!("{before}{start}{tables}{end}{after}")).expect("written");
    } else {
        assert_eq!(present, tables, "docs/policies/packages.md is not up to date: run `cargo xtask bless`");
    }
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn rust_packages_behave_as_documented() {
    assert_packages_behave_as_documented("rust").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn typescript_packages_behave_as_documented() {
    assert_packages_behave_as_documented("typescript").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn python_packages_behave_as_documented() {
    assert_packages_behave_as_documented("python").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn go_packages_behave_as_documented() {
    assert_packages_behave_as_documented("go").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn c_packages_behave_as_documented() {
    assert_packages_behave_as_documented("c").await;
}

#[tokio::test]
#[ignore = "needs the toolchains of all languages: cargo xtask test"]
async fn zig_packages_behave_as_documented() {
    assert_packages_behave_as_documented("zig").await;
}
