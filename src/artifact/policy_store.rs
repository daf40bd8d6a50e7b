//! The policy store below `cache-dir`, which gateways of one user may share.
//!
//! ```text
//! blobs/<sha256>                    components, test cases and signatures
//! blobs/<sha256>-<engine>.cwasm     components as machine code
//! nodes/<node>.<record>.json        state that a node needs after a restart; records name blobs by their digests
//! nodes/.lock                       locked shared to write blobs, and exclusively to prune
//! ```

use std::collections::HashSet;
use std::fmt::Display;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::artifact::bundle::{BundleDigests, PolicyBundle};
use crate::artifact::digest::Digest;
use crate::util::private_dir::{NotPrivate, PrivateDir};

/// Bytes of a part of a bundle; see [`crate::wasm::load_error::MAX_COMPONENT_BYTES`].
pub const MAX_BLOB_BYTES: u64 = 64 << 20;
/// Rollback histories are the largest records, with about 3 KiB.
const MAX_RECORD_BYTES: u64 = 64 << 10;
/// Compiled components in the store, for all gateways and commands that share it.
const MAX_COMPILED_FILES: usize = 32;
/// Rollback histories in the store: one per node and policy file, including nodes and files that no longer exist.
const MAX_HISTORIES: usize = 64;
/// Pruning takes milliseconds. A process that is suspended while it prunes must not block all others.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK: &str = ".lock";
/// The beginning of the name of a rollback history's record.
pub const HISTORY: &str = "history-";
/// Directories of earlier builds below `cache-dir`.
const OBSOLETE_DIRECTORIES: [&str; 5] = ["compiled", "fleet", "past", "policies", "sequence"];

/// Policies by their digests, and the records of nodes.
#[derive(Clone, Debug)]
pub struct PolicyStore {
    blobs: PrivateDir,
    nodes: PrivateDir,
}

impl PolicyStore {
    /// The store below `cache_dir`. Directories are created with the first file.
    pub fn new(cache_dir: &Path) -> Self {
        let directory = |name| PrivateDir::new(cache_dir.join(name));
        Self { blobs: directory("blobs"), nodes: directory("nodes") }
    }

    /// Why another user could change what the store contains, if the directories that exist show it. A gateway does not start then.
    pub fn fault(&self) -> Option<NotPrivate> {
        self.nodes.fault().or_else(|| self.blobs.fault())
    }

    /// Logs once which directories below `cache_dir` an earlier build left there.
    pub fn warn_of_obsolete_directories(cache_dir: &Path) {
        let found: Vec<&str> = OBSOLETE_DIRECTORIES.into_iter().filter(|name| cache_dir.join(name).is_dir()).collect();
        if !found.is_empty() {
            let (cache_dir, directories) = (cache_dir.display(), found.join(", "));
            tracing::warn!(%cache_dir, directories, "an earlier build wrote these directories; this one ignores them, and they may be deleted");
        }
    }

    /// The records of a node.
    pub fn node(&self, name: &str) -> NodeRecords {
        NodeRecords { store: self.clone(), node: name.into() }
    }

    /// Stores a bundle. A record must name it already, because [`Self::prune`] removes the blobs that no record names.
    pub fn write(&self, bundle: &PolicyBundle) -> io::Result<()> {
        // Without the lock, a gateway that read the records earlier could prune a blob of this bundle that exists already.
        let lock = self.lock_shared()?;
        let BundleDigests { component, cases, signature } = bundle.digests();
        let text = |digest: Option<Digest>, text: &Option<String>| digest.zip(text.clone().map(Into::into));
        let texts = [text(cases, &bundle.cases), text(signature, &bundle.signature)];
        for (digest, content) in texts.into_iter().flatten().chain([(component, bundle.component.clone())]) {
            // An existing blob is not written again, so it needs no space on a full disk.
            if self.blob(digest).is_err() {
                self.blobs.write(&digest.hex(), &[&content])?;
            }
        }
        drop(lock);
        self.prune();
        Ok(())
    }

    /// Reads a bundle. A part whose content does not match its digest is an error.
    pub fn read(&self, digests: &BundleDigests) -> io::Result<PolicyBundle> {
        let text = |digest: Option<Digest>| {
            let content = digest.map(|digest| self.blob(digest)).transpose()?;
            content.map(|content| String::from_utf8(content).map_err(io::Error::other)).transpose()
        };
        let component = self.blob(digests.component)?.into();
        let (cases, signature) = (text(digests.cases)?, text(digests.signature)?);
        Ok(PolicyBundle { component, digest: digests.component, cases, signature, cases_dir: None })
    }

    fn blob(&self, digest: Digest) -> io::Result<Vec<u8>> {
        let name = digest.hex();
        let error = |error: &dyn Display| at(&self.blobs, &name, error);
        let content = self.blobs.read(&name, MAX_BLOB_BYTES).map_err(|unread| error(&unread))?;
        let content = content.ok_or_else(|| error(&"the file does not exist"))?;
        if Digest::of(&content) == digest { Ok(content) } else { Err(error(&"the content was changed")) }
    }

