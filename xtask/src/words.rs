//! `cargo xtask words`: finds words of the dialect that this project was first written in: in sources, tests, SDKs and documents.
//!
//! A name is read as its words: `kept_out`, `KeptOut` and `kept-out` are all "kept out". A sentence may go over several lines of a comment.
//! The terms that are used instead are defined in `docs/glossary.md`, whose last column, *not*, is skipped.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;

/// Patterns over lower-case words, and what to write instead.
const PATTERNS: &[(&str, &str)] = &[
    // Words of another language's grammar.
    (r"\banew\b", "again"),
    (r"\bbeside\b", "next to, in addition to"),
    (r"\bbehind\b", "after"),
    (r"\bat the (most|least)\b", "at most, at least"),
    (r"\bbe it\b", "whether it is"),
    (r"\bas [a-z ]{1,30} has it\b", "as … defines"),
    (r"\b(that|which) (is|are|was|were) none\b", "is not a …"),
    (r"\b(stands|stood|lies) (in|at|on|below|there|as)\b", "is in"),
    (r"\bas (it|they) stands?\b", "unchanged"),
    (r"\bso (many|much)\b", "the number, the amount"),
    (r"\bfor nothing\b", "without need"),
    (
        r"\b(it|that|this|which) is no (file|policy|component|channel|number|client|node|key|stream|signature|path|url|test|name|error)\b",
        "is not a …",
    ),
    // Clauses where the language has a noun.
    (
        r"\bwhat (is|was|are|were|has|had|have|came|comes|goes|went)\b",
        "the noun: the active policy, the missing program",
    ),
    (
        r"(\. |\b(of|for|to|by|with|from|and|or|that|if|only|than|as|in|on|at|all) )who (is|was|are|were|has|had|have|[a-z]+s)\b",
        "the noun: the rejected client, the process",
    ),
    (r"\b(whoever|whosoever|whom)\b", "the client, the process"),
    (r"\b(nobody|somebody|everybody)\b", "no client, a client, all clients"),
    (r"\b(is|are|was|were|be|been) (told|said|heard)\b", "is notified, is reported, is received"),
    // Metaphors where the field has a term.
    (r"\bdoors?\b", "authorizer"),
    (r"\b(bells?|doorbells?|rang|rung)\b", "notification"),
    (r"\b(farewells?|departures?|last words)\b", "reconnect frame, shutdown"),
    (r"\bpapers\b", "policy attachments"),
    (r"\b(surroundings|surround)\b", "policy environment"),
    (r"\bpaces?\b", "CPU budget, rate"),
    (r"\bslow lane\b", "low-priority pool"),
    (r"\bplaces\b", "permits, positions"),
    (r"\bthe way (back|into|there)\b", "rollback, activation pipeline"),
    (r"\bon (its|the|their) way\b", "pending"),
    (
        r"\b(judged again|ask(s|ed)? to come back|comes? back|came back)\b",
        "authorized again, reconnects, is reachable again",
    ),
    (r"\b(their|its|had a|have a|whose) turns?\b", "token, guard"),
    (r"\b(is|are|be|was|were|been|being|not|and|to) let in\b|\blet(s|ting)? (nobody|everybody|somebody)\b", "admit"),
    // One concept, one term.
    (r"\b(in|into|takes?|took|taking|taken) force\b", "active, activated"),
    (r"\b(kept|keeps?|keeping) (him|her|them|it|clients? )?out\b", "rejected, refused, revoked"),
    (r"\bdenials?\b", "revocation, rejection"),
    (r"\b(flip|flips|flipped)\b", "commit, decision change"),
    (r"\bcandidates?\b", "shadow policy, pending policy"),
    (r"\brehears(e|ed|es|al|als|ing)\b", "replay"),
    (r"\b(given again|made ahead)\b", "cached, prewarmed"),
    (r"\bwent back\b", "store reset, rolled back"),
    (
        r"\ba line an? |\b(lines?|events?|requests?|calls?|instances?|decisions?) an? (second|minute)\b",
        "per second, one line per decision",
    ),
];

