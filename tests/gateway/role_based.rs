//! The example policy's world, byte for byte, as the committed component decides it; and a freshly built one the same.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidegate::policytest::{TestCase, TestEnv, TestSuite, file};

use crate::client::{Sse, ask};
use crate::harness::Gateway;

/// The cases that examples of this pattern share in all languages.
fn suite() -> TestSuite {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/cases/role.toml");
    file::load(&path).expect("the cases are valid")
}

/// The keys and prefixes of an environment, as lines of `tidegate.toml`.
fn configuration(env: &TestEnv) -> String {
    let prefixes = Value::from(env.prefixes.clone());
    let seed = toml::to_string(&env.store).expect("TOML");
    format!("policy.lookup.prefixes = {prefixes}\n[memory-store.seed]\n{seed}")
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/rust-role-based/policy.wasm")
}

/// Asks a gateway over HTTP. Cases with other leave to look up than most are for `tidegate policy test`.
async fn assert_decides_the_suite(path: &Path) {
    let component = std::fs::read(path).expect("the component is there");
    let suite = suite();
    let common = &suite.cases[0].env;
    let gateway = Gateway::behind(&component, &configuration(common)).await;
    let mut cases: Vec<&TestCase> = suite.cases.iter().filter(|case| case.env.prefixes == common.prefixes).collect();
    // The link is cut once, so these come last.
    cases.sort_by_key(|case| case.env.store_unavailable);
    assert!(cases.len() > 100 && cases.last().is_some_and(|case| case.env.store_unavailable));
    for case in cases {
        if case.env.store_unavailable {
            gateway.store.cut();
        }
        assert_decides(&gateway, case).await;
    }
}

async fn assert_decides(gateway: &Gateway, case: &TestCase) {
    let (ask_for, what, expect) = (&case.request, &case.name, |field| case.expect.get(field));
    let headers = ask_for.headers.iter().filter(|(name, _)| *name != "host");
    let headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))).collect();
    if expect("allow").is_some() {
        let mut sse = Sse::open(gateway.data, &ask_for.path_with_query, &headers).await;
        for _ in &ask_for.channels {
            assert_eq!(sse.frame().await["type"], "connected", "{what}");
        }
        return;
    }
    let reply = ask(gateway.data, "GET", &ask_for.path_with_query, &headers, "").await;
    let body = expect("body").and_then(Value::as_str).expect("its body");
    assert_eq!((Some(&json!(reply.status)), &*reply.body), (expect("status"), body), "{what}");
    let kind = [reply.header("content-type")];
    assert_eq!(expect("headers"), Some(&json!({ "content-type": kind })), "{what}");
    assert_eq!(reply.header("content-length"), body.len().to_string(), "{what}");
}

#[tokio::test]
async fn the_committed_policy_decides_the_example_world_byte_for_byte() {
    assert_decides_the_suite(&committed()).await;
}

#[tokio::test]
async fn a_freshly_built_policy_decides_as_the_committed_one_does() {
    let folder = std::env::var_os("TIDEGATE_FRESH_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests"), PathBuf::from);
    let path = folder.join("rust-role-based.wasm");
    if path.exists() {
        assert_decides_the_suite(&path).await;
    } else {
        let required = std::env::var_os("TIDEGATE_REQUIRE_GUESTS").is_some();
        assert!(!required, "{} is missing: cargo xtask guests builds it", path.display());
    }
}

#[tokio::test]
async fn a_large_request_is_decided_as_a_small_one() {
    let component = std::fs::read(committed()).expect("the component is there");
    let gateway = Gateway::behind(&component, &configuration(&suite().cases[0].env)).await;
    // More than the policy's memory has room for when it starts.
    let cookie = |sid| format!("{} session={sid}", "a=b; ".repeat(10_000));
    let reply = ask(gateway.data, "GET", "/api/realtime", &[("cookie", &cookie("mallory"))], "").await;
    assert_eq!((reply.status, &*reply.body), (401, "Unauthorized"));
    Sse::open(gateway.data, "/api/realtime", &[("cookie", &cookie("alice"))]).await.connected("default").await;
}

#[tokio::test]
async fn a_policy_without_leave_to_look_up_lets_nobody_in() {
    let component = std::fs::read(committed()).expect("the component is there");
    let gateway = Gateway::behind(&component, "").await;
    let reply = ask(gateway.data, "GET", "/api/realtime", &[("cookie", "session=alice")], "").await;
    assert_eq!((reply.status, &*reply.body), (503, "Try again"));
    assert!(gateway.is_untouched());
}

#[tokio::test]
async fn the_operator_reads_who_and_why_and_the_client_does_not() {
    let component = std::fs::read(committed()).expect("the component is there");
    let gateway = Gateway::behind(&component, &configuration(&suite().cases[0].env)).await;
    let mut decisions = gateway.app.authorizer.watch();
    let target = "/api/realtime?channel=team-blue";
    let reply = ask(gateway.data, "GET", target, &[("cookie", "session=alice")], "").await;
    assert_eq!(reply.status, 403);
    let watched = decisions.try_recv().expect("a decision");
    assert_eq!(watched.channels, ["team-blue"]);
    assert_eq!(watched.decision.reason.as_deref(), Some("alice is not in team blue"));
    assert!(watched.decision.policy().starts_with("sha256:"));
    assert!(!format!("{watched:?}").contains("session"), "no cookie is shown");
    let mut sse = Sse::open(gateway.data, "/api/realtime", &[("cookie", "session=alice")]).await;
    sse.connected("default").await;
    assert_eq!(gateway.store.own("default", "e", &json!(1)).await, sse.ids("default", 1).await[0]);
    let watched = decisions.try_recv().expect("a decision");
    let tidegate::policy::Outcome::Allowed(grant) = &watched.decision.outcome else { panic!("alice is let in") };
    assert_eq!(grant.subject.as_deref(), Some("alice"));
}
