//! Events: stream ids, the JSON rules of entries and doorbells, and the frame that a browser gets.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::str::FromStr;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The id of a stream entry, `<ms>-<seq>`, ordered as Redis orders it. As a *position* it means: everything up to and
/// including this id has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since 1970 on the store's clock.
    pub ms: u64,
    /// Tells entries of the same millisecond apart.
    pub seq: u64,
}

impl StreamId {
    /// Before every entry.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// `<ms>-<seq>`.
    #[must_use]
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The greatest id below this one; of `0-0`, itself.
    #[must_use]
    pub fn before(self) -> Self {
        match (self.ms, self.seq) {
            (0, 0) => self,
            (ms, 0) => Self::new(ms - 1, u64::MAX),
            (ms, seq) => Self::new(ms, seq - 1),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// The text is not `<digits>-<digits>` with both below 2^64.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stream id (two numbers below 2^64 with a `-` between)")]
pub struct InvalidId;

impl FromStr for StreamId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (ms, seq) = text.split_once('-').ok_or(InvalidId)?;
        Ok(Self::new(digits(ms).ok_or(InvalidId)?, digits(seq).ok_or(InvalidId)?))
    }
}

/// A number of decimal digits only: `u64::from_str` alone would take a `+`.
pub fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// How the text of an entry's `data` field is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The field `type` says `json`.
    Json,
    /// The field `type` says `string`: the text itself is the value.
    Text,
    /// A stock emitter's entry, which does not say: JSON if it parses as such, else a string.
    Guess,
}

/// What one stream entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An event.
    Event {
        /// The event's name.
        event: String,
        /// The value as JSON on one line.
        data: String,
        /// The JSON may differ from what was emitted: a stock emitter's string that happens to be JSON text.
        ambiguous: bool,
    },
    /// Larger than `stream.max-event-size`; it was not read.
    TooLarge,
    /// An entry without an `event`: somebody else's, to be passed over.
    Foreign,
}

impl Body {
    /// Reads the fields of an entry, as `XRANGE` gives them.
    pub fn from_fields<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let (mut event, mut data, mut encoding) = (None, None, Encoding::Guess);
        for (name, value) in fields {
            match name {
                b"event" => event = Some(String::from_utf8_lossy(value)),
                b"data" => data = Some(String::from_utf8_lossy(value)),
                b"type" if value == b"json" => encoding = Encoding::Json,
                b"type" if value == b"string" => encoding = Encoding::Text,
                _ => {}
            }
        }
        let Some(event) = event else { return Self::Foreign };
        // A stock emitter writes the name raw, and its reader parses it: what parses as a string is that string, and a
        // name like `42` or `true`, which that reader drops, is itself.
        let event = match encoding {
            Encoding::Guess => serde_json::from_str(&event).unwrap_or_else(|_| event.into_owned()),
            _ => event.into_owned(),
        };
        let Some(data) = data else { return Self::Event { event, data: "null".into(), ambiguous: false } };
        let json = (encoding != Encoding::Text).then(|| json_line(&data)).flatten();
        let ambiguous = encoding == Encoding::Guess && json.is_some();
        let data = json.map_or_else(|| json_string(&data), Cow::into_owned);
        Self::Event { event, data, ambiguous }
    }
}

/// An event that one of Tidegate's own emitters writes.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event's name.
    pub event: String,
    /// The `data` field: the JSON text, or a string's own characters.
    pub text: String,
    /// `json` or `string`: what `text` is.
    pub encoding: &'static str,
    /// The value as JSON on one line.
    pub json: String,
}

impl NewEvent {
    /// An event that carries this JSON value, in the words in which it was written.
    #[must_use]
    pub fn from_json(event: impl Into<String>, data: &RawValue) -> Self {
        let json = one_line(data.get()).into_owned();
        let (text, encoding) = match serde_json::from_str::<String>(&json) {
            Ok(text) => (text, "string"),
            Err(_) => (json.clone(), "json"),
        };
        Self { event: event.into(), text, encoding, json }
    }

    /// An event that carries this value.
    #[must_use]
    pub fn new(event: impl Into<String>, data: &serde_json::Value) -> Self {
        let json = data.to_string();
        let (text, encoding) = match data {
            serde_json::Value::String(text) => (text.clone(), "string"),
            _ => (json.clone(), "json"),
        };
        Self { event: event.into(), text, encoding, json }
    }
}

