//! What Redis replies instead of a result, and what it means for the gateway.

use std::borrow::Cow;

use redis::{ErrorKind, RedisError, ServerError, Value};

use crate::store::StoreError;
use crate::store::redis::tls_faults;

/// Redis appends this to the error of a command that a script calls, with the script's digest and the line.
const SCRIPT_SUFFIX: &str = " script: ";

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        let Some(reply) = first_reply(&error) else {
            if let Some(text) = tls_faults::describe(&error) {
                return Self::Refused(text);
            }
            // Of the options, not of a server that may recover.
            let is_mistake = error.kind() == ErrorKind::InvalidClientConfig;
            return if is_mistake { Self::Refused(describe(&error)) } else { Self::Unavailable(describe(&error)) };
        };
        match reply.code() {
            "WRONGTYPE" => Self::WrongType,
            // The server or its place in a deployment is in a state that passes.
            "LOADING" | "BUSY" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "READONLY" => {
                Self::NotReady(reply_text(&reply))
            }
            _ => Self::Refused(reply_text(&reply)),
        }
    }
}

/// The error of an emitter's command that is sent as it is. Redis replies `ERR` to an invalid command; every other code (`NOPERM`, `OOM`,
/// `MISCONF`) is about the state of the server.
pub(super) fn command_error(error: RedisError) -> StoreError {
    match first_reply(&error) {
        Some(reply) if reply.code() == "ERR" => StoreError::InvalidCommand(reply_text(&reply)),
        _ => error.into(),
    }
}

/// The result of a `PING`. A server that cannot write to its disk refuses it like a write, and executes commands that read.
pub(super) fn pong(result: Result<(), RedisError>) -> Result<(), RedisError> {
    match result {
        Err(error) if first_reply(&error).is_some_and(|reply| reply.code() == "MISCONF") => Ok(()),
        other => other,
    }
}

/// Whether the server replied this error, so that the connection is intact.
pub(super) fn is_reply(error: &RedisError) -> bool {
    first_reply(error).is_some()
}

/// Whether the server replied that it is a replica, so that it did not execute the command.
pub(super) fn is_read_only(result: Result<&Value, &RedisError>) -> bool {
    const CODE: &str = "READONLY";
    match result {
        Ok(Value::ServerError(reply)) => reply.code() == CODE,
        Ok(_) => false,
        Err(error) => first_reply(error).is_some_and(|reply| reply.code() == CODE),
    }
}

/// The error that the server replied, if the error is not one of the connection; of a pipeline the first one.
fn first_reply(error: &RedisError) -> Option<ServerError> {
    error.clone().into_server_errors()?.first().map(|(_, reply)| reply.clone())
}

/// The text of an error reply as Redis wrote it: a code and a message. The library replaces the codes that it knows by names of its own.
/// The address in a redirection is left out, and what Redis says about our own scripts.
fn reply_text(reply: &ServerError) -> String {
    let message: Cow<str> = match (reply.code(), reply.details().unwrap_or_default()) {
        ("MOVED" | "ASK", message) => {
            let slot = message.split(' ').next().unwrap_or_default();
            format!("{slot}: another node of a cluster has this key").into()
        }
        (_, message) => match message.rsplit_once(SCRIPT_SUFFIX) {
            Some((before, digest)) if digest.starts_with(|c: char| c.is_ascii_hexdigit()) => before.into(),
            _ => message.into(),
        },
    };
    format!("{} {message}", reply.code()).trim_end().to_owned()
}

/// The text of an error without its kind, which the library appends (`… - Io`).
fn describe(error: &RedisError) -> String {
    error.to_string().replacen(&format!(" - {:?}", error.kind()), "", 1)
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    /// The error of a command to which Redis replies with this line.
    fn error(line: &str) -> RedisError {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error.into(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn texts_of_redis_keep_their_codes() {
        let check = |line: &str, expect: fn(String) -> StoreError| {
            assert_eq!(format!("{:?}", command_error(error(line))), format!("{:?}", expect(line.to_owned())));
        };
        for line in [
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
            "ERR syntax error",
            "ERR",
        ] {
            check(line, StoreError::InvalidCommand);
        }
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "READONLY You can't write against a read only replica.",
        ] {
            check(line, StoreError::NotReady);
        }
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOPERM this user has no permissions to run the 'xadd' command",
            "NOSCRIPT No matching script. Please use EVAL.",
            "NOREPLICAS Not enough good replicas to write.",
            "EXECABORT Transaction discarded because of previous errors.",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "NOTBUSY No scripts in execution right now.",
            "SOMETHING that is not known yet",
        ] {
            check(line, StoreError::Refused);
        }
        let wrong_type = command_error(error("WRONGTYPE Operation against a key holding the wrong kind of value"));
        assert!(matches!(wrong_type, StoreError::WrongType), "{wrong_type:?}");
    }

    #[test]
    fn texts_name_neither_addresses_nor_scripts() {
        let check = |line: &str, expect: &str| {
            let text = command_error(error(line)).to_string();
            assert!(text.ends_with(&format!(": {expect}")), "{text}");
        };
        check("MOVED 3999 10.1.2.3:6381", "MOVED 3999: another node of a cluster has this key");
        check("ASK 3999 10.1.2.3:6381", "ASK 3999: another node of a cluster has this key");
        let digest = "3d8a9f3b6b9d0f4c6f8b9d0f4c6f8b9d0f4c6f8b";
        check(
            &format!(
                "ERR Invalid stream ID specified as stream command argument script: {digest}, on @user_script:13."
            ),
            "ERR Invalid stream ID specified as stream command argument",
        );
        check("ERR no script: name it", "ERR no script: name it");
    }
}
