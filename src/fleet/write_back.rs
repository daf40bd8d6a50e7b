//! What a node does when its store has lost the fleet's policy, as a failover can that loses the commit of a push: it writes its record back.

use std::time::Duration;

use tokio::time::Instant;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::artifact::signature::key::TrustedKeys;
use crate::fleet::push::BLOB_EXPIRY;
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, FAILED_STAGE_RETRY_DELAY};
use crate::store::StoreError;
use crate::store::fleet::{FleetStore, Restore, RestoreOutcome};

/// How long the record has to be lost. A new master may get it back from elsewhere meanwhile, and nodes do not all write at once.
const MIN_DELAY: Duration = Duration::from_secs(2);
const MAX_DELAY: Duration = Duration::from_secs(3);

/// When a node writes its record back.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    due_at: Option<Instant>,
}

impl WriteBack {
    /// When [`Self::is_due`] may be true; `None` while the store has not lost the record.
    pub const fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Takes in the active record of the store. Returns whether to write back this node's record now.
    pub fn is_due(&mut self, keys: &TrustedKeys, stored: Option<&[u8]>, own: Option<&ActiveRecord>) -> bool {
        if !own.is_some_and(|own| is_lost(keys, stored, own)) {
            self.due_at = None;
            return false;
        }
        let delay = rand::random_range(MIN_DELAY..MAX_DELAY);
        *self.due_at.get_or_insert_with(|| Instant::now() + delay) <= Instant::now()
    }

    /// Writes the record back. The bundle is read only if the store has lost that as well.
    pub async fn write(
        &mut self,
        store: &dyn FleetStore,
        stored: Option<&[u8]>,
        own: &ActiveRecord,
        bundle: impl Future<Output = Result<PolicyBundle, String>>,
    ) {
        let delay = rand::random_range(MIN_DELAY..MAX_DELAY);
        let next = match restore(store, stored, own, bundle).await {
            Ok(RestoreOutcome::Restored) => {
                tracing::warn!(
                    sequence = own.sequence,
                    "the store has lost the fleet's policy: this node has written its record back"
                );
                delay
            }
            // Another node was first, or a push is in progress: the next heartbeat shows the result.
            Ok(_) => delay,
            Err(error) => {
                tracing::warn!(
                    error,
                    sequence = own.sequence,
                    "the fleet's policy, which the store has lost, cannot be written back"
                );
                FAILED_STAGE_RETRY_DELAY
            }
        };
        self.due_at = Some(Instant::now() + next);
    }
}

/// Whether the store has lost a record that one of these keys signed: it has none, or one that they signed with a smaller sequence, or one
/// that is forged. A record that claims another key may be that of a push for which this node was not configured yet, so it stays.
fn is_lost(keys: &TrustedKeys, stored: Option<&[u8]>, own: &ActiveRecord) -> bool {
    if own.prove(keys).is_err() {
        return false;
    }
    let Some(stored) = stored.and_then(|json| record::parse::<ActiveRecord>(json).ok()) else { return true };
    match stored.prove(keys) {
        Ok(proof) => proof.statement().sequence < own.sequence,
        Err(_) => stored.signature.is_none_or(|signature| keys.has_key(signature.key_id())),
    }
}

