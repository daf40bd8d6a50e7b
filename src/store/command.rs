//! The commands of the REST protocol: those that the server side of the npm package sends, and no others.

use crate::event::{StreamId, digits};

/// One command, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT n]] id field value …`
    Add {
        /// The stream.
        key: String,
        /// Do not create the stream.
        no_create: bool,
        /// How to trim the stream afterwards.
        trim: Option<Trim>,
        /// The entry's id.
        id: NewId,
        /// Names and values.
        fields: Vec<(String, String)>,
    },
    /// `XRANGE key start end [COUNT n]`
    Range {
        /// The stream.
        key: String,
        /// As it was sent: `-`, an id, a time, or one of them after a `(`.
        start: String,
        /// As it was sent.
        end: String,
        /// The maximum number of entries.
        count: Option<u64>,
    },
    /// `PUBLISH channel message`
    Publish {
        /// The channel.
        key: String,
        /// The payload.
        message: String,
    },
    /// `EXPIRE key seconds`, of streams only.
    Expire {
        /// The stream.
        key: String,
        /// Time to live; at zero or below, the stream is removed at once.
        seconds: i64,
    },
}

/// How a stream is trimmed after an `XADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// `~`: the store may keep a few more entries.
    pub approximate: bool,
    /// The entries to keep.
    pub keep: Keep,
}

/// The entries that a trim keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// This many of the newest entries.
    MaxLen(u64),
    /// The entries from this id on.
    MinId(StreamId),
}

/// The id that an `XADD` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewId {
    /// `*`
    Auto,
    /// `<ms>-*`
    AutoSeq(u64),
    /// `<ms>-<seq>`, or `<ms>` alone.
    Exact(StreamId),
}

impl std::fmt::Display for NewId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("*"),
            Self::AutoSeq(ms) => write!(f, "{ms}-*"),
            Self::Exact(id) => id.fmt(f),
        }
    }
}

/// The reply to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// A string of bytes.
    Text(Vec<u8>),
    /// A list.
    List(Vec<Reply>),
}

/// Why a command is not run. The text is what the client's library shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The body is not an array of strings, numbers and booleans.
    #[error("ERR a command is a JSON array of strings, numbers and booleans, its name first")]
    NotACommand,
    /// A command that Redis may know and Tidegate does not pass on.
    #[error("NOPERM '{0}' is not available here: only XADD, XRANGE, PUBLISH, EXPIRE and SUBSCRIBE are")]
    Unknown(String),
    /// The arguments are not valid.
    #[error("ERR wrong arguments for '{0}': expected {1}")]
    Arguments(&'static str, &'static str),
}

const XADD: &str = "XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT n]] id field value [field value …]";
const XRANGE: &str = "XRANGE key start end [COUNT n]";
const PUBLISH: &str = "PUBLISH channel message";
const EXPIRE: &str = "EXPIRE key seconds";

impl Command {
    /// The key or channel that it acts on.
    #[must_use]
    pub fn key(&self) -> &str {
        let (Self::Add { key, .. } | Self::Range { key, .. } | Self::Publish { key, .. } | Self::Expire { key, .. }) =
            self;
        key
    }

    /// Reads one command as the REST protocol sends it.
    pub fn parse(json: &serde_json::Value) -> Result<Self, CommandError> {
        let words = json
            .as_array()
            .and_then(|array| array.iter().map(word).collect::<Option<Vec<String>>>())
            .ok_or(CommandError::NotACommand)?;
        let mut words = words.into_iter();
        let name = words.next().ok_or(CommandError::NotACommand)?;
        let args: Vec<String> = words.collect();
        match name.to_ascii_uppercase().as_str() {
            "XADD" => add(args).ok_or(CommandError::Arguments("XADD", XADD)),
            "XRANGE" => range(args).ok_or(CommandError::Arguments("XRANGE", XRANGE)),
            "PUBLISH" => publish(args).ok_or(CommandError::Arguments("PUBLISH", PUBLISH)),
            "EXPIRE" => expire(args).ok_or(CommandError::Arguments("EXPIRE", EXPIRE)),
            _ => Err(CommandError::Unknown(name.chars().take(32).collect())),
        }
    }
}

