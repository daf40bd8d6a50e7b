//! What nodes on one Redis have in common beside the streams: the policy, and word of each other.
//!
//! Everything in here is bytes that somebody wrote. How many of them are read is bounded here; what they mean, and whether they are to
//! be believed, is for the fleet to say.

use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{RedisError, Script, cmd, pipe};

use crate::store::StoreError;

/// What is published on this channel says: look.
pub const BELL: &str = "tidegate:policy:bell";

const CURRENT: &str = "tidegate:policy:current";
const CANDIDATE: &str = "tidegate:policy:candidate";
const SHADOW: &str = "tidegate:policy:shadow";
const HISTORY: &str = "tidegate:policy:history";
const BLOB: &str = "tidegate:policy:blob:";
const PREPARED: &str = "tidegate:policy:prepared:";
const NODES: &str = "tidegate:nodes";
const NODE: &str = "tidegate:node:";

/// Bytes of a note: a pointer, a node's word, a report.
pub const MAX_NOTE: usize = 16 << 10;
/// Pushes that are remembered, with their blobs.
pub const REMEMBERED: usize = 16;
/// Nodes that are listed.
const MAX_NODES: usize = 1_000;
/// Reports of a push are kept so long.
const REPORTS: Duration = Duration::from_secs(600);

/// The part of a Redis that is the fleet's. Clones share its connections.
#[derive(Clone)]
pub struct FleetStore {
    quick: ConnectionManager,
    /// For components, so that none is in the way of what is small.
    bulk: ConnectionManager,
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
    pub(super) const fn new(quick: ConnectionManager, bulk: ConnectionManager) -> Self {
        Self { quick, bulk }
    }

    /// A node's word, which is forgotten after `expiry`.
    ///
    /// One key that the store does not give, or that has something else in it, is in the way of no other.
    pub async fn beat(&self, node: &str, word: &str, expiry: Duration, now: u64) -> Result<Beat, StoreError> {
        let key = format!("{NODE}{node}");
        let answers: Vec<Result<redis::Value, RedisError>> = pipe()
            .ignore_errors()
            .cmd("GETRANGE")
            .arg(&key)
            .arg(0)
            .arg(MAX_NOTE)
            .cmd("SET")
            .arg(&key)
            .arg(word)
            .arg("PX")
            .arg(millis(expiry))
            .cmd("ZADD")
            .arg(NODES)
            .arg(now)
            .arg(node)
            // Whoever asks for them forgets those that live no longer; this is for where nobody asks. By their number and not by their time,
            // for every node has a clock of its own.
            .cmd("ZREMRANGEBYRANK")
            .arg(NODES)
            .arg(0)
            .arg(-1 - i64::try_from(MAX_NODES).unwrap_or(i64::MAX - 1))
            .ignore()
            .cmd("GETRANGE")
            .arg(CURRENT)
            .arg(0)
            .arg(MAX_NOTE)
            .cmd("GETRANGE")
            .arg(CANDIDATE)
            .arg(0)
            .arg(MAX_NOTE)
            .cmd("GETRANGE")
            .arg(SHADOW)
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
        let key = format!("{NODE}{node}");
        let left = pipe().cmd("DEL").arg(key).ignore().cmd("ZREM").arg(NODES).arg(node).ignore().clone();
        Ok(left.query_async(&mut self.quick.clone()).await?)
    }

    /// The words of all nodes that live.
    pub async fn nodes(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut connection = self.quick.clone();
        let names: Vec<String> =
            cmd("ZREVRANGE").arg(NODES).arg(0).arg(MAX_NODES - 1).query_async(&mut connection).await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut words = pipe();
        for name in &names {
            words.cmd("GETRANGE").arg(format!("{NODE}{name}")).arg(0).arg(MAX_NOTE);
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
            let script = Script::new(include_str!("forget.lua"));
            let mut call = script.key(NODES);
            for name in gone {
                call.key(format!("{NODE}{name}"));
                call.arg(name);
            }
            // Who may only read leaves it to others.
            let _: Result<(), RedisError> = call.invoke_async(&mut connection).await;
        }
        Ok(alive)
    }

    /// What is in force.
    pub async fn current(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.note(CURRENT).await
    }

    /// What is to be prepared.
    pub async fn candidate(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.note(CANDIDATE).await
    }

    /// What is to be asked beside.
    pub async fn shadow(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.note(SHADOW).await
    }

    /// Has something asked beside, in place of whatever is; false if a blob of it is gone.
    pub async fn propose(&self, note: &str, blobs: &[String], expiry: Duration) -> Result<bool, StoreError> {
        Ok(self.beside(b"*", note, blobs, expiry).await? == "done")
    }

