//! The policies that were active, in order: a rollback activates the previous one again. A record of the node keeps the history over
//! restarts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artifact::bundle::BundleDigests;
use crate::artifact::digest::Digest;
use crate::artifact::policy_store::HISTORY;
use crate::policy::info::PolicyInfo;
use crate::rollout::pipeline::PreparedPolicy;
use crate::rollout::source_file::PolicySource;

/// Activations in the history, including that of the active policy.
const MAX_ENTRIES: usize = 8;

/// The active policy and those before it.
#[derive(Default)]
pub struct RollbackHistory {
    /// The active policy. A change of the configuration activates it again.
    pub active: Option<PreparedPolicy>,
    /// The latest last.
    entries: Vec<RollbackEntry>,
    /// The entries that were saved last.
    saved: Vec<RollbackEntry>,
}

/// An activation, as the node's record stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackEntry {
    /// The policy store has the policy under these digests.
    pub bundle: BundleDigests,
    /// Active since, ms since 1970.
    pub since: u64,
    /// Where the policy came from.
    pub source: String,
}

impl RollbackEntry {
    /// The entry of a policy that was just activated.
    pub fn new(bundle: BundleDigests, info: &PolicyInfo) -> Self {
        Self { bundle, since: info.since, source: info.origin.source.clone() }
    }

    /// Identifies the policy. The signature is not part of it, because a policy may be signed again.
    fn policy(&self) -> (Digest, Option<Digest>) {
        (self.bundle.component, self.bundle.cases)
    }
}

/// The name of the node's record: one for each policy file, so that no rollback goes to a policy that was active elsewhere.
pub fn record_name(source: Option<&PolicySource>) -> String {
    let path = source.map_or(Path::new("example"), |source| &source.component);
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    format!("{HISTORY}{}", Digest::of(path.as_os_str().as_encoded_bytes()).hex())
}

impl RollbackHistory {
    /// Continues the history of an earlier process.
    pub fn load(&mut self, entries: Vec<RollbackEntry>) {
        self.saved.clone_from(&entries);
        self.entries = entries;
    }

    /// The entry of the policy that a rollback activates.
    pub fn target(&self) -> Option<&RollbackEntry> {
        self.entries.len().checked_sub(2).and_then(|index| self.entries.get(index))
    }

    /// Removes the entry of the active policy, for a rollback. If the rollback fails, [`Self::restore`] puts it back.
    pub fn remove_active(&mut self) -> Option<RollbackEntry> {
        self.entries.pop()
    }

    /// Puts back what [`Self::remove_active`] removed.
    pub fn restore(&mut self, removed: Option<RollbackEntry>) {
        self.entries.extend(removed);
    }

    /// Adds an activation. The policy of the last entry gets no new entry.
    pub fn record_activation(&mut self, entry: RollbackEntry) {
        match self.entries.last_mut() {
            Some(last) if last.policy() == entry.policy() => last.bundle = entry.bundle,
            _ => self.entries.push(entry),
        }
        let surplus = self.entries.len().saturating_sub(MAX_ENTRIES);
        self.entries.drain(..surplus);
    }

    /// The entries, if they have to be saved. The caller saves them.
    pub fn take_unsaved(&mut self) -> Option<Vec<RollbackEntry>> {
        if self.entries == self.saved {
            return None;
        }
        self.saved.clone_from(&self.entries);
        Some(self.entries.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::bundle::PolicyBundle;
    use crate::artifact::policy_store::PolicyStore;

    fn entry(n: u64) -> RollbackEntry {
        let bundle = PolicyBundle::new(n.to_le_bytes().to_vec()).digests();
        RollbackEntry { bundle, since: n, source: "file policy.wasm".into() }
    }

    #[test]
    fn rollbacks_go_back_one_activation_at_a_time() {
        let mut history = RollbackHistory::default();
        assert!(history.target().is_none() && history.take_unsaved().is_none());
        for n in [1, 2, 2, 3] {
            history.record_activation(entry(n));
        }
        assert_eq!(history.take_unsaved(), Some(vec![entry(1), entry(2), entry(3)]));
        assert!(history.target() == Some(&entry(2)) && history.take_unsaved().is_none());
        let removed = history.remove_active();
        history.record_activation(entry(2));
        assert_eq!((removed, history.target()), (Some(entry(3)), Some(&entry(1))));
        // A rollback that fails changes nothing.
        let removed = history.remove_active();
        history.restore(removed);
        assert_eq!(history.take_unsaved(), Some(vec![entry(1), entry(2)]));
        for n in 10..40 {
            history.record_activation(entry(n));
        }
        assert_eq!(history.take_unsaved().map(|entries| entries.len()), Some(MAX_ENTRIES));
    }

    #[test]
    fn policy_that_is_signed_again_keeps_its_entry_and_takes_the_new_signature() {
        let mut history = RollbackHistory::default();
        let signed = |text: &[u8], since| {
            let bundle = BundleDigests { signature: Some(Digest::of(text)), ..entry(1).bundle };
            RollbackEntry { bundle, ..entry(since) }
        };
        history.record_activation(signed(b"old", 1));
        history.record_activation(signed(b"new", 2));
        assert_eq!(history.take_unsaved(), Some(vec![signed(b"new", 1)]));
    }

    #[test]
    fn each_node_and_policy_file_has_a_history_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = PolicyStore::new(dir.path());
        let (one, other) = (store.node("one"), store.node("other"));
        let record = |name: &str| record_name(Some(&PolicySource::at(dir.path().join(name))));
        let (a, b) = (record("a.wasm"), record("b.wasm"));
        one.write(&a, &[entry(1)]).expect("written");
        other.write(&a, &[entry(2)]).expect("written");
        one.write(&b, &[entry(3)]).expect("written");
        for (records, expect) in [(&one, vec![entry(1)]), (&other, vec![entry(2)])] {
            assert_eq!(records.read(&a).expect("it is there"), Some(expect));
        }
        assert_eq!(one.read::<Vec<RollbackEntry>>(&record_name(None)).expect("nothing"), None);
        let outside = r#"[{"bundle":{"component":"../../etc/passwd","cases":null},"since":1,"source":""}]"#;
        for damaged in ["", "[", "{}", outside] {
            std::fs::write(dir.path().join(format!("nodes/one.{a}.json")), damaged).expect("written");
            let error = one.read::<Vec<RollbackEntry>>(&a).expect_err(damaged).to_string();
            assert!(error.contains("one.history-"), "{error}");
        }
        for n in 0..100 {
            one.write(&record(&n.to_string()), &[entry(n)]).expect("written");
        }
        store.prune();
        assert_eq!(std::fs::read_dir(dir.path().join("nodes")).expect("a directory").count(), 64 + 1, "with the lock");
    }
}
