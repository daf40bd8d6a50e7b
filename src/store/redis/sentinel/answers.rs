//! What the sentinels of a group answered in one round, and what follows from it.

use std::collections::BTreeMap;
use std::fmt;

use redis::{ErrorKind, RedisError};

use crate::store::StoreError;
use crate::store::url::Address;

/// Maximum number of sentinels that an error names.
const MAX_SHOWN: usize = 8;

/// The answer of one sentinel.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub id: String,
    /// The address of the master.
    pub master: Address,
    /// The ids of the other sentinels of the group, and their addresses.
    pub others: Vec<(String, Option<Address>)>,
}

/// Why a sentinel did not answer.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Unreachable(String),
    UnknownMaster,
    NotASentinel,
    NoPassword,
    WrongPassword,
    /// The user may not ask.
    NoRight(String),
    Refused(String),
    Invalid,
}

/// The answers of one round.
#[derive(Default)]
pub(super) struct Answers(Vec<(Address, Result<Answer, Fault>)>);

/// Which address the answers name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// More than half of the group names this one.
    Majority(Address),
    /// Most of those that answered name this one.
    Some(Address),
    None,
}

impl Fault {
    pub fn of(error: &RedisError) -> Self {
        let text = match StoreError::from(error.clone()) {
            StoreError::Unavailable(text) => return Self::Unreachable(text),
            StoreError::NotReady(text) | StoreError::Refused(text) => text,
            other => other.to_string(),
        };
        match text.split(' ').next().unwrap_or_default() {
            "NOAUTH" => Self::NoPassword,
            "WRONGPASS" => Self::WrongPassword,
            "NOPERM" => Self::NoRight(text),
            "ERR" if text.contains("No such master") => Self::UnknownMaster,
            "ERR" if text.to_ascii_lowercase().contains("unknown command") => Self::NotASentinel,
            // A sentinel without a password, and without users.
            "ERR" if text.contains("without any password configured") => Self::WrongPassword,
            _ => Self::Refused(text),
        }
    }

    /// Whether only a change by an operator helps.
    const fn is_mistake(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::Invalid)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) => write!(f, "cannot be reached ({text})"),
            Self::UnknownMaster => f.write_str(
                "knows no master of this name: compare the name after the hosts in the URL with `sentinel monitor` in its configuration",
            ),
            Self::NotASentinel => f.write_str(
                "is not a sentinel: name the port of a sentinel, by default 26379, or use redis:// for a server without sentinels",
            ),
            Self::NoPassword => f.write_str("requires a password: set store-sentinel-password"),
            Self::WrongPassword => {
                f.write_str("refuses the password: correct store-sentinel-user and store-sentinel-password, which are not those in the URL")
            }
            Self::NoRight(text) => write!(
                f,
                "refused: {text}: its user needs +sentinel|myid +sentinel|get-master-addr-by-name +sentinel|sentinels"
            ),
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::Invalid => f.write_str("gave an answer that is not valid"),
        }
    }
}

impl Answers {
    pub fn add(&mut self, address: Address, answer: Result<Answer, Fault>) {
        self.0.push((address, answer));
    }

    /// The valid answers, each with the address of its sentinel.
    pub fn valid(&self) -> impl Iterator<Item = (&Address, &Answer)> {
        self.0.iter().filter_map(|(address, answer)| Some((address, answer.as_ref().ok()?)))
    }

    pub fn verdict(&self) -> Verdict {
        // Two addresses may be of one sentinel.
        let votes: BTreeMap<&str, &Address> =
            self.valid().map(|(_, answer)| (answer.id.as_str(), &answer.master)).collect();
        let group = self.valid().map(|(_, answer)| answer.others.len() + 1).max().unwrap_or(0).max(votes.len());
        let count = |address: &Address| votes.values().filter(|vote| **vote == address).count();
        // Of several with the same count the first one in the order of the answers.
        let mut most: Option<(usize, &Address)> = None;
        for (_, answer) in self.valid() {
            let votes = count(&answer.master);
            if most.is_none_or(|(most, _)| votes > most) {
                most = Some((votes, &answer.master));
            }
        }
        match most {
            Some((votes, address)) if votes * 2 > group => Verdict::Majority(address.clone()),
            Some((_, address)) => Verdict::Some(address.clone()),
            None => Verdict::None,
        }
    }

