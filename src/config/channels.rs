//! Validates `[channels]`, and decides which keys may be channels.

use globset::GlobBuilder;
use regex::{RegexSet, RegexSetBuilder};

use crate::config::language::{Language, Search, find_text};
use crate::config::{ConfigError, invalid, schema};
use crate::store::fleet_keys::RESERVED_PREFIX;

const ALLOW: &str = "channels.allow";
const DENY: &str = "channels.deny";

/// Which keys may be channels.
#[derive(Clone, Debug)]
pub struct ChannelRules {
    allow: RegexSet,
    deny: RegexSet,
}

impl ChannelRules {
    /// Validates the patterns. Each decides about at least one name, which no other pattern decides in the same way.
    pub fn validate(raw: &schema::Channels, lookup_prefixes: &[String]) -> Result<Self, ConfigError> {
        let (allow, deny) = (Patterns::parse(ALLOW, &raw.allow)?, Patterns::parse(DENY, &raw.deny)?);
        if raw.allow.is_empty() {
            return Err(invalid(
                ALLOW,
                "without a pattern no key could be a channel: name patterns, such as [\"*\"] for all",
            ));
        }
        allow.check_that_each_permits(&deny, lookup_prefixes)?;
        deny.check_that_each_denies(&allow)?;
        Ok(Self { allow: allow.set, deny: deny.set })
    }

    /// Whether a key may be a channel. `lookup_prefixes` are those of the active policy.
    pub fn permit(&self, name: &str, lookup_prefixes: &[String]) -> bool {
        let looked_up = || lookup_prefixes.iter().any(|prefix| name.starts_with(&**prefix));
        let reserved = name.starts_with(RESERVED_PREFIX) || looked_up();
        !reserved && self.allow.is_match(name) && !self.deny.is_match(name)
    }
}

/// The patterns of an option.
struct Patterns {
    key: &'static str,
    /// An expression for each pattern.
    expressions: Vec<String>,
    set: RegexSet,
}

impl Patterns {
    fn parse(key: &'static str, patterns: &[String]) -> Result<Self, ConfigError> {
        for (n, pattern) in patterns.iter().enumerate() {
            check_syntax(pattern).map_err(|what| invalid(&format!("{key}[{n}]"), what))?;
        }
        let expressions = compile_patterns(key, patterns)?;
        Ok(Self { key, set: combine(key, &expressions)?, expressions })
    }

    /// The names that at least one pattern matches; `None` if there is no pattern, or too many names to tell.
    fn language(&self) -> Option<Language> {
        let any = self.expressions.join("|");
        if any.is_empty() { None } else { Language::of(&format!("^(?:{any})$")) }
    }

    fn languages(&self) -> impl Iterator<Item = (usize, Language)> {
        self.expressions.iter().enumerate().filter_map(|(n, expression)| Some((n, Language::of(expression)?)))
    }

    /// Fails if a pattern matches no name that may be a channel.
    fn check_that_each_permits(&self, deny: &Self, lookup_prefixes: &[String]) -> Result<(), ConfigError> {
        let looked_up = (!lookup_prefixes.is_empty()).then(|| Language::of_prefixes(lookup_prefixes)).flatten();
        let reasons = [
            (None, "matches no name at all: correct or remove it"),
            (reserved(), "names that begin with tidegate: are never channels: remove the pattern"),
            (
                looked_up,
                "keys with a prefix of policy.lookup.prefixes are never channels, and the pattern matches no other name: remove one \
                 of the two",
            ),
            (deny.language(), "channels.deny excludes every name that the pattern matches: correct one of the two"),
        ];
        for (n, language) in self.languages() {
            let mut excluded: Vec<&Language> = Vec::new();
            for (exclusion, what) in &reasons {
                excluded.extend(exclusion);
                if find_text(&[&language], &excluded) == Search::None {
                    return Err(invalid(&format!("{}[{n}]", self.key), what));
                }
            }
            self.check_is_distinct(n, &language)?;
        }
        Ok(())
    }

