//! Detection of secrets in the sources of an app: anyone who has the component can read them.

use std::sync::LazyLock;

use regex::Regex;

/// The kind of secret that only the name of a variable or member reveals. Messages of packages contain many such names.
const NAMED: &str = "a secret, because of its name";

/// Classes are of ASCII characters, because the program has no Unicode tables.
const PATTERNS: &[(&str, &str)] = &[
    ("a private key", r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----(?:[ \t\r\n]|\\[nr])*[A-Za-z0-9+/]{20}"),
    ("a secret key of Stripe", r"(?-u:\b)[sr]k_live_[0-9a-zA-Z]{16,}"),
    ("a token of GitHub", r"(?-u:\b)(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{50,})"),
    ("an access key of AWS", r"(?-u:\b)(?:AKIA|ASIA)[0-9A-Z]{16}(?-u:\b)"),
    ("a token of Slack", r"(?-u:\b)xox[abprs]-[0-9A-Za-z-]{10,}"),
    ("a key of OpenAI or Anthropic", r"(?-u:\b)sk-(?:ant-|proj-)?[0-9A-Za-z_-]{32,}"),
    ("a key of Google", r"(?-u:\b)AIza[0-9A-Za-z_-]{35}(?-u:\b)"),
    (
        "a password in a URL",
        r#"(?-u:\b)(?:rediss?|postgres(?:ql)?|mysql|mongodb(?:\+srv)?|amqps?)://[^ \t\r\n:@/"'`]*:[^ \t\r\n@/"'`$]+@"#,
    ),
    (
        NAMED,
        concat!(
            r"(?-u:\b)[A-Za-z0-9_]*(?i-u:secret|password|passwd|private_?key|api_?key|auth_?token)[A-Za-z0-9_]*",
            r#"["']?[ \t\r\n]*[:=][ \t\r\n]*["'`][^"'` \t\r\n$]{16,}["'`]"#
        ),
    ),
];

static SECRETS: LazyLock<Vec<(&str, Regex)>> =
    LazyLock::new(|| PATTERNS.iter().filter_map(|(kind, pattern)| Some((*kind, Regex::new(pattern).ok()?))).collect());

/// A warning for the first text of each kind in a source that looks like a secret. `is_own`: whether it is a file of the app itself.
pub fn find(name: &str, text: &str, is_own: bool) -> Vec<String> {
    let mut found: Vec<(usize, &str)> = SECRETS
        .iter()
        .filter(|(kind, _)| is_own || *kind != NAMED)
        .filter_map(|(kind, pattern)| {
            let at = pattern.find(text)?.start();
            Some((text.get(..at)?.matches('\n').count() + 1, *kind))
        })
        .collect();
    found.sort_by_key(|(line, _)| *line);
    let warning = |(line, kind): (usize, &str)| {
        format!(
            "{name}:{line}: warning: this looks like {kind}, and anyone who has the component can read it: keep it in a setting \
             and read it from process.env"
        )
    };
    found.into_iter().map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_are_valid() {
        assert_eq!(SECRETS.len(), PATTERNS.len());
    }

    #[test]
    fn secrets_are_found_with_their_line() {
        let token = format!("ghp_{}", "0".repeat(36));
        let source = format!("const jwtSecret = \"correct-horse-battery-staple\";\nconst token = \"{token}\";\n");
        let found = find("a.ts", &source, true);
        assert!(found[0].starts_with("a.ts:1: warning: this looks like a secret, because"), "{found:?}");
        assert!(found[1].starts_with("a.ts:2: warning: this looks like a token of GitHub"), "{found:?}");
        assert_eq!(find("node_modules/a/a.js", &source, false).len(), 1);
        for harmless in [
            "const secret = process.env.SECRET_OF_THE_APPLICATION",
            "password: `${a}-${b}-0123456789abcdef`",
            "ü: \"x\"",
        ] {
            assert!(find("a.ts", harmless, true).is_empty(), "{harmless}");
        }
        assert_eq!(find("a.ts", "redis://:hunter2@db.example", true).len(), 1);
    }
}
