use std::time::Duration;

use toml::Value;

use super::*;
use crate::config::schema::{OPTIONS, Reload, SchemaOption};

fn load(text: &str) -> Result<Config, ConfigError> {
    let table = sources::parse_file(Path::new("tidegate.toml"), text)?;
    let raw = table.try_into::<Raw>().map_err(|error| ConfigError(error.message().to_owned()))?;
    Config::validate(raw)
}

mod secrets;
mod without_effect;

#[test]
fn every_default_is_valid() {
    let config = load("allow-all = true").expect("valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.control.to_string(), "127.0.0.1:7080");
    assert_eq!(config.store.options.url.to_string(), "redis://127.0.0.1:6379");
    assert_eq!(config.policy_mode, PolicyMode::AllowAll);
}

#[test]
fn policy_and_control_are_tables() {
    let config = load("policy.file = \"p.wasm\"\ncontrol.listen = \"127.0.0.1:1\"").expect("valid");
    assert_eq!((config.policy_mode, config.control.port()), (PolicyMode::File("p.wasm".into()), 1));
    let tables = "[policy]\nfile = \"p.wasm\"\n[policy.settings]\nkey = \"value\"\n[control]\nlisten = \"0.0.0.0:1\"\ntoken = \"t\"";
    let config = load(tables).expect("valid");
    assert_eq!(config.settings.get("key"), Some("value"));
    assert_eq!(config.live.control_token, Some("t".into()));
}

#[test]
fn string_in_place_of_a_table_is_an_error_with_the_right_spelling() {
    let error = |text: &str| load(text).expect_err(text).to_string();
    // The text itself may be a secret.
    let policy = "`policy` is a table: write `policy.file = \"…\"`, or `[policy]` and below it `file = \"…\"`";
    let control = "`control` is a table: write `control.listen = \"…\"`, or `[control]` and below it `listen = \"…\"`";
    for (text, line, says) in [
        ("policy = \"x.wasm\"", "line 1", policy),
        ("allow-all = true\ncontrol = '127.0.0.1:1'", "line 2", control),
        // TOML itself allows no table of this name any more.
        ("policy = \"x.wasm\"\n[policy.lookup]\nprefixes = []", "line 2", policy),
        ("policy = \"x.wasm\" # mine\npolicy.source = \"file\"", "line 2", policy),
        ("\ncontrol = '127.0.0.1:1'\n[control]\ntoken = \"t\"", "line 3", control),
    ] {
        let error = error(text);
        assert!(
            error.starts_with("tidegate.toml: ") && error.contains(line) && error.ends_with(says),
            "{text}\n{error}"
        );
    }
    let error = error("listen = \n[policy]\nfile = \"x.wasm\"");
    assert!(!error.contains("is a table"), "another mistake: {error}");
}

/// Users copy the examples of the documents.
#[test]
fn toml_examples_of_the_documents_load() {
    let examples = |text: &str| -> Vec<String> {
        let blocks = text.split("```toml\n").skip(1);
        blocks.filter_map(|block| Some(block.split_once("```")?.0.to_owned())).collect()
    };
    let readme = examples(include_str!("../../README.md"));
    assert_eq!(readme.len(), 1);
    let config = load(&readme[0]).expect("the README's example is valid");
    assert_eq!(config.policy_mode, PolicyMode::File("policy.wasm".into()));
    assert_eq!(config.lookup_prefixes, ["session:", "team:"]);
    assert_eq!(config.live.rest_tokens, ["a-long-secret".into()]);
    assert!(config.live.cors.credentials);
    let directories = ["docs", "docs/operations", "docs/policies", "docs/internals"];
    let pages = directories.iter().flat_map(|directory| std::fs::read_dir(directory).expect("a directory"));
    let paths =
        pages.map(|page| page.expect("a page").path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let mut count = 0;
    for path in paths {
        for text in examples(&std::fs::read_to_string(&path).expect("text")) {
            // It may refer to secrets and files that are not here, so that its values are not validated.
            let table = sources::parse_file(&path, &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            table.try_into::<Raw>().unwrap_or_else(|error| panic!("{}: {error}\n{text}", path.display()));
            count += 1;
        }
    }
    assert!(count >= 5, "{count} examples");
}

/// One row of the table of options: its path and flag, default, whether it is live, and meaning.
fn option_row(option: &SchemaOption, defaults: &Table) -> String {
    let comment = |attribute: &&str| {
        let text = attribute.strip_prefix("doc =")?.trim_start().trim_start_matches('r').trim_matches('"');
        Some(text.replace("\\\"", "\""))
    };
    let text: String = option.attributes.iter().filter_map(comment).collect();
    let (text, stated) = text.split_once(" Default: ").unwrap_or((&text, ""));
    let (meaning, flag) = text.split_once(" Flag: ").unwrap_or((text, ""));
    let value = option.path.split('.').try_fold(&Value::Table(defaults.clone()), |table, key| table.get(key)).cloned();
    let default = match value {
        _ if !stated.is_empty() => stated.trim_end_matches('.').to_owned(),
        // Sizes as in a configuration file: `64MiB`, not `64.0 MiB`.
        Some(Value::String(text)) => format!("`{}`", text.replace(".0 ", "")),
        Some(Value::Array(values)) if values.is_empty() => "none".into(),
        Some(Value::Table(values)) if values.is_empty() => "none".into(),
        Some(value) => format!("`{value}`"),
        None => String::new(),
    };
    let flag = if flag.is_empty() { String::new() } else { format!(", {}", flag.trim_end_matches('.')) };
    let live = match option.reload {
        Reload::TrustedKeys => "in file mode",
        Reload::Restart => "",
        Reload::Live | Reload::PolicyEnv | Reload::PolicyFile => "yes",
    };
    let cells = [format!("`{}`{flag}", option.path), default, live.into(), meaning.trim().into()];
    cells.iter().fold("|".to_owned(), |row, cell| row + if cell.is_empty() { "" } else { " " } + cell + " |")
}

/// `cargo xtask bless` writes the table from the schema.
#[test]
fn golden_table_of_options() {
    let (start, end) = ("<!-- options -->\n", "<!-- /options -->");
    let defaults = Table::try_from(Raw::default()).expect("a table");
    let header = "| option | default | live | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    let table = OPTIONS.iter().fold(header, |table, option| table + &option_row(option, &defaults) + "\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(start).expect("the start of the table");
    let (present, after) = rest.split_once(end).expect("the end of the table");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{before}{start}{table}{end}{after}")).expect("written");
    } else {
        assert_eq!(present, table, "docs/configuration.md is not up to date with the schema: run `cargo xtask bless`");
    }
}

#[test]
fn mistakes_name_the_key_and_the_remedy() {
    let check = |text: &str, says: &[&str]| {
        let error = load(text).expect_err(text).to_string();
        for part in says {
            assert!(error.contains(part), "{text}\n{error}");
        }
    };
    check("", &["policy.file", "--policy policy.wasm", "TIDEGATE_POLICY_FILE", "--allow-all"]);
    check("allow-all = true\npolicy.file = \"x.wasm\"", &["allow-all"]);
    check("lisen = \"x\"", &["tidegate.toml", "line 1", "lisen", "expected one of", "listen"]);
    check("[stream]\npng = \"1s\"", &["tidegate.toml", "line 2", "png", "ping-interval"]);
    check("[stream]\nping-interval = 5", &["tidegate.toml", "line 2", "a duration such as 250ms, 25s or 2m"]);
    check(
        "[stream]\nping-interval = \"1x\"",
        &["tidegate.toml", "line 2", "stream.ping-interval", "a duration such as 250ms, 25s or 2m"],
    );
    check("allow-all = 1", &["tidegate.toml", "line 1", "boolean"]);
    check("allow-all = true\nlisten = \"here\"", &["listen", "127.0.0.1:8080"]);
    check("allow-all = true\ncontrol.listen = \"0.0.0.0:7080\"", &["control.listen", "control.token"]);
    check("allow-all = true\nstore = \"http://x\"", &["store", "redis://"]);
    check("allow-all = true\nstream.ping-interval = \"90s\"", &["stream.ping-interval", "1m 30s", "70s"]);
    check("allow-all = true\nstream.path = \"api\"", &["stream.path", "/api/realtime"]);
    check("allow-all = true\nstream.path = \"/a?b\"", &["stream.path"]);
    check("allow-all = true\nstream.path = \"/redis\"", &["stream.path", "own"]);
    check("allow-all = true\nstream.max-event-size = \"1GiB\"", &["stream.max-event-size", "256.0 MiB"]);
    check("allow-all = true\nstream.max-channels-per-stream = 0", &["stream.max-channels-per-stream", "from 1"]);
    check("allow-all = true\nchannels.allow = [\"[\"]", &["channels.allow[0]", "character class"]);
    check("allow-all = true\ncors.credentials = true", &["cors.credentials", "cors.origins"]);
    check("allow-all = true\ncors.origins = [\"app.example\"]", &["cors.origins[0]", "https://app.example"]);
    check("allow-all = true\ncors.origins = [\"https://app.example/\"]", &["cors.origins"]);
    check("allow-all = true\nredis-rest.tokens = [\"\"]", &["redis-rest.tokens", "at least one"]);
    check("allow-all = true\npolicy.lookup.prefixes = [\"\"]", &["policy.lookup.prefixes", "every key"]);
    check("allow-all = true\npolicy.cpu-time = \"0s\"", &["policy.cpu-time"]);
    check("allow-all = true\npolicy.settings.pin = 1234", &["policy.settings.pin", "integer", "string"]);
    check(
        "allow-all = true\npolicy.settings.key = \"${NOWHERE_TO_BE_SEEN}\"",
        &["policy.settings.key", "NOWHERE_TO_BE_SEEN"],
    );
    check("allow-all = true\npolicy.settings.key = \"${file:/no/such}\"", &["policy.settings.key", "/no/such"]);
    check("allow-all = true\npolicy.settings.key = \"a$b\"", &["policy.settings.key", "$$"]);
    check("allow-all = true\nserver.max-connections = 0", &["server.max-connections", "from 1"]);
    check("allow-all = true\nserver.head-timeout = \"0s\"", &["server.head-timeout", "greater than 0"]);
    check("allow-all = true\nserver.response-timeout = \"2h\"", &["server.response-timeout", "at most 1h"]);
    check("allow-all = true\nserver.connection-memory = \"100\"", &["server.connection-memory", "from 1.0 MiB"]);
    check(
        "allow-all = true\nserver.connection-memory = \"1MiB\"",
        &["server.connection-memory", "1.0 MiB", "twice policy.max-response-size"],
    );
    check("allow-all = true\nreject.delay = \"90s\"", &["reject.delay", "1m 30s", "60s"]);
    check("allow-all = true\ndrain.duration = \"25h\"", &["drain.duration", "1day 1h", "a day"]);
    check("allow-all = true\ndrain.delay = \"500y\"", &["drain.delay", "a day"]);
    check("allow-all = true\npolicy.rotation-window = \"2days\"", &["policy.rotation-window", "a day"]);
    let hosts = |host: &str| format!("allow-all = true\npolicy.egress.hosts = [{host}]");
    check(&hosts("'auth.example'"), &["policy.egress.hosts[0]", "https://auth.example"]);
    check(&hosts("'https://auth.example/path'"), &["policy.egress.hosts", "without a user, a path"]);
    check(&hosts("'redis://auth.example'"), &["policy.egress.hosts", "neither http nor https"]);
    check(&hosts("{ url = 'http://a', private = true }"), &["policy.egress.hosts"]);
    let profile = |lines: &str| format!("allow-all = true\n[policy.tokens.app]\n{lines}");
    check(&profile("issuer = 'a'"), &["policy.tokens.app", "exactly one", "jwks-url"]);
    check(&profile("secret = 'a'\npem = 'b'"), &["policy.tokens.app", "exactly one"]);
    check(&profile("secret = 5"), &["policy.tokens.app.secret", "integer", "string"]);
    check(&profile("secret = ''"), &["policy.tokens.app.secret", "empty"]);
    check(&profile("secret = '${NOWHERE_TO_BE_SEEN}'"), &["policy.tokens.app.secret", "NOWHERE_TO_BE_SEEN"]);
    check(&profile("secret = '!'\nsecret-encoding = 'base64'"), &["policy.tokens.app.secret", "base64"]);
    check(&profile("secret = 'a'\nalgorithms = ['RS256']"), &["policy.tokens.app.algorithms", "RS256", "HS256"]);
    check(&profile("secret = 'a'\nalgorithms = 'none'"), &["policy.tokens.app.algorithms", "EdDSA"]);
    check(&profile("secret = 'a'\naudience = ['*', 'app']"), &["policy.tokens.app", "stand alone"]);
    check(&profile("secret = 'a'\naudience = 5"), &["line 4", "a string or a list"]);
    check(&profile("secret = 'a'\nleeway = '1h'"), &["policy.tokens.app", "leeway", "10m"]);
    check(&profile("secret = 'a'\nisuer = 'b'"), &["line 4", "isuer", "issuer"]);
    check(&profile("pem = '/no/such'"), &["policy.tokens.app.pem", "/no/such"]);
    check(&profile("jwks = 'Cargo.toml'"), &["policy.tokens.app.jwks", "Cargo.toml", "not a JWKS"]);
    check(
        &profile("jwks-url = 'http://auth.example/jwks.json'"),
        &["policy.tokens.app.jwks-url", "https", "allow-private"],
    );
    check(&profile("jwks-url = 'auth.example'"), &["policy.tokens.app.jwks-url", "not a URL"]);
    check(&profile("jwks-url = 'https://u:p@auth.example/'"), &["policy.tokens.app.jwks-url", "a user"]);
    check(
        &profile("jwks-url = 'https://a/'\nalgorithms = ['HS256']"),
        &["policy.tokens.app.algorithms", "HS256", "RS256"],
    );
    check(&profile("jwks-url = 'https://a/'\nmin-age = '2h'"), &["policy.tokens.app.jwks-url", "min-age"]);
    check("allow-all = true\n[memory-store.seed]\na = \"b\"", &["memory-store.seed", "memory:"]);
}

#[test]
fn environment_overrides_the_file_and_flags_override_the_environment() {
    let variables = |list: &[(&str, &str)]| {
        sources::parse_environment(
            list.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect::<Vec<_>>().into_iter(),
        )
    };
    let mut table = sources::parse_file(
        Path::new("t.toml"),
        "listen = \"127.0.0.1:1\"\nstream.ping-interval = \"9s\"\npolicy.file = \"a.wasm\"",
    )
    .expect("file");
    let environment = variables(&[
        ("TIDEGATE_LISTEN", "127.0.0.1:2"),
        ("TIDEGATE_POLICY_FILE", "b.wasm"),
        ("TIDEGATE_CORS_ORIGINS", "https://a.example, https://b.example"),
        ("TIDEGATE_CORS_CREDENTIALS", "true"),
        ("TIDEGATE_STREAM_MAX_CHANNELS_PER_STREAM", "7"),
        ("TIDEGATE_POLICY_SETTINGS", "{ audience = \"42\" }"),
        ("TIDEGATE_CONFIG", "ignored here"),
        ("PATH", "ignored everywhere"),
    ]);
    sources::merge(&mut table, environment.expect("environment"));
    sources::merge(&mut table, sources::single_option("listen", "127.0.0.1:3".into()));
    let config = Config::validate(table.try_into().expect("raw")).expect("valid");
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.stream.ping_interval, Duration::from_secs(9));
    assert_eq!(config.policy_mode, PolicyMode::File("b.wasm".into()));
    assert_eq!(config.stream.max_channels_per_stream, 7);
    assert_eq!(config.settings.get("audience"), Some("42"));
    assert!(
        config.live.cors.credentials
            && config.live.cors.origins.as_ref().is_some_and(|o| o.len() == 2 && o[1].matches("https://b.example"))
    );

    let error = variables(&[("TIDEGATE_LISTN", "x")]).expect_err("no option").to_string();
    assert!(error.contains("TIDEGATE_LISTN") && error.contains("TIDEGATE_LISTEN"), "{error}");
    let error = variables(&[("TIDEGATE_FOO", "x")]).expect_err("no option").to_string();
    assert!(error.ends_with("TIDEGATE_FOO is not an option"), "nothing is near that: {error}");
    for (table, option) in
        [("TIDEGATE_POLICY", "TIDEGATE_POLICY_FILE"), ("TIDEGATE_CONTROL", "TIDEGATE_CONTROL_LISTEN")]
    {
        let error = variables(&[(table, "x")]).expect_err("a table").to_string();
        assert!(
            error.contains(&format!("{table}: ")) && error.ends_with(&format!("is a table: set {option}")),
            "{error}"
        );
    }
    let error = variables(&[("TIDEGATE_STREAM_PING", "x")]).expect_err("no option").to_string();
    assert!(error.contains("TIDEGATE_STREAM_PING_INTERVAL"), "{error}");
    let error = variables(&[("TIDEGATE_STREAM_MAX_CHANNELS_PER_STREAM", "s3cret")]).expect_err("no number").to_string();
    assert!(error.contains("TIDEGATE_STREAM_MAX_CHANNELS_PER_STREAM") && !error.contains("s3cret"), "{error}");
}

#[test]
fn every_option_can_be_set_by_the_environment() {
    for option in schema::OPTIONS.iter() {
        let name = sources::variable_name(&option.path);
        let try_value = |value: &str| sources::parse_environment([(name.clone(), value.into())].into_iter());
        let values = ["1s", "1MiB", "7", "true", "json", "text", "{}", "10.0.0.0/8", "file", "subject"];
        assert!(values.iter().any(|value| try_value(value).is_ok()), "{name}");
    }
}

#[test]
fn paths_in_a_file_are_relative_to_its_directory() {
    let table = sources::parse_file(
        Path::new("/etc/tidegate/tidegate.toml"),
        "policy.file = \"p.wasm\"\nstore-ca = \"/ca.pem\"",
    )
    .expect("file");
    let raw: Raw = table.try_into().expect("raw");
    assert_eq!(raw.policy.file, Some("/etc/tidegate/p.wasm".into()));
    assert_eq!(raw.store_ca, Some("/ca.pem".into()));
    let text = "policy = { cases = \"c.toml\", trusted-keys = [\"a.pem\"], shadow.file = \"next.wasm\" }";
    let table = sources::parse_file(Path::new("/etc/tidegate/tidegate.toml"), text).expect("file");
    let raw: Raw = table.try_into().expect("raw");
    assert_eq!(raw.policy.cases, Some("/etc/tidegate/c.toml".into()));
    assert_eq!(raw.policy.trusted_keys, [Path::new("/etc/tidegate/a.pem")]);
    assert_eq!(raw.policy.shadow.file, Some("/etc/tidegate/next.wasm".into()));
}

#[test]
fn policy_source_selects_the_mode() {
    let fleet = |more: &str| load(&format!("[policy]\nsource = \"fleet\"\n{more}"));
    let error = |more: &str| fleet(more).expect_err(more).to_string();
    assert_eq!(fleet("allow-unsigned = true").expect("valid").policy_mode, PolicyMode::Fleet);
    let dir = tempfile::tempdir().expect("a folder");
    let key = dir.path().join("key.pub.pem");
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=\n-----END PUBLIC KEY-----\n";
    std::fs::write(&key, public).expect("written");
    let keys = format!("trusted-keys = [{key:?}]");
    assert_eq!(fleet(&keys).expect("valid").policy_mode, PolicyMode::Fleet);
    assert!(error(&format!("{keys}\nallow-unsigned = true")).contains("remove one of the two"));
    assert!(error("trusted-keys = [\"nowhere.pem\"]").contains("policy.trusted-keys: nowhere.pem: cannot be read"));
    assert!(error("allow-unsigned = true\n[fleet]\nnode-name = \"a/b\"").contains("letters, digits"));
    assert!(error("").contains("keygen") && error("").contains("--allow-unsigned"));
    assert!(error("file = \"x.wasm\"\nallow-unsigned = true").contains("policy push"));
    assert!(error("rotation-window = \"never\"").contains("expected off, or a duration"));
    assert!(error("allow-unsigned = true\nshadow.share = 2.0").contains("from 0 to 1"));
    let off = load("allow-all = true\npolicy.rotation-window = \"off\"").expect("valid");
    assert_eq!(off.live.rotation_window, None);
}

#[test]
fn channel_rules_decide_which_keys_are_channels() {
    let rules = "allow-all = true\nchannels = { allow = [\"app:*\", \"room-?\"], deny = [\"app:secret*\"] }\npolicy.lookup.prefixes = [\"app:session:\"]";
    let config = load(rules).expect("valid");
    let permitted = |name| config.live.channels.permit(name, &config.lookup_prefixes);
    assert!(permitted("app:a/b c") && permitted("room-1"));
    for name in ["other", "room-12", "app:secret-1", "app:session:alice", ""] {
        assert!(!permitted(name), "{name}");
    }
    let config = load("allow-all = true").expect("valid");
    assert!(config.live.channels.permit("", &[]) && config.live.channels.permit("anything/at all 🎉", &[]));
    assert!(!config.live.channels.permit("tidegate:x", &[]));
}

#[test]
fn stream_path_matches_requests() {
    let check = |path: &str, request: &str, expect: bool| {
        let config = load(&format!("allow-all = true\nstream.path = \"{path}\"")).expect("valid");
        assert_eq!(config.stream.matches(request), expect, "{path} {request}");
    };
    check("/api/realtime", "/api/realtime", true);
    check("/api/realtime", "/api/realtime/x", false);
    check("/api/realtime", "/api/realtimes", false);
    check("/api/realtime/*", "/api/realtime", true);
    check("/api/realtime/*", "/api/realtime/some/token", true);
    check("/api/realtime/*", "/api/realtimes", false);
}

#[test]
fn settings_are_resolved_and_not_shown_by_debug() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), "hunter2\n").expect("a file");
    let text = "allow-all = true\n[policy.settings]\nkey = \"${file:key}\"\nversion = \"v${CARGO_PKG_VERSION}\"\nprice = \"$$5\"";
    let table = sources::parse_file(&folder.path().join("tidegate.toml"), text).expect("valid");
    let config = Config::validate(table.try_into().expect("valid")).expect("valid");
    assert_eq!(config.settings.get("key"), Some("hunter2"));
    assert_eq!(config.settings.get("version"), Some(concat!("v", env!("CARGO_PKG_VERSION"))));
    assert_eq!(config.settings.get("price"), Some("$5"));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn token_profiles_and_egress_hosts_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), "hunter2hunter2hunter2hunter2hunter2\n").expect("a file");
    let text = "allow-all = true
        [policy.tokens.app]
        issuer = 'https://auth.example'
        audience = 'app'
        secret = '${file:key}'
        [policy.tokens.other]
        audience = ['a', 'b']
        algorithms = ['HS512']
        secret = 'aHVudGVyMg'
        secret-encoding = 'base64'
        [policy.tokens.remote]
        jwks-url = 'https://auth.example/jwks.json'
        algorithms = ['ES256', 'EdDSA']
        [policy.egress]
        hosts = ['https://auth.example', { url = 'http://10.0.0.5:8000', allow-private = true }]
        timeout = '2s'";
    let table = sources::parse_file(&folder.path().join("tidegate.toml"), text).expect("valid");
    let config = Config::validate(table.try_into().expect("valid")).expect("valid");
    assert_eq!(format!("{:?}", config.tokens), r#"{"app", "other", "remote"}"#);
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
    assert!(config.egress.allows(&"https://auth.example/any".parse().expect("a URI")));
    assert!(config.egress.allows(&"http://10.0.0.5:8000/".parse().expect("a URI")));
    assert!(!config.egress.allows(&"http://auth.example/".parse().expect("a URI")));
    let from_environment =
        |name: &str, text: &str| sources::parse_environment([(name.to_owned(), text.into())].into_iter()).expect(name);
    let hosts = from_environment("TIDEGATE_POLICY_EGRESS_HOSTS", "https://a.example, https://b.example");
    let mut table = sources::parse_file(Path::new("tidegate.toml"), "allow-all = true").expect("valid");
    sources::merge(&mut table, hosts);
    sources::merge(&mut table, from_environment("TIDEGATE_POLICY_TOKENS", "{ app = { secret = \"s\" } }"));
    let config = Config::validate(table.try_into().expect("valid")).expect("valid");
    assert!(config.egress.allows(&"https://b.example/".parse().expect("a URI")));
    assert_eq!(format!("{:?}", config.tokens), r#"{"app"}"#);
}

#[test]
fn fifos_are_refused_without_blocking() {
    let dir = tempfile::tempdir().expect("a directory");
    let (config, pipe) = (dir.path().join("tidegate.toml"), dir.path().join("pipe"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("a FIFO");
    let refused = |path: &Path| {
        let (path, (sender, result)) = (path.to_owned(), std::sync::mpsc::channel());
        std::thread::spawn(move || sender.send(Config::load(Table::new(), Some(&path), Table::new()).err()));
        let result = result.recv_timeout(std::time::Duration::from_secs(10)).expect("the read does not block");
        let error = result.expect("refused").to_string();
        assert!(error.contains("not a regular file"), "{error}");
    };
    for text in [
        "policy.settings.key = \"${file:pipe}\"",
        "policy.trusted-keys = [\"pipe\"]",
        "policy.tokens.app.pem = \"pipe\"",
        "policy.tokens.app.jwks = \"pipe\"",
    ] {
        std::fs::write(&config, format!("allow-all = true\n{text}\n")).expect("written");
        refused(&config);
    }
    refused(&pipe);
}