    /// Fails if a pattern matches no name that `allow` permits.
    fn check_that_each_denies(&self, allow: &Self) -> Result<(), ConfigError> {
        let (allowed, reserved) = (allow.language(), reserved());
        for (n, language) in self.languages() {
            let within: Vec<&Language> = [&language].into_iter().chain(&allowed).collect();
            if find_text(&within, &reserved.iter().collect::<Vec<_>>()) == Search::None {
                let what =
                    "matches no name that channels.allow permits, so that it denies nothing: correct or remove it";
                return Err(invalid(&format!("{}[{n}]", self.key), what));
            }
            self.check_is_distinct(n, &language)?;
        }
        Ok(())
    }

    /// Fails if another pattern matches every name that this one matches.
    fn check_is_distinct(&self, n: usize, language: &Language) -> Result<(), ConfigError> {
        let Search::Found(name) = find_text(&[language], &[]) else { return Ok(()) };
        for other in self.set.matches(&name).into_iter().filter(|other| *other != n) {
            let Some(others) = Language::of(&self.expressions[other]) else { continue };
            let is_covered = find_text(&[language], &[&others]) == Search::None;
            // Of two equal ones, the later is reported.
            if is_covered && (other < n || find_text(&[&others], &[language]) != Search::None) {
                let what = format!(
                    "{}[{other}] matches every name that this pattern matches: remove one of the two",
                    self.key
                );
                return Err(invalid(&format!("{}[{n}]", self.key), what));
            }
        }
        Ok(())
    }
}

fn reserved() -> Option<Language> {
    Language::of_prefixes(&[RESERVED_PREFIX.into()])
}

/// Fails if a pattern looks like something that patterns do not have, and so would match other names than meant.
fn check_syntax(pattern: &str) -> Result<(), &'static str> {
    if pattern.is_empty() {
        return Err("an empty pattern: write * for any name");
    }
    if pattern.trim() != pattern {
        return Err("white space at the beginning or end, which would be part of the name: remove it, or write [ ]");
    }
    if pattern.contains(", ") {
        return Err("a comma and a space: write each pattern as an item of the list");
    }
    let anchor = "^ and $ are characters of the name here, for a pattern always matches a whole name: remove them, or write \\^ and \\$";
    if pattern.starts_with('^') {
        return Err(anchor);
    }
    if pattern.starts_with(".*") {
        return Err("not a regular expression: write * for any characters, and \\. for a dot at the beginning");
    }
    let (mut chars, mut in_class, mut has_bracket, mut previous) = (pattern.chars().peekable(), false, false, ' ');
    while let Some(c) = chars.next() {
        match c {
            _ if in_class => in_class = c != ']',
            '\\' => {
                let escaped = chars.next();
                if escaped.is_some_and(|escaped| escaped.is_ascii_alphanumeric()) {
                    return Err(
                        "not a regular expression: \\ makes the next character an ordinary one; write [0-9] for a digit",
                    );
                }
            }
            '[' => {
                in_class = true;
                // A bracket that follows at once is part of the class.
                chars.next_if(|c| matches!(c, '!' | '^'));
                chars.next_if_eq(&']');
            }
            '$' if chars.peek().is_none() => return Err(anchor),
            '+' if matches!(previous, '.' | ']' | ')') => {
                return Err(
                    "not a regular expression: + is a character of the name; write * for any characters, or \\+",
                );
            }
            '(' => has_bracket = true,
            '|' if has_bracket => {
                return Err("not a regular expression: write {a,b} for one of several, or \\| for the character");
            }
            _ => {}
        }
        previous = c;
    }
    Ok(())
}

/// An expression for each pattern, which matches characters.
fn compile_patterns(key: &str, patterns: &[String]) -> Result<Vec<String>, ConfigError> {
    let expression = |(n, pattern): (usize, &String)| {
        let key = format!("{key}[{n}]");
        let glob = GlobBuilder::new(pattern).literal_separator(false).backslash_escape(true).build();
        let glob = glob.map_err(|error| invalid(&key, error.kind()))?;
        in_characters(glob.regex()).ok_or_else(|| invalid(&key, "cannot be compiled"))
    };
    patterns.iter().enumerate().map(expression).collect()
}

fn combine(key: &str, expressions: &[String]) -> Result<RegexSet, ConfigError> {
    let set = RegexSetBuilder::new(expressions).dot_matches_new_line(true).build();
    set.map_err(|_| invalid(key, "the patterns together are too large"))
}

