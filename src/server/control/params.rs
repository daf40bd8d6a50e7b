//! The parameters of an endpoint: none but those that it knows, and each once.

use std::borrow::Cow;

use http::{StatusCode, Uri};

use crate::event::digits;
use crate::server::respond::{Response, error};

/// What a query says.
pub struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads a query that may have these parameters.
    pub fn read(uri: &'a Uri, known: &[&str]) -> Result<Self, Box<Response>> {
        let mut all: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(refuse(format!("{name:?} is no parameter here; there are {}", known.join(", "))));
            }
            if all.iter().any(|(before, _)| *before == name) {
                return Err(refuse(format!("{name} is there twice")));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// A parameter's value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// One that is a number between these.
    pub fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Box<Response>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = digits(text).filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| refuse(format!("{name} is a number from {least} to {most}, and not {text:?}")))
    }
}

fn refuse(message: String) -> Box<Response> {
    Box::new(error(StatusCode::BAD_REQUEST, "invalid_parameter", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
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
}
