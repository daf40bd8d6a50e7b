//! The set of texts that an expression matches, as an automaton: whether a text exists that some expressions match and others do not.

use std::collections::{HashSet, VecDeque};

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// Maximum size of an automaton; those of common patterns have some kilobytes.
const MAX_AUTOMATON_BYTES: usize = 1 << 20;
/// Maximum number of combined states to search.
const MAX_SEARCHED_STATES: usize = 50_000;

/// The texts that an expression matches.
pub struct Language(dense::DFA<Vec<u32>>);

/// The result of a search.
#[derive(Debug, PartialEq, Eq)]
pub enum Search {
    /// One of the shortest texts.
    Found(String),
    /// There is no such text.
    None,
    /// An answer would take too long.
    Unknown,
}

impl Language {
    /// The language of an expression that is anchored at both ends; `None` if the automaton would be too large.
    pub fn of(expression: &str) -> Option<Self> {
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            // No match ends the search for longer ones.
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(MAX_AUTOMATON_BYTES))
            .determinize_size_limit(Some(MAX_AUTOMATON_BYTES));
        let syntax = syntax::Config::new().dot_matches_new_line(true);
        dense::Builder::new().configure(config).syntax(syntax).build(expression).ok().map(Self)
    }

    /// The texts that begin with one of these.
    pub fn of_prefixes(prefixes: &[String]) -> Option<Self> {
        let prefixes: Vec<String> = prefixes.iter().map(|prefix| regex::escape(prefix)).collect();
        Self::of(&format!("^(?:{}).*$", prefixes.join("|")))
    }

    fn start(&self) -> Option<StateID> {
        self.0.start_state_forward(&Input::new("").anchored(Anchored::Yes)).ok()
    }

    fn accepts(&self, state: StateID) -> bool {
        self.0.is_match_state(self.0.next_eoi_state(state))
    }
}

/// Searches a text that is in all languages of `within` and in none of `outside`.
pub fn find_text(within: &[&Language], outside: &[&Language]) -> Search {
    let all: Vec<&Language> = within.iter().chain(outside).copied().collect();
    let Some(start) = all.iter().map(|language| language.start()).collect::<Option<Vec<_>>>() else {
        return Search::Unknown;
    };
    let bytes = distinct_bytes(&all);
    let mut seen = HashSet::from([start.clone()]);
    let mut queue = VecDeque::from([(start, Vec::new())]);
    while let Some((states, text)) = queue.pop_front() {
        let accepts = |n: usize| all[n].accepts(states[n]);
        if (0..within.len()).all(accepts) && !(within.len()..all.len()).any(accepts) {
            return Search::Found(String::from_utf8_lossy(&text).into_owned());
        }
        for byte in &bytes {
            let next: Vec<_> =
                all.iter().zip(&states).map(|(language, state)| language.0.next_state(*state, *byte)).collect();
            let is_dead = within.iter().zip(&next).any(|(language, state)| language.0.is_dead_state(*state));
            if !is_dead && seen.insert(next.clone()) {
                queue.push_back((next, [&text[..], &[*byte]].concat()));
            }
        }
        if seen.len() > MAX_SEARCHED_STATES {
            return Search::Unknown;
        }
    }
    Search::None
}

/// One byte of each set of bytes that no language distinguishes.
fn distinct_bytes(languages: &[&Language]) -> Vec<u8> {
    let mut seen = HashSet::new();
    let classes = |byte: &u8| languages.iter().map(|language| language.0.byte_classes().get(*byte)).collect::<Vec<_>>();
    (0..=u8::MAX).filter(|byte| seen.insert(classes(byte))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(within: &[&str], outside: &[&str]) -> Search {
        let languages = |texts: &[&str]| texts.iter().map(|text| Language::of(text).expect(text)).collect::<Vec<_>>();
        let (within, outside) = (languages(within), languages(outside));
        find_text(&within.iter().collect::<Vec<_>>(), &outside.iter().collect::<Vec<_>>())
    }

    #[test]
    fn text_of_some_languages_and_not_of_others_is_found() {
        let found = |text: &str| Search::Found(text.into());
        for (within, outside, expect) in [
            (&["^.*$"][..], &[][..], found("")),
            (&["^a.b$"], &[], found("a\0b")),
            (&["^.*$"], &["^$"], found("\0")),
            (&["^a.*$", "^.*b$"], &[], found("ab")),
            (&["^a.*$", "^b.*$"], &[], Search::None),
            (&["^a.*$"], &["^a.*$"], Search::None),
            (&["^ab.*$"], &["^a.*$"], Search::None),
            (&["^a.*$"], &["^ab.*$"], found("a")),
            (&["^a[bc]$"], &["^ab$", "^ac$"], Search::None),
            (&["^a[bcd]$"], &["^ab$", "^ac$"], found("ad")),
            (&["^é.$"], &["^..$"], Search::None),
            (&["^(?:a|ab)$"], &["^a$"], found("ab")),
            (&["^(?:^a$|^ab$)$"], &["^a$"], found("ab")),
        ] {
            assert_eq!(find(within, outside), expect, "{within:?} {outside:?}");
        }
        let prefixes = Language::of_prefixes(&["a.".into(), "b[".into()]).expect("an automaton");
        assert_eq!(find_text(&[&prefixes], &[]), found("a."));
        assert_eq!(find_text(&[&Language::of("^ab.*$").expect("an automaton"), &prefixes], &[]), Search::None);
    }

    #[test]
    fn too_large_automatons_are_not_built() {
        // The automaton would need 2^24 states.
        assert!(Language::of(&format!("^.*a{}$", ".".repeat(24))).is_none());
    }
}
