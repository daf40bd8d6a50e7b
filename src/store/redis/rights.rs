//! Which rights the user of a store lacks, found by commands that change nothing.

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, Script, Value, cmd, pipe};

use crate::store::StoreError;

/// The digest of a script that does not exist.
const NO_SCRIPT: &str = "0000000000000000000000000000000000000000";

/// Returns whether a command may be run, without running it. KEYS: 1 a key of the same slot. ARGV: the command.
const MAY_RUN: &str = "return redis.acl_check_cmd(unpack(ARGV)) and 1 or 0";
/// The number of probes for `PUSHES`.
const PUSH_RIGHTS: usize = 7;

/// The rights that a user lacks, as words of `ACL SETUSER`, each with what it is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MissingRights {
    /// Without these no stream delivers anything.
    pub essential: Vec<String>,
    pub further: Vec<(String, &'static str)>,
}

/// A right and its proof.
struct Probe {
    right: &'static str,
    purpose: &'static str,
    command: Cmd,
}

const STREAMS: &str = "streams";
const COMMANDS: &str = "revocations and other commands of the fleet";
const EMIT: &str = "events that are emitted through the gateway, and commands of the fleet";
const LOOKUPS: &str = "look-ups of policies";
const HEARTBEATS: &str = "the status of this node, and the fleet's policy";
/// A gateway needs these only if operators use its control port for them. A user that has none of them is meant to have none.
const PUSHES: &str = "rollbacks and shadow policies of the fleet through the control port";
const CHECKS: &str = "checks of the server and its replicas";

/// The commands that a gateway sends. Each is valid enough to reach the check of rights, and changes nothing: its key does not exist, or its
/// arguments are not valid.
fn probes(key: &str) -> Vec<Probe> {
    let probe = |right, purpose, args: &[&str]| {
        let mut parts = args.iter();
        let mut command = cmd(parts.next().unwrap_or(&"PING"));
        parts.for_each(|part| {
            command.arg(*part);
        });
        Probe { right, purpose, command }
    };
    vec![
        probe("+evalsha", STREAMS, &["EVALSHA", NO_SCRIPT, "1", key]),
        probe("+script|load", STREAMS, &["SCRIPT", "LOAD", "return 1"]),
        probe("+type", STREAMS, &["TYPE", key]),
        probe("+xinfo", STREAMS, &["XINFO", "STREAM", key]),
        probe("+xrange", STREAMS, &["XRANGE", key, "-", "+", "COUNT", "1"]),
        probe("+xrevrange", STREAMS, &["XREVRANGE", key, "+", "-", "COUNT", "1"]),
        probe("+hgetall", COMMANDS, &["HGETALL", key]),
        probe("+hlen", COMMANDS, &["HLEN", key]),
        probe("+hrandfield", COMMANDS, &["HRANDFIELD", key]),
        probe("+hget", COMMANDS, &["HGET", key, "f"]),
        probe("+hset", COMMANDS, &["HSET", key, "f", "v", "without a value"]),
        probe("+hdel", COMMANDS, &["HDEL", key, "f"]),
        probe("+time", COMMANDS, &["TIME"]),
        probe("+exists", COMMANDS, &["EXISTS", key]),
        probe("+xadd", EMIT, &["XADD", key, "not an id", "f", "v"]),
        probe("+publish", EMIT, &["PUBLISH", key, ""]),
        probe("+expire", EMIT, &["EXPIRE", key, "1"]),
        probe("+get", LOOKUPS, &["GET", key]),
        probe("+sismember", LOOKUPS, &["SISMEMBER", key, "m"]),
        probe("+getrange", HEARTBEATS, &["GETRANGE", key, "0", "0"]),
        probe("+set", HEARTBEATS, &["SET", key, "v", "not an option"]),
        probe("+del", HEARTBEATS, &["DEL", key]),
        probe("+zadd", HEARTBEATS, &["ZADD", key, "not a number", "m"]),
        probe("+zrem", HEARTBEATS, &["ZREM", key, "m"]),
        probe("+zrevrange", HEARTBEATS, &["ZREVRANGE", key, "0", "0"]),
        probe("+zremrangebyrank", HEARTBEATS, &["ZREMRANGEBYRANK", key, "0", "0"]),
        probe("+pexpire", HEARTBEATS, &["PEXPIRE", key, "1"]),
        probe("+lrange", HEARTBEATS, &["LRANGE", key, "0", "0"]),
        probe("+hmget", PUSHES, &["HMGET", key, "f"]),
        probe("+ttl", PUSHES, &["TTL", key]),
        probe("+pttl", PUSHES, &["PTTL", key]),
        probe("+persist", PUSHES, &["PERSIST", key]),
        probe("+llen", PUSHES, &["LLEN", key]),
        probe("+rpop", PUSHES, &["RPOP", key]),
        probe("+info", CHECKS, &["INFO", "server"]),
    ]
}

