//! The commands of the REST protocol: those that the server half of the npm package sends.

mod arguments;

use crate::event::{StreamId, digits};
use crate::store::command::arguments::{Args, Argument, Arguments, entry_fields, next_option, next_text};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestCommand {
    /// `XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT n]] id field value …`
    Add {
        key: String,
        /// `NOMKSTREAM`: do nothing if the stream does not exist.
        no_create: bool,
        trim: Option<Trim>,
        id: NewId,
        /// Names and values.
        fields: Vec<(String, String)>,
    },
    /// `XRANGE key start end [COUNT n]`. `start` and `end` are as sent; [`bound`] parses them.
    Range {
        key: String,
        start: String,
        end: String,
        count: Option<u64>,
        /// Limit of the answer: bytes of all ids, names and values, with [`TEXT_OVERHEAD_BYTES`] for each of them.
        max_bytes: usize,
    },
    /// `PUBLISH channel message`
    Publish { key: String, message: String },
    /// `EXPIRE key seconds`, of streams only. Without a positive number of seconds the stream is deleted at once.
    Expire { key: String, seconds: i64 },
}

/// How an `XADD` trims its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// `~`: the store may keep a few entries more.
    pub approximate: bool,
    pub keep: Keep,
}

/// The entries that trimming keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// This number of newest entries.
    MaxLen(u64),
    /// The entries from this id on.
    MinId(StreamId),
}

/// The id that an `XADD` requests.
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
    Nil,
    Int(i64),
    Text(Vec<u8>),
    List(Vec<Reply>),
}

/// What a text of an answer needs in addition to its bytes.
pub const TEXT_OVERHEAD_BYTES: usize = 64;
/// Arguments of one command: an emitter sends about ten.
pub const MAX_ARGUMENTS: usize = 1024;

/// Why a command is not executed. The client's library shows the text, which is like an error of Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error(
        "ERR a command is a JSON array of at most {MAX_ARGUMENTS} strings, numbers, booleans and nulls, its name first"
    )]
    NotACommand,
    #[error("NOPERM '{0}' is not available here: only XADD, XRANGE, PUBLISH, EXPIRE and SUBSCRIBE are")]
    Unknown(String),
    /// `reason` has the words of Redis.
    #[error("ERR {reason}: expected {syntax}")]
    Arguments { reason: &'static str, syntax: &'static str },
}

const XADD: &str = "XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT n]] id field value [field value …]";
const XRANGE: &str = "XRANGE key start end [COUNT n]";
const PUBLISH: &str = "PUBLISH channel message";
const EXPIRE: &str = "EXPIRE key seconds";

const INVALID_ID: &str = "Invalid stream ID specified as stream command argument";
const NOT_AN_INTEGER: &str = "value is not an integer or out of range";
const SYNTAX: &str = "syntax error";

impl RestCommand {
    /// The key or pub/sub channel of the command.
    pub fn key(&self) -> &str {
        let (Self::Add { key, .. } | Self::Range { key, .. } | Self::Publish { key, .. } | Self::Expire { key, .. }) =
            self;
        key
    }

    /// Parses the JSON array of one command.
    pub fn parse(json: &str) -> Result<Self, CommandError> {
        let Arguments(args) = serde_json::from_str(json).map_err(|_| CommandError::NotACommand)?;
        let mut args = args.into_iter();
        let name = next_text(&mut args).ok_or(CommandError::NotACommand)?;
        let (syntax, command) = match name.to_ascii_uppercase().as_str() {
            "XADD" => (XADD, parse_add(args)),
            "XRANGE" => (XRANGE, parse_range(args)),
            "PUBLISH" => (PUBLISH, parse_publish(args)),
            "EXPIRE" => (EXPIRE, parse_expire(args)),
            _ => return Err(CommandError::Unknown(name.chars().take(32).collect())),
        };
        command.map_err(|reason| CommandError::Arguments { reason, syntax })
    }
}

/// The error is the reason in the words of Redis.
type Parsed = Result<RestCommand, &'static str>;

