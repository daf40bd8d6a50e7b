//! Query parameters of an endpoint: unknown and repeated ones are errors.

use std::borrow::Cow;

use http::Uri;

use crate::event::digits;
use crate::server::api_error::ApiError;
use crate::util::ratio::Ratio;

/// The parameters of a query.
pub struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Parses a query that may have the `known` parameters.
    pub fn read(uri: &'a Uri, known: &[&str]) -> Result<Self, ApiError> {
        let mut all: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(invalid(format!("unknown parameter {name:?}; known are {}", known.join(", "))));
            }
            if all.iter().any(|(before, _)| *before == name) {
                return Err(invalid(format!("the parameter {name} is repeated")));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// A parameter's value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// A parameter's value as a share, from 0 to 1.
    pub fn share(&self, name: &str) -> Result<Option<f64>, ApiError> {
        self.parse(name, "0 to 1", |text| Some(Ratio::try_from(text.parse::<f64>().ok()?).ok()?.into()))
    }

    /// A parameter's value as a number from `min` to `max`.
    pub fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, ApiError> {
        self.parse(name, &format!("{min} to {max}"), |text| digits(text).filter(|number| (min..=max).contains(number)))
    }

    fn parse<T>(&self, name: &str, range: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let error = || invalid(format!("{name} must be a number from {range}, not {text:?}"));
        parse(text).map(Some).ok_or_else(error)
    }
}

const fn invalid(message: String) -> ApiError {
    ApiError::InvalidParameter(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_repeated_and_invalid_parameters_are_errors() {
        let read = |query: &str| {
            let uri: Uri = format!("/v1/streams{query}").parse().expect("a URI");
            let params = Params::read(&uri, &["channel", "limit"]).map_err(|r| r.status().as_u16())?;
            let limit = params.number("limit", 1, 1000).map_err(|r| r.status().as_u16())?;
            Ok((params.text("channel").map(str::to_owned), limit))
        };
        assert_eq!(read(""), Ok((None, None)));
        assert_eq!(read("?"), Ok((None, None)));
        assert_eq!(read("?channel=a%20b&limit=7"), Ok((Some("a b".into()), Some(7))));
        assert_eq!(read("?channel="), Ok((Some(String::new()), None)));
        for query in [
            "?limit=0",
            "?limit=1001",
            "?limit=",
            "?limit=+1",
            "?limit=1.0",
            "?limit=x",
            "?channels=a",
            "?channel=a&channel=b",
        ] {
            assert_eq!(read(query), Err(400), "{query}");
        }
    }
    #[test]
    fn share_is_a_number_from_0_to_1() {
        for (query, expect) in [
            ("", Some(0.1)),
            ("?", Some(0.1)),
            ("?share=0.5", Some(0.5)),
            ("?share=0%2E5", Some(0.5)),
            ("?share=1", Some(1.0)),
            ("?share=0", Some(0.0)),
            ("?share=2", None),
            ("?share=NaN", None),
            ("?share=-0.5", None),
            ("?share=", None),
            ("?share=1&share=1", None),
            ("?part=1", None),
        ] {
            let uri: Uri = format!("/v1/policy/shadow{query}").parse().expect("a URI");
            let share = Params::read(&uri, &["share"]).and_then(|params| params.share("share"));
            assert_eq!(share.ok().map(|share| share.unwrap_or(0.1)), expect, "{query:?}");
        }
    }
}
