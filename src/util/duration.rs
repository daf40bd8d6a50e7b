//! Durations as people write them, such as `250ms`, `25s` or `2m`.
//!
//! `humantime_serde` has the same functions, but its errors do not say what would be right.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

const EXPECTED: &str = "expected a duration such as 250ms, 25s or 2m";

/// A duration of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HumanDuration(
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "deserialize")] pub Duration,
);

impl HumanDuration {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(DurationVisitor)
}

/// Parses an argument of the command line. The error does not contain it.
pub fn parse_argument(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| EXPECTED)
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED.trim_start_matches("expected "))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// For `Option<Duration>`, with `#[serde(with = "crate::util::duration::option")]`.
pub mod option {
    use serde::{Deserialize, Deserializer};

    use super::{Duration, HumanDuration};

    pub use humantime_serde::option::serialize;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<HumanDuration>::deserialize(from)?.map(|duration| duration.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Durations {
        required: HumanDuration,
        #[serde(default, with = "super::option")]
        optional: Option<Duration>,
    }

    #[test]
    fn error_of_an_invalid_duration_gives_examples() {
        let read = |text: &str| serde_json::from_str::<Durations>(text).map_err(|error| error.to_string());
        let durations = read(r#"{"required": "2m", "optional": "250ms"}"#).unwrap();
        let expected = (Duration::from_secs(120), Some(Duration::from_millis(250)));
        assert_eq!((durations.required.0, durations.optional), expected);
        assert_eq!(read(r#"{"required": "1s"}"#).unwrap().optional, None);
        assert_eq!(read(r#"{"required": "1s", "optional": null}"#).unwrap().optional, None);
        for wrong in [r#"{"required": "1x"}"#, r#"{"required": 5}"#, r#"{"required": "1s", "optional": "15"}"#] {
            let error = read(wrong).err().unwrap();
            assert!(error.contains("expected a duration such as 250ms, 25s or 2m"), "{error}");
        }
    }
}
