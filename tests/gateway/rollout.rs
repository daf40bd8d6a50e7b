//! The activation pipeline, through the control port.

use base64::Engine;
use serde_json::{Value, json};
use tidegate::artifact::bundle::PolicyBundle;
use tidegate::artifact::digest::Digest;
use tidegate::policy::info::PolicyOrigin;
use tidegate::rollout::stage::Stage;

use crate::client::{Reply, send_request, send_request_bytes};
use crate::guests::component;
use crate::harness::{Gateway, InitialPolicy};

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

const WASM: (&str, &str) = ("content-type", "application/wasm");
const JSON: (&str, &str) = ("content-type", "application/json");
const ALLOWS: &str = "[[case]]\nname = \"all requests are allowed\"\nexpect.allow = true\n";

async fn without_policy() -> Gateway {
    Gateway::start_with(None, &InitialPolicy::Missing, "policy.settings.audience = 'app'").await
}

async fn put(gateway: &Gateway, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    send_request_bytes(gateway.control, "PUT", target, headers, body).await
}

async fn status(gateway: &Gateway) -> Value {
    send_request(gateway.control, "GET", "/v1/policy", &[], "").await.json()
}

fn bundle(name: &str, cases: &str) -> Vec<u8> {
    let component = base64::engine::general_purpose::STANDARD.encode(component(name));
    json!({ "component": component, "cases": cases }).to_string().into_bytes()
}

