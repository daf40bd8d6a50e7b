//! The fleet's state in Redis: the policy records, the pushes, and the status of each node.

use std::time::Duration;

use async_trait::async_trait;
use redis::{AsyncCommands, RedisError, Script, SetExpiry, SetOptions, Value, cmd, pipe};
use tokio::time::Instant;

use crate::store::StoreError;
use crate::store::fleet::{
    Commit, CommitOutcome, FleetStore, HeartbeatReply, MAX_HISTORY, MAX_RECORD_BYTES, RecordRead, Replication, Restore,
    RestoreOutcome,
};
use crate::store::fleet_keys::FleetKeys;
use crate::store::redis::link::{Link, Route};

/// Maximum nodes of a listing.
const MAX_NODES: isize = 1_000;
/// The last byte of a record that is read: one more than is valid, so that a longer record is noticed.
const RECORD_END: isize = MAX_RECORD_BYTES as isize;
/// How long the reports of a push are kept.
const REPORT_EXPIRY_MS: i64 = 600_000;
/// Attempts to replace the shadow policy while other processes replace it too.
const MAX_SHADOW_ATTEMPTS: usize = 16;

/// One fleet's state in a Redis.
pub struct RedisFleetStore {
    pub(super) quick: Link,
    /// For components, so that a large one does not delay records.
    pub(super) bulk: Link,
    pub(super) keys: FleetKeys,
}

impl RedisFleetStore {
    /// The node with the fleet's keys, which are in one slot.
    fn quick(&self) -> Route {
        self.quick.to(&self.keys.active_policy())
    }

    /// The same, for components.
    fn bulk(&self) -> Route {
        self.bulk.to(&self.keys.active_policy())
    }

    /// Runs `shadow.lua`, and returns its result.
    async fn replace_shadow(
        &self,
        expected: &[u8],
        record: &str,
        blobs: &[String],
        expiry: Duration,
    ) -> Result<String, StoreError> {
        let script = Script::new(include_str!("shadow.lua"));
        let mut call = script.key(self.keys.shadow_policy());
        call.key(self.keys.policy_history());
        call.arg(expected).arg(record).arg(MAX_RECORD_BYTES).arg(millis(expiry));
        call.arg(self.keys.policy_changed()).arg(blobs.len());
        for hex in blobs {
            call.key(self.keys.policy_blob(hex));
        }
        for hex in digests(expected) {
            call.key(self.keys.policy_blob(hex)).arg(hex);
        }
        Ok(call.invoke_async(&mut self.quick()).await?)
    }

    /// The names of all nodes, each with its status, which is empty if it has expired.
    async fn named_statuses(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut connection = self.quick();
        let names: Vec<String> = connection.zrevrange(self.keys.nodes(), 0, MAX_NODES - 1).await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = pipe();
        for name in &names {
            reads.getrange(self.keys.node_status(name), 0, RECORD_END);
        }
        let statuses: Vec<Vec<u8>> = reads.query_async(&mut connection).await?;
        Ok(names.into_iter().zip(statuses).collect())
    }

    async fn record(&self, key: String) -> RecordRead {
        Ok(non_empty(self.quick().getrange(key, 0, RECORD_END).await?))
    }

    /// Notifies all nodes that a record has changed.
    async fn notify(&self) -> Result<(), StoreError> {
        Ok(self.quick().publish(self.keys.policy_changed(), "changed").await?)
    }
}

#[async_trait]
impl FleetStore for RedisFleetStore {
    fn keys(&self) -> &FleetKeys {
        &self.keys
    }

    async fn heartbeat(
        &self,
        node: &str,
        status: &str,
        expiry: Duration,
        now_ms: u64,
    ) -> Result<HeartbeatReply, StoreError> {
        let (key, nodes) = (self.keys.node_status(node), self.keys.nodes());
        let replies: Vec<Result<Value, RedisError>> = pipe()
            .ignore_errors()
            .getrange(&key, 0, RECORD_END)
            .set_options(&key, status, SetOptions::default().with_expiration(SetExpiry::PX(millis(expiry))))
            .zadd(&nodes, node, now_ms)
            // A push and a node that starts remove expired nodes; this bounds the set in between. By rank and not by time, because the
            // clocks of nodes differ.
            .zremrangebyrank(&nodes, 0, -1 - MAX_NODES)
            .ignore()
            .getrange(self.keys.active_policy(), 0, RECORD_END)
            .getrange(self.keys.pending_policy(), 0, RECORD_END)
            .getrange(self.keys.shadow_policy(), 0, RECORD_END)
            .query_async(&mut self.quick())
            .await?;
        let Ok([previous, set, added, active, pending, shadow]) = <[_; 6]>::try_from(replies) else {
            return Err(StoreError::Refused("the number of replies is not the number of commands".into()));
        };
        let read = |reply: Result<Value, RedisError>| match reply? {
            Value::BulkString(bytes) => Ok(non_empty(bytes)),
            _ => Err(StoreError::WrongType),
        };
        Ok(HeartbeatReply {
            written: set.and(added).map(drop).map_err(StoreError::from),
            previous: read(previous),
            active: read(active),
            pending: read(pending),
            shadow: read(shadow),
        })
    }

