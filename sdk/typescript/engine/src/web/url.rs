//! The URL parser and the setters of `URL`.

use url::{Position, Url, quirks};

/// A parsed URL: its serialization, and the positions of its components there. A serialized URL is ASCII, so that bytes are also UTF-16 units.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts {
    pub href: String,
    /// Ends and starts, in the order of `UrlParts` in `js/native.d.ts`.
    pub positions: [u32; 12],
}

/// Parses a URL, relative to a base if there is one. `None` if either is invalid.
pub fn parse(input: &str, base: Option<&str>) -> Option<Parts> {
    let base = match base {
        Some(base) => Some(Url::parse(base).ok()?),
        None => None,
    };
    let url = Url::options().base_url(base.as_ref()).parse(input).ok()?;
    Some(parts(url))
}

/// A URL with another value of a component, or `None` if the component is unknown. A value that the setter ignores changes nothing.
pub fn set(href: &str, component: &str, value: &str) -> Option<Parts> {
    let mut url = Url::parse(href).ok()?;
    // The setters of the standard ignore invalid values.
    let _ignored = match component {
        "protocol" => quirks::set_protocol(&mut url, value),
        "username" => quirks::set_username(&mut url, value),
        "password" => quirks::set_password(&mut url, value),
        "host" => quirks::set_host(&mut url, value),
        "hostname" => quirks::set_hostname(&mut url, value),
        "port" => quirks::set_port(&mut url, value),
        "pathname" => {
            quirks::set_pathname(&mut url, value);
            Ok(())
        }
        "search" => {
            quirks::set_search(&mut url, value);
            Ok(())
        }
        "hash" => {
            quirks::set_hash(&mut url, value);
            Ok(())
        }
        _ => return None,
    };
    Some(parts(url))
}

fn parts(url: Url) -> Parts {
    // Without a password, the crate's positions for it contain the `@`.
    let (password, password_end) = match url.password() {
        Some(_) => (Position::BeforePassword, Position::AfterPassword),
        None => (Position::AfterUsername, Position::AfterUsername),
    };
    let positions = [
        Position::AfterScheme,
        Position::BeforeUsername,
        Position::AfterUsername,
        password,
        password_end,
        Position::BeforeHost,
        Position::AfterHost,
        Position::BeforePort,
        Position::AfterPort,
        Position::BeforePath,
        Position::AfterPath,
        Position::AfterQuery,
    ]
    // A URL of more than 4 GB does not fit into the memory of an instance.
    .map(|position| u32::try_from(url[..position].len()).unwrap_or(u32::MAX));
    Parts { href: url.into(), positions }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &Parts, from: usize, to: usize) -> &str {
        &parts.href[parts.positions[from] as usize..parts.positions[to] as usize]
    }

    #[test]
    fn positions_delimit_components() {
        let parts = parse("HTTPS://user:pass@Example.com:8443/a/../b?x=1#y", None).expect("a valid URL");
        assert_eq!(parts.href, "https://user:pass@example.com:8443/b?x=1#y");
        let components =
            [(1, 2), (3, 4), (5, 6), (7, 8), (5, 8), (9, 10), (10, 11)].map(|(from, to)| cut(&parts, from, to));
        assert_eq!(components, ["user", "pass", "example.com", "8443", "example.com:8443", "/b", "?x=1"]);
    }

    #[test]
    fn user_without_password_is_delimited() {
        let parts = parse("http://user@h/", None).expect("a valid URL");
        assert_eq!([cut(&parts, 1, 2), cut(&parts, 3, 4), cut(&parts, 5, 8)], ["user", "", "h"]);
    }

    #[test]
    fn invalid_base_is_refused() {
        assert_eq!(parse("/a", Some("nothing")), None);
        assert_eq!(parse("/a", None), None);
        assert_eq!(parse("../c", Some("http://h/a/b/")).map(|it| it.href).as_deref(), Some("http://h/a/c"));
    }

    #[test]
    fn setter_ignores_invalid_value() {
        assert_eq!(set("http://h/", "port", "x").map(|it| it.href).as_deref(), Some("http://h/"));
        assert_eq!(set("http://h/", "search", "a=b").map(|it| it.href).as_deref(), Some("http://h/?a=b"));
        assert_eq!(set("http://h/", "planet", "x"), None);
    }
}