impl MissingRights {
    /// Sends the commands. `key` does not exist and matches the pattern of the fleet's keys and channels, which is `pattern`.
    pub(super) async fn find(
        connection: &mut (impl ConnectionLike + Send),
        key: &str,
        pattern: &str,
    ) -> Result<Self, StoreError> {
        let probes = probes(key);
        let mut commands = pipe();
        commands.ignore_errors();
        for probe in &probes {
            commands.add_command(probe.command.clone());
        }
        let replies: Vec<Result<Value, RedisError>> = commands.query_async(connection).await?;
        let mut missing = Self::default();
        for (probe, reply) in probes.iter().zip(replies) {
            missing.add_refused(probe.right, probe.purpose, pattern, reply.and_then(Value::extract_error).err());
        }
        // No arguments of these commands are without an effect, so a script asks whether they may be run.
        let channels = format!("&{pattern}");
        let questions: [(&str, &'static str, &[&str]); 5] = [
            ("+hsetnx", COMMANDS, &["HSETNX", key, "f", "v"]),
            ("+lpush", PUSHES, &["LPUSH", key, "v"]),
            ("+unsubscribe", STREAMS, &["UNSUBSCRIBE"]),
            ("+subscribe", STREAMS, &["SUBSCRIBE"]),
            (&channels, STREAMS, &["SUBSCRIBE", key]),
        ];
        for (right, purpose, command) in questions {
            // Without the right to run scripts there is no answer, and streams do not work anyway.
            let may_run: Result<bool, RedisError> =
                Script::new(MAY_RUN).key(key).arg(command).invoke_async(connection).await;
            let is_known = right == channels && missing.has("+subscribe");
            if may_run.is_ok_and(|may_run| !may_run) && !is_known {
                missing.add(right.to_owned(), purpose);
            }
        }
        Ok(missing)
    }

    fn has(&self, right: &str) -> bool {
        self.essential.iter().chain(self.further.iter().map(|(right, _)| right)).any(|known| known == right)
    }

    fn add(&mut self, right: String, purpose: &'static str) {
        match purpose {
            _ if self.has(&right) => {}
            STREAMS => self.essential.push(right),
            _ => self.further.push((right, purpose)),
        }
    }

    fn add_refused(&mut self, right: &str, purpose: &'static str, pattern: &str, error: Option<RedisError>) {
        let Some(StoreError::Refused(text)) = error.map(StoreError::from) else { return };
        if !text.starts_with("NOPERM") {
            return;
        }
        // Redis 7.2 and Valkey have other texts than Redis 7.0, with the same nouns.
        if text.contains(" channel") {
            self.add(format!("&{pattern}"), STREAMS);
        } else if text.contains(" key") {
            self.add(format!("~{pattern}"), STREAMS);
        } else {
            self.add(right.to_owned(), purpose);
        }
    }

    /// A line for each purpose that the user lacks rights for, other than streams.
    pub fn warnings(&self) -> Vec<String> {
        let rights = |purpose: &str| -> Vec<&str> {
            self.further.iter().filter(|(_, other)| *other == purpose).map(|(right, _)| &**right).collect()
        };
        let lines = [COMMANDS, EMIT, LOOKUPS, HEARTBEATS, PUSHES, CHECKS].into_iter().filter_map(|purpose| {
            let rights = rights(purpose);
            let is_meant = rights.is_empty() || (purpose == PUSHES && rights.len() == PUSH_RIGHTS);
            let add = rights.join(" ");
            (!is_meant).then(|| format!("the user of the store lacks rights for {purpose}: add {add}"))
        });
        lines.collect()
    }

    /// The error, if streams cannot work.
    pub fn error(&self) -> Result<(), StoreError> {
        if self.essential.is_empty() {
            return Ok(());
        }
        let rights = self.essential.join(" ");
        Err(StoreError::Refused(format!(
            "its user lacks rights without which no stream delivers anything: add {rights} by ACL SETUSER"
        )))
    }
}
