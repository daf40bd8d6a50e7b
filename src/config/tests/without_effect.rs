//! Values that can match or do nothing.

use super::*;

/// What would have no effect is an error that names the option and the remedy.
#[test]
fn values_without_an_effect_are_errors() {
    let check = |text: &str, says: &[&str]| {
        let error = load(&format!("allow-all = true\n{text}")).expect_err(text).to_string();
        for part in says {
            assert!(error.contains(part), "{text}\n{error}");
        }
    };
    let prefixes = |list: &str| format!("policy.lookup.prefixes = {list}");
    check(&prefixes("['']"), &["policy.lookup.prefixes[0]: ", "every key"]);
    check(&prefixes("['team:', 'session:*']"), &["policy.lookup.prefixes[1]: ", "not a pattern"]);
    let covered = |n: usize, by: usize| format!("policy.lookup.prefixes[{n}]: policy.lookup.prefixes[{by}] covers");
    check(&prefixes("['session:', 'session:user:']"), &[&covered(1, 0)]);
    check(&prefixes("['session:user:', 'session:']"), &[&covered(0, 1)]);
    check(&prefixes("['a:', 'b:', 'a:']"), &[&covered(2, 0)]);
    check(&(prefixes("['a:']") + "\npolicy.lookup.max-lookups = 0"), &["policy.lookup.max-lookups: ", "raise it"]);
    check(&(prefixes("['a:']") + "\nchannels.allow = ['a:x']"), &["channels.allow[0]: ", "policy.lookup.prefixes"]);

    let hosts = |list: &str| format!("policy.egress.hosts = {list}");
    for (list, says) in [
        ("['https://*.example.com']", "no *"),
        ("['*']", "not a URL"),
        ("['auth.example']", "not a URL"),
        ("['http://10.0.0.5']", "allow-private = true"),
        ("['http://localhost:8000']", "allow-private = true"),
        ("['http://169.254.169.254']", "never contacted"),
        ("[{ url = 'http://169.254.169.254', allow-private = true }]", "never contacted"),
    ] {
        check(&hosts(list), &["policy.egress.hosts[0]: ", says]);
    }
    check(&hosts("['https://a.example', 'https://A.example:443/']"), &["policy.egress.hosts[1]: ", "the same origin"]);
    check(&(hosts("['https://a.example']") + "\npolicy.egress.max-requests = 0"), &["policy.egress.max-requests: "]);

    check("cors.origins = ['*', 'https://app.example']", &["cors.origins: ", "remove"]);
    check("cors.origins = ['https://*.example.com']", &["cors.origins[0]: ", "write each origin"]);
    let twice = "cors.origins = ['https://a.example', 'http://localhost:3000', 'http://localhost:*']";
    check(twice, &["cors.origins[1]: cors.origins[2] allows this origin"]);
    check("cors.origins = ['https://a.example', 'https://a.example']", &["cors.origins[1]: cors.origins[0] allows"]);
    check("cors.origins = []\ncors.credentials = true", &["cors.credentials: ", "cors.origins"]);
    check("cors.origins = []\ncors.headers = ['x-a']", &["cors.headers: ", "cors.origins"]);
    check("cors.headers = ['x-a', '*']", &["cors.headers: ", "remove"]);
    check("cors.headers = ['x-a', 'cookie']", &["cors.headers[1]: ", "cors.credentials"]);

    check("server.trusted-proxies = ['10.0.0.0/8', '10.0.0.1/8']", &["server.trusted-proxies[1]: ", "10.0.0.1/32"]);
    check("store-ca = 'ca.pem'", &["store-ca: ", "rediss://"]);
    check("store = 'memory:'\nstore-ca = 'ca.pem'", &["store-ca: ", "rediss://"]);
    let tls = "store = 'rediss://h'";
    check("store-cert = 'c.pem'\nstore-key = 'k.pem'", &["store-cert: ", "rediss://"]);
    check("store = 'redis-sentinel://h/m'\nstore-key = 'k.pem'", &["store-key: ", "rediss-sentinel://"]);
    check(&format!("{tls}\nstore-cert = 'c.pem'"), &["store-cert: ", "set store-key"]);
    check(&format!("{tls}\nstore-key = 'k.pem'"), &["store-key: ", "set store-cert"]);
    for store in ["redis://h", "redis-cluster://h", "memory:"] {
        let store = format!("store = '{store}'");
        check(&format!("{store}\nstore-sentinel-password = 'p'"), &["store-sentinel-password: ", "redis-sentinel://"]);
        check(&format!("{store}\nstore-sentinel-user = 'u'"), &["store-sentinel-user: ", "redis-sentinel://"]);
    }
    let sentinel = "store = 'redis-sentinel://h/m'";
    check(&format!("{sentinel}\nstore-sentinel-user = 'u'"), &["store-sentinel-user: ", "set store-sentinel-password"]);
    check(&format!("{sentinel}\nstore-sentinel-password = ''"), &["store-sentinel-password: ", "empty"]);
    check(&format!("{sentinel}\nstore-sentinel-password = '${{NOT_SET}}'"), &["store-sentinel-password: ", "NOT_SET"]);
    check("store = 'redis-cluster://h/1'", &["store: ", "a cluster has no other one"]);
    check("store = 'redis-sentinel://h'", &["store: ", "the name of the master is missing"]);
    check("store = 'redis://h?db=2'", &["store: ", "the database is the path"]);
    check("listen = '127.0.0.1:7080'", &["control.listen: ", "127.0.0.1:7080", "listen"]);
    check("listen = '0.0.0.0:7080'", &["control.listen: "]);
    check("policy.allow-unsigned = true", &["policy.allow-unsigned: ", "policy.source"]);
    check("log.filter = 'warning'", &["log.filter: ", "warn,tidegate=debug"]);
    check("memory-store.max-size = '8MiB'", &["memory-store.max-size: ", "memory:"]);
    check("policy.cases = 'x.toml'", &["policy.cases: ", "policy.file"]);
    for option in
        ["store-ca", "store-cert", "store-key", "cache-dir", "policy.file", "policy.shadow.file", "decisions.log"]
    {
        check(&format!("{option} = ''"), &["tidegate.toml: ", option, "the path is empty"]);
    }
    check("redis-rest.tokens = ['one', 'two words']", &["redis-rest.tokens[1]: ", "white space"]);
    check("control.token = ''", &["control.token: "]);
    let profile = |lines: &str| format!("[policy.tokens.app]\nsecret = 'a'\n{lines}");
    check(&profile("issuer = '*'"), &["policy.tokens.app", "leave issuer out"]);
    check(&profile("issuer = ' https://auth.example'"), &["policy.tokens.app", "white space"]);
    check(&profile("audience = ['app', 'b ']"), &["policy.tokens.app", "white space"]);
    check(&profile("leeway = '500ms'"), &["policy.tokens.app", "leeway", "whole seconds"]);
    for (name, line) in [
        ("allow-private", "allow-private = true"),
        ("min-age", "min-age = '1m'"),
        ("max-age", "max-age = '2h'"),
        ("stale-if-error", "stale-if-error = '2h'"),
    ] {
        check(&profile(line), &[&format!("policy.tokens.app.{name}: "), "jwks-url"]);
    }
    for (url, says) in [("https://*.example/jwks.json", "no *"), ("https://10.0.0.5/jwks.json", "allow-private = true")]
    {
        let profile = format!("[policy.tokens.app]\njwks-url = '{url}'");
        check(&profile, &["policy.tokens.app.jwks-url: ", says]);
    }
    // These have an effect.
    for valid in [
        "listen = '127.0.0.1:0'\ncontrol.listen = '127.0.0.1:0'",
        "listen = '127.0.0.2:7080'",
        "cors.origins = []",
        "policy.lookup.prefixes = ['session:', 'sessions:', '{user}:', 'page:/a?b=', 't']",
        "policy.egress.hosts = ['https://a.example', 'http://a.example', 'https://a.example:8443', 'https://1.1.1.1']",
        "policy.lookup.max-lookups = 0",
        "store = 'redis-sentinel://u:p@h/m'\nstore-sentinel-user = 'u'\nstore-sentinel-password = 'p'",
        "store = 'rediss-cluster://u:p@h'\nstore-cert = 'c.pem'\nstore-key = 'k.pem'\nstore-ca = 'ca.pem'",
        "server.trusted-proxies = ['10.0.0.0/8', '10.1.0.0/16', '0.0.0.0/0']",
    ] {
        if let Err(error) = load(&format!("allow-all = true\n{valid}")) {
            panic!("{valid}: {error}");
        }
    }
}