/// Phrases of plain English that have one of these words.
const PLAIN: &[&str] = &[
    // Where a network node is.
    r"\bbehind (a|an|the|its|one|your|such a|another) ([a-z]+ )?(proxy|proxies|balancers?|load balancers?|cdn|nat|nginx|caddy)\b",
    // A distance between a reader and a writer.
    r"\b(lags?|lagged|falls?|fell|fallen|falling|stays?) ([a-z]+ )?behind\b",
    r"\bdecimal places\b",
    r"\bdenial of service\b",
    // The name of a benchmark.
    r"\b(bench |benches/|path = .)door\b",
];

/// Lines that keep such a word: the file, a part of the line, and the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("Cargo.toml", "name = \"door\"", "the name of a benchmark"),
    ("sdk/c/bindings/policy.h", "memory behind", "wit-bindgen generates this file"),
    ("src/commands/policy/build/python/install.py", "find_all_candidates(", "a function of pip"),
    ("tests/e2e/routes/plain/policy.js", "cookies().has(", "the name of a cookie that no request has"),
];

/// Exceptions that are too many hide what the rule is for.
const MAX_EXCEPTIONS: usize = 30;

/// Files that nobody wrote here, or that have to name the words.
fn is_skipped(path: &str) -> bool {
    let generated = ["package-lock.json", "Cargo.lock", "uv.lock", "go.sum"];
    let name = path.rsplit('/').next().unwrap_or(path);
    generated.contains(&name)
        || name.starts_with("LICENSE")
        || path.starts_with("fuzz/corpus/")
        || path == "xtask/src/words.rs"
}

/// One word of the dialect in a file; `line` counts from 1.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    text: String,
    instead: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, text, instead } = self;
        write!(f, "{path}:{line}: {text:?}: write {instead}")
    }
}

/// Checks every text file of the repository that git does not ignore.
pub fn run() -> Result<()> {
    ensure!(
        EXCEPTIONS.len() <= MAX_EXCEPTIONS,
        "{} exceptions: at most {MAX_EXCEPTIONS} are allowed",
        EXCEPTIONS.len()
    );
    let root = crate::root();
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let out = Command::new("git").args(list).current_dir(&root).output().context("git lists the files to check")?;
    ensure!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr).trim());
    let paths = String::from_utf8(out.stdout).context("a path is not UTF-8")?;
    let checker = Checker::new()?;
    let mut findings = Vec::new();
    let mut used = vec![false; EXCEPTIONS.len()];
    let mut files = 0;
    for path in paths.split_terminator('\0').filter(|path| !is_skipped(path)) {
        // A binary file has no words, and a file that was just removed has none either.
        let Ok(text) = fs::read_to_string(Path::new(&root).join(path)) else { continue };
        files += 1;
        let lines: Vec<&str> = text.lines().collect();
        findings.extend(checker.check(path, &text).into_iter().filter(|finding| {
            let line = lines.get(finding.line - 1).unwrap_or(&"");
            let exception = EXCEPTIONS.iter().position(|(file, part, _)| *file == path && line.contains(part));
            exception.inspect(|&index| used[index] = true).is_none()
        }));
    }
    for finding in &findings {
        println!("{finding}");
    }
    for ((path, part, _), _) in EXCEPTIONS.iter().zip(&used).filter(|(_, used)| !**used) {
        println!("xtask/src/words.rs: the exception for {path}, {part:?}, matches nothing: remove it");
    }
    if !findings.is_empty() || used.contains(&false) {
        bail!("{} words in {files} files that docs/glossary.md or CONTRIBUTING.md replaces", findings.len());
    }
    println!("{files} files, {} exceptions", EXCEPTIONS.len());
    Ok(())
}

