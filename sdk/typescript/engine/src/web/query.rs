//! `application/x-www-form-urlencoded`.

use url::form_urlencoded;

/// Names and values of a query.
pub fn parse(query: &str) -> (Vec<String>, Vec<String>) {
    parse_bytes(query.as_bytes())
}

/// Names and values of a body.
pub fn parse_bytes(query: &[u8]) -> (Vec<String>, Vec<String>) {
    form_urlencoded::parse(query).map(|(name, value)| (name.into_owned(), value.into_owned())).unzip()
}

/// The query of names and values.
pub fn serialize(names: &[String], values: &[String]) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    out.extend_pairs(names.iter().zip(values));
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_survives_a_round_trip() {
        let (names, values) = parse("a=1&b=%C3%BC+x&&c&=d&a=%zz%ff");
        assert_eq!(names, ["a", "b", "c", "", "a"]);
        assert_eq!(values, ["1", "ü x", "", "d", "%zz\u{fffd}"]);
        assert_eq!(serialize(&names, &values), "a=1&b=%C3%BC+x&c=&=d&a=%25zz%EF%BF%BD");
    }
}