    /// Has nothing asked beside any more, if it still is this; false if it is something else.
    pub async fn propose_nothing(&self, was: &[u8], expiry: Duration) -> Result<bool, StoreError> {
        Ok(self.beside(was, "", &[], expiry).await? == "done")
    }

    async fn beside(&self, was: &[u8], note: &str, blobs: &[String], expiry: Duration) -> Result<String, StoreError> {
        let script = Script::new(include_str!("shadow.lua"));
        let mut call = script.key(SHADOW);
        call.key(HISTORY);
        call.arg(was).arg(note).arg(MAX_NOTE).arg(BLOB).arg(millis(expiry)).arg(BELL);
        for hex in blobs {
            call.arg(hex);
        }
        Ok(call.invoke_async(&mut self.quick.clone()).await?)
    }

    async fn note(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(some(cmd("GETRANGE").arg(key).arg(0).arg(MAX_NOTE).query_async(&mut self.quick.clone()).await?))
    }

    /// What was put in force, the latest first.
    pub async fn history(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let script = Script::new(include_str!("history.lua"));
        Ok(script.key(HISTORY).arg(REMEMBERED).arg(MAX_NOTE).invoke_async(&mut self.quick.clone()).await?)
    }

    /// A blob of so many bytes at the most, or one more, which says that it is larger.
    pub async fn blob(&self, hex: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let key = format!("{BLOB}{hex}");
        Ok(some(cmd("GETRANGE").arg(key).arg(0).arg(max).query_async(&mut self.bulk.clone()).await?))
    }

    /// Stores a blob, for so long; one that was in force stays as long as that is remembered.
    pub async fn put_blob(&self, hex: &str, content: &[u8], expiry: Duration) -> Result<(), StoreError> {
        let script = Script::new(include_str!("put_blob.lua"));
        let key = format!("{BLOB}{hex}");
        Ok(script.key(key).arg(content).arg(millis(expiry)).invoke_async(&mut self.bulk.clone()).await?)
    }

    /// Makes something the candidate; false if another one is.
    pub async fn announce(&self, candidate: &str, expiry: Duration) -> Result<bool, StoreError> {
        // What does not expire no push has written.
        let script = Script::new(
            "if redis.call('PTTL', KEYS[1]) >= 0 then return 0 end redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1",
        );
        let done: i64 =
            script.key(CANDIDATE).arg(candidate).arg(millis(expiry)).invoke_async(&mut self.quick.clone()).await?;
        if done == 1 {
            self.ring().await?;
        }
        Ok(done == 1)
    }

    async fn ring(&self) -> Result<(), StoreError> {
        Ok(cmd("PUBLISH").arg(BELL).arg("look").exec_async(&mut self.quick.clone()).await?)
    }

    /// The candidate is one for so long from now on; false if it is one no longer.
    pub async fn renew(&self, candidate: &str, expiry: Duration) -> Result<bool, StoreError> {
        let script = Script::new(
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
        );
        let renewed: i64 =
            script.key(CANDIDATE).arg(candidate).arg(millis(expiry)).invoke_async(&mut self.quick.clone()).await?;
        Ok(renewed == 1)
    }

    /// It is to be prepared no longer.
    pub async fn withdraw(&self, candidate: &str) -> Result<(), StoreError> {
        let script = Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end");
        let () = script.key(CANDIDATE).arg(candidate).invoke_async(&mut self.quick.clone()).await?;
        self.ring().await
    }

    /// What a node says of a candidate.
    pub async fn report(&self, push: &str, node: &str, report: &str) -> Result<(), StoreError> {
        let key = format!("{PREPARED}{push}");
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
        Ok(cmd("HMGET").arg(format!("{PREPARED}{push}")).arg(nodes).query_async(&mut self.quick.clone()).await?)
    }

    /// Puts a pointer in force at one moment, if what was in force is what it was, and the candidate is this one still.
    pub async fn flip(&self, flip: Flip<'_>) -> Result<Flipped, StoreError> {
        let Flip { was, candidate, pointer, beside, blobs } = flip;
        let script = Script::new(include_str!("flip.lua"));
        let mut call = script.key(CURRENT);
        call.key(CANDIDATE).key(HISTORY).key(SHADOW);
        call.arg(was.unwrap_or_default()).arg(candidate).arg(pointer).arg(REMEMBERED).arg(BLOB).arg(BELL);
        call.arg(beside.unwrap_or_default()).arg(MAX_NOTE);
        for hex in blobs {
            call.arg(hex);
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

/// `GETRANGE` answers nothing for what is not there, and so does what is empty, which is nothing to read either.
fn some(bytes: Vec<u8>) -> Option<Vec<u8>> {
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