fn word(json: &serde_json::Value) -> Option<String> {
    match json {
        serde_json::Value::String(s) => Some(s.clone()),
        serde_json::Value::Number(n) => Some(n.to_string()),
        serde_json::Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

fn add(args: Vec<String>) -> Option<Command> {
    let mut args = args.into_iter().peekable();
    let key = args.next()?;
    let no_create = args.next_if(|a| a.eq_ignore_ascii_case("NOMKSTREAM")).is_some();
    let trim = match args.peek()?.to_ascii_uppercase().as_str() {
        option @ ("MAXLEN" | "MINID") => {
            let by_length = option == "MAXLEN";
            args.next();
            let approximate = args.next_if(|a| a == "~").is_some();
            if !approximate {
                args.next_if(|a| a == "=");
            }
            let threshold = args.next()?;
            let keep = if by_length { Keep::MaxLen(digits(&threshold)?) } else { Keep::MinId(id(&threshold, 0)?) };
            if args.next_if(|a| a.eq_ignore_ascii_case("LIMIT")).is_some() {
                digits(&args.next()?)?;
            }
            Some(Trim { approximate, keep })
        }
        _ => None,
    };
    let new = args.next()?;
    let id = match new.strip_suffix("-*") {
        _ if new == "*" => NewId::Auto,
        Some(ms) => NewId::AutoSeq(digits(ms)?),
        None => NewId::Exact(id(&new, 0)?),
    };
    let rest: Vec<String> = args.collect();
    if rest.is_empty() || !rest.len().is_multiple_of(2) {
        return None;
    }
    let mut rest = rest.into_iter();
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (rest.next(), rest.next()) {
        fields.push((name, value));
    }
    Some(Command::Add { key, no_create, trim, id, fields })
}

fn range(args: Vec<String>) -> Option<Command> {
    let mut args = args.into_iter();
    let (key, start, end) = (args.next()?, args.next()?, args.next()?);
    bound(&start, true)?;
    bound(&end, false)?;
    let count = match args.next() {
        Some(option) if option.eq_ignore_ascii_case("COUNT") => Some(digits(&args.next()?)?),
        Some(_) => return None,
        None => None,
    };
    args.next().is_none().then_some(Command::Range { key, start, end, count })
}

fn publish(args: Vec<String>) -> Option<Command> {
    let [key, message] = args.try_into().ok()?;
    Some(Command::Publish { key, message })
}

fn expire(args: Vec<String>) -> Option<Command> {
    let [key, seconds] = args.try_into().ok()?;
    // Within what a Redis takes: its deadline is in ms and 63 bits.
    let seconds = seconds.parse().ok().filter(|s| (-(1 << 40)..1 << 40).contains(s))?;
    Some(Command::Expire { key, seconds })
}

/// The inclusive end of an `XRANGE` interval.
#[must_use]
pub fn bound(text: &str, is_start: bool) -> Option<StreamId> {
    let missing = if is_start { 0 } else { u64::MAX };
    match (text, text.strip_prefix('(')) {
        ("-", _) => Some(StreamId::ZERO),
        ("+", _) => Some(StreamId::new(u64::MAX, u64::MAX)),
        (_, None) => id(text, missing),
        (_, Some(text)) if is_start => {
            let id = id(text, missing)?;
            match id.seq.checked_add(1) {
                Some(seq) => Some(StreamId::new(id.ms, seq)),
                None => id.ms.checked_add(1).map(|ms| StreamId::new(ms, 0)),
            }
        }
        (_, Some(text)) => id(text, missing).filter(|id| *id != StreamId::ZERO).map(StreamId::before),
    }
}

fn id(text: &str, seq: u64) -> Option<StreamId> {
    text.parse().ok().or_else(|| digits(text).map(|ms| StreamId::new(ms, seq)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands() {
        let check = |json: serde_json::Value, expect: Command| assert_eq!(Command::parse(&json), Ok(expect), "{json}");
        let fields = vec![("data".to_owned(), "1".to_owned()), ("event".to_owned(), "e".to_owned())];
        let add = |trim, id, no_create| Command::Add { key: "c".into(), no_create, trim, id, fields: fields.clone() };
        check(json!(["XADD", "c", "*", "data", 1, "event", "e"]), add(None, NewId::Auto, false));
        let trim = Some(Trim { approximate: false, keep: Keep::MaxLen(3) });
        check(json!(["XADD", "c", "MAXLEN", "=", 3, "*", "data", 1, "event", "e"]), add(trim, NewId::Auto, false));
        let trim = Some(Trim { approximate: true, keep: Keep::MinId(StreamId::new(5, 0)) });
        let words = json!(["xadd", "c", "nomkstream", "minid", "~", 5, "LIMIT", 10, "7-*", "data", 1, "event", "e"]);
        check(words, add(trim, NewId::AutoSeq(7), true));
        check(
            json!(["XADD", "c", "5-1", "data", 1, "event", "e"]),
            add(None, NewId::Exact(StreamId::new(5, 1)), false),
        );
        let range = |count| Command::Range { key: "c".into(), start: "-".into(), end: "+".into(), count };
        check(json!(["XRANGE", "c", "-", "+"]), range(None));
        check(json!(["XRANGE", "c", "-", "+", "COUNT", 1000]), range(Some(1000)));
        check(json!(["publish", "c", "{}"]), Command::Publish { key: "c".into(), message: "{}".into() });
        check(json!(["expire", "c", 60]), Command::Expire { key: "c".into(), seconds: 60 });
    }

    #[test]
    fn refused() {
        let check = |json: serde_json::Value, expect: &str| {
            let error = Command::parse(&json).expect_err("refused").to_string();
            assert!(error.contains(expect), "{json}: {error}");
        };
        check(json!({}), "a command is a JSON array");
        check(json!([]), "a command is a JSON array");
        check(json!(["XADD", "c", "*", "data", {"a": 1}]), "a command is a JSON array");
        check(json!(["GET", "k"]), "'GET' is not available");
        check(json!(["XADD", "c", "*"]), "XADD key");
        check(json!(["XADD", "c", "*", "data"]), "XADD key");
        check(json!(["XADD", "c", "MAXLEN", "x", "*", "a", "b"]), "XADD key");
        check(json!(["XADD", "c", "1-2-3", "a", "b"]), "XADD key");
        check(json!(["XRANGE", "c", "abc", "+"]), "XRANGE key");
        check(json!(["XRANGE", "c", "-", "+", "COUNT"]), "XRANGE key");
        check(json!(["PUBLISH", "c"]), "PUBLISH channel");
        check(json!(["EXPIRE", "c", "soon"]), "EXPIRE key");
    }

    #[test]
    fn bounds() {
        let check = |text: &str, is_start, expect: Option<(u64, u64)>| {
            assert_eq!(bound(text, is_start), expect.map(|(ms, seq)| StreamId::new(ms, seq)), "{text}");
        };
        check("5", true, Some((5, 0)));
        check("5", false, Some((5, u64::MAX)));
        check("(5", true, Some((5, 1)));
        check("(5-7", false, Some((5, 6)));
        check("(0-0", false, None);
        check("(18446744073709551615-18446744073709551615", true, None);
        check("x", true, None);
    }
}