    async fn leave(&self, node: &str) -> Result<(), StoreError> {
        let mut commands = pipe();
        commands.del(self.keys.node_status(node)).zrem(self.keys.nodes(), node);
        Ok(commands.exec_async(&mut self.quick()).await?)
    }

    async fn node_statuses(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let statuses = self.named_statuses().await?;
        Ok(statuses.into_iter().map(|(_, status)| status).filter(|status| !status.is_empty()).collect())
    }

    async fn forget_expired_nodes(&self) -> Result<(), StoreError> {
        let script = Script::new(include_str!("forget_nodes.lua"));
        let mut call = script.key(self.keys.nodes());
        let mut is_needed = false;
        for (name, _) in self.named_statuses().await?.into_iter().filter(|(_, status)| status.is_empty()) {
            call.key(self.keys.node_status(&name)).arg(name);
            is_needed = true;
        }
        if is_needed {
            // Fails for a Redis user without the right to do so; then another process does it.
            let _: Result<(), RedisError> = call.invoke_async(&mut self.quick()).await;
        }
        Ok(())
    }

    async fn active(&self) -> RecordRead {
        self.record(self.keys.active_policy()).await
    }

    async fn shadow(&self) -> RecordRead {
        self.record(self.keys.shadow_policy()).await
    }

    async fn set_shadow(&self, record: &str, blobs: &[String], expiry: Duration) -> Result<bool, StoreError> {
        for _ in 0..MAX_SHADOW_ATTEMPTS {
            let old = match self.shadow().await {
                // The script treats a value of another type as none, and overwrites it.
                Err(StoreError::WrongType) => Vec::new(),
                old => old?.unwrap_or_default(),
            };
            match &*self.replace_shadow(&old, record, blobs, expiry).await? {
                "done" => return Ok(true),
                "conflict" => {}
                _ => return Ok(false),
            }
        }
        Err(StoreError::Refused("other processes keep replacing the shadow policy: try again".into()))
    }

    async fn remove_shadow(&self, expected: &[u8], expiry: Duration) -> Result<bool, StoreError> {
        Ok(self.replace_shadow(expected, "", &[], expiry).await? == "done")
    }

    async fn history(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let script = Script::new(include_str!("history.lua"));
        let mut call = script.key(self.keys.policy_history());
        Ok(call.arg(MAX_HISTORY).arg(MAX_RECORD_BYTES).invoke_async(&mut self.quick()).await?)
    }

    async fn blob(&self, hex: &str, max: u64) -> RecordRead {
        let key = self.keys.policy_blob(hex);
        Ok(non_empty(cmd("GETRANGE").arg(key).arg(0).arg(max).query_async(&mut self.bulk()).await?))
    }

    async fn put_blob(&self, hex: &str, content: &[u8], expiry: Duration) -> Result<(), StoreError> {
        let script = Script::new(include_str!("put_blob.lua"));
        let key = self.keys.policy_blob(hex);
        Ok(script.key(key).arg(content).arg(millis(expiry)).invoke_async(&mut self.bulk()).await?)
    }

    async fn set_pending(&self, record: &str, expiry: Duration) -> Result<bool, StoreError> {
        // A value without an expiry was not written by a push, so it is overwritten.
        let script = Script::new(
            "if redis.call('PTTL', KEYS[1]) >= 0 then return 0 end redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1",
        );
        let mut call = script.key(self.keys.pending_policy());
        let is_set = call.arg(record).arg(millis(expiry)).invoke_async(&mut self.quick()).await?;
        if is_set {
            self.notify().await?;
        }
        Ok(is_set)
    }

    async fn renew_pending(&self, record: &str, expiry: Duration) -> Result<bool, StoreError> {
        let script = Script::new(
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
        );
        let mut call = script.key(self.keys.pending_policy());
        Ok(call.arg(record).arg(millis(expiry)).invoke_async(&mut self.quick()).await?)
    }

    async fn remove_pending(&self, record: &str) -> Result<(), StoreError> {
        let script = Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end");
        let () = script.key(self.keys.pending_policy()).arg(record).invoke_async(&mut self.quick()).await?;
        self.notify().await
    }

    async fn report(&self, push: &str, node: &str, report: &str) -> Result<(), StoreError> {
        let key = self.keys.prepare_reports(push);
        let mut commands = pipe();
        commands.hset(&key, node, report).pexpire(&key, REPORT_EXPIRY_MS);
        Ok(commands.exec_async(&mut self.quick()).await?)
    }

