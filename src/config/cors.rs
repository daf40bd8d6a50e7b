//! Which web pages may read: `[cors]`, checked, and origins as browsers write them.

use crate::config::{ConfigError, raw, wrong};

/// Which web pages may read.
#[derive(Clone, Debug)]
pub struct Cors {
    /// The origins; none for all.
    pub origins: Option<Vec<Origin>>,
    /// Whether cookies may come along.
    pub credentials: bool,
}

/// An origin, or one with any port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme_and_host: String,
    any_port: bool,
}

impl Origin {
    /// An origin as it is written in a configuration.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme_and_host, any_port) = match text.strip_suffix(":*") {
            Some(host) => (host, true),
            None => (text, false),
        };
        let url = url::Url::parse(scheme_and_host).ok()?;
        // As a browser writes it: lower case, no default port, no path.
        (url.origin().ascii_serialization() == scheme_and_host)
            .then(|| Self { scheme_and_host: scheme_and_host.to_owned(), any_port })
    }

    /// Whether a browser's `Origin` is this.
    #[must_use]
    pub fn matches(&self, origin: &str) -> bool {
        match origin.strip_prefix(&*self.scheme_and_host) {
            Some("") => true,
            Some(rest) => self.any_port && rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
            None => false,
        }
    }
}

/// Checks `[cors]`.
pub fn cors(raw: &raw::Cors) -> Result<Cors, ConfigError> {
    let all = raw.origins.iter().any(|origin| origin == "*");
    if all && raw.credentials {
        return Err(wrong(
            "cors.credentials",
            "browsers take no credentials with the origin *; name the origins in cors.origins",
        ));
    }
    let parse = |origin: &String| {
        let like = "an origin is written as https://app.example, or http://localhost:* for any port";
        Origin::parse(origin).ok_or_else(|| wrong("cors.origins", format!("{origin:?}: {like}")))
    };
    let origins = if all { None } else { Some(raw.origins.iter().map(parse).collect::<Result<_, _>>()?) };
    Ok(Cors { origins, credentials: raw.credentials })
}
