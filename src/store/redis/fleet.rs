//! The fleet's state in Redis: the policy, the pushes, and the status of each node.
//!
//! Whoever may write to Redis may have written these values. This module bounds how many bytes of them are read; `crate::fleet`
//! parses and verifies them.

use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{RedisError, Script, cmd, pipe};

use crate::store::StoreError;
use crate::store::fleet_keys::FleetKeys;

/// Bytes of a note: a pointer, a node's word, a report.
pub const MAX_NOTE: usize = 16 << 10;
/// Pushes that are remembered, with their blobs.
pub const REMEMBERED: usize = 16;
/// Nodes that are listed.
const MAX_NODES: usize = 1_000;
/// Reports of a push are kept so long.
const REPORTS: Duration = Duration::from_secs(600);
/// How often replacing the shadow policy is tried while others replace it too.
const SHADOW_ATTEMPTS: usize = 16;

/// One fleet's keys in a Redis. Clones share its connections.
#[derive(Clone)]
pub struct FleetStore {
    quick: ConnectionManager,
    /// For components, so that a large one delays no small value.
    bulk: ConnectionManager,
    keys: FleetKeys,
}

/// A note as a node reads it: there is one or none, or the store does not give it.
pub type Read = Result<Option<Vec<u8>>, StoreError>;

/// What a node reads when it gives word.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Whether its word was taken.
    pub word: Result<(), StoreError>,
    /// The word that was given under this name before.
    pub before: Read,
    /// What is in force.
    pub current: Read,
    /// What is to be prepared.
    pub candidate: Read,
    /// What is to be asked beside.
    pub shadow: Read,
}

/// What came of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flipped {
    /// It is in force.
    Done,
    /// Something else was put in force since the push began.
    Moved,
    /// The push took so long that it is a candidate no longer.
    Lost,
    /// A blob is gone.
    Gone,
}

/// What a flip puts in force.
#[derive(Clone, Copy, Debug)]
pub struct Flip<'a> {
    /// What has to be in force.
    pub was: Option<&'a [u8]>,
    /// What has to be the candidate.
    pub candidate: &'a str,
    /// What takes its place.
    pub pointer: &'a str,
    /// What is asked beside no longer, since it is in force then.
    pub beside: Option<&'a [u8]>,
    /// What it points to.
    pub blobs: &'a [String],
}

impl FleetStore {
    pub(super) const fn new(quick: ConnectionManager, bulk: ConnectionManager, keys: FleetKeys) -> Self {
        Self { quick, bulk, keys }
    }

    /// The names of this fleet's keys.
    #[must_use]
    pub const fn keys(&self) -> &FleetKeys {
        &self.keys
    }

    /// A node's word, which is forgotten after `expiry`.
    ///
    /// One key that the store does not give, or that has something else in it, is in the way of no other.
    pub async fn beat(&self, node: &str, word: &str, expiry: Duration, now: u64) -> Result<Beat, StoreError> {
        let (status, nodes) = (self.keys.node_status(node), self.keys.nodes());
        let answers: Vec<Result<redis::Value, RedisError>> = pipe()
            .ignore_errors()
            .cmd("GETRANGE")
            .arg(&status)
            .arg(0)
            .arg(MAX_NOTE)
            .cmd("SET")
            .arg(&status)
            .arg(word)
            .arg("PX")
            .arg(millis(expiry))
            .cmd("ZADD")
            .arg(&nodes)
            .arg(now)
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
            .arg(MAX_NOTE)
            .cmd("GETRANGE")
            .arg(self.keys.pending_policy())
            .arg(0)
            .arg(MAX_NOTE)
            .cmd("GETRANGE")
            .arg(self.keys.shadow_policy())
            .arg(0)
            .arg(MAX_NOTE)
            .query_async(&mut self.quick.clone())
            .await?;
        let mut answers = answers.into_iter().map(|answer| answer.map_err(StoreError::from));
        let mut next = || answers.next().unwrap_or_else(|| Err(StoreError::Refused("too few answers".into())));
        let read = |answer: Result<redis::Value, StoreError>| match answer? {
            redis::Value::BulkString(bytes) => Ok(some(bytes)),
            _ => Err(StoreError::WrongType),
        };
        let (before, set, listed) = (read(next()), next(), next());
        let word = set.and(listed).map(|_| ());
        Ok(Beat { word, before, current: read(next()), candidate: read(next()), shadow: read(next()) })
    }

