//! The layer rule: a module imports only from modules that `lib.rs` lists below it, and no two files import from each other in a cycle.
//!
//! Both rules hold for `#[cfg(test)]` code too. A directory's `mod.rs` and the files below it may import from each other: they are one
//! module. `fuzz.rs`, which `lib.rs` lists first, may import from all.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken layer rule is a failed test")]
#![allow(clippy::disallowed_methods, reason = "the test reads the source files of the repository")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The crate's source files: the module path of each, such as `["authz", "cache"]`, and its text.
type Sources = BTreeMap<Vec<String>, String>;

/// One import: the file that has it, its line from 1, and the file that it imports from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: Vec<String>,
    line: usize,
    to: Vec<String>,
}

fn sources() -> Sources {
    fn read(folder: &Path, module: &[String], sources: &mut Sources) {
        for entry in fs::read_dir(folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let mut inner = module.to_vec();
            if name != "mod" && name != "lib" {
                inner.push(name);
            }
            if path.is_dir() {
                read(&path, &inner, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("src/main.rs") {
                sources.insert(inner, fs::read_to_string(&path).expect("a source file is text"));
            }
        }
    }
    let mut sources = Sources::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut sources);
    sources
}

/// The modules in the order of `lib.rs`, the top layer first.
fn layers(lib: &str) -> Vec<String> {
    let module = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    lib.lines().filter_map(module).collect()
}

/// The text of a source file without comments and without the contents of strings, on the same lines.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = 2 + hashes;
            rest[begin..].find(&end).map_or(rest.len(), |at| begin + at + end.len())
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |at| at + 2)
        } else if c == '\'' && rest.chars().nth(2) == Some('\'') {
            2 + rest.chars().nth(1).map_or(0, char::len_utf8)
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    out
}

/// The number of `#` of the raw string with which `text` begins; `None` if it begins with something else.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    hashes[count..].starts_with('"').then_some(count)
}

/// All paths of a use tree such as `a::{b, c::{d, e}}`, and the length of the use tree in `text`.
fn paths(text: &str, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut path = prefix.to_vec();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if text[at..].starts_with('{') {
            at += 1;
            while !text[at..].trim_start().starts_with('}') && at < text.len() {
                at += text[at..].len() - text[at..].trim_start().len();
                let length = paths(&text[at..], &path, found);
                at += length.max(1);
            }
            return at + 1;
        }
        let name: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
        at += name.len();
        if !name.is_empty() && name != "self" {
            path.push(name);
        }
        if !text[at..].starts_with("::") {
            break;
        }
        at += 2;
    }
    found.push(path);
    at
}

/// Every path in a file that begins with `crate` or leads out of the file with `super`, with its line.
fn paths_of(module: &[String], text: &str) -> Vec<(usize, Vec<String>)> {
    let code = code_only(text);
    let mut found = Vec::new();
    let mut inline_modules: Vec<usize> = Vec::new();
    let (mut depth, mut line) = (0, 1);
    for (at, c) in code.char_indices() {
        match c {
            '\n' => line += 1,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                inline_modules.retain(|start| *start <= depth);
            }
            _ => {}
        }
        let begins = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"_:$".contains(c));
        if !begins {
            continue;
        }
        let rest = &code[at..];
        if rest.starts_with("mod ") && rest.find('{').is_some_and(|open| rest.find(';').is_none_or(|end| open < end)) {
            inline_modules.push(depth + 1);
        }
        if let Some(tree) = rest.strip_prefix("crate::") {
            let mut trees = Vec::new();
            paths(tree, &[], &mut trees);
            found.extend(trees.into_iter().map(|path| (line, path)));
        }
        let up = (0..).take_while(|n| rest.starts_with(&"super::".repeat(n + 1))).count();
        if up > inline_modules.len() {
            let prefix = (module.len() + inline_modules.len()).saturating_sub(up);
            let mut trees = Vec::new();
            paths(&rest["super::".len() * up..], &module[..prefix.min(module.len())], &mut trees);
            found.extend(trees.into_iter().map(|path| (line, path)));
        }
    }
    found
}