#[tokio::test]
async fn policy_is_activated_and_rolled_back() {
    let gateway = without_policy().await;
    let before = status(&gateway).await;
    assert_eq!((&before["active"], &before["history"]), (&Value::Null, &json!([])), "{before}");
    assert_eq!(gateway.request("channel=c").await.status, 503);

    let reply = put(&gateway, "/v1/policy", &[WASM], &component("allow")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let allow = digest(&component("allow"));
    assert_eq!(reply.header("etag"), format!("\"{allow}\""));
    let answer = reply.json();
    assert_eq!((&answer["active"]["digest"], &answer["active"]["generation"]), (&json!(allow), &json!(1)), "{answer}");
    assert_eq!(answer["active"]["persisted"], false, "no file is configured: {answer}");
    gateway.open("channel=c").await.connected("c").await;

    let refused = send_request(gateway.control, "POST", "/v1/policy/rollback", &[JSON], "{}").await;
    assert_eq!((refused.status, &*refused.code()), (409, "no_previous_policy"), "{}", refused.body);
    let reply = put(&gateway, "/v1/policy", &[WASM], &component("deny")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(gateway.request("channel=c").await.status, 418);
    assert_eq!(status(&gateway).await["rollback_target"], json!(allow));
    let rolled_back = send_request(gateway.control, "POST", "/v1/policy/rollback", &[JSON], "{}").await;
    assert_eq!(
        (rolled_back.status, &rolled_back.json()["active"]["digest"]),
        (200, &json!(allow)),
        "{}",
        rolled_back.body
    );
    gateway.open("channel=c").await.connected("c").await;
    let refused = send_request(gateway.control, "POST", "/v1/policy/rollback", &[JSON], "{}").await;
    assert_eq!(refused.status, 409, "there is no earlier policy: {}", refused.body);
    let generations = status(&gateway).await["history"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| v["generation"].clone())
        .collect::<Vec<_>>();
    assert_eq!(generations, [3, 2, 1]);
}

#[tokio::test]
async fn failed_activation_keeps_the_active_policy_and_reports_the_stage() {
    let gateway = without_policy().await;
    assert_eq!(put(&gateway, "/v1/policy", &[WASM], &component("allow")).await.status, 200);
    let failing = "[[case]]\nname = \"anonymous\"\nexpect.status = 403\n";
    let reads = "tokens.app.pem = \"/etc/hostname\"\n[[case]]\nname = \"a\"\nexpect.allow = true\n";
    let fetches = "tokens.app.jwks-url = \"http://127.0.0.1:1\"\n[[case]]\nname = \"a\"\nexpect.allow = true\n";
    let allow = component("allow");
    for (header, body, stage, words) in [
        (WASM, b"#!/bin/sh".to_vec(), "compiled", &["not WebAssembly"][..]),
        (WASM, allow[..allow.len() / 2].to_vec(), "compiled", &["not a valid component"]),
        (WASM, component("missing-import"), "linked", &["acme:secrets/vault"]),
        (WASM, component("wrong-world"), "linked", &["tidegate:policy/authorizer"]),
        (JSON, bundle("allow", failing), "tested", &["\"anonymous\" (line 1)", "403"]),
        (JSON, bundle("allow", "[[case]]\nname = 1\n"), "tested", &["cases:2"]),
        (JSON, bundle("allow", reads), "tested", &["tokens.app.pem", "read no files"]),
        (JSON, bundle("allow", fetches), "tested", &["jwks-url", "cases fetch nothing"]),
        (JSON, bundle("allow", "requires.settings = [\"pepper\"]\n"), "linked", &["policy.settings.pepper"]),
    ] {
        let reply = put(&gateway, "/v1/policy", &[header], &body).await;
        assert_eq!((reply.status, &*reply.code()), (422, "activation_failed"), "{words:?}: {}", reply.body);
        assert_eq!(reply.json()["error"]["stage"], stage, "{words:?}: {}", reply.body);
        for word in words {
            assert!(reply.body.contains(&word.replace('"', "\\\"")), "{word}: {}", reply.body);
        }
        let status = status(&gateway).await;
        assert_eq!(status["last_failure"]["stage"], stage, "{status}");
        assert_eq!((&status["active"]["generation"], &status["pending"]), (&json!(1), &Value::Null), "{status}");
        gateway.open("channel=c").await.connected("c").await;
    }
    let failures = gateway.app.rollout.status().failures;
    assert_eq!(failures.iter().filter(|error| error.stage == Stage::Linked).count(), 3);
}

#[tokio::test]
async fn policy_with_passing_cases_and_required_settings_is_activated() {
    let gateway = without_policy().await;
    let cases = format!("requires.settings = [\"audience\"]\n{ALLOWS}");
    let reply = put(&gateway, "/v1/policy?dry-run", &[JSON], &bundle("allow", &cases)).await;
    let answer = reply.json();
    assert_eq!((reply.status, &answer["dry_run"], &answer["cases_passed"]), (200, &json!(true), &json!(1)), "{answer}");
    assert_eq!(status(&gateway).await["active"], Value::Null, "nothing changed");
    let reply = put(&gateway, "/v1/policy", &[JSON], &bundle("allow", &cases)).await;
    assert_eq!(
        (reply.status, &reply.json()["active"]["cases"]),
        (200, &json!(digest(cases.as_bytes()))),
        "{}",
        reply.body
    );
    // The requirements are checked again whenever the policy environment changes.
    let context = {
        let authorizer = &gateway.app.authorizer;
        let limits = authorizer.context().limits.clone();
        let store = std::sync::Arc::clone(&authorizer.context().env.store);
        let env = std::sync::Arc::new(tidegate::wasm::host::PolicyEnv::new(store, &limits));
        std::sync::Arc::new(tidegate::wasm::host::PolicyContext { env, limits })
    };
    let Err(refused) = gateway.app.rollout.lock_activation().await.revalidate_active(context).await else {
        panic!("the policy requires a setting")
    };
    assert!(refused.stage == Stage::Linked && refused.reason.contains("policy.settings.audience"), "{refused}");
}

#[tokio::test]
async fn activation_with_a_stale_precondition_is_412() {
    let gateway = without_policy().await;
    let (allow, deny) = (component("allow"), component("deny"));
    let tag = |policy: &[u8]| format!("\"{}\"", digest(policy));
    for (header, value, policy, expect) in [
        ("if-match", "*".to_owned(), &allow, 412),
        ("if-none-match", "*".to_owned(), &allow, 200),
        ("if-none-match", "*".to_owned(), &deny, 412),
        ("if-match", tag(&deny), &deny, 412),
        ("if-match", tag(&allow), &deny, 200),
        ("if-match", tag(&allow), &allow, 412),
    ] {
        let reply = put(&gateway, "/v1/policy", &[WASM, (header, &value)], policy).await;
        assert_eq!(reply.status, expect, "{header}: {value}: {}", reply.body);
    }
    let unmodified = send_request(gateway.control, "GET", "/v1/policy", &[("if-none-match", &tag(&deny))], "").await;
    assert_eq!((unmodified.status, unmodified.header("etag")), (304, tag(&deny)));
    let rolled_back =
        send_request(gateway.control, "POST", "/v1/policy/rollback", &[JSON, ("if-match", &tag(&allow))], "{}").await;
    assert_eq!(rolled_back.status, 412, "{}", rolled_back.body);
}

#[tokio::test]
async fn malformed_policy_request_is_rejected_before_the_pipeline() {
    let gateway = without_policy().await;
    let evil = ("origin", "https://evil.example");
    for (target, headers, body, expect, code) in [
        ("/v1/policy", &[][..], "x", 415, "unsupported_media_type"),
        ("/v1/policy", &[("content-type", "text/plain")], "x", 415, "unsupported_media_type"),
        ("/v1/policy", &[JSON], "{", 400, "invalid_json"),
        ("/v1/policy", &[JSON], r#"{"component":"?"}"#, 400, "invalid_policy"),
        ("/v1/policy", &[JSON], r#"{"komponent":"AA=="}"#, 400, "invalid_policy"),
        ("/v1/policy?dryrun", &[WASM], "x", 400, "invalid_parameter"),
        ("/v1/policy?dry-run=no", &[WASM], "x", 400, "invalid_parameter"),
        ("/v1/policy?timeout-ms=0", &[WASM], "x", 400, "invalid_parameter"),
        ("/v1/policy?timeout-ms=3600001", &[WASM], "x", 400, "invalid_parameter"),
        ("/v1/policy", &[WASM, evil], "x", 403, "origin_not_allowed"),
    ] {
        let reply = put(&gateway, target, headers, body.as_bytes()).await;
        assert_eq!((reply.status, &*reply.code()), (expect, code), "{target} {headers:?} {body}: {}", reply.body);
    }
    let allow_all = Gateway::start("").await;
    let reply = put(&allow_all, "/v1/policy", &[WASM], &component("allow")).await;
    assert_eq!((reply.status, &*reply.code()), (409, "policy_not_managed_here"), "{}", reply.body);
    let reply = send_request(gateway.control, "POST", "/v1/policy/rollback", &[], "").await;
    assert_eq!(reply.status, 415, "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_waiting_activation_supersedes_older_ones() {
    let gateway = without_policy().await;
    let guard = gateway.app.rollout.lock_activation().await;
    let (allow, deny) = (component("allow"), component("deny"));
    let superseded = tokio::sync::Notify::new();
    let first = async {
        let first = put(&gateway, "/v1/policy", &[WASM], &allow).await;
        superseded.notify_one();
        first
    };
    let dry_run = put(&gateway, "/v1/policy?dry-run", &[WASM], &allow);
    let last = async {
        crate::harness::wait_until("two activations wait", || gateway.app.rollout.waiting() == 2).await;
        let release = async {
            superseded.notified().await;
            drop(guard);
        };
        tokio::join!(put(&gateway, "/v1/policy", &[WASM], &deny), release).0
    };
    let (first, dry_run, last) = tokio::join!(first, dry_run, last);
    assert_eq!((first.status, &*first.code()), (409, "superseded"), "{}", first.body);
    assert_eq!((dry_run.status, last.status), (200, 200), "{} {}", dry_run.body, last.body);
    assert_eq!(status(&gateway).await["active"]["digest"], json!(digest(&deny)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activation_over_its_timeout_changes_nothing() {
    let gateway = without_policy().await;
    let rollout = &gateway.app.rollout;
    let assert_times_out = async |target: &str, body: &[u8]| {
        let reply = put(&gateway, target, &[JSON], body).await;
        assert_eq!((reply.status, &*reply.code()), (503, "not_prepared"), "{}", reply.body);
    };
    // Another activation holds the lock: both requests time out while they wait for it.
    let guard = rollout.lock_activation().await;
    assert_times_out("/v1/policy?timeout-ms=1", &bundle("allow", ALLOWS)).await;
    assert_times_out("/v1/policy?timeout-ms=1&dry-run", &bundle("allow", ALLOWS)).await;
    crate::harness::wait_until("no activation waits", || rollout.waiting() == 0).await;
    drop(guard);
    // The timeout passes during the stages, which take some hundred ms. They continue, and their result is discarded.
    assert_times_out("/v1/policy?timeout-ms=1", &bundle("slow", ALLOWS)).await;
    drop(rollout.lock_activation().await);
    let answer = status(&gateway).await;
    assert_eq!((&answer["active"], &answer["pending"], &answer["failures"]), (&Value::Null, &Value::Null, &json!([])));
    let reply = put(&gateway, "/v1/policy?timeout-ms=30000", &[JSON], &bundle("allow", ALLOWS)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test]
async fn prepared_policy_is_activated_with_the_current_configuration() {
    let gateway = without_policy().await;
    let rollout = &gateway.app.rollout;
    let other = {
        let limits = gateway.app.authorizer.context().limits.clone();
        let store = std::sync::Arc::clone(&gateway.app.authorizer.context().env.store);
        let env = std::sync::Arc::new(tidegate::wasm::host::PolicyEnv::new(store, &limits));
        std::sync::Arc::new(tidegate::wasm::host::PolicyContext { env, limits })
    };
    let next = rollout
        .prepare(PolicyBundle::new(component("allow")), other, PolicyOrigin::default())
        .await
        .expect("it passes");
    rollout.activate(next).await.expect("nothing is signed");
    let settings = &gateway.app.authorizer.context().env.settings;
    assert_eq!(settings.get("audience"), Some("app"));
}

#[tokio::test]
async fn requirements_are_not_checked_outside_a_gateway() {
    let gateway = without_policy().await;
    let requires = |rollout: tidegate::rollout::Rollout| {
        let cases = Some(format!("requires.settings = [\"pepper\"]\n{ALLOWS}"));
        let artifact = PolicyBundle { cases, ..PolicyBundle::new(component("allow")) };
        let context = gateway.app.authorizer.context();
        async move { rollout.prepare(artifact, context, PolicyOrigin::default()).await.map(drop) }
    };
    assert!(requires(gateway.app.rollout.clone()).await.is_err());
    let without_gateway =
        tidegate::rollout::Rollout::without_requirements(std::sync::Arc::clone(&gateway.app.authorizer));
    assert!(requires(without_gateway).await.is_ok(), "only the requirements are skipped");
}
