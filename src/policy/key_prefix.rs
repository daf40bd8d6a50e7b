//! Prefixes of the keys that policies look up, as operators write them in configurations and test cases.

use crate::store::fleet_keys::RESERVED_PREFIX;

/// Why a text is not a prefix of keys, with what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    #[error("an empty prefix would allow every key to be looked up: name the prefixes of the keys, such as session:")]
    Empty,
    #[error("white space at the beginning or end, which would be part of the key: remove it")]
    WhiteSpace,
    #[error(
        "a prefix is not a pattern, and {0} would be part of the key: write only the beginning of the keys, such as session:"
    )]
    Pattern(char),
    #[error("a comma and a space: write each prefix as an item of the list")]
    Several,
    #[error("the keys that begin with {RESERVED_PREFIX} are the gateway's own: remove the prefix")]
    Reserved,
}

/// Fails if no key of an app has this prefix.
pub fn check_prefix(prefix: &str) -> Result<(), InvalidPrefix> {
    if prefix.is_empty() || prefix == "*" {
        return Err(InvalidPrefix::Empty);
    }
    if prefix.trim() != prefix {
        return Err(InvalidPrefix::WhiteSpace);
    }
    if prefix.contains('*') {
        return Err(InvalidPrefix::Pattern('*'));
    }
    if prefix.starts_with('^') {
        return Err(InvalidPrefix::Pattern('^'));
    }
    if prefix.contains(", ") {
        return Err(InvalidPrefix::Several);
    }
    if prefix.starts_with(RESERVED_PREFIX) {
        return Err(InvalidPrefix::Reserved);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_those_of_keys() {
        for valid in ["session:", "s", "{user}:", "page:/a?b=", "user[", "a b", "a,b:", "é:", "\0", "tidegate"] {
            assert_eq!(check_prefix(valid), Ok(()), "{valid:?}");
        }
        for (wrong, reason) in [
            ("", InvalidPrefix::Empty),
            ("*", InvalidPrefix::Empty),
            (" ", InvalidPrefix::WhiteSpace),
            (" session:", InvalidPrefix::WhiteSpace),
            ("session: ", InvalidPrefix::WhiteSpace),
            ("session:\n", InvalidPrefix::WhiteSpace),
            ("session:*", InvalidPrefix::Pattern('*')),
            ("*:session", InvalidPrefix::Pattern('*')),
            ("^session:", InvalidPrefix::Pattern('^')),
            ("session:, team:", InvalidPrefix::Several),
            ("tidegate:", InvalidPrefix::Reserved),
            ("tidegate:{default}:", InvalidPrefix::Reserved),
        ] {
            assert_eq!(check_prefix(wrong), Err(reason), "{wrong:?}");
        }
    }
}