/// What a message on a channel's pub/sub side tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// An entry was added, and this is what it holds.
    Event(Rung),
    /// Something was published that is no event; the stream may have grown nevertheless.
    Unknown,
    /// A system frame of a stock server (its pings, most often): says nothing about the stream.
    Noise,
}

/// An event as its doorbell carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The entry's id.
    pub id: StreamId,
    /// The event's name.
    pub event: String,
    /// The value as JSON on one line.
    pub data: String,
    /// From Tidegate's own emitter: the stream's last id before this entry, so that it can be delivered without a read.
    pub prev: Option<StreamId>,
}

impl Doorbell {
    /// Reads a published payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Payload<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
            event: String,
            #[serde(rename = "channel")]
            _channel: String,
            #[serde(borrow, default)]
            data: Option<&'a RawValue>,
            #[serde(default)]
            prev: Option<Cow<'a, str>>,
        }
        #[derive(Deserialize)]
        struct System {
            r#type: String,
        }
        let Ok(text) = std::str::from_utf8(payload) else { return Self::Unknown };
        if let Ok(p) = serde_json::from_str::<Payload>(text)
            && let Ok(id) = p.id.parse()
        {
            let data = p.data.map_or("null", RawValue::get);
            let prev = p.prev.and_then(|prev| prev.parse().ok());
            return Self::Event(Rung { id, event: p.event, data: one_line(data).into_owned(), prev });
        }
        match serde_json::from_str::<System>(text) {
            Ok(s) if matches!(&*s.r#type, "ping" | "connected" | "reconnect" | "error" | "disconnected") => Self::Noise,
            _ => Self::Unknown,
        }
    }
}