/// The compiled patterns.
struct Checker {
    patterns: Vec<(Regex, &'static str)>,
    plain: Vec<Regex>,
}

impl Checker {
    fn new() -> Result<Self> {
        // Boundaries of ASCII words, because those of Unicode exclude the fast search.
        let compile = |pattern: &str| Regex::new(&pattern.replace(r"\b", r"(?-u:\b)"));
        let patterns = PATTERNS.iter().map(|(pattern, instead)| Ok((compile(pattern)?, *instead)));
        let plain = PLAIN.iter().map(|pattern| Ok(compile(pattern)?));
        Ok(Self { patterns: patterns.collect::<Result<_>>()?, plain: plain.collect::<Result<_>>()? })
    }

    /// All words of the dialect in a file, in the order of the patterns.
    fn check(&self, path: &str, text: &str) -> Vec<Finding> {
        let (words, starts) = normalize(text, path == "docs/glossary.md");
        let plain: Vec<_> =
            self.plain.iter().flat_map(|pattern| pattern.find_iter(&words)).map(|found| found.range()).collect();
        let mut findings = Vec::new();
        for (pattern, instead) in &self.patterns {
            for found in pattern.find_iter(&words) {
                if plain.iter().any(|range| range.start <= found.start() && found.end() <= range.end) {
                    continue;
                }
                let line = starts.partition_point(|&start| start <= found.start());
                findings.push(Finding { path: path.to_owned(), line, text: found.as_str().to_owned(), instead });
            }
        }
        findings
    }
}

/// The text as lower-case words, and where each of its lines starts therein. Names are split into their words, marks of comments are
/// removed, and an empty line ends a sentence. `glossary`: the last cell of a table's row is removed.
fn normalize(text: &str, glossary: bool) -> (String, Vec<usize>) {
    let mut words = String::with_capacity(text.len());
    let mut starts = Vec::new();
    for line in text.lines() {
        starts.push(words.len());
        let mut line = line.trim_start().trim_start_matches(['/', '!', '#', '*', ';', '>', '-']);
        if glossary && line.starts_with('|') {
            let cells = line.trim_end().trim_end_matches('|');
            line = &cells[..cells.rfind('|').unwrap_or(0)];
        }
        line = line.trim();
        if line.is_empty() {
            words.push('\n');
            continue;
        }
        let mut previous = ' ';
        for c in line.chars() {
            if c.is_uppercase() && previous.is_lowercase() {
                words.push(' ');
            }
            match c {
                '_' | '-' => words.push(' '),
                c => words.extend(c.to_lowercase()),
            }
            previous = c;
        }
        words.push(' ');
    }
    (words, starts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a broken expectation is a failed test")]

    use super::*;

    fn findings(path: &str, text: &str) -> Vec<(usize, String)> {
        let found = Checker::new().expect("the patterns are valid").check(path, text);
        found.into_iter().map(|finding| (finding.line, finding.text)).collect()
    }

    #[test]
    fn words_are_found_in_prose_names_and_across_lines() {
        for (text, line, word) in [
            ("ok\n// It reads the file anew.", 2, "anew"),
            ("fn kept_out() {}", 1, "kept out"),
            ("struct InForce;", 1, "in force"),
            ("/// At\n/// the most two.", 1, "at the most"),
            ("const DOOR_BELL: u8 = 0;", 1, "door"),
            ("one\n\n# two is kept\n# out", 3, "kept out"),
        ] {
            let found = findings("a.rs", text);
            assert!(found.contains(&(line, word.to_owned())), "{text:?}: {found:?}");
        }
    }

    #[test]
    fn plain_english_is_not_found() {
        for text in [
            "behind a proxy",
            "a client that falls far behind",
            "three decimal places",
            "indoors, forced",
            "at\n\nthe most",
        ] {
            assert_eq!(findings("a.md", text), [], "{text:?}");
        }
    }

    #[test]
    fn glossary_may_name_the_words_in_its_last_column_only() {
        assert_eq!(findings("docs/glossary.md", "| active | the policy | in force |"), []);
        assert_eq!(findings("docs/glossary.md", "| in force | the policy | - |").len(), 1);
        assert_eq!(findings("docs/other.md", "| active | the policy | in force |").len(), 1);
    }
}