fn parse_add(args: Args) -> Parsed {
    const WRONG_NUMBER: &str = "wrong number of arguments for 'xadd' command";
    let mut args = args.peekable();
    let key = next_text(&mut args).ok_or(WRONG_NUMBER)?;
    let no_create = next_option(&mut args, &["NOMKSTREAM"]).is_some();
    let mut trim = None;
    if let Some(option) = next_option(&mut args, &["MAXLEN", "MINID"]) {
        let approximate = next_option(&mut args, &["~"]).is_some();
        if !approximate {
            next_option(&mut args, &["="]);
        }
        let threshold = next_text(&mut args).ok_or(WRONG_NUMBER)?;
        let keep = match option.eq_ignore_ascii_case("MAXLEN") {
            true => Keep::MaxLen(digits(&threshold).ok_or(NOT_AN_INTEGER)?),
            false => Keep::MinId(parse_id(&threshold, 0).ok_or(INVALID_ID)?),
        };
        if next_option(&mut args, &["LIMIT"]).is_some() {
            next_text(&mut args).and_then(|limit| digits(&limit)).ok_or(NOT_AN_INTEGER)?;
        }
        trim = Some(Trim { approximate, keep });
    }
    let id = next_text(&mut args).ok_or(WRONG_NUMBER)?;
    let id = match id.strip_suffix("-*") {
        _ if id == "*" => Some(NewId::Auto),
        Some(ms) => digits(ms).map(NewId::AutoSeq),
        None => parse_id(&id, 0).map(NewId::Exact),
    };
    let id = id.ok_or(INVALID_ID)?;
    let mut fields = Vec::new();
    while let Some(name) = args.next() {
        fields.push((name.into_text().ok_or(SYNTAX)?, args.next().ok_or(WRONG_NUMBER)?));
    }
    if fields.is_empty() {
        return Err(WRONG_NUMBER);
    }
    Ok(RestCommand::Add { key, no_create, trim, id, fields: entry_fields(fields) })
}

fn parse_range(mut args: Args) -> Parsed {
    let mut text = || next_text(&mut args).ok_or("wrong number of arguments for 'xrange' command");
    let (key, start, end) = (text()?, text()?, text()?);
    bound(&start, true).ok_or(INVALID_ID)?;
    bound(&end, false).ok_or(INVALID_ID)?;
    let count = match args.next().map(Argument::into_text) {
        Some(Some(option)) if option.eq_ignore_ascii_case("COUNT") => {
            Some(digits(&next_text(&mut args).ok_or(SYNTAX)?).ok_or(NOT_AN_INTEGER)?)
        }
        Some(_) => return Err(SYNTAX),
        None => None,
    };
    match args.next() {
        Some(_) => Err(SYNTAX),
        None => Ok(RestCommand::Range { key, start, end, count, max_bytes: usize::MAX }),
    }
}

fn parse_publish(mut args: Args) -> Parsed {
    const WRONG_NUMBER: &str = "wrong number of arguments for 'publish' command";
    match (next_text(&mut args), next_text(&mut args), args.next()) {
        (Some(key), Some(message), None) => Ok(RestCommand::Publish { key, message }),
        _ => Err(WRONG_NUMBER),
    }
}

fn parse_expire(mut args: Args) -> Parsed {
    let mut text = || next_text(&mut args).ok_or("wrong number of arguments for 'expire' command");
    let (key, seconds) = (text()?, text()?);
    let seconds: i64 = seconds.parse().map_err(|_| NOT_AN_INTEGER)?;
    // The range of Redis: its deadline is a signed 64-bit number of milliseconds.
    if !(-(1 << 40)..1 << 40).contains(&seconds) {
        return Err("invalid expire time in 'expire' command");
    }
    match args.next() {
        Some(_) => Err(SYNTAX),
        None => Ok(RestCommand::Expire { key, seconds }),
    }
}

/// The inclusive bound that a start or end of an `XRANGE` means: `-`, `+`, an id or a time, each of the last two also after a `(`.
pub fn bound(text: &str, is_start: bool) -> Option<StreamId> {
    let missing_seq = if is_start { 0 } else { u64::MAX };
    match (text, text.strip_prefix('(')) {
        ("-", _) => Some(StreamId::ZERO),
        ("+", _) => Some(StreamId::new(u64::MAX, u64::MAX)),
        (_, None) => parse_id(text, missing_seq),
        (_, Some(text)) if is_start => {
            let id = parse_id(text, missing_seq)?;
            match id.seq.checked_add(1) {
                Some(seq) => Some(StreamId::new(id.ms, seq)),
                None => id.ms.checked_add(1).map(|ms| StreamId::new(ms, 0)),
            }
        }
        (_, Some(text)) => parse_id(text, missing_seq).filter(|id| *id != StreamId::ZERO).map(StreamId::before),
    }
}

