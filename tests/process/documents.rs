//! The documents: their examples parse, their links resolve, and what they must describe is there.
//!
//! Blocks are checked by the first word of their info string. `toml` is a configuration, `toml cases` the test cases of a policy, and
//! `toml other` another file. `sh` and `console` blocks run with every command replaced by a stub, which records the arguments of
//! `tidegate` and `cargo`. The blocks in TSX are parsed by `tests/e2e`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{CommandFactory, Parser};
use tidegate::commands::Cli;
use tidegate::policytest::file;

/// Blocks that are not checked; each has its reason in a comment on the line before.
const MAX_IGNORED: usize = 10;

/// What runs before each `sh` block: `tidegate` and `cargo` record their arguments, each other command does nothing.
const STUBS: &str = r#"
exec 9>"$RECORD"
tidegate() { printf 'tidegate\037' >&9; printf '%s\037' "$@" >&9; printf '\n' >&9; }
cargo() { printf 'cargo\037' >&9; printf '%s\037' "$@" >&9; printf '\n' >&9; }
kill() { :; }
wait() { :; }
command_not_found_handle() { return 0; }
PATH=/nonexistent
"#;

/// A fenced block of a document; `line` is the line of its first line of text, from 1.
struct Block {
    place: String,
    info: String,
    before: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All documents with their paths from the root.
fn documents() -> Vec<(String, String)> {
    fn read(directory: &Path, recursive: bool, documents: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() && recursive {
                read(&entry, true, documents);
            } else if entry.extension().is_some_and(|extension| extension == "md") {
                let name = entry.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                documents.push((name, fs::read_to_string(&entry).expect("text")));
            }
        }
    }
    let mut documents = Vec::new();
    read(&root(), false, &mut documents);
    read(&root().join("docs"), true, &mut documents);
    documents.sort();
    documents
}

/// The fenced blocks of a document, and its text without them, line by line.
fn parse(path: &str, document: &str) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut prose) = (Vec::<Block>::new(), Vec::<String>::new());
    let mut open: Option<(usize, Block)> = None;
    for (number, line) in (1..).zip(document.lines()) {
        let trimmed = line.trim_start();
        match &mut open {
            Some(_) if trimmed.starts_with("```") => blocks.extend(open.take().map(|(_, block)| block)),
            Some((indent, block)) => {
                block.text.push_str(line.get(*indent..).unwrap_or(trimmed));
                block.text.push('\n');
            }
            None => {
                if let Some(info) = trimmed.strip_prefix("```") {
                    let place = format!("{path}:{}", number + 1);
                    let before = prose.last().cloned().unwrap_or_default();
                    let block = Block { place, info: info.trim().to_owned(), before, text: String::new() };
                    open = Some((line.len() - trimmed.len(), block));
                }
                prose.push(if open.is_some() { String::new() } else { line.to_owned() });
                continue;
            }
        }
        prose.push(String::new());
    }
    assert!(open.is_none(), "{path}: a block does not end");
    (blocks, prose)
}

fn blocks() -> Vec<Block> {
    documents().iter().flat_map(|(path, text)| parse(path, text).0).collect()
}

/// The blocks of a language with the rest of their info string.
fn blocks_of(language: &str) -> Vec<(Block, String)> {
    let in_language = |block: Block| {
        let (first, rest) = block.info.split_once(' ').unwrap_or((&block.info, ""));
        let rest = rest.trim().to_owned();
        (first == language && rest != "ignore").then_some((block, rest))
    };
    blocks().into_iter().filter_map(in_language).collect()
}

#[test]
fn toml_blocks_are_valid_configurations_or_test_cases() {
    let blocks = blocks_of("toml");
    assert!(blocks.len() >= 10, "{} blocks", blocks.len());
    for (Block { place, text, .. }, kind) in blocks {
        let path = Path::new(&place);
        match kind.as_str() {
            // A configuration: `config::tests` loads it.
            "" => {}
            "cases" => drop(file::parse(path, &text).unwrap_or_else(|error| panic!("{place}: {error}"))),
            "other" => drop(text.parse::<toml::Table>().unwrap_or_else(|error| panic!("{place}: {error}"))),
            other => panic!("{place}: {other:?} is not a kind of TOML: cases, other"),
        }
    }
}