    /// Why no sentinel names the master, with what an operator can do.
    pub fn error(&self, name: &str) -> RedisError {
        let is_mistake = self.failed().any(|(_, fault)| fault.is_mistake());
        let kind = if is_mistake { ErrorKind::InvalidClientConfig } else { ErrorKind::Io };
        (kind, "no sentinel names the address of the master", format!("{name}: {}", self.faults())).into()
    }

    /// The sentinels that gave no valid answer, and why; empty if all did.
    pub fn faults(&self) -> String {
        let mut texts: Vec<String> =
            self.failed().take(MAX_SHOWN).map(|(address, fault)| format!("the sentinel {address} {fault}")).collect();
        if self.failed().count() > MAX_SHOWN {
            texts.push("…".into());
        }
        texts.join("; ")
    }

    fn failed(&self) -> impl Iterator<Item = (&Address, &Fault)> {
        self.0.iter().filter_map(|(address, answer)| Some((address, answer.as_ref().err()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> Address {
        Address { host: host.into(), port: 6379 }
    }

    /// Answers of sentinels in a group of this size: the id of each and the master that it names.
    fn answers(group: usize, named: &[(&str, &str)]) -> Answers {
        let mut answers = Answers::default();
        for (n, (id, master)) in named.iter().enumerate() {
            let others = (1..group).map(|n| (n.to_string(), None)).collect();
            let answer = Answer { id: (*id).into(), master: address(master), others };
            answers.add(address(&format!("sentinel{n}")), Ok(answer));
        }
        answers.add(address("down"), Err(Fault::Unreachable("refused".into())));
        answers
    }

    #[test]
    fn majority_is_of_the_whole_group() {
        let check = |group: usize, named: &[(&str, &str)], expect: Verdict| {
            assert_eq!(answers(group, named).verdict(), expect, "{group} {named:?}");
        };
        let (majority, some) = (|host| Verdict::Majority(address(host)), |host| Verdict::Some(address(host)));
        check(1, &[("a", "m")], majority("m"));
        check(2, &[("a", "m")], some("m"));
        check(3, &[("a", "m")], some("m"));
        check(3, &[("a", "m"), ("b", "m")], majority("m"));
        check(3, &[("a", "old"), ("b", "new"), ("c", "new")], majority("new"));
        check(3, &[("a", "old"), ("b", "new")], some("old"));
        check(5, &[("a", "new"), ("b", "new"), ("c", "old")], some("new"));
        check(4, &[("a", "m"), ("b", "m")], some("m"));
        // One sentinel at two addresses has one vote.
        check(3, &[("a", "m"), ("a", "m")], some("m"));
        check(3, &[], Verdict::None);
        // The group has more sentinels than one of them knows.
        check(1, &[("a", "old"), ("b", "new"), ("c", "new")], majority("new"));
    }

    #[test]
    fn errors_name_the_sentinel_and_the_remedy() {
        let check = |fault: Fault, says: &[&str], is_transient: bool| {
            let mut answers = Answers::default();
            answers.add(address("s1"), Err(fault));
            let error = StoreError::from(answers.error("mymaster"));
            let text = error.to_string();
            assert!(says.iter().all(|part| text.contains(part)), "{text}");
            assert!(text.contains("mymaster: the sentinel s1:6379 ") && error.is_transient() == is_transient, "{text}");
        };
        check(Fault::Unreachable("Connection refused".into()), &["cannot be reached (Connection refused)"], true);
        check(Fault::UnknownMaster, &["knows no master", "sentinel monitor"], false);
        check(Fault::NotASentinel, &["is not a sentinel", "26379", "redis://"], false);
        check(Fault::NoPassword, &["set store-sentinel-password"], false);
        check(Fault::WrongPassword, &["correct store-sentinel-user"], false);
        check(Fault::NoRight("NOPERM no".into()), &["NOPERM no", "+sentinel|sentinels"], false);
    }
}
