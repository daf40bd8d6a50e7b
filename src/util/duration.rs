//! Times as people write them: `250ms`, `25s`, `2m`. For `#[serde(with = "crate::util::duration")]`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

pub use humantime_serde::serialize;

/// What is none is told with what would be one.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(Time)
}

struct Time;

impl Visitor<'_> for Time {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time, as 250ms, 25s or 2m")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// The same for a time that there need not be.
pub mod option {
    use serde::{Deserialize, Deserializer};

    use super::Duration;

    pub use humantime_serde::option::serialize;

    #[derive(Deserialize)]
    struct Time(#[serde(with = "super")] Duration);

    /// What is none is told with what would be one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Time>::deserialize(from)?.map(|Time(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Has {
        #[serde(with = "super")]
        must: Duration,
        #[serde(default, with = "super::option")]
        may: Option<Duration>,
    }

    #[test]
    fn what_is_no_time_is_told_what_would_be_one() {
        let read = |text: &str| serde_json::from_str::<Has>(text).map_err(|error| error.to_string());
        let has = read(r#"{"must": "2m", "may": "250ms"}"#).unwrap();
        assert_eq!((has.must, has.may), (Duration::from_secs(120), Some(Duration::from_millis(250))));
        assert_eq!(read(r#"{"must": "1s"}"#).unwrap().may, None);
        assert_eq!(read(r#"{"must": "1s", "may": null}"#).unwrap().may, None);
        for wrong in [r#"{"must": "1x"}"#, r#"{"must": 5}"#, r#"{"must": "1s", "may": "15"}"#] {
            let error = read(wrong).err().unwrap();
            assert!(error.contains("expected a time, as 250ms, 25s or 2m"), "{error}");
        }
    }
}
