use serde::Deserialize;

use super::*;
use crate::testing::World;

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
    let mut world = World::new();
    for (name, value) in settings {
        world = world.setting(name, value);
    }
    world.run(load)
}

#[test]
fn a_struct_is_filled_from_settings() {
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
fn an_error_names_the_setting_and_not_its_value() {
    let text = |settings: &[(&str, &str)]| with(settings).expect_err("an error").to_string();
    assert_eq!(text(&[("audience", "app"), ("mode", "open")]), "the setting max-channels is missing");
    let secret = [("audience", "a"), ("max-channels", "hunter2"), ("mode", "open")];
    assert_eq!(text(&secret), "the setting max-channels is no u32");
    let secret = [("audience", "a"), ("max-channels", "1"), ("mode", "hunter2")];
    assert_eq!(text(&secret), "the setting mode is no word that the policy knows");
}

#[test]
fn one_setting() {
    let world = World::new().setting("limit", "12").setting("name", "x");
    world.run(|| {
        assert_eq!(get("name").as_deref(), Some("x"));
        assert_eq!(require("nothing"), Err(Error::Missing("nothing".into())));
        assert_eq!(parse::<u8>("limit"), Ok(12));
        assert_eq!(parse_or::<u8>("nothing", 3), Ok(3));
        assert_eq!(parse::<u8>("name"), Err(Error::Invalid { name: "name".into(), expected: "u8" }));
    });
}
