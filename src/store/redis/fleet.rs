//! The fleet's state in Redis: the policy, the pushes, and the status of each node.

use std::time::Duration;

use async_trait::async_trait;
use redis::aio::ConnectionManager;
use redis::{RedisError, Script, cmd, pipe};

use crate::store::StoreError;
use crate::store::fleet::{
    Commit, CommitOutcome, FleetStore, HeartbeatReply, MAX_HISTORY, MAX_RECORD_BYTES, RecordRead,
};
use crate::store::fleet_keys::FleetKeys;

/// Nodes in a listing.
const MAX_NODES: usize = 1_000;
/// Life of the reports of a push.
const REPORT_EXPIRY: Duration = Duration::from_secs(600);
/// How often replacing the shadow policy is tried while others replace it too.
const SHADOW_ATTEMPTS: usize = 16;

/// One fleet's keys in a Redis. Clones share its connections.
#[derive(Clone)]
pub struct RedisFleetStore {
    quick: ConnectionManager,
    /// For components, so that a large one delays no small value.
    bulk: ConnectionManager,
    keys: FleetKeys,
}

impl RedisFleetStore {
    pub(super) const fn new(quick: ConnectionManager, bulk: ConnectionManager, keys: FleetKeys) -> Self {
        Self { quick, bulk, keys }
    }

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
        call.arg(expected)
            .arg(record)
            .arg(MAX_RECORD_BYTES)
            .arg(millis(expiry))
            .arg(self.keys.policy_changed())
            .arg(blobs.len());
        for hex in blobs {
            call.key(self.keys.policy_blob(hex));
        }
        for hex in digests(expected) {
            call.key(self.keys.policy_blob(hex)).arg(hex);
        }
        Ok(call.invoke_async(&mut self.quick.clone()).await?)
    }

    async fn record(&self, key: &str) -> RecordRead {
        Ok(some(cmd("GETRANGE").arg(key).arg(0).arg(MAX_RECORD_BYTES).query_async(&mut self.quick.clone()).await?))
    }

    /// Tells all nodes that a record has changed.
    async fn notify(&self) -> Result<(), StoreError> {
        Ok(cmd("PUBLISH").arg(self.keys.policy_changed()).arg("changed").exec_async(&mut self.quick.clone()).await?)
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
        let answers: Vec<Result<redis::Value, RedisError>> = pipe()
            .ignore_errors()
            .cmd("GETRANGE")
            .arg(&key)
            .arg(0)
            .arg(MAX_RECORD_BYTES)
            .cmd("SET")
            .arg(&key)
            .arg(status)
            .arg("PX")
            .arg(millis(expiry))
            .cmd("ZADD")
            .arg(&nodes)
            .arg(now_ms)
            .arg(node)
            // A listing removes expired nodes; this bounds the set where nobody lists them. By rank and not by time, since each node has its
            // own clock.
            .cmd("ZREMRANGEBYRANK")
            .arg(&nodes)
            .arg(0)
            .arg(-1 - i64::try_from(MAX_NODES).unwrap_or(i64::MAX - 1))
            .ignore()
            .cmd("GETRANGE")
            .arg(self.keys.active_policy())
            .arg(0)
            .arg(MAX_RECORD_BYTES)
            .cmd("GETRANGE")
            .arg(self.keys.pending_policy())
            .arg(0)
            .arg(MAX_RECORD_BYTES)
            .cmd("GETRANGE")
            .arg(self.keys.shadow_policy())
            .arg(0)
            .arg(MAX_RECORD_BYTES)
            .query_async(&mut self.quick.clone())
            .await?;
        let mut answers = answers.into_iter().map(|answer| answer.map_err(StoreError::from));
        let mut next = || {
            answers
                .next()
                .unwrap_or_else(|| Err(StoreError::Refused("Redis answered fewer commands than were sent".into())))
        };
        let read = |answer: Result<redis::Value, StoreError>| match answer? {
            redis::Value::BulkString(bytes) => Ok(some(bytes)),
            _ => Err(StoreError::WrongType),
        };
        let (previous, set, listed) = (read(next()), next(), next());
        let written = set.and(listed).map(|_| ());
        Ok(HeartbeatReply { written, previous, active: read(next()), pending: read(next()), shadow: read(next()) })
    }

    async fn leave(&self, node: &str) -> Result<(), StoreError> {
        let (status, nodes) = (self.keys.node_status(node), self.keys.nodes());
        let left = pipe().cmd("DEL").arg(status).ignore().cmd("ZREM").arg(nodes).arg(node).ignore().clone();
        Ok(left.query_async(&mut self.quick.clone()).await?)
    }

    async fn node_statuses(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut connection = self.quick.clone();
        let names: Vec<String> =
            cmd("ZREVRANGE").arg(self.keys.nodes()).arg(0).arg(MAX_NODES - 1).query_async(&mut connection).await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut statuses = pipe();
        for name in &names {
            statuses.cmd("GETRANGE").arg(self.keys.node_status(name)).arg(0).arg(MAX_RECORD_BYTES);
        }
        let statuses: Vec<Vec<u8>> = statuses.query_async(&mut connection).await?;
        let (mut live, mut gone) = (Vec::new(), Vec::new());
        for (status, name) in statuses.into_iter().zip(&names) {
            match some(status) {
                Some(status) => live.push(status),
                None => gone.push(name),
            }
        }
        if !gone.is_empty() {
            let script = Script::new(include_str!("forget_nodes.lua"));
            let mut call = script.key(self.keys.nodes());
            for name in gone {
                call.key(self.keys.node_status(name));
                call.arg(name);
            }
            // A Redis user without the right to write leaves it to the nodes.
            let _: Result<(), RedisError> = call.invoke_async(&mut connection).await;
        }
        Ok(live)
    }

    async fn active(&self) -> RecordRead {
        self.record(&self.keys.active_policy()).await
    }

    async fn shadow(&self) -> RecordRead {
        self.record(&self.keys.shadow_policy()).await
    }

    async fn set_shadow(&self, record: &str, blobs: &[String], expiry: Duration) -> Result<bool, StoreError> {
        for _ in 0..SHADOW_ATTEMPTS {
            let old = match self.shadow().await {
                // The script takes a value of another type for none, and overwrites it.
                Err(StoreError::WrongType) => Vec::new(),
                old => old?.unwrap_or_default(),
            };
            match &*self.replace_shadow(&old, record, blobs, expiry).await? {
                "done" => return Ok(true),
                "moved" => {}
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
        Ok(script
            .key(self.keys.policy_history())
            .arg(MAX_HISTORY)
            .arg(MAX_RECORD_BYTES)
            .invoke_async(&mut self.quick.clone())
            .await?)
    }

    async fn blob(&self, hex: &str, max: u64) -> RecordRead {
        let key = self.keys.policy_blob(hex);
        Ok(some(cmd("GETRANGE").arg(key).arg(0).arg(max).query_async(&mut self.bulk.clone()).await?))
    }

    async fn put_blob(&self, hex: &str, content: &[u8], expiry: Duration) -> Result<(), StoreError> {
        let script = Script::new(include_str!("put_blob.lua"));
        let key = self.keys.policy_blob(hex);
        Ok(script.key(key).arg(content).arg(millis(expiry)).invoke_async(&mut self.bulk.clone()).await?)
    }

    async fn set_pending(&self, record: &str, expiry: Duration) -> Result<bool, StoreError> {
        // A value without an expiry was not written by a push, so it is overwritten.
        let script = Script::new(
            "if redis.call('PTTL', KEYS[1]) >= 0 then return 0 end redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1",
        );
        let done: i64 = script
            .key(self.keys.pending_policy())
            .arg(record)
            .arg(millis(expiry))
            .invoke_async(&mut self.quick.clone())
            .await?;
        if done == 1 {
            self.notify().await?;
        }
        Ok(done == 1)
    }

    async fn renew_pending(&self, record: &str, expiry: Duration) -> Result<bool, StoreError> {
        let script = Script::new(
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
        );
        let renewed: i64 = script
            .key(self.keys.pending_policy())
            .arg(record)
            .arg(millis(expiry))
            .invoke_async(&mut self.quick.clone())
            .await?;
        Ok(renewed == 1)
    }

    async fn remove_pending(&self, record: &str) -> Result<(), StoreError> {
        let script = Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end");
        let () = script.key(self.keys.pending_policy()).arg(record).invoke_async(&mut self.quick.clone()).await?;
        self.notify().await
    }

    async fn report(&self, push: &str, node: &str, report: &str) -> Result<(), StoreError> {
        let key = self.keys.prepare_reports(push);
        let reported = pipe()
            .cmd("HSET")
            .arg(&key)
            .arg(node)
            .arg(report)
            .ignore()
            .cmd("PEXPIRE")
            .arg(&key)
            .arg(millis(REPORT_EXPIRY))
            .ignore()
            .clone();
        Ok(reported.query_async(&mut self.quick.clone()).await?)
    }

    async fn reports(&self, push: &str, nodes: &[&str]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(cmd("HMGET").arg(self.keys.prepare_reports(push)).arg(nodes).query_async(&mut self.quick.clone()).await?)
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, StoreError> {
        let Commit { expected_active, pending, record, ended_shadow, blobs } = commit;
        let history = self.history().await?;
        let script = Script::new(include_str!("commit.lua"));
        let mut call = script.key(self.keys.active_policy());
        call.key(self.keys.pending_policy()).key(self.keys.policy_history()).key(self.keys.shadow_policy());
        call.arg(expected_active.unwrap_or_default())
            .arg(pending)
            .arg(record)
            .arg(MAX_HISTORY)
            .arg(self.keys.policy_changed());
        call.arg(ended_shadow.unwrap_or_default()).arg(MAX_RECORD_BYTES).arg(blobs.len());
        for hex in blobs {
            call.key(self.keys.policy_blob(hex));
        }
        for hex in history.iter().flat_map(|record| digests(record)) {
            call.key(self.keys.policy_blob(hex)).arg(hex);
        }
        let outcome: String = call.invoke_async(&mut self.quick.clone()).await?;
        match &*outcome {
            "done" => Ok(CommitOutcome::Committed),
            "moved" => Ok(CommitOutcome::Conflict),
            "lost" => Ok(CommitOutcome::Expired),
            _ => Ok(CommitOutcome::BlobMissing),
        }
    }
}

/// The SHA-256 digests that a record names, in hexadecimal digits.
fn digests(record: &[u8]) -> Vec<&str> {
    const SHA256_DIGITS: usize = 64;
    // A gateway writes UTF-8; other bytes name no blob of it.
    let text = std::str::from_utf8(record).unwrap_or_default();
    let digits = |rest: &'_ str| rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    text.split("sha256:")
        .skip(1)
        .filter(|rest| digits(rest) == SHA256_DIGITS)
        .map(|rest| &rest[..SHA256_DIGITS])
        .collect()
}

/// `GETRANGE` answers an empty value for a key that does not exist.
fn some(bytes: Vec<u8>) -> Option<Vec<u8>> {
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_a_note() {
        let (a, b) = ("0a".repeat(32), "fF".repeat(32));
        let note =
            format!(r#"{{"component":"sha256:{a}","cases":"sha256:{b}","short":"sha256:0a","long":"sha256:{a}0"}}"#);
        assert_eq!(digests(note.as_bytes()), [&*a, &*b]);
        assert!(digests(b"sha256:").is_empty() && digests(&[0xff, b's']).is_empty());
    }
}
