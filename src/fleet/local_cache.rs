//! The fleet's policy on this node's disk, with which the node starts while the store is unavailable. That start verifies it again.

use std::io;

use crate::artifact::bundle::{BundleDigests, PolicyBundle};
use crate::artifact::policy_store::NodeRecords;
use crate::artifact::signature::Signature;
use crate::fleet::record::ActiveRecord;

/// The record of the policy that was active last.
const ACTIVE: &str = "fleet";
/// The record of the prepared policy. It is on disk before the commit, so that the commit does not fail because the disk is full.
const PREPARED: &str = "fleet-prepared";

/// The fleet's records of one node, and the policies that they name.
#[derive(Clone, Debug)]
pub struct LocalCache {
    records: NodeRecords,
}

impl LocalCache {
    /// Creates the directory of the records, unless it exists.
    pub fn open(records: NodeRecords) -> io::Result<Self> {
        records.create_directory()?;
        Ok(Self { records })
    }

    /// The record of the policy that was active last, if there was one.
    pub fn active_record(&self) -> Result<Option<ActiveRecord>, String> {
        self.records.read(ACTIVE).map_err(|error| error.to_string())
    }

    /// The policy that a record names. One that is not stored, or was changed, is an error.
    pub fn bundle(&self, record: &ActiveRecord) -> Result<PolicyBundle, String> {
        let digests = BundleDigests { component: record.component, cases: record.cases, signature: None };
        let bundle = self.records.store().read(&digests).map_err(|error| error.to_string())?;
        Ok(PolicyBundle { signature: record.signature.as_ref().map(Signature::text), ..bundle })
    }

    /// Stores a prepared policy, in place of one that was prepared before and not activated. A start uses it only after [`Self::commit`].
    pub fn save_prepared(&self, record: &ActiveRecord, bundle: &PolicyBundle) -> io::Result<()> {
        self.records.write(PREPARED, record)?;
        // The signature is part of the record.
        self.records.store().write(&PolicyBundle { signature: None, ..bundle.clone() })
    }

    /// Makes this the policy that was active last.
    pub fn commit(&self, record: &ActiveRecord) -> io::Result<()> {
        if self.records.read(PREPARED).is_ok_and(|prepared| prepared.as_ref() == Some(record)) {
            self.records.rename(PREPARED, ACTIVE)?;
        } else {
            self.records.write(ACTIVE, record)?;
            // A record that cannot be removed only prevents its policy from being pruned.
            let _ = self.records.remove(PREPARED);
        }
        self.records.store().prune();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::digest::Digest;
    use crate::artifact::policy_store::PolicyStore;
    use crate::fleet::record::fixtures::test_record;

    fn record(component: &[u8], cases: Option<&str>) -> ActiveRecord {
        let cases = cases.map(|text| Digest::of(text.as_bytes()));
        ActiveRecord { cases, ..test_record(3, component) }
    }

    #[test]
    fn changed_and_removed_policies_are_not_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = LocalCache::open(PolicyStore::new(dir.path()).node("n")).expect("a directory");
        assert_eq!(cache.active_record(), Ok(None));
        let (first, second) = (record(b"first", Some("cases")), record(b"second", None));
        let save = |record: &ActiveRecord, component: &'static str, cases: Option<&str>| {
            let bundle = PolicyBundle { cases: cases.map(Into::into), ..PolicyBundle::new(component) };
            cache.save_prepared(record, &bundle).expect("saved");
        };
        save(&first, "first", Some("cases"));
        cache.commit(&first).expect("written");
        save(&second, "second", None);
        assert!(cache.bundle(&first).is_ok() && cache.bundle(&second).is_ok());
        // The push was given up: the next one takes its place, and the active policy stays.
        save(&record(b"third", None), "third", None);
        assert!(cache.bundle(&first).is_ok() && cache.bundle(&second).is_err());
        cache.commit(&first).expect("written");
        assert_eq!(cache.active_record(), Ok(Some(first.clone())));
        let bundle = cache.bundle(&first).expect("it is here");
        assert_eq!((&*bundle.component, bundle.cases.as_deref()), (&b"first"[..], Some("cases")));
        assert!(cache.bundle(&second).expect_err("pruned").contains("does not exist"));
        assert!(cache.bundle(&record(b"third", None)).expect_err("pruned").contains("does not exist"));
        let file = dir.path().join("blobs").join(first.component.hex());
        std::fs::write(&file, "other").expect("written");
        assert!(cache.bundle(&first).expect_err("changed").contains("was changed"));
        std::fs::write(dir.path().join("nodes/n.fleet.json"), "{}").expect("written");
        assert!(cache.active_record().expect_err("broken").contains("n.fleet.json"));
    }
}
