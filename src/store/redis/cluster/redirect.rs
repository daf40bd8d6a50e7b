//! What a reply of a node of a cluster says about the place of a key.

use redis::{RedisError, ServerError, Value};

use crate::store::redis::cluster::slot_map::NodeAddress;

/// What to do with a command, given the reply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The command was executed, or refused for good.
    Done,
    /// Another node is the master of this slot.
    Moved(u16, NodeAddress),
    /// The slot is being moved, and this key is on the other node already.
    Ask(NodeAddress),
    /// The command was not executed, and a later attempt may succeed.
    Wait,
    /// The node does not know the script, so it executed nothing.
    LoadScript,
}

impl Step {
    /// The step after an error that `replied` sent. Redis replies each of these errors before it executes anything.
    pub fn after(error: &ServerError, replied: &NodeAddress) -> Self {
        let details = error.details().unwrap_or_default();
        match error.code() {
            "MOVED" | "ASK" => {
                let mut words = details.split_ascii_whitespace();
                let slot = words.next().and_then(|slot| slot.parse().ok());
                let address = words.next().and_then(|address| NodeAddress::parse(address, replied));
                match (slot, address) {
                    (Some(slot), Some(address)) if error.code() == "MOVED" => Self::Moved(slot, address),
                    (Some(_), Some(address)) => Self::Ask(address),
                    _ => Self::Wait,
                }
            }
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" => Self::Wait,
            "NOSCRIPT" => Self::LoadScript,
            _ => Self::Done,
        }
    }
}

/// The error that a server replied to a command.
pub(super) fn server_error(result: &Result<Value, RedisError>) -> Option<ServerError> {
    match result {
        Ok(Value::ServerError(error)) => Some(error.clone()),
        Ok(_) => None,
        Err(error) => error.clone().into_server_errors()?.first().map(|(_, error)| error.clone()),
    }
}

/// Whether an attempt to connect that failed like this may succeed later, or at another node. A wrong password stays wrong.
pub(super) fn is_connect_retriable(error: &RedisError) -> bool {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, reply), ..]) => matches!(reply.code(), "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN"),
        _ => error.is_io_error(),
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn reply(line: &str) -> Result<Value, RedisError> {
        parse_redis_value(format!("{line}\r\n").as_bytes())
    }

    #[test]
    fn commands_are_sent_again_only_after_replies_that_executed_nothing() {
        let here = NodeAddress::new("here", 1);
        let check = |line: &str, expect: Step| {
            let value = reply(line);
            let error = server_error(&value).expect(line);
            assert_eq!(Step::after(&error, &here), expect, "{line}");
            // The same error, as the library returns it elsewhere.
            let error = server_error(&Err(error.into())).expect(line);
            assert_eq!(Step::after(&error, &here), expect, "{line}");
        };
        check("-MOVED 3999 10.0.0.1:6381", Step::Moved(3999, NodeAddress::new("10.0.0.1", 6381)));
        check("-MOVED 3999 :6381", Step::Moved(3999, NodeAddress::new("here", 6381)));
        check("-ASK 3999 10.0.0.1:6381", Step::Ask(NodeAddress::new("10.0.0.1", 6381)));
        check("-MOVED", Step::Wait);
        check("-ASK 3999", Step::Wait);
        check("-TRYAGAIN Multiple keys request during rehashing of slot", Step::Wait);
        check("-CLUSTERDOWN Hash slot not served", Step::Wait);
        check("-LOADING Redis is loading the dataset in memory", Step::Wait);
        check("-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Step::Wait);
        check("-READONLY You can't write against a read only replica.", Step::Wait);
        check("-NOSCRIPT No matching script. Please use EVAL.", Step::LoadScript);
        for line in [
            "-ERR syntax error",
            "-NOPERM no permissions",
            "-OOM command not allowed",
            "-CROSSSLOT Keys",
            "-BUSY a script",
        ] {
            check(line, Step::Done);
        }
        assert_eq!(server_error(&reply("+OK")), None);
        let lost: RedisError = std::io::Error::from(std::io::ErrorKind::ConnectionReset).into();
        assert_eq!(server_error(&Err(lost)), None);
    }

    #[test]
    fn refused_credentials_are_not_tried_again() {
        let refused: RedisError = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
        assert!(is_connect_retriable(&refused));
        for (line, expect) in
            [("-LOADING Redis is loading", true), ("-WRONGPASS invalid", false), ("-NOAUTH required", false)]
        {
            let error = server_error(&reply(line)).expect(line).into();
            assert_eq!(is_connect_retriable(&error), expect, "{line}");
        }
    }
}