    /// A node goes.
    pub async fn leave(&self, node: &str) -> Result<(), StoreError> {
        let (status, nodes) = (self.keys.node_status(node), self.keys.nodes());
        let left = pipe().cmd("DEL").arg(status).ignore().cmd("ZREM").arg(nodes).arg(node).ignore().clone();
        Ok(left.query_async(&mut self.quick.clone()).await?)
    }

    /// The words of all nodes that live.
    pub async fn nodes(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut connection = self.quick.clone();
        let names: Vec<String> =
            cmd("ZREVRANGE").arg(self.keys.nodes()).arg(0).arg(MAX_NODES - 1).query_async(&mut connection).await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut words = pipe();
        for name in &names {
            words.cmd("GETRANGE").arg(self.keys.node_status(name)).arg(0).arg(MAX_NOTE);
        }
        let words: Vec<Vec<u8>> = words.query_async(&mut connection).await?;
        let (mut alive, mut gone) = (Vec::new(), Vec::new());
        for (word, name) in words.into_iter().zip(&names) {
            match some(word) {
                Some(word) => alive.push(word),
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
            // A user without the right to write leaves it to others.
            let _: Result<(), RedisError> = call.invoke_async(&mut connection).await;
        }
        Ok(alive)
    }

    /// What is in force.
    pub async fn current(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.note(&self.keys.active_policy()).await
    }

    /// What is to be prepared.
    pub async fn candidate(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.note(&self.keys.pending_policy()).await
    }

    /// What is to be asked beside.
    pub async fn shadow(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.note(&self.keys.shadow_policy()).await
    }

    /// Sets the shadow policy, in place of the present one; false if one of its blobs is gone.
    pub async fn propose(&self, note: &str, blobs: &[String], expiry: Duration) -> Result<bool, StoreError> {
        for _ in 0..SHADOW_ATTEMPTS {
            let old = match self.shadow().await {
                // The script takes a value of another type for none, and overwrites it.
                Err(StoreError::WrongType) => Vec::new(),
                old => old?.unwrap_or_default(),
            };
            match &*self.replace_shadow(&old, note, blobs, expiry).await? {
                "done" => return Ok(true),
                "moved" => {}
                _ => return Ok(false),
            }
        }
        Err(StoreError::Refused("others replace the shadow policy all the time: try again".into()))
    }

    /// Removes the shadow policy, if it still is this one; false if it is another one.
    pub async fn propose_nothing(&self, was: &[u8], expiry: Duration) -> Result<bool, StoreError> {
        Ok(self.replace_shadow(was, "", &[], expiry).await? == "done")
    }

    async fn replace_shadow(
        &self,
        was: &[u8],
        note: &str,
        blobs: &[String],
        expiry: Duration,
    ) -> Result<String, StoreError> {
        let script = Script::new(include_str!("shadow.lua"));
        let mut call = script.key(self.keys.shadow_policy());
        call.key(self.keys.policy_history());
        call.arg(was).arg(note).arg(MAX_NOTE).arg(millis(expiry)).arg(self.keys.policy_changed()).arg(blobs.len());
        for hex in blobs {
            call.key(self.keys.policy_blob(hex));
        }
        for hex in digests(was) {
            call.key(self.keys.policy_blob(hex)).arg(hex);
        }
        Ok(call.invoke_async(&mut self.quick.clone()).await?)
    }

    async fn note(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(some(cmd("GETRANGE").arg(key).arg(0).arg(MAX_NOTE).query_async(&mut self.quick.clone()).await?))
    }

    /// What was put in force, the latest first.
    pub async fn history(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let script = Script::new(include_str!("history.lua"));
        Ok(script
            .key(self.keys.policy_history())
            .arg(REMEMBERED)
            .arg(MAX_NOTE)
            .invoke_async(&mut self.quick.clone())
            .await?)
    }

    /// A blob of so many bytes at the most, or one more, which says that it is larger.
    pub async fn blob(&self, hex: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.keys.policy_blob(hex);
        Ok(some(cmd("GETRANGE").arg(key).arg(0).arg(max).query_async(&mut self.bulk.clone()).await?))
    }

    /// Stores a blob, for so long; one that was in force stays as long as that is remembered.
    pub async fn put_blob(&self, hex: &str, content: &[u8], expiry: Duration) -> Result<(), StoreError> {
        let script = Script::new(include_str!("put_blob.lua"));
        let key = self.keys.policy_blob(hex);
        Ok(script.key(key).arg(content).arg(millis(expiry)).invoke_async(&mut self.bulk.clone()).await?)
    }

    /// Makes something the candidate; false if another one is.
    pub async fn announce(&self, candidate: &str, expiry: Duration) -> Result<bool, StoreError> {
        // What does not expire no push has written.
        let script = Script::new(
            "if redis.call('PTTL', KEYS[1]) >= 0 then return 0 end redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1",
        );
        let done: i64 = script
            .key(self.keys.pending_policy())
            .arg(candidate)
            .arg(millis(expiry))
            .invoke_async(&mut self.quick.clone())
            .await?;
        if done == 1 {
            self.ring().await?;
        }
        Ok(done == 1)
    }

    async fn ring(&self) -> Result<(), StoreError> {
        Ok(cmd("PUBLISH").arg(self.keys.policy_changed()).arg("changed").exec_async(&mut self.quick.clone()).await?)
    }

    /// The candidate is one for so long from now on; false if it is one no longer.
    pub async fn renew(&self, candidate: &str, expiry: Duration) -> Result<bool, StoreError> {
        let script = Script::new(
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
        );
        let renewed: i64 = script
            .key(self.keys.pending_policy())
            .arg(candidate)
            .arg(millis(expiry))
            .invoke_async(&mut self.quick.clone())
            .await?;
        Ok(renewed == 1)
    }

    /// It is to be prepared no longer.
    pub async fn withdraw(&self, candidate: &str) -> Result<(), StoreError> {
        let script = Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end");
        let () = script.key(self.keys.pending_policy()).arg(candidate).invoke_async(&mut self.quick.clone()).await?;
        self.ring().await
    }

    /// What a node says of a candidate.
    pub async fn report(&self, push: &str, node: &str, report: &str) -> Result<(), StoreError> {
        let key = self.keys.prepare_reports(push);
        let reported = pipe()
            .cmd("HSET")
            .arg(&key)
            .arg(node)
            .arg(report)
            .ignore()
            .cmd("PEXPIRE")
            .arg(&key)
            .arg(millis(REPORTS))
            .ignore()
            .clone();
        Ok(reported.query_async(&mut self.quick.clone()).await?)
    }

    /// What these nodes said of it, in their order.
    pub async fn reports(&self, push: &str, nodes: &[&str]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(cmd("HMGET").arg(self.keys.prepare_reports(push)).arg(nodes).query_async(&mut self.quick.clone()).await?)
    }

    /// Puts a pointer in force at one moment, if what was in force is what it was, and the candidate is this one still.
    pub async fn flip(&self, flip: Flip<'_>) -> Result<Flipped, StoreError> {
        let Flip { was, candidate, pointer, beside, blobs } = flip;
        let history = self.history().await?;
        let script = Script::new(include_str!("commit.lua"));
        let mut call = script.key(self.keys.active_policy());
        call.key(self.keys.pending_policy()).key(self.keys.policy_history()).key(self.keys.shadow_policy());
        call.arg(was.unwrap_or_default()).arg(candidate).arg(pointer).arg(REMEMBERED).arg(self.keys.policy_changed());
        call.arg(beside.unwrap_or_default()).arg(MAX_NOTE).arg(blobs.len());
        for hex in blobs {
            call.key(self.keys.policy_blob(hex));
        }
        for hex in history.iter().flat_map(|note| digests(note)) {
            call.key(self.keys.policy_blob(hex)).arg(hex);
        }
        let done: String = call.invoke_async(&mut self.quick.clone()).await?;
        match &*done {
            "done" => Ok(Flipped::Done),
            "moved" => Ok(Flipped::Moved),
            "lost" => Ok(Flipped::Lost),
            _ => Ok(Flipped::Gone),
        }
    }
}

/// The SHA-256 digests that a note names, in hexadecimal digits.
fn digests(note: &[u8]) -> Vec<&str> {
    const SHA256_DIGITS: usize = 64;
    // What is not UTF-8 was not written by a gateway, and names no blob of one.
    let text = std::str::from_utf8(note).unwrap_or_default();
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
