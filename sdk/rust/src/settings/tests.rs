use serde::Deserialize;

use super::*;
use crate::testing::TestGateway;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
struct Config {
    audience: String,
    max_channels: u32,
    mode: Mode,
    #[serde(default)]
    admins: Vec<String>,
    ports: Option<Vec<u16>>,
    strict: Option<bool>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Open,
    Closed,
}

fn with(settings: &[(&str, &str)]) -> Result<Config, Error> {
    let mut gateway = TestGateway::new();
    for (name, value) in settings {
        gateway = gateway.setting(name, value);
    }
    gateway.run(load)
}

#[test]
fn load_fills_a_struct_from_settings() {
    let expect = Config {
        audience: "app".into(),
        max_channels: 7,
        mode: Mode::Closed,
        admins: vec![],
        ports: None,
        strict: None,
    };
    let few = [("audience", "app"), ("max-channels", "7"), ("mode", "closed"), ("other", "1")];
    assert_eq!(with(&few), Ok(expect));
    let all = [
        ("audience", "app"),
        ("max-channels", " 7 "),
        ("mode", "open"),
        ("admins", "alice, bob,"),
        ("ports", "80,443"),
        ("strict", "true"),
    ];
    let all = with(&all).expect("valid");
    assert_eq!((all.admins, all.ports), (vec!["alice".to_owned(), "bob".to_owned()], Some(vec![80, 443])));
    assert_eq!((all.mode, all.strict), (Mode::Open, Some(true)));
}

#[test]
fn error_names_the_setting_but_not_its_value() {
    let text = |settings: &[(&str, &str)]| with(settings).expect_err("an error").to_string();
    assert_eq!(text(&[("audience", "app"), ("mode", "open")]), "the setting max-channels is missing");
    let secret = [("audience", "a"), ("max-channels", "hunter2"), ("mode", "open")];
    assert_eq!(text(&secret), "the setting max-channels is not a valid u32");
    let secret = [("audience", "a"), ("max-channels", "1"), ("mode", "hunter2")];
    assert_eq!(text(&secret), "the setting mode is not a valid option");
}

#[test]
fn single_settings_are_read_and_parsed() {
    let gateway = TestGateway::new().setting("limit", "12").setting("name", "x");
    gateway.run(|| {
        assert_eq!(get("name").as_deref(), Some("x"));
        assert_eq!(require("nothing"), Err(Error::Missing("nothing".into())));
        assert_eq!(parse::<u8>("limit"), Ok(12));
        assert_eq!(parse_or::<u8>("nothing", 3), Ok(3));
        assert_eq!(parse::<u8>("name"), Err(Error::Invalid { name: "name".into(), expected: "u8" }));
    });
}
