//! No error shows a value: for each option, all kinds of mistakes with a secret as its value, in the file and in the environment.

use super::*;

const SECRET: &str = "S3cretMarker";
/// Options whose values are paths, which errors show unless they cannot be meant as paths.
const PATHS: [&str; 10] = [
    "store-ca",
    "store-cert",
    "store-key",
    "cache-dir",
    "policy.file",
    "policy.cases",
    "policy.trusted-keys",
    "policy.shadow.file",
    "decisions.log",
    "decisions.recording.file",
];
/// Values with a mistake, or of a type that most options do not have. `@` stands for the secret.
const VALUES: &[&str] = &[
    // Not TOML.
    r#""@"#,
    r"'@",
    r"@",
    r"@==",
    "\n@==",
    r"99@",
    r"true@",
    r"1979-05-27@",
    r"99999999999999999999 # @",
    r#""""@"#,
    "'''@\n@",
    "\n\"@\"",
    r#""\q@""#,
    r#""@\u12""#,
    r#""@\"#,
    "\"@\u{1}\"",
    r#""@" other = "@""#,
    r#""@" "@""#,
    r#""@"@""#,
    r#"["@""#,
    r#"["@"#,
    "[\n\"@\",\n\"@",
    "[\n\"@=\" \"@\"]",
    r#"{ a = "@""#,
    r#"{ a = "@ }"#,
    r#"{ a = "@" "@" }"#,
    r"redis://u:%@h",
    r#""redis://u:%@h"#,
    // TOML of many types.
    r#""@""#,
    r"'@'",
    "\"\"\"@\n@\"\"\"",
    r#"["@"]"#,
    r#"[["@"]]"#,
    r#"["@", 5]"#,
    r#"{ a = "@" }"#,
    r#"{ a = ["@"] }"#,
    r#"{ a = ["@", 5] }"#,
    r#"{ a = { b = "@" } }"#,
    r#"{ a = { b = { c = "@" } }, d = 5 }"#,
    r#"[{ a = "@" }]"#,
    r#"[{ url = "@", b = 5 }]"#,
    r#"{ a = { secret = "@", b = 5 } }"#,
    r#"{ a = { secrt = "@" } }"#,
    r#"{ a = { secret = ["@"] } }"#,
    r#"{ a = { secret = { b = "@" } } }"#,
    r#"{ a = { secret = "@!", secret-encoding = "base64" } }"#,
    r#"{ a = { secret = "@", secret-encoding = "@" } }"#,
    r#"{ a = { secret = "@", algorithms = ["@"] } }"#,
    r#"{ a = { secret = "@", audience = 5 } }"#,
    r#"{ a = { secret = "@", leeway = "@" } }"#,
    r#"{ a = { jwks-url = "@" } }"#,
    r#"{ a = { jwks-url = "https://u:%@h/" } }"#,
    r#"{ a = { jwks-url = "http://h/?@" } }"#,
    r#"{ a = { pem = "-----BEGIN\n@" } }"#,
    r#"{ a = { jwks = '{"keys":["@"]}' } }"#,
    // Strings that options of strings refuse.
    r#""@ ä""#,
    r#""$@""#,
    r#""@$""#,
    r#""${@""#,
    r#""${@ x}""#,
    r#""@\n""#,
    r#"["@\n"]"#,
    r#"["[@"]"#,
    r#"["{@"]"#,
    r#""redis://u:%@h:99999""#,
    r#""redis://u:%@h/x""#,
    r#""redis://u:1/%@h""#,
    r#""redis://:%@""#,
    r#""redis://h/0?protocol=@""#,
    r#""rediss://u:%@h/#@""#,
    r#""redis+unix:///s?pass=@&db=x""#,
    r#""redis+unix:///s?pass=@&protocol=@""#,
    r#""http://u:%@h""#,
    r#"["https://u:%@h"]"#,
    r#"["https://h/?@"]"#,
    r#"[{ url = "https://u:%@h" }]"#,
];

