//! Events: stream ids, the JSON rules of stream entries and notifications, and the frame that clients get.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::num::NonZeroU32;
use std::str::FromStr;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::util::stringify::{JsonType, json_type};

/// The id of a stream entry, `<ms>-<seq>`, in the order of Redis. As a *position* it means: everything up to and including
/// this id has been delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, by the store's clock.
    pub ms: u64,
    /// Tells entries of the same millisecond apart.
    pub seq: u64,
}

impl StreamId {
    /// The position before every entry.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The greatest id below this one; `0-0` for `0-0`.
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

/// Parses decimal digits only: `u64::from_str` would accept a leading `+`.
pub fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// A hash of the content of an entry, as clients return it with a position. It tells the entry that a client received from another one with the
/// same id. It is no protection: a client that forges it only gets other events of a channel that it may read.
pub type ContentHash = NonZeroU32;

/// The part of [`Body::content_hash`] that clients get; `None` if the content is not known.
pub const fn short_hash(content: u64) -> Option<ContentHash> {
    ContentHash::new(content as u32)
}

/// The content of one stream entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Event {
        event: String,
        /// The value as JSON on one line.
        data: String,
    },
    /// An entry of a stock emitter that does not tell whether it emitted a string or JSON.
    Untyped(UntypedEvent),
    /// The entry is larger than `stream.max-event-size` and was not read.
    TooLarge,
    /// The entry has no field `event`: another application wrote it, and it is skipped.
    Foreign,
}

impl Body {
    /// Decodes the fields of an entry, as `XRANGE` returns them. The field `type` says whether `data` is JSON (`json`) or the text
    /// of a string (`string`). An entry of a stock emitter has no `type`.
    pub fn from_fields<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let (mut event, mut data, mut encoding) = (None, None, &b""[..]);
        for (name, value) in fields {
            match name {
                b"event" => event = Some(String::from_utf8_lossy(value).into_owned()),
                b"data" => data = Some(String::from_utf8_lossy(value)),
                b"type" => encoding = value,
                _ => {}
            }
        }
        let Some(event) = event else { return Self::Foreign };
        let data = data.map(Cow::into_owned);
        let json = match encoding {
            b"json" => data.as_deref().and_then(json_line),
            b"string" => None,
            _ => {
                let may_be_json = data.as_deref().is_some_and(|text| json_type(text).is_some());
                if may_be_json || is_quoted(&event) {
                    return Self::Untyped(UntypedEvent { event, data, may_be_json });
                }
                None
            }
        };
        Self::Event { data: json.unwrap_or_else(|| text_data(data.as_deref())), event }
    }

    /// A hash of the content, by which an entry is recognized if an emitter uses its id again. 0 if the content is not known. Clients return a
    /// part of it to any node, after an upgrade too, so it depends on the stored fields only and must not change: hence XXH3, which is specified.
    pub fn content_hash(&self) -> u64 {
        match self {
            Self::TooLarge => 0,
            Self::Foreign => 1,
            Self::Event { event, data } => content_hash(2, event, data),
            Self::Untyped(untyped) => untyped.content_hash(),
        }
    }

    /// The event and the value as JSON on one line, of an event whose notification is not known.
    pub fn into_event(self) -> Option<(String, String)> {
        match self {
            Self::Event { event, data } => Some((event, data)),
            Self::Untyped(untyped) => Some(untyped.resolve(None)),
            Self::TooLarge | Self::Foreign => None,
        }
    }
}

/// The fields of a stock emitter's entry, as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntypedEvent {
    pub event: String,
    pub data: Option<String>,
    /// `JSON.stringify` may have written `data`. Known since the entry was decoded, because a large text takes long to parse.
    pub may_be_json: bool,
}

impl UntypedEvent {
    /// The event and the value as JSON on one line. The stream has the content. The notification only tells whether that was a string,
    /// because anyone who may publish can write one. Without a notification, a text that `JSON.stringify` may have written is JSON.
    pub fn resolve(&self, notification: Option<&EventNotification>) -> (String, String) {
        let is_name_as_written = notification.is_some_and(|notification| notification.event == self.event);
        // Compared as values: two JSON strings may have other escapes.
        let is_text = notification.is_some_and(|notification| {
            self.data.is_some() && serde_json::from_str(&notification.data).ok() == self.data
        });
        let name = if is_name_as_written { None } else { self.json_name() };
        let data = if is_text { None } else { self.json_data() };
        (name.unwrap_or_else(|| self.event.clone()), data.unwrap_or_else(|| text_data(self.data.as_deref())))
    }