#[test]
fn empty_variables_and_items_are_errors() {
    let read = |name: &str, text: &str| sources::parse_environment([(name.to_owned(), text.into())].into_iter());
    for name in
        ["TIDEGATE_LISTEN", "TIDEGATE_CORS_ORIGINS", "TIDEGATE_CACHE_DIR", "TIDEGATE_LOG_FILTER", "TIDEGATE_ALLOW_ALL"]
    {
        for text in ["", " "] {
            let error = read(name, text).expect_err(name).to_string();
            assert!(error.contains(&format!("{name}: the value is empty: unset")), "{error}");
        }
    }
    for text in ["a,,b", "a,", ",a", "a, ,b", ","] {
        let error = read("TIDEGATE_POLICY_LOOKUP_PREFIXES", text).expect_err(text).to_string();
        assert!(error.contains("TIDEGATE_POLICY_LOOKUP_PREFIXES: an item of the list is empty"), "{error}");
    }
    for (text, count) in [("a:", 1), ("a:,b:", 2), (" a: , b: ", 2), ("['a:']", 1), ("[]", 0)] {
        let table = read("TIDEGATE_POLICY_LOOKUP_PREFIXES", text).expect(text);
        let raw: Raw = table.try_into().expect("options");
        assert_eq!(raw.policy.lookup.prefixes.len(), count, "{text}");
    }
}