    /// The file with the machine code of a component, if it exists. `name` is unique to the component and the engine.
    pub fn open_compiled(&self, name: &str) -> io::Result<Option<File>> {
        let name = format!("{name}.cwasm");
        self.blobs.open(&name).map_err(|error| at(&self.blobs, &name, &error))
    }

    /// Writes the file that [`Self::open_compiled`] opens.
    pub fn write_compiled(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let name = format!("{name}.cwasm");
        self.blobs.write(&name, parts).map_err(|error| at(&self.blobs, &name, &error))?;
        self.prune();
        Ok(())
    }

    fn lock_shared(&self) -> io::Result<File> {
        let (lock, begin) = (self.nodes.open_lock(LOCK)?, Instant::now());
        loop {
            match lock.try_lock_shared() {
                Err(TryLockError::WouldBlock) if begin.elapsed() < LOCK_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                locked => return locked.map(|()| lock).map_err(|error| at(&self.nodes, LOCK, &error)),
            }
        }
    }

    /// Removes blobs that no record of any node names, and all but the newest compiled components and rollback histories.
    pub fn prune(&self) {
        // If another gateway replaced a record meanwhile, its digests are unknown, and the next writer prunes.
        if let Err(error) = self.try_prune()
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "the policy store in cache-dir cannot be pruned");
        }
    }

    fn try_prune(&self) -> io::Result<()> {
        let lock = self.nodes.open_lock(LOCK)?;
        match lock.try_lock() {
            // Another process writes or prunes, and each writer prunes afterwards.
            Err(TryLockError::WouldBlock) => return Ok(()),
            locked => locked?,
        }
        let (blobs, compiled): (Vec<_>, Vec<_>) = self.blobs.list_by_age()?.into_iter().partition(|name| is_blob(name));
        let records = self.nodes.list_by_age()?.into_iter().filter(|name| name.ends_with(".json"));
        let (mut named, mut histories) = (HashSet::new(), Vec::new());
        for name in records {
            let record = self.nodes.read(&name, MAX_RECORD_BYTES)?.ok_or(ErrorKind::NotFound)?;
            let record = String::from_utf8_lossy(&record).into_owned();
            // A record is JSON, in which a digest is a string. The digests of a damaged record count as well.
            named.extend(record.split('"').filter_map(|text| Some(text.parse::<Digest>().ok()?.hex())));
            if is_history(&name) {
                histories.push(name);
            }
        }
        let unnamed: Vec<_> = blobs.into_iter().filter(|name| !named.contains(name)).collect();
        self.blobs.prune(&unnamed, 0)?;
        self.blobs.prune(&compiled, MAX_COMPILED_FILES)?;
        self.nodes.prune(&histories, MAX_HISTORIES)
    }
}

/// The records of one node. Each is a separate file, so that damage to one does not affect the others.
#[derive(Clone, Debug)]
pub struct NodeRecords {
    store: PolicyStore,
    node: String,
}

impl NodeRecords {
    /// The store that has the bundles of the records.
    pub fn store(&self) -> &PolicyStore {
        &self.store
    }

    /// Creates the directory, which only this user may write to.
    pub fn create_directory(&self) -> io::Result<()> {
        self.store.nodes.create()
    }

    fn file_name(&self, record: &str) -> String {
        format!("{}.{record}.json", self.node)
    }

    /// Reads a record; `None` if it was never written.
    pub fn read<T: DeserializeOwned>(&self, record: &str) -> io::Result<Option<T>> {
        let (nodes, name) = (&self.store.nodes, self.file_name(record));
        let text = nodes.read(&name, MAX_RECORD_BYTES).map_err(|error| at(nodes, &name, &error))?;
        text.map(|text| serde_json::from_slice(&text)).transpose().map_err(|error| at(nodes, &name, &error))
    }

    /// Replaces a record atomically.
    pub fn write(&self, record: &str, value: &impl Serialize) -> io::Result<()> {
        let (nodes, name) = (&self.store.nodes, self.file_name(record));
        nodes.write(&name, &[&serde_json::to_vec(value)?]).map_err(|error| at(nodes, &name, &error))
    }

    /// Replaces the record `to` with the record `from`, which needs no space on the disk.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (nodes, from) = (&self.store.nodes, self.file_name(from));
        nodes.rename(&from, &self.file_name(to)).map_err(|error| at(nodes, &from, &error))
    }

    /// Removes a record, if it is there.
    pub fn remove(&self, record: &str) -> io::Result<()> {
        self.store.nodes.remove(&self.file_name(record))
    }
}

fn at(directory: &PrivateDir, name: &str, error: &dyn Display) -> io::Error {
    io::Error::other(format!("{}: {error}", directory.path(name).display()))
}

/// Other files are machine code and remainders of interrupted writes.
fn is_blob(name: &str) -> bool {
    format!("sha256:{name}").parse::<Digest>().is_ok()
}