/// The expression of a glob, in which globset matches single bytes and writes each byte of other characters than ASCII as `\xNN`.
fn in_characters(expression: &str) -> Option<String> {
    let mut rest = expression.strip_prefix("(?-u)")?;
    let mut text = Vec::with_capacity(rest.len());
    while let Some(first) = rest.bytes().next() {
        let taken = if let Some(digits) = rest.strip_prefix("\\x") {
            text.push(u8::from_str_radix(digits.get(..2)?, 16).ok()?);
            4
        } else {
            // An escaped character is not the begin of another escape.
            let length = if first == b'\\' { 2 } else { 1 };
            text.extend_from_slice(rest.get(..length)?.as_bytes());
            length
        };
        rest = rest.get(taken..)?;
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use globset::{Glob, GlobSetBuilder};

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let expressions = compile_patterns("k", &[pattern.to_owned()]).expect("a pattern");
        combine("k", &expressions).expect("a set").is_match(name)
    }

    fn rules(allow: &[&str], deny: &[&str], prefixes: &[&str]) -> Result<ChannelRules, String> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let raw = schema::Channels { allow: texts(allow), deny: texts(deny) };
        ChannelRules::validate(&raw, &texts(prefixes)).map_err(|error| error.to_string())
    }

    #[test]
    fn patterns_that_decide_about_names_are_valid() {
        for pattern in [
            "*",
            "**",
            "news",
            "news-*",
            "news-{a,b}",
            "news.*",
            "*.news.*",
            "room-[0-9]",
            "room-[!0-9]*",
            "[[:digit:]]*",
            "[]]",
            "[^]a]",
            "a,b",
            "a/b c",
            "é*",
            "{,a}",
            "a(b)",
            "a|b",
            "a+",
            "price$-*",
            "a^",
            "\\^a",
            "a\\$",
            "\\*",
            "[ ]a",
            "tidegate",
            "tidegate*",
            "t*",
            "session*",
            "*?????????????????????????",
        ] {
            if let Err(error) = rules(&[pattern], &[], &["session:"]) {
                panic!("{pattern}: {error}");
            }
        }
        for (allow, deny) in [
            (&["app:*", "room-?"][..], &["app:secret*"][..]),
            (&["*"], &["session:*"]),
            (&["*"], &["a*", "b*"]),
            (&["a*", "*b"], &[]),
            (&["a?"], &["a[b-y]"]),
            (&["a[bc]"], &["?b"]),
        ] {
            if let Err(error) = rules(allow, deny, &["session:"]) {
                panic!("{allow:?} {deny:?}: {error}");
            }
        }
    }

    #[test]
    fn patterns_that_decide_about_no_name_are_errors() {
        let check = |allow: &[&str], deny: &[&str], says: &[&str]| {
            let error = rules(allow, deny, &["session:", "team:"]).expect_err(&format!("{allow:?} {deny:?}"));
            for part in says {
                assert!(error.contains(part), "{allow:?} {deny:?}: {error}");
            }
        };
        for (pattern, says) in [
            ("", "write *"),
            (" ", "white space"),
            (" news", "white space"),
            ("news\t", "white space"),
            ("news, team", "as an item"),
            ("^news", "whole name"),
            ("news$", "whole name"),
            ("^news-.*$", "whole name"),
            (".*", "write *"),
            (".*-news", "write *"),
            ("news-.+", "regular expression"),
            ("news-[0-9]+", "regular expression"),
            ("news-\\d", "[0-9]"),
            ("room\\w*", "[0-9]"),
            ("(news|sport)", "{a,b}"),
            ("news-(a|b)-*", "{a,b}"),
            ("[", "character class"),
            ("{a", "alternate"),
            ("tidegate:*", "never channels"),
            ("tidegate:{default}:*", "never channels"),
            ("tidegate:[a-z]*", "never channels"),
            ("session:*", "policy.lookup.prefixes"),
            ("session:alice", "policy.lookup.prefixes"),
            ("{session,team}:*", "policy.lookup.prefixes"),
            ("{session:a,tidegate:b}", "policy.lookup.prefixes"),
        ] {
            check(&["news*", pattern], &[], &["channels.allow[1]: ", says]);
            check(&[pattern], &[], &["channels.allow[0]: ", says]);
        }
        check(&[], &[], &["channels.allow: ", "[\"*\"]"]);
        check(&["*"], &["^secret"], &["channels.deny[0]: ", "whole name"]);
        check(&["*"], &["tidegate:*"], &["channels.deny[0]: ", "denies nothing"]);
        check(&["app:*"], &["app-secret*"], &["channels.deny[0]: ", "denies nothing"]);
        check(&["news"], &["n*"], &["channels.allow[0]: ", "channels.deny excludes"]);
        check(&["*"], &["*"], &["channels.allow[0]: ", "channels.deny excludes"]);
        check(&["x", "a[bc]"], &["ab", "ac"], &["channels.allow[1]: ", "channels.deny excludes"]);
        check(&["news", "sport", "news"], &[], &["channels.allow[2]: ", "channels.allow[0] matches every name"]);
        check(&["news-a", "news-*"], &[], &["channels.allow[0]: ", "channels.allow[1] matches every name"]);
        check(&["*", "news"], &[], &["channels.allow[1]: ", "channels.allow[0] matches every name"]);
        check(&["[ab]", "{a,b}"], &[], &["channels.allow[1]: ", "channels.allow[0] matches every name"]);
        check(&["*"], &["a*", "ab*"], &["channels.deny[1]: ", "channels.deny[0] matches every name"]);
    }

    #[test]
    fn patterns_match_characters() {
        for (pattern, name, expect) in [
            ("room-?", "room-e", true),
            ("room-?", "room-é", true),
            ("room-?", "room-🎉", true),
            ("room-?", "room-\n", true),
            ("room-?", "room-", false),
            ("room-?", "room-éé", false),
            ("room-??", "room-é", false),
            ("room-??", "room-éü", true),
            ("sec-[!a]x", "sec-bx", true),
            ("sec-[!a]x", "sec-éx", true),
            ("sec-[!a]x", "sec-ax", false),
            ("sec-[!é]x", "sec-éx", false),
            ("sec-[!é]x", "sec-èx", true),
            ("[^é]", "é", false),
            ("[éü]", "é", true),
            ("[éü]", "è", false),
            ("[à-ü]", "é", true),
            ("[à-ü]", "Ã", false),
            ("[à-ü]x", "éx", true),
            ("é*", "é", true),
            ("é*", "éx", true),
            ("*é", "xé", true),
            ("{é,?x}", "é", true),
            ("{é,?x}", "🎉x", true),
            ("\\é", "é", true),
            ("\\\\xc3", "\\xc3", true),
            ("\\\\xc3", "é", false),
            ("Ã©", "é", false),
            ("É", "é", false),
            ("*", "", true),
            ("*", "a/b\n🎉", true),
        ] {
            assert_eq!(matches(pattern, name), expect, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn patterns_of_ascii_are_globs() {
        let names = [
            "", "a", "b", "ab", "a/b", "a/x/b", "/a", "x/a", "a/", "a.b", "-", "]", "[a]", "{a}", "a,b", "*", "?",
            "\\", "a\nb", "A", "9",
        ];
        for pattern in [
            "",
            "*",
            "**",
            "?",
            "??",
            "a",
            "a*",
            "*b",
            "a?b",
            "**/a",
            "a/**",
            "a/**/b",
            "**a",
            "a**",
            "{a,b}",
            "{a,{b,ab}}",
            "{a,}",
            "[ab]",
            "[!ab]",
            "[^ab]",
            "[a-c]",
            "[]]",
            "[!]]",
            "[-a]",
            "[a-]",
            "[[:digit:]]",
            "[[:alpha:]]*",
            "\\*",
            "\\?",
            "\\\\",
            "\\[a\\]",
            "a.b",
            "a,b",
            "{a\\,b}",
            "[.]",
            "[\\\\]",
            "(a|b)",
            "^a$",
            "a+",
        ] {
            let glob =
                GlobBuilder::new(pattern).literal_separator(false).backslash_escape(true).build().expect(pattern);
            let globs = GlobSetBuilder::new().add(glob).build().expect(pattern);
            for name in names {
                assert_eq!(matches(pattern, name), globs.is_match(name), "{pattern:?} {name:?}");
            }
        }
        for wrong in ["[", "[!", "{a", "a}", "[b-a]", "a\\"] {
            assert!(Glob::new(wrong).is_err() && compile_patterns("k", &[wrong.to_owned()]).is_err(), "{wrong:?}");
        }
    }
}