/// Configurations with a mistake at or next to this key, with the secret as (a part of) a value.
fn mistakes(table: &str, key: &str) -> Vec<String> {
    let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let values = VALUES
        .iter()
        .map(|value| value.replace("%@", &format!("{SECRET}%40")).replace('@', SECRET).replace("%40", "@"));
    let mut texts: Vec<String> = values.map(|value| format!("{header}{key} = {value}")).collect();
    let within = |text: String| if table.is_empty() { text } else { format!("{table} = {{ {text} }}") };
    let outer = if table.is_empty() { key } else { table };
    texts.extend([
        format!("{header}{key} = \"{SECRET}\"\n{key} = \"{SECRET}\""),
        format!("{header}{key}x = \"{SECRET}\""),
        format!("{header}{key} \"{SECRET}\""),
        format!("{header}{key}: \"{SECRET}\""),
        format!("{header}\"{key} = \"{SECRET}\""),
        format!("{header}{key}.x = \"{SECRET}\""),
        format!("{header}{key}x = 5\n{key} = \"{SECRET}\""),
        format!("[{table}x]\n{key} = \"{SECRET}\""),
        format!("[{table}\n{key} = \"{SECRET}\""),
        format!("[[{outer}]]\n{key} = \"{SECRET}\""),
        within(format!("{key}x = \"1\", {key} = \"{SECRET}\"")),
        within(format!("{key}x = \"1\", {key} = \"{SECRET}")),
        format!("{outer} = \"{SECRET}\""),
        format!("{outer} = [\"{SECRET}\"]"),
    ]);
    texts
}

/// The table and the key of each option, and of some in tables of any name.
fn keys() -> Vec<(String, String)> {
    let split = |path: &str| {
        let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
        (table.to_owned(), key.to_owned())
    };
    let nested = [
        "policy.settings.api-key",
        "policy.tokens.app.secret",
        "policy.tokens.app.issuer",
        "policy.tokens.app.audience",
        "policy.tokens.app.jwks-url",
        "policy.tokens.app.algorithms",
        "memory-store.seed.session",
    ];
    OPTIONS.iter().map(|option| &*option.path).chain(nested).map(split).collect()
}

#[test]
fn mistakes_in_the_file_are_reported_without_the_value() {
    let (mut count, mut located) = (0, 0);
    for (table, key) in keys() {
        let path = if table.is_empty() { key.clone() } else { format!("{table}.{key}") };
        let outermost = path.split('.').next().expect("a key");
        for (n, text) in mistakes(&table, &key).into_iter().enumerate() {
            // A value that is valid for this option gives a configuration without a policy, unless it is the policy.
            let Err(error) = load(&text).map(drop) else { continue };
            let error = error.to_string();
            let shows_path = PATHS.contains(&&*path) && error.starts_with("configuration: ");
            assert!(shows_path || !error.contains(SECRET), "{text}\n{error}");
            count += 1;
            if let Some(place) = error.strip_prefix("tidegate.toml: ") {
                located += 1;
                assert!(place.starts_with("line ") && place.contains(", column "), "{text}\n{error}");
                assert!(n >= VALUES.len() || place.contains(outermost), "{text}\n{error}");
            }
        }
    }
    assert!(count > 5_000 && located > count / 2, "{located} of {count}");
}

#[test]
fn key_that_was_pasted_in_place_of_a_path_is_not_shown() {
    let pasted = format!("-----BEGIN PRIVATE KEY-----\\n{SECRET}\\n-----END PRIVATE KEY-----");
    for text in [
        format!("policy.trusted-keys = [\"{pasted}\"]"),
        format!("policy.tokens.app.pem = \"{pasted}\""),
        format!("policy.tokens.app.jwks = '{{\"keys\":[{{\"k\":\"{SECRET}\"}}]}}'"),
    ] {
        let error = load(&format!("allow-all = true\n{text}")).expect_err(&text).to_string();
        assert!(!error.contains(SECRET) && error.contains("not a path"), "{error}");
    }
}