async fn restore(
    store: &dyn FleetStore,
    stored: Option<&[u8]>,
    own: &ActiveRecord,
    bundle: impl Future<Output = Result<PolicyBundle, String>>,
) -> Result<RestoreOutcome, String> {
    let text = |error: StoreError| error.to_string();
    let (record, blobs) = (record::to_json(own), own.blobs().iter().map(Digest::hex).collect::<Vec<_>>());
    let restore = Restore { expected_active: stored, record: &record, blobs: &blobs };
    let outcome = store.restore_active(restore).await.map_err(text)?;
    if outcome != RestoreOutcome::BlobMissing {
        return Ok(outcome);
    }
    let PolicyBundle { component, cases, .. } = bundle.await?;
    let contents = [Some(&*component), cases.as_deref().map(str::as_bytes)];
    for (hex, content) in blobs.iter().zip(contents.into_iter().flatten()) {
        store.put_blob(hex, content, BLOB_EXPIRY).await.map_err(text)?;
    }
    store.restore_active(restore).await.map_err(text)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::artifact::signature::Statement;
    use crate::fleet::record::fixtures::test_record;
    use crate::store::fleet::tests::MemoryFleetStore;

    fn signed(sequence: u64, key: &SigningKey) -> ActiveRecord {
        let signature = Statement::of(b"policy", None, sequence).sign(key);
        ActiveRecord { signature: Some(signature), ..test_record(sequence, b"policy") }
    }

    #[test]
    fn only_a_verified_record_is_written_back_and_only_over_an_older_or_a_forged_one() {
        let [own, other] = [1, 2].map(|n| SigningKey::from_bytes(&[n; 32]));
        let keys = TrustedKeys::default().with(own.verifying_key());
        let lost = |stored: Option<&ActiveRecord>, own: &ActiveRecord| {
            is_lost(&keys, stored.map(record::to_json).as_deref().map(str::as_bytes), own)
        };
        let seven = signed(7, &own);
        assert!(lost(None, &seven) && lost(Some(&signed(6, &own)), &seven));
        assert!(!lost(Some(&seven), &seven) && !lost(Some(&signed(8, &own)), &seven));
        assert!(is_lost(&keys, Some(b"{"), &seven), "a damaged record");
        // Forged: unsigned, under another sequence, or with a signature that is not of the key that it names.
        let huge = ActiveRecord { sequence: 1 << 50, ..signed(6, &own) };
        let mut claimed = serde_json::to_value(signed(1 << 50, &other)).expect("JSON");
        claimed["signature"]["key"] = serde_json::to_value(&seven).expect("JSON")["signature"]["key"].clone();
        let claimed: ActiveRecord = serde_json::from_value(claimed).expect("a record");
        assert!(
            lost(Some(&test_record(1 << 50, b"policy")), &seven)
                && lost(Some(&huge), &seven)
                && lost(Some(&claimed), &seven)
        );
        // A key that this node does not know yet may be a new one.
        assert!(!lost(Some(&signed(8, &other)), &seven));
        // What this node could not prove does not spread.
        for unproven in [test_record(7, b"policy"), signed(7, &other), huge] {
            assert!(!lost(None, &unproven));
        }
        assert!(!is_lost(&TrustedKeys::default(), None, &seven));
    }

    #[tokio::test(start_paused = true)]
    async fn lost_record_is_written_back_with_its_blobs_after_a_delay() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let (keys, store) = (TrustedKeys::default().with(key.verifying_key()), MemoryFleetStore::default());
        let (older, own) = (record::to_json(&signed(6, &key)), signed(7, &key));
        store.replace_active(&older);
        let (mut write_back, older) = (WriteBack::default(), Some(older.as_bytes()));
        assert!(!write_back.is_due(&keys, older, Some(&own)) && write_back.due_at().is_some());
        tokio::time::advance(MAX_DELAY).await;
        assert!(write_back.is_due(&keys, older, Some(&own)));
        write_back.write(&store, older, &own, async { Ok(PolicyBundle::new("policy")) }).await;
        let stored = store.active().await.expect("read");
        assert_eq!(stored, Some(record::to_json(&own).into_bytes()));
        assert_eq!(store.history().await.expect("read").len(), 1);
        assert!(own.fetch(&store).await.is_ok(), "its blob is stored");
        assert!(!write_back.is_due(&keys, stored.as_deref(), Some(&own)) && write_back.due_at().is_none());
        // Another node was first, with a greater sequence.
        let greater = record::to_json(&signed(9, &key));
        store.replace_active(&greater);
        write_back.write(&store, older, &own, async { Err("not needed".into()) }).await;
        assert_eq!(store.active().await.expect("read"), Some(greater.into_bytes()));
    }
}