/// The payload that Tidegate's own emitters publish, less its `id` and `prev`, which the store adds: ends within the object.
#[must_use]
pub fn doorbell_head(channel: &str, event: &NewEvent) -> String {
    format!(r#"{{"data":{},"event":{},"channel":{}"#, event.json, json_string(&event.event), json_string(channel))
}

/// The `data:` part of an event's block, up to and including the blank line, the same for every client of a channel.
#[must_use]
pub fn user_frame(id: StreamId, event: &str, data: &str, channel: &str) -> Bytes {
    let (event, channel) = (json_string(event), json_string(channel));
    let mut frame = String::with_capacity(data.len() + event.len() + channel.len() + 96);
    // Writing to memory does not fail.
    let _ = write!(frame, "data: {{\"id\":\"{id}\",\"data\":{data},\"event\":{event},\"channel\":{channel}}}\n\n");
    // Many of these are kept: none of them with room to grow.
    Bytes::from(frame.into_boxed_str().into_boxed_bytes())
}

/// A string as a JSON string literal, non-ASCII as it is.
#[must_use]
pub fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The JSON value that the text is, on one line; `None` if it is none.
fn json_line(text: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<&RawValue>(text).ok().map(|raw| one_line(raw.get()))
}

/// Valid JSON without line breaks: they can stand only between its tokens.
fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let check = |text: &str, expect: Option<(u64, u64)>| {
            assert_eq!(text.parse().ok(), expect.map(|(ms, seq)| StreamId::new(ms, seq)), "{text:?}");
        };
        check("1-2", Some((1, 2)));
        check("0-0", Some((0, 0)));
        check("18446744073709551615-18446744073709551615", Some((u64::MAX, u64::MAX)));
        for bad in ["", "1", "-", "1-", "-1", "1-2-3", "+1-2", "1-+2", " 1-2", "a-b", "18446744073709551616-0", "1.0-2"]
        {
            check(bad, None);
        }
        assert_eq!(StreamId::new(5, 0).before(), StreamId::new(4, u64::MAX));
        assert_eq!(StreamId::new(5, 7).before(), StreamId::new(5, 6));
        assert_eq!(StreamId::ZERO.before(), StreamId::ZERO);
        assert!(StreamId::new(9, 0) < StreamId::new(10, 0));
    }

    fn decode(fields: &[(&str, &str)]) -> Body {
        Body::from_fields(fields.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())))
    }

    #[test]
    fn data_of_stock_entries() {
        let check = |text: &str, json: &str, ambiguous: bool| {
            let expect = Body::Event { event: "e".into(), data: json.into(), ambiguous };
            assert_eq!(decode(&[("data", text), ("event", "e"), ("channel", "c")]), expect, "{text:?}");
        };
        check("hello", r#""hello""#, false);
        check("", r#""""#, false);
        check("123", "123", true);
        check("true", "true", true);
        check("null", "null", true);
        check(r#"{"a":[1,2]}"#, r#"{"a":[1,2]}"#, true);
        check("{\n \"a\": 1\n}", "{  \"a\": 1 }", true);
        check(" 7 ", "7", true);
        check(r#""quoted""#, r#""quoted""#, true);
        check("{broken", r#""{broken""#, false);
        check("line\nbreak", r#""line\nbreak""#, false);
        check("grüße 🎉", r#""grüße 🎉""#, false);
        check("NaN", r#""NaN""#, false);
        check(r#""\ud800""#, r#""\ud800""#, true);
    }

    #[test]
    fn own_entries_say_their_type() {
        let check = |text: &str, kind: &str, json: &str| {
            let expect = Body::Event { event: "\"e\"".into(), data: json.into(), ambiguous: false };
            assert_eq!(decode(&[("data", text), ("event", "\"e\""), ("type", kind)]), expect, "{text:?}");
        };
        check("123", "string", r#""123""#);
        check("123", "json", "123");
        check("null", "string", r#""null""#);
    }

    #[test]
    fn what_is_emitted_keeps_its_words() {
        let check = |json: &str, text: &str, encoding: &str, line: &str| {
            let raw: Box<RawValue> = serde_json::from_str(json).expect(json);
            let event = NewEvent::from_json("e", &raw);
            assert_eq!((&*event.text, event.encoding, &*event.json), (text, encoding, line));
        };
        check(r#""123""#, "123", "string", r#""123""#);
        check(
            "123456789012345678901234567890",
            "123456789012345678901234567890",
            "json",
            "123456789012345678901234567890",
        );
        check("{\"b\": 1,\n\"a\": 2}", "{\"b\": 1, \"a\": 2}", "json", "{\"b\": 1, \"a\": 2}");
        check("null", "null", "json", "null");
    }

    #[test]
    fn names_that_are_json() {
        let check = |name: &str, expect: &str| {
            let Body::Event { event, .. } = decode(&[("event", name)]) else { panic!("{name:?} is an event") };
            assert_eq!(event, expect);
        };
        check("42", "42");
        check("true", "true");
        check("null", "null");
        check("\"quoted\"", "quoted");
        check("a.b", "a.b");
        assert_eq!(decode(&[("data", "1")]), Body::Foreign);
        assert_eq!(decode(&[]), Body::Foreign);
    }

    #[test]
    fn doorbells() {
        let check =
            |payload: &str, expect: Doorbell| assert_eq!(Doorbell::parse(payload.as_bytes()), expect, "{payload}");
        let rung = |data: &str, prev| {
            Doorbell::Event(Rung { id: StreamId::new(1, 2), event: "e".into(), data: data.into(), prev })
        };
        check(r#"{"data":"123","event":"e","channel":"c","id":"1-2"}"#, rung(r#""123""#, None));
        check(r#"{"event":"e","channel":"other","id":"1-2"}"#, rung("null", None));
        check("{\"data\":{\n\"a\":1},\"event\":\"e\",\"channel\":\"c\",\"id\":\"1-2\"}", rung("{ \"a\":1}", None));
        let own = r#"{"data":1,"event":"e","channel":"c","id":"1-2","prev":"1-1"}"#;
        check(own, rung("1", Some(StreamId::new(1, 1))));
        check(r#"{"type":"ping","timestamp":1}"#, Doorbell::Noise);
        check(r#"{"type":"reconnect","timestamp":1}"#, Doorbell::Noise);
        for unknown in [
            "",
            "x",
            "1",
            "[]",
            "{}",
            r#"{"data":1,"event":"e","id":"1-2"}"#,
            r#"{"event":1,"channel":"c","id":"1-2"}"#,
        ] {
            check(unknown, Doorbell::Unknown);
        }
        check(r#"{"event":"e","channel":"c","id":"12"}"#, Doorbell::Unknown);
    }

    #[test]
    fn frames() {
        let frame = user_frame(StreamId::new(1, 2), "e\"", "\"é\"", "ch\n");
        assert_eq!(frame, "data: {\"id\":\"1-2\",\"data\":\"é\",\"event\":\"e\\\"\",\"channel\":\"ch\\n\"}\n\n");
    }
}
