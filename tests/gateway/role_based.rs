//! The suite of the example policy, for the committed component and for a freshly built one.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidegate::policytest::{TestCase, TestEnv, TestSuite, file};

use crate::client::{Sse, send_request};
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

/// Requests decisions over HTTP. Cases with other look-up prefixes than the first one are left to `tidegate policy test`.
async fn assert_decides_the_suite(path: &Path) {
    let component = std::fs::read(path).expect("the component exists");
    let suite = suite();
    let common = &suite.cases[0].env;
    let gateway = Gateway::with_policy(&component, &configuration(common)).await;
    let mut cases: Vec<&TestCase> = suite.cases.iter().filter(|case| case.env.prefixes == common.prefixes).collect();
    // The store is disconnected once, so these cases come last.
    cases.sort_by_key(|case| case.env.store_unavailable);
    assert!(cases.len() > 100 && cases.last().is_some_and(|case| case.env.store_unavailable));
    for case in cases {
        if case.env.store_unavailable {
            gateway.store.disconnect();
        }
        assert_decides(&gateway, case).await;
    }
}

async fn assert_decides(gateway: &Gateway, case: &TestCase) {
    let (request, name, expect) = (&case.request, &case.name, |field| case.expect.get(field));
    let headers = request.headers.iter().filter(|(name, _)| *name != "host");
    let headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))).collect();
    if expect("allow").is_some() {
        let mut sse = Sse::open(gateway.data, &request.path_with_query, &headers).await;
        for _ in &case.channels {
            assert_eq!(sse.frame().await["type"], "connected", "{name}");
        }
        return;
    }
    let reply = send_request(gateway.data, "GET", &request.path_with_query, &headers, "").await;
    let body = expect("body").and_then(Value::as_str).expect("a body");
    assert_eq!((Some(&json!(reply.status)), &*reply.body), (expect("status"), body), "{name}");
    let content_type = [reply.header("content-type")];
    assert_eq!(expect("headers"), Some(&json!({ "content-type": content_type })), "{name}");
    assert_eq!(reply.header("content-length"), body.len().to_string(), "{name}");
}

#[tokio::test]
async fn committed_policy_passes_the_suite() {
    assert_decides_the_suite(&committed()).await;
}

#[tokio::test]
#[ignore = "needs the built examples: cargo xtask guests"]
async fn freshly_built_policy_passes_the_suite() {
    let folder = std::env::var_os("TIDEGATE_FRESH_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests"), PathBuf::from);
    let path = folder.join("rust-role-based.wasm");
    assert_decides_the_suite(&path).await;
}

#[tokio::test]
async fn large_request_is_decided_like_a_small_one() {
    let component = std::fs::read(committed()).expect("the component exists");
    let gateway = Gateway::with_policy(&component, &configuration(&suite().cases[0].env)).await;
    // More than the initial memory of the policy holds.
    let cookie = |sid| format!("{} session={sid}", "a=b; ".repeat(10_000));
    let reply = send_request(gateway.data, "GET", "/api/realtime", &[("cookie", &cookie("mallory"))], "").await;
    assert_eq!((reply.status, &*reply.body), (401, "Unauthorized"));
    Sse::open(gateway.data, "/api/realtime", &[("cookie", &cookie("alice"))]).await.connected("default").await;
}

#[tokio::test]
async fn policy_without_lookup_permission_rejects_all_requests() {
    let component = std::fs::read(committed()).expect("the component exists");
    let gateway = Gateway::with_policy(&component, "").await;
    let reply = send_request(gateway.data, "GET", "/api/realtime", &[("cookie", "session=alice")], "").await;
    assert_eq!((reply.status, &*reply.body), (503, "Try again"));
    assert!(gateway.is_idle());
}

#[tokio::test]
async fn reason_and_subject_are_visible_to_the_operator_only() {
    let component = std::fs::read(committed()).expect("the component exists");
    let gateway = Gateway::with_policy(&component, &configuration(&suite().cases[0].env)).await;
    let mut decisions = gateway.app.authorizer.watch();
    let target = "/api/realtime?channel=team-blue";
    let reply = send_request(gateway.data, "GET", target, &[("cookie", "session=alice")], "").await;
    assert_eq!(reply.status, 403);
    let observed = decisions.try_recv().expect("a decision");
    assert_eq!(observed.channels, ["team-blue"]);
    assert_eq!(observed.decision.reason.as_deref(), Some("alice is not in team blue"));
    assert!(observed.decision.policy_digest().starts_with("sha256:"));
    assert!(!format!("{observed:?}").contains("session"), "no cookie is shown");
    let mut sse = Sse::open(gateway.data, "/api/realtime", &[("cookie", "session=alice")]).await;
    sse.connected("default").await;
    assert_eq!(gateway.store.emit_own("default", "e", &json!(1)).await, sse.ids("default", 1).await[0]);
    let observed = decisions.try_recv().expect("a decision");
    let tidegate::policy::Outcome::Allowed(grant) = &observed.decision.outcome else { panic!("alice is rejected") };
    assert_eq!(grant.subject.as_deref(), Some("alice"));
}
