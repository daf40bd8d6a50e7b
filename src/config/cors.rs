//! Validates `[cors]`, and matches origins as browsers send them.

use crate::config::{ConfigError, invalid, schema};

/// Which web pages may read streams.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Allowed origins; `None` allows all.
    pub origins: Option<Vec<Origin>>,
    /// Whether requests may have cookies.
    pub credentials: bool,
}

/// An origin with a fixed port or any port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme_and_host: String,
    any_port: bool,
}

impl Origin {
    /// Parses an origin of the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        let scheme_and_host = text.strip_suffix(":*").unwrap_or(text);
        let url = url::Url::parse(scheme_and_host).ok()?;
        // Browsers send lower case, no default port and no path.
        (url.origin().ascii_serialization() == scheme_and_host)
            .then(|| Self { scheme_and_host: scheme_and_host.to_owned(), any_port: scheme_and_host != text })
    }

    /// Whether a browser's `Origin` header matches.
    pub fn matches(&self, origin: &str) -> bool {
        match origin.strip_prefix(&*self.scheme_and_host) {
            Some("") => true,
            Some(rest) => self.any_port && rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
            None => false,
        }
    }
}

pub fn check_cors(raw: &schema::Cors) -> Result<Cors, ConfigError> {
    let all = raw.origins.iter().any(|origin| origin == "*");
    if all && raw.credentials {
        return Err(invalid(
            "cors.credentials",
            "browsers refuse credentials with the origin *: name the origins in cors.origins",
        ));
    }
    let parse = |(n, origin): (usize, &String)| {
        let like = "not an origin: write an origin as https://app.example, or http://localhost:* for any port";
        Origin::parse(origin).ok_or_else(|| invalid(&format!("cors.origins[{n}]"), like))
    };
    let origins = if all { None } else { Some(raw.origins.iter().enumerate().map(parse).collect::<Result<_, _>>()?) };
    Ok(Cors { origins, credentials: raw.credentials })
}