fn is_history(record: &str) -> bool {
    // The name of a node may contain dots, the name of a record does not.
    let record = record.strip_suffix(".json").and_then(|stem| stem.rsplit('.').next());
    record.is_some_and(|record| record.starts_with(HISTORY))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn bundle(n: u8, cases: Option<&str>) -> PolicyBundle {
        let signature = cases.map(|cases| format!("signed {n} {cases}"));
        PolicyBundle { cases: cases.map(Into::into), signature, ..PolicyBundle::new(vec![n]) }
    }

    fn write(records: &NodeRecords, record: &str, bundle: &PolicyBundle) {
        records.write(record, &bundle.digests()).expect("written");
        records.store().write(bundle).expect("written");
    }

    fn count(directory: &PrivateDir) -> usize {
        directory.list_by_age().expect("a directory").len()
    }

    #[test]
    fn bundle_is_read_unchanged_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = PolicyStore::new(dir.path()).node("n");
        let store = records.store();
        let (plain, tested) = (bundle(1, None), bundle(1, Some("cases")));
        for (record, written) in [("plain", &plain), ("tested", &tested)] {
            write(&records, record, written);
            let read = store.read(&written.digests()).expect("it is there");
            assert_eq!(
                (&read.component, &read.cases, &read.signature, read.digest),
                (&written.component, &written.cases, &written.signature, written.digest)
            );
        }
        let unsigned = BundleDigests { signature: None, ..tested.digests() };
        assert_eq!(store.read(&unsigned).expect("it is there").signature, None);
        assert_eq!(count(&store.blobs), 3, "the component is there once");
        for file in fs::read_dir(dir.path().join("blobs")).expect("a directory") {
            fs::write(file.expect("a file").path(), "something else").expect("written");
        }
        assert!(store.read(&plain.digests()).is_err() && store.read(&tested.digests()).is_err());
        // Writing the blob again repairs it.
        store.write(&tested).expect("written");
        assert!(store.read(&plain.digests()).is_ok() && store.read(&tested.digests()).is_ok());
    }

    #[test]
    fn blobs_that_no_node_names_are_pruned() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = PolicyStore::new(dir.path());
        let (one, other) = (store.node("one"), store.node("other.history-1"));
        write(&one, "fleet", &bundle(1, Some("cases")));
        write(&other, "history-1", &bundle(2, None));
        for n in 0..40 {
            write(&one, "fleet-prepared", &bundle(n, Some("cases")));
        }
        assert!(
            [bundle(1, Some("cases")), bundle(2, None), bundle(39, Some("cases"))]
                .iter()
                .all(|bundle| store.read(&bundle.digests()).is_ok())
        );
        assert_eq!(count(&store.blobs), 3 + 1 + 2, "the cases are the same");
        // A damaged record still names what it named, and one that cannot be read stops pruning.
        fs::write(store.nodes.path(&other.file_name("history-1")), format!("[{:?}", bundle(2, None).digest()))
            .expect("written");
        one.remove("fleet-prepared").expect("removed");
        store.prune();
        assert_eq!(count(&store.blobs), 3 + 1);
        fs::write(store.nodes.path(&other.file_name("history-1")), vec![b' '; 1 << 20]).expect("written");
        store.prune();
        assert_eq!(count(&store.blobs), 3 + 1);
        other.remove("history-1").expect("removed");
        store.prune();
        assert_eq!(count(&store.blobs), 3);
        other.remove("history-1").expect("it need not be there");
    }

    #[test]
    fn newest_compiled_components_and_histories_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = PolicyStore::new(dir.path());
        let (node, dotted) = (store.node("n"), store.node("x.history-1"));
        dotted.write("sequence", &0).expect("written");
        let name = |n: usize| format!("{}-{n:016x}", bundle(0, None).digest.hex());
        for n in 0..100 {
            store.write_compiled(&name(n), &[b"code"]).expect("written");
            node.write(&format!("{HISTORY}{n}"), &0).expect("written");
        }
        assert_eq!(count(&store.blobs), MAX_COMPILED_FILES);
        let exists = |n: usize| store.open_compiled(&name(n)).expect("opened").is_some();
        assert!(exists(99) && !exists(0));
        store.prune();
        assert_eq!(count(&store.nodes), MAX_HISTORIES + 2, "with the lock and the other node's record");
        assert_eq!(node.read::<u8>(&format!("{HISTORY}99")).expect("read"), Some(0));
        assert_eq!(dotted.read::<u8>("sequence").expect("read"), Some(0), "whatever the node is called");
    }

    #[test]
    fn gateways_that_share_the_store_do_not_prune_each_others_policies() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = PolicyStore::new(dir.path());
        std::thread::scope(|scope| {
            for node in 0..4_u8 {
                let records = store.node(&node.to_string());
                scope.spawn(move || {
                    for n in 0..50 {
                        let prepared = bundle(n, Some(&format!("cases of {node}")));
                        write(&records, "fleet-prepared", &prepared);
                        assert!(records.store().read(&prepared.digests()).is_ok(), "prepared {n}");
                        records.rename("fleet-prepared", "fleet").expect("renamed");
                        records.store().prune();
                        assert!(records.store().read(&prepared.digests()).is_ok(), "active {n}");
                    }
                });
            }
        });
        store.prune();
        assert_eq!(count(&store.blobs), 1 + 4 + 4, "one component, and the cases and signatures of each node");
    }
}
