//! When an X.509 certificate is valid. Only as much of DER is read as leads to the two times.

use std::time::{Duration, UNIX_EPOCH};

/// The times, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub from: u64,
    pub until: u64,
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The optional first field of a certificate, its version.
const VERSION: u8 = 0xa0;

impl Validity {
    /// `None` if the certificate is not valid DER, or a time is before 1970.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(certificate)?;
        let (_, mut fields, _) = element(certificate)?;
        if fields.first() == Some(&VERSION) {
            fields = element(fields)?.2;
        }
        // The serial number, the algorithm of the signature, and the issuer come first.
        for _ in 0..3 {
            fields = element(fields)?.2;
        }
        let (SEQUENCE, times, _) = element(fields)? else { return None };
        let (kind, from, rest) = element(times)?;
        let from = parse_time(kind, from)?;
        let (kind, until, _) = element(rest)?;
        Some(Self { from, until: parse_time(kind, until)? })
    }
}

/// The tag and the content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let digits = rest.get(..length & 0x7f).filter(|digits| (1..=4).contains(&digits.len()))?;
        rest = rest.get(digits.len()..)?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    }
    Some((*tag, rest.get(..length)?, rest.get(length..)?))
}

/// Parses `YYMMDDHHMMSSZ` (until 2049) or `YYYYMMDDHHMMSSZ`.
fn parse_time(kind: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match kind {
        UTC_TIME if text.len() == 12 => format!("{}{text}", if text < "5" { "20" } else { "19" }),
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| &text[from..to];
    let rfc3339 =
        format!("{}-{}-{}T{}:{}:{}Z", part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 12), part(12, 14));
    let time = humantime::parse_rfc3339(&rfc3339).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Formats a time for people.
pub(super) fn time(seconds: u64) -> String {
    /// The last second of the year 9999, the greatest that RFC 3339 can express.
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed() {
        let check = |kind: u8, text: &str, expect: Option<&str>| {
            assert_eq!(parse_time(kind, text.as_bytes()).map(time).as_deref(), expect, "{text}");
        };
        check(UTC_TIME, "261130054300Z", Some("2026-11-30T05:43:00Z"));
        check(UTC_TIME, "700101000000Z", Some("1970-01-01T00:00:00Z"));
        check(UTC_TIME, "491231235959Z", Some("2049-12-31T23:59:59Z"));
        check(UTC_TIME, "690101000000Z", None);
        check(GENERALIZED_TIME, "99991231235959Z", Some("9999-12-31T23:59:59Z"));
        check(GENERALIZED_TIME, "20261330000000Z", None);
        check(GENERALIZED_TIME, "261130054300Z", None);
        check(UTC_TIME, "26113005430Z", None);
        check(UTC_TIME, "2611300543+0Z", None);
        check(UTC_TIME, "", None);
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_validity() {
        for bytes in
            [&b""[..], b"\x30", b"\x30\x84", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\xa0", b"text"]
        {
            assert_eq!(Validity::of(bytes), None, "{bytes:?}");
        }
    }
}