fn parse_id(text: &str, missing_seq: u64) -> Option<StreamId> {
    text.parse().ok().or_else(|| digits(text).map(|ms| StreamId::new(ms, missing_seq)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn valid_commands_are_parsed() {
        let check = |json: serde_json::Value, expect: RestCommand| {
            assert_eq!(RestCommand::parse(&json.to_string()), Ok(expect), "{json}")
        };
        let fields = [("data", "1"), ("event", "e"), ("type", "json")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let add =
            |trim, id, no_create| RestCommand::Add { key: "c".into(), no_create, trim, id, fields: fields.clone() };
        check(json!(["XADD", "c", "*", "data", 1, "event", "e"]), add(None, NewId::Auto, false));
        let trim = Some(Trim { approximate: false, keep: Keep::MaxLen(3) });
        check(json!(["XADD", "c", "MAXLEN", "=", 3, "*", "data", 1, "event", "e"]), add(trim, NewId::Auto, false));
        let trim = Some(Trim { approximate: true, keep: Keep::MinId(StreamId::new(5, 0)) });
        let lower_case =
            json!(["xadd", "c", "nomkstream", "minid", "~", 5, "LIMIT", 10, "7-*", "data", 1, "event", "e"]);
        check(lower_case, add(trim, NewId::AutoSeq(7), true));
        check(
            json!(["XADD", "c", "5-1", "data", 1, "event", "e"]),
            add(None, NewId::Exact(StreamId::new(5, 1)), false),
        );
        let range = |count| {
            let (key, start, end) = ("c".into(), "-".into(), "+".into());
            RestCommand::Range { key, start, end, count, max_bytes: usize::MAX }
        };
        check(json!(["XRANGE", "c", "-", "+"]), range(None));
        check(json!(["XRANGE", "c", "-", "+", "COUNT", 1000]), range(Some(1000)));
        check(json!(["publish", "c", "{}"]), RestCommand::Publish { key: "c".into(), message: "{}".into() });
        check(json!(["expire", "c", 60]), RestCommand::Expire { key: "c".into(), seconds: 60 });
    }

    #[test]
    fn invalid_commands_are_refused() {
        let check = |json: serde_json::Value, expect: &str| {
            let error = RestCommand::parse(&json.to_string()).expect_err("refused").to_string();
            assert!(error.contains(expect), "{json}: {error}");
        };
        check(json!({}), "a command is a JSON array");
        check(json!([]), "a command is a JSON array");
        check(json!(["XADD", "c", "*", "data", {"a": 1}]), "a command is a JSON array");
        check(json!(vec!["XADD"; MAX_ARGUMENTS + 1]), "a command is a JSON array");
        check(json!(["GET", "k"]), "'GET' is not available");
        check(json!(["XADD", "c", "*"]), "ERR wrong number of arguments for 'xadd' command: expected XADD key");
        check(json!(["XADD", "c", "*", "data"]), "XADD key");
        check(json!(["XADD", "c", "MAXLEN", "x", "*", "a", "b"]), "XADD key");
        check(json!(["XADD", "c", "1-2-3", "a", "b"]), "ERR Invalid stream ID specified as stream command argument: ");
        check(json!(["XADD", "c", "MAXLEN", -1, "*", "a", "b"]), "ERR value is not an integer or out of range: ");
        check(json!(["EXPIRE", "c", i64::MAX]), "ERR invalid expire time in 'expire' command: ");
        check(json!(["XRANGE", "c", "-", "+", 5]), "ERR syntax error: expected XRANGE key");
        check(json!(["XRANGE", "c", "abc", "+"]), "XRANGE key");
        check(json!(["XRANGE", "c", "-", "+", "COUNT"]), "XRANGE key");
        check(json!(["PUBLISH", "c"]), "PUBLISH channel");
        check(json!(["PUBLISH", "c", null]), "PUBLISH channel");
        check(json!(["XADD", null, "*", "data", "1"]), "XADD key");
        check(json!(["XADD", "c", "*", null, "1"]), "XADD key");
        check(json!([null, "c"]), "a command is a JSON array");
        check(json!(["XADD", "c", "*", "data", []]), "a command is a JSON array");
        check(json!(["EXPIRE", "c", "soon"]), "EXPIRE key");
    }

    #[test]
    fn bounds_are_inclusive() {
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