#[test]
fn json_blocks_are_json() {
    for (Block { place, text, .. }, _) in blocks_of("json") {
        for value in serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>() {
            value.unwrap_or_else(|error| panic!("{place}: {error}"));
        }
    }
}

#[test]
fn python_blocks_are_python() {
    let mut python = Command::new("python3");
    let check = "import ast, json, sys\nfor place, text in json.load(sys.stdin): ast.parse(text, place)";
    let mut python = python.args(["-c", check]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python3");
    let blocks: Vec<_> = blocks_of("python").into_iter().map(|(block, _)| (block.place, block.text)).collect();
    assert!(blocks.len() >= 2);
    let mut stdin = python.stdin.take().expect("piped");
    stdin.write_all(&serde_json::to_vec(&blocks).expect("JSON")).expect("python3 reads");
    drop(stdin);
    let out = python.wait_with_output().expect("it ends");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The commands that a block's shell runs, each as its words.
fn run_with_stubs(place: &str, script: &str) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().expect("a directory");
    let record = dir.path().join("record");
    let mut shell = Command::new("timeout");
    shell.args(["20", "bash", "-c", &format!("{STUBS}{script}")]).current_dir(dir.path()).env_clear();
    shell.env("RECORD", &record).env("HOME", dir.path()).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let out = shell.output().expect("bash runs");
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(!errors.contains("syntax error") && !errors.contains("unexpected"), "{place}: {errors}");
    let lines = fs::read_to_string(&record).expect("a record");
    // Arguments of several lines keep their line ends.
    let commands = lines.split_terminator("\u{1f}\n");
    commands.map(|line| line.split('\u{1f}').map(str::to_owned).collect()).collect()
}

#[test]
fn shell_blocks_run_commands_that_exist() {
    let xtask = fs::read_to_string(root().join("xtask/src/main.rs")).expect("xtask");
    let mut checked = 0;
    for (Block { place, text, .. }, _) in blocks_of("sh").into_iter().chain(blocks_of("console")) {
        let prompts: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        let script = if prompts.is_empty() { text } else { prompts.join("\n") };
        for words in run_with_stubs(&place, &script) {
            checked += 1;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let line = words.join(" ");
            match words.as_slice() {
                ["tidegate", ..] => {
                    if let Err(error) = Cli::try_parse_from(&words) {
                        assert!(!error.use_stderr(), "{place}: {line}\n{error}");
                    }
                }
                ["cargo", "xtask", task, ..] => assert!(xtask.contains(&format!("[\"{task}\"")), "{place}: {line}"),
                ["cargo", "bench" | "test", rest @ ..] => {
                    for pair in rest.windows(2) {
                        let directory = match pair[0] {
                            "--bench" => "benches",
                            "--test" => "tests",
                            _ => continue,
                        };
                        let target = root().join(directory).join(pair[1]);
                        assert!(target.is_dir() || target.with_extension("rs").is_file(), "{place}: {line}");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(checked >= 40, "{checked} commands");
}

#[test]
fn few_blocks_are_ignored_and_each_says_why() {
    let ignored: Vec<Block> =
        blocks().into_iter().filter(|block| block.info.split(' ').any(|word| word == "ignore")).collect();
    assert!(ignored.len() <= MAX_IGNORED, "{} blocks", ignored.len());
    for Block { place, before, .. } in ignored {
        assert!(before.starts_with("<!--") && before.len() > 20, "{place}: the line before says why, in a comment");
    }
}

/// The anchors of a document, as code hosts make them of its headings.
fn anchors(document: &str) -> BTreeSet<String> {
    let (_, prose) = parse("", document);
    let headings = prose.iter().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| -> String {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(slug).collect()
}

#[test]
fn links_between_documents_resolve() {
    let mut checked = 0;
    for (path, text) in documents() {
        let directory = root().join(&path).parent().expect("a parent").to_owned();
        for line in parse(&path, &text).1 {
            for rest in line.split("](").skip(1) {
                let link = rest.split(')').next().unwrap_or(rest);
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                checked += 1;
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { root().join(&path) } else { directory.join(file) };
                assert!(target.exists(), "{path}: {link} does not exist");
                if !anchor.is_empty() && target.extension().is_some_and(|extension| extension == "md") {
                    let text = fs::read_to_string(&target).expect("text");
                    assert!(anchors(&text).contains(anchor), "{path}: {link} is not a heading there");
                }
            }
        }
    }
    assert!(checked >= 50, "{checked} links");
}

/// Whether a file defines a test of this name: a function in Rust, a title in JavaScript.
fn has_test(file: &str, name: &str) -> bool {
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    text.contains(&format!("fn {name}("))
        || text.contains(&format!("test(\"{name}\""))
        || text.contains(&format!("def {name}("))
}

#[test]
fn numbered_invariants_name_tests_that_exist() {
    let mut ids = BTreeSet::new();
    for (path, text) in documents().iter().filter(|(path, _)| path.starts_with("docs/internals/")) {
        let prose = parse(path, text).1.join("\n");
        for item in prose.split("\n- **").skip(1) {
            let id = item.split("**").next().unwrap_or_default().trim_end_matches('.');
            if !id.contains('-') || !id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-') {
                continue;
            }
            let item = item.split("\n- ").next().unwrap_or(item).split("\n\n").next().unwrap_or(item);
            assert!(ids.insert(id.to_owned()), "{path}: {id} is there twice");
            let (_, tests) = item.rsplit_once("Test").unwrap_or_else(|| panic!("{path}: {id} names no test"));
            let named: Vec<(&str, &str)> =
                tests.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::")).collect();
            assert!(!named.is_empty(), "{path}: {id} names no test");
            for (file, name) in named {
                assert!(has_test(file, name), "{path}: {id}: {file} has no test {name}");
            }
        }
    }
    assert!(ids.len() >= 30, "{} invariants", ids.len());
}

/// The text of all sources below a directory.
fn sources(directory: &Path) -> String {
    let paths = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let text =
        |path: PathBuf| if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap_or_default() };
    paths.map(text).collect()
}

#[test]
fn every_command_error_code_and_alert_is_documented() {
    fn commands(command: &clap::Command, above: &str, names: &mut Vec<String>) {
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
            let name = format!("{above} {}", inner.get_name());
            if !inner.has_subcommands() {
                names.push(name.clone());
            }
            commands(inner, &name, names);
        }
    }
    let all: String = documents().into_iter().map(|(_, text)| text).collect();
    let mut names = Vec::new();
    commands(&Cli::command(), "tidegate", &mut names);
    assert!(names.len() >= 15);
    for name in names {
        assert!(all.contains(&name), "no document has `{name}`");
    }

    let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut codes = BTreeSet::new();
    for entry in ["api_error.rs", "control/emit.rs", "control/policy.rs", "control/revoke.rs", "control/shadow.rs"] {
        let text = fs::read_to_string(root().join("src/server").join(entry)).expect("a source file");
        for line in text
            .lines()
            .filter(|line| line.contains("(S::") || line.contains("code: \"") || line.contains("let (code, "))
        {
            let code = |code: &String| !code.is_empty() && code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            codes.extend(quoted(line).into_iter().find(code));
        }
    }
    assert!(codes.len() >= 40, "{codes:?}");
    for code in codes {
        assert!(all.contains(&format!("`{code}`")), "no document has the error code `{code}`");
    }

    let troubleshooting = fs::read_to_string(root().join("docs/troubleshooting.md")).expect("the page");
    let rules = fs::read_to_string(root().join("docs/tidegate.rules.yml")).expect("the rules");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        assert!(troubleshooting.contains(alert), "docs/troubleshooting.md has no {alert}");
    }
    let messages = rules.split("log says `").skip(1).filter_map(|rest| rest.split('`').next());
    let messages: Vec<&str> = messages.collect();
    assert!(messages.len() >= 5, "{messages:?}");
    let sources = sources(&root().join("src"));
    for message in messages {
        assert!(troubleshooting.contains(message), "docs/troubleshooting.md has no `{message}`");
        assert!(sources.contains(message), "no source has the log message `{message}`");
    }
}