#[test]
fn mistakes_in_the_environment_are_reported_without_the_value() {
    let mut count = 0;
    for option in OPTIONS.iter() {
        let name = sources::variable_name(&option.path);
        for text in mistakes("", "x") {
            let value = text.split_once(" = ").map_or(&*text, |(_, value)| value);
            let read = sources::parse_environment([(name.clone(), value.into())].into_iter());
            let valid = read.and_then(|table| Config::validate(mistake::deserialize(table).expect("it was read")));
            let Err(error) = valid.map(drop) else { continue };
            let error = error.to_string();
            count += 1;
            let shows_path = PATHS.contains(&&*option.path) && error.starts_with("configuration: ");
            assert!(shows_path || !error.contains(SECRET), "{name}={value}\n{error}");
            let names = [format!("the environment: {name}: "), "configuration: ".into()];
            assert!(names.iter().any(|start| error.starts_with(start)), "{name}={value}\n{error}");
        }
        let not_unicode = std::os::unix::ffi::OsStringExt::from_vec(b"\xffS3cretMarker".to_vec());
        let error = sources::parse_environment([(name.clone(), not_unicode)].into_iter()).expect_err("not Unicode");
        assert_eq!(error.to_string(), format!("the environment: {name}: the value is not Unicode"));
    }
    assert!(count > 3_000, "{count}");
}

#[test]
fn mistakes_are_reported_with_their_position_and_the_remedy() {
    let check = |text: &str, says: &[&str]| {
        let error = load(text).expect_err(text).to_string();
        assert!(says.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{text}\n{error}");
    };
    check("[control]\ntoken = \"x", &["tidegate.toml: line 2, column ", "control.token: ", "string"]);
    check("[redis-rest]\ntokens = [\n\"x\",\n\"y]", &["line 4, ", "redis-rest.tokens: "]);
    check("policy.settings.key = a", &["line 1, column 23: policy.settings: ", "quote"]);
    check("[policy.settings]\nkey = 'a'\nkey = 'b'", &["line 3, column 1: policy.settings: duplicate key"]);
    check("control = { lisen = 'x', token = 'y' }", &["line 1, column 13: control.lisen: not an option", "`listen`"]);
    check("control.token = ['x']", &["line 1, column 9: control.token: expected a string, found a list"]);
    check(
        "redis-rest.tokens = 'x'",
        &["column 12: redis-rest.tokens: expected a list such as [\"…\"], found a string"],
    );
    check("control = ['127.0.0.1:1']", &["column 1: control: expected a table, found a list"]);
    check("stream.max-event-size = '8 apples'", &["stream.max-event-size: expected a size such as 512KiB, 64MiB"]);
    check("stream.max-streams = -1", &["stream.max-streams: expected a whole number"]);
    check("log.format = 'xml'", &["log.format: expected one of `text`, `json`"]);
    check("decisions.masked-fields = ['a']", &["column 28: decisions.masked-fields[0]: expected one of `subject`"]);
    check("server.trusted-proxies = ['x']", &["server.trusted-proxies[0]: "]);
    check("policy.egress.hosts = ['http://a', { url = 5 }]", &["column 36: policy.egress.hosts[1]: expected a URL"]);
    check("[policy.tokens.\"a b\"]\nsecrt = 'x'", &["line 2, column 1: policy.tokens.\"a b\".secrt: not an option"]);
    check("store = 1979-05-27", &["store: expected a string, found a date"]);
    check("memory-store.seed.a = 5", &["memory-store.seed.a: expected a string, a list"]);
    let environment = |name: &str, value: &str, says: &str| {
        let error = sources::parse_environment([(name.to_owned(), value.into())].into_iter()).expect_err(value);
        assert!(error.to_string().contains(says), "{error}");
    };
    let not_toml = "policy.settings: expected a table, found a string; read as TOML: ";
    environment("TIDEGATE_POLICY_SETTINGS", "{ a = \"x\"", not_toml);
    environment("TIDEGATE_POLICY_TOKENS", "{ a = { secrt = \"x\" } }", "policy.tokens.a.secrt: not an option");
    environment("TIDEGATE_STREAM_MAX_STREAMS", "many", "stream.max-streams: expected a whole number");
}