    async fn reports(&self, push: &str, nodes: &[&str]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.quick().hmget(self.keys.prepare_reports(push), nodes).await?)
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, StoreError> {
        let history = self.history().await?;
        let script = Script::new(include_str!("commit.lua"));
        let mut call = script.key(self.keys.active_policy());
        call.key(self.keys.pending_policy()).key(self.keys.policy_history()).key(self.keys.shadow_policy());
        call.arg(commit.expected_active.unwrap_or_default()).arg(commit.pending).arg(commit.record);
        call.arg(MAX_HISTORY).arg(self.keys.policy_changed()).arg(commit.ended_shadow.unwrap_or_default());
        call.arg(MAX_RECORD_BYTES).arg(commit.blobs.len());
        for hex in commit.blobs {
            call.key(self.keys.policy_blob(hex));
        }
        for hex in history.iter().flat_map(|record| digests(record)) {
            call.key(self.keys.policy_blob(hex)).arg(hex);
        }
        let outcome: String = call.invoke_async(&mut self.quick()).await?;
        Ok(match &*outcome {
            "done" => CommitOutcome::Committed,
            "conflict" => CommitOutcome::Conflict,
            "expired" => CommitOutcome::Expired,
            _ => CommitOutcome::BlobMissing,
        })
    }

    async fn restore_active(&self, restore: Restore<'_>) -> Result<RestoreOutcome, StoreError> {
        let script = Script::new(include_str!("restore_active.lua"));
        let mut call = script.key(self.keys.active_policy());
        call.key(self.keys.pending_policy()).key(self.keys.policy_history());
        for hex in restore.blobs {
            call.key(self.keys.policy_blob(hex));
        }
        call.arg(restore.expected_active.unwrap_or_default()).arg(restore.record).arg(self.keys.policy_changed());
        let outcome: String = call.invoke_async(&mut self.quick()).await?;
        Ok(match &*outcome {
            "done" => RestoreOutcome::Restored,
            "conflict" => RestoreOutcome::Conflict,
            "pending" => RestoreOutcome::PushInProgress,
            _ => RestoreOutcome::BlobMissing,
        })
    }

    async fn replication(&self, timeout: Duration) -> Result<Replication, StoreError> {
        wait_replicated(self.quick(), &self.keys.active_policy(), timeout).await
    }
}

/// How far replicas are, as `replication.lua` returns it.
type ReplicationState = (String, String, String, bool);

/// Between two looks at the replicas. They report to their master every second.
const REPLICATION_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until a replica of the server with this key has all that was written there before this call, or until the timeout.
pub(super) async fn wait_replicated(mut route: Route, key: &str, timeout: Duration) -> Result<Replication, StoreError> {
    let script = Script::new(include_str!("replication.lua"));
    let call = script.key(key);
    let deadline = Instant::now() + timeout;
    let (id, written, ..): ReplicationState = call.invoke_async(&mut route).await?;
    loop {
        let (current_id, _, replica, _): ReplicationState = call.invoke_async(&mut route).await?;
        let offset = |text: &str| text.parse::<u64>().unwrap_or(0);
        if current_id != id {
            // Another server has taken over; it may lack these writes.
            return Ok(Replication::Missing);
        }
        if replica.is_empty() {
            return Ok(Replication::NoReplica);
        }
        if offset(&replica) >= offset(&written) {
            return Ok(Replication::Confirmed);
        }
        if Instant::now() >= deadline {
            return Ok(Replication::Missing);
        }
        tokio::time::sleep(REPLICATION_POLL_INTERVAL).await;
    }
}

/// The SHA-256 digests that a record names, in hexadecimal digits.
fn digests(record: &[u8]) -> Vec<&str> {
    const SHA256_DIGITS: usize = 64;
    // Records that a gateway wrote are UTF-8; others name no blob of a gateway.
    let text = std::str::from_utf8(record).unwrap_or_default();
    let digits = |rest: &str| rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    let parts = text.split("sha256:").skip(1).filter(|rest| digits(rest) == SHA256_DIGITS);
    parts.map(|rest| &rest[..SHA256_DIGITS]).collect()
}

/// `GETRANGE` returns an empty value for a key that does not exist.
fn non_empty(bytes: Vec<u8>) -> Option<Vec<u8>> {
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_a_record_are_found() {
        let (a, b) = ("0a".repeat(32), "fF".repeat(32));
        let record =
            format!(r#"{{"component":"sha256:{a}","cases":"sha256:{b}","short":"sha256:0a","long":"sha256:{a}0"}}"#);
        assert_eq!(digests(record.as_bytes()), [&*a, &*b]);
        assert!(digests(b"sha256:").is_empty() && digests(&[0xff, b's']).is_empty());
    }
}