    /// [`Body::content_hash`]: the notification is no part of it.
    pub fn content_hash(&self) -> u64 {
        match &self.data {
            Some(data) => content_hash(3, &self.event, data),
            None => content_hash(4, &self.event, ""),
        }
    }

    /// Bytes of both fields.
    pub fn size(&self) -> usize {
        self.event.len() + self.data.as_ref().map_or(0, String::len)
    }

    /// The name, if it is the JSON text of a string: a stock emitter writes it as it is, and a stock reader parses it as JSON. The
    /// stock reader drops names like `42` or `true`; here they stay as written.
    fn json_name(&self) -> Option<String> {
        if is_quoted(&self.event) { serde_json::from_str(&self.event).ok() } else { None }
    }

    /// The value, if the text may be JSON.
    fn json_data(&self) -> Option<String> {
        let text = self.data.as_ref().filter(|_| self.may_be_json)?;
        Some(one_line(text.trim_matches([' ', '\t', '\n', '\r'])).into_owned())
    }
}

/// The hash of two texts. The hash of the first one is the seed of the second one's, so that their border counts.
fn content_hash(kind: u64, event: &str, data: &str) -> u64 {
    xxh3_64_with_seed(data.as_bytes(), xxh3_64_with_seed(event.as_bytes(), kind))
}

/// The value, if the text is the characters of a string; `null` without a text.
fn text_data(text: Option<&str>) -> String {
    text.map_or_else(|| "null".into(), json_string)
}

/// An event that Tidegate's own emitter writes.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub event: String,
    /// The `data` field: JSON text, or the characters of a string.
    pub text: String,
    /// The type of `text`: `json` or `string`.
    pub encoding: &'static str,
    /// The value as JSON on one line.
    pub json: String,
}

impl NewEvent {
    /// Keeps the JSON text as the emitter wrote it, except for line breaks: numbers beyond 64 bits stay exact.
    pub fn from_json(event: impl Into<String>, data: &RawValue) -> Self {
        Self::from_line(event.into(), one_line(data.get()).into_owned())
    }

    pub fn new(event: impl Into<String>, data: &serde_json::Value) -> Self {
        Self::from_line(event.into(), data.to_string())
    }

    fn from_line(event: String, json: String) -> Self {
        let (text, encoding) = match serde_json::from_str::<String>(&json) {
            Ok(text) => (text, "string"),
            Err(_) => (json.clone(), "json"),
        };
        Self { event, text, encoding, json }
    }
}

/// A message on a channel's pub/sub side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// An entry was added, according to the message, and has this content.
    Event(EventNotification),
    /// The message is not an event. The stream may have grown all the same, so the channel is read.
    Unknown,
    /// A system frame of a stock server, mostly a ping. It says nothing about the stream.
    System,
}

/// The content of an event according to its notification. Anyone who may publish can write one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNotification {
    pub id: StreamId,
    pub event: String,
    /// The value as JSON on one line.
    pub data: String,
}

impl Notification {
    /// Parses a published payload.
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
        }
        #[derive(Deserialize)]
        struct System {
            r#type: String,
        }
        let Ok(text) = std::str::from_utf8(payload) else { return Self::Unknown };
        if let Ok(payload) = serde_json::from_str::<Payload>(text)
            && let Ok(id) = payload.id.parse()
        {
            let data = payload.data.map_or("null", RawValue::get);
            return Self::Event(EventNotification { id, event: payload.event, data: one_line(data).into_owned() });
        }
        match serde_json::from_str::<System>(text) {
            Ok(system) if matches!(&*system.r#type, "ping" | "connected" | "reconnect" | "error" | "disconnected") => {
                Self::System
            }
            _ => Self::Unknown,
        }
    }
}