/// The imports between files. A path is resolved to the file with the longest matching module path.
fn imports(sources: &Sources) -> BTreeSet<Import> {
    let mut imports = BTreeSet::new();
    for (module, text) in sources.iter().filter(|(module, _)| !module.is_empty()) {
        for (line, path) in paths_of(module, text) {
            let to = (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|path| sources.contains_key(path));
            if let Some(to) = to.filter(|to| to != module) {
                imports.insert(Import { from: module.clone(), line, to });
            }
        }
    }
    imports
}

/// The imports that point to a higher layer, and those of modules that `lib.rs` does not list.
fn upward(sources: &Sources) -> Vec<Import> {
    let layers = layers(&sources[&Vec::new()]);
    let rank = |module: &[String]| layers.iter().position(|layer| *layer == module[0]);
    let is_upward = |import: &Import| match (rank(&import.from), rank(&import.to)) {
        (Some(from), Some(to)) => to < from,
        _ => true,
    };
    imports(sources).into_iter().filter(is_upward).collect()
}

/// Files that import from each other in a cycle, each with those that it can reach and that reach it.
fn cycles(sources: &Sources) -> Vec<Vec<String>> {
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for Import { from, to, .. } in imports(sources) {
        if !from.starts_with(&to) && !to.starts_with(&from) {
            edges.entry(from).or_default().insert(to);
        }
    }
    let reaches = |begin: &Vec<String>| {
        let mut reached: BTreeSet<&Vec<String>> = BTreeSet::new();
        let mut next: Vec<&Vec<String>> = edges.get(begin).into_iter().flatten().collect();
        while let Some(file) = next.pop() {
            if reached.insert(file) {
                next.extend(edges.get(file).into_iter().flatten());
            }
        }
        reached.contains(begin)
    };
    edges.keys().filter(|file| reaches(file)).cloned().collect()
}

fn format_imports(imports: &[Import]) -> String {
    let line = |import: &Import| {
        let Import { from, line, to } = import;
        format!("{}, line {line}: {}", from.join("::"), to.join("::"))
    };
    imports.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The sources, with a line appended to this module.
fn planted(module: &[&str], line: &str) -> Sources {
    let mut sources = sources();
    let module: Vec<String> = module.iter().map(ToString::to_string).collect();
    let text = sources.get_mut(&module).unwrap_or_else(|| panic!("{} has no file", module.join("::")));
    text.push_str(line);
    sources
}

#[test]
fn no_import_points_to_a_higher_layer() {
    let upward = upward(&sources());
    assert!(upward.is_empty(), "these imports point up in the order of lib.rs:\n{}", format_imports(&upward));
}

#[test]
fn no_files_import_each_other_in_a_cycle() {
    let cycles: Vec<String> = cycles(&sources()).iter().map(|file| file.join("::")).collect();
    assert!(cycles.is_empty(), "these files are part of a cycle of imports: {}", cycles.join(", "));
}

#[test]
fn every_module_is_a_layer() {
    let sources = sources();
    let layers = layers(&sources[&Vec::new()]);
    assert!(layers.len() >= 20, "{layers:?}");
    for module in sources.keys().filter(|module| !module.is_empty()) {
        assert!(layers.contains(&module[0]), "lib.rs does not list {}", module[0]);
    }
    assert!(imports(&sources).len() > 500, "the imports of the crate are read");
}

#[test]
fn a_planted_upward_import_is_found() {
    for line in [
        "\nuse crate::server::App;\n",
        "\nuse crate::{event::StreamId, server::App};\n",
        "\nuse super::super::server::App;\n",
        "\n#[cfg(test)]\nmod planted {\n    use crate::server::App;\n}\n",
        "\nfn planted(app: &crate::server::App) {}\n",
    ] {
        let upward = upward(&planted(&["store", "url"], line));
        assert_eq!(upward.len(), 1, "{line}{upward:?}");
        assert_eq!((upward[0].from.join("::"), upward[0].to[0].as_str()), ("store::url".into(), "server"), "{line}");
    }
    for line in ["\n// use crate::server::App;\n", "\nconst TEXT: &str = \"crate::server::App\";\n"] {
        let upward = upward(&planted(&["store", "url"], line));
        assert!(upward.is_empty(), "{line}{upward:?}");
    }
}

#[test]
fn a_planted_cycle_is_found() {
    let sources = planted(&["store", "command"], "\nuse crate::store::memory::MemoryStore;\n");
    let found: Vec<String> = cycles(&sources).iter().map(|file| file.join("::")).collect();
    assert_eq!(found, ["store::command", "store::memory"]);
}