/// The start of the notification that Tidegate's own emitter publishes. The store adds `id` and closes the object.
pub fn notification_head(channel: &str, event: &NewEvent) -> String {
    format!(r#"{{"data":{},"event":{},"channel":{}"#, event.json, json_string(&event.event), json_string(channel))
}

/// The `data:` line of an event and the blank line after it. It is the same for all clients of a channel.
pub fn user_frame(id: StreamId, event: &str, data: &str, channel: &str) -> Bytes {
    let (event, channel) = (json_string(event), json_string(channel));
    let mut frame = String::with_capacity(data.len() + event.len() + channel.len() + 96);
    // Writing to memory does not fail.
    let _ = write!(frame, "data: {{\"id\":\"{id}\",\"data\":{data},\"event\":{event},\"channel\":{channel}}}\n\n");
    // Event buffers keep many frames, so spare capacity is returned.
    Bytes::from(frame.into_boxed_str().into_boxed_bytes())
}

/// A JSON string literal; non-ASCII characters are not escaped.
pub fn json_string(text: &str) -> String {
    // Texts can always be written.
    serde_json::to_string(text).unwrap_or_default()
}

/// Whether the text is the JSON of a string, as `JSON.stringify` writes it.
pub fn is_quoted(text: &str) -> bool {
    json_type(text) == Some(JsonType::String)
}

/// The text on one line, if it is JSON in any form.
fn json_line(text: &str) -> Option<String> {
    let json = serde_json::from_str::<&RawValue>(text).ok()?;
    Some(one_line(json.get()).into_owned())
}

/// Replaces line breaks in valid JSON, where they occur only between tokens.
fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_two_numbers_ordered_as_in_redis() {
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
    fn data_of_untyped_entries_is_json_if_json_stringify_may_have_written_it() {
        let check = |text: &str, json: &str, ambiguous: bool| {
            let body = decode(&[("data", text), ("event", "e"), ("channel", "c")]);
            assert_eq!(matches!(body, Body::Untyped(_)), ambiguous, "{text:?}");
            assert_eq!(body.into_event(), Some(("e".into(), json.into())), "{text:?}");
        };
        check("hello", r#""hello""#, false);
        check("", r#""""#, false);
        check("123", "123", true);
        check("true", "true", true);
        check("null", "null", true);
        check(r#"{"a":[1,2]}"#, r#"{"a":[1,2]}"#, true);
        check("{\n \"a\": 1\n}\n", "{  \"a\": 1 }", true);
        check(" 7 ", r#"" 7 ""#, false);
        check("1.10", r#""1.10""#, false);
        check("106242075399214372653", r#""106242075399214372653""#, false);
        check(r#"{"a": 106242075399214372653}"#, r#"{"a": 106242075399214372653}"#, true);
        check(r#""\u0041""#, r#""\"\\u0041\"""#, false);
        check(r#""quoted""#, r#""quoted""#, true);
        check("{broken", r#""{broken""#, false);
        check("line\nbreak", r#""line\nbreak""#, false);
        check("grüße 🎉", r#""grüße 🎉""#, false);
        check("NaN", r#""NaN""#, false);
        check(r#""\ud800""#, r#""\ud800""#, true);
    }

    #[test]
    fn data_of_typed_entries_follows_the_type() {
        let check = |text: &str, kind: &str, json: &str| {
            let expect = Body::Event { event: "\"e\"".into(), data: json.into() };
            assert_eq!(decode(&[("data", text), ("event", "\"e\""), ("type", kind)]), expect, "{text:?}");
        };
        check("123", "string", r#""123""#);
        check("123", "json", "123");
        check("1.10", "json", "1.10");
        check("{", "json", r#""{""#);
        check("null", "string", r#""null""#);
    }

    /// Clients return hashes to nodes of other versions.
    #[test]
    fn hash_of_a_content_never_changes() {
        let hash = |fields: &[(&str, &str)]| format!("{:016x}", decode(fields).content_hash());
        let hashes = [
            hash(&[("event", "e"), ("data", "text")]),
            hash(&[("event", "et"), ("data", "ext")]),
            hash(&[("event", "e"), ("data", "{\"a\":1}")]),
            hash(&[("event", "e"), ("data", "{\"a\":1}"), ("type", "json")]),
            hash(&[("event", "\"e\"")]),
            hash(&[("data", "text")]),
        ];
        let expect = [
            "0a2ec0483ad5fc18",
            "6f3a0ec0c9b9d798",
            "fb9d1f84a3fa48e8",
            "5b5def64cf58adcd",
            "4db22fbcd37cabe1",
            "0000000000000001",
        ];
        assert_eq!(hashes, expect);
        // Other fields do not count.
        assert_eq!(hash(&[("event", "e"), ("data", "text"), ("type", "string"), ("token", "t")]), hashes[0]);
        assert_eq!(short_hash(Body::TooLarge.content_hash()), None);
        assert_eq!(short_hash(0x0123_4567_89ab_cdef).map(ContentHash::get), Some(0x89ab_cdef));
    }

    #[test]
    fn notification_decides_only_whether_an_untyped_value_is_a_string() {
        let check = |written: (&str, &str), notified: (&str, &str), expect: (&str, &str)| {
            let Body::Untyped(untyped) = decode(&[("data", written.1), ("event", written.0)]) else {
                panic!("{written:?} has no type")
            };
            let notification =
                EventNotification { id: StreamId::new(1, 1), event: notified.0.into(), data: notified.1.into() };
            let expect = (expect.0.to_owned(), expect.1.to_owned());
            assert_eq!(untyped.resolve(Some(&notification)), expect, "{written:?}, {notified:?}");
        };
        check(("e", "123"), ("e", r#""123""#), ("e", r#""123""#));
        check(("e", "123"), ("e", "123"), ("e", "123"));
        check(("e", r#"{"a":"é"}"#), ("e", r#""{\"a\":\"\u00e9\"}""#), ("e", r#""{\"a\":\"é\"}""#));
        check((r#""e""#, "1"), (r#""e""#, "1"), (r#""e""#, "1"));
        check((r#""e""#, "text"), (r#""e""#, r#""text""#), (r#""e""#, r#""text""#));
        check((r#""e""#, "1"), ("e", "1"), ("e", "1"));
        // The content of a forged notification is not delivered.
        check(("e", "123"), ("forged", r#""forged""#), ("e", "123"));
        check(("e", "123"), ("forged", r#""123""#), ("e", r#""123""#));
        check(("e", r#"{"a":1}"#), ("e", r#"{"a":2}"#), ("e", r#"{"a":1}"#));
        check(("e", "null"), ("e", "7"), ("e", "null"));
    }

    #[test]
    fn emitted_json_keeps_its_text() {
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
    fn event_names_that_parse_as_json_are_kept() {
        let check = |name: &str, expect: &str| {
            assert_eq!(decode(&[("event", name)]).into_event(), Some((expect.into(), "null".into())));
        };
        check("42", "42");
        check("true", "true");
        check("null", "null");
        check("\"quoted\"", "quoted");
        check("\"\\u0041\"", "\"\\u0041\"");
        check("a.b", "a.b");
        assert_eq!(decode(&[("data", "1")]), Body::Foreign);
        assert_eq!(decode(&[]), Body::Foreign);
    }

    #[test]
    fn notifications_are_events_system_frames_or_unknown() {
        let check = |payload: &str, expect: Notification| {
            assert_eq!(Notification::parse(payload.as_bytes()), expect, "{payload}")
        };
        let event = |data: &str| {
            Notification::Event(EventNotification { id: StreamId::new(1, 2), event: "e".into(), data: data.into() })
        };
        check(r#"{"data":"123","event":"e","channel":"c","id":"1-2"}"#, event(r#""123""#));
        check(r#"{"event":"e","channel":"other","id":"1-2"}"#, event("null"));
        check("{\"data\":{\n\"a\":1},\"event\":\"e\",\"channel\":\"c\",\"id\":\"1-2\"}", event("{ \"a\":1}"));
        check(r#"{"data":1,"event":"e","channel":"c","id":"1-2","prev":"1-1"}"#, event("1"));
        check(r#"{"type":"ping","timestamp":1}"#, Notification::System);
        check(r#"{"type":"reconnect","timestamp":1}"#, Notification::System);
        for unknown in [
            "",
            "x",
            "1",
            "[]",
            "{}",
            r#"{"data":1,"event":"e","id":"1-2"}"#,
            r#"{"event":1,"channel":"c","id":"1-2"}"#,
        ] {
            check(unknown, Notification::Unknown);
        }
        check(r#"{"event":"e","channel":"c","id":"12"}"#, Notification::Unknown);
    }

    #[test]
    fn event_frame_escapes_names_and_keeps_data() {
        let frame = user_frame(StreamId::new(1, 2), "e\"", "\"é\"", "ch\n");
        assert_eq!(frame, "data: {\"id\":\"1-2\",\"data\":\"é\",\"event\":\"e\\\"\",\"channel\":\"ch\\n\"}\n\n");
    }
}
