//! The way of a policy into force, as the control port tells of it and leads it.

use base64::Engine;
use serde_json::{Value, json};
use tidegate::artifact::bundle::{PolicyBundle, digest};
use tidegate::policy::info::PolicyOrigin;
use tidegate::rollout::stage::Stage;

use crate::client::{Reply, ask, ask_bytes};
use crate::guests::component;
use crate::harness::{Door, Gateway};

const WASM: (&str, &str) = ("content-type", "application/wasm");
const JSON: (&str, &str) = ("content-type", "application/json");
const ALLOWS: &str = "[[case]]\nname = \"anybody\"\nexpect.allow = true\n";

async fn empty() -> Gateway {
    Gateway::with(None, &Door::NoPolicyYet, "policy.settings.audience = 'app'").await
}

async fn put(gateway: &Gateway, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    ask_bytes(gateway.control, "PUT", target, headers, body).await
}

async fn status(gateway: &Gateway) -> Value {
    ask(gateway.control, "GET", "/v1/policy", &[], "").await.json()
}

fn bundle(name: &str, cases: &str) -> Vec<u8> {
    let component = base64::engine::general_purpose::STANDARD.encode(component(name));
    json!({ "component": component, "cases": cases }).to_string().into_bytes()
}

#[tokio::test]
async fn a_policy_is_put_in_force_and_taken_back() {
    let gateway = empty().await;
    let before = status(&gateway).await;
    assert_eq!((&before["in_force"], &before["history"]), (&Value::Null, &json!([])), "{before}");
    assert_eq!(gateway.refused("channel=c").await.status, 503);

    let reply = put(&gateway, "/v1/policy", &[WASM], &component("allow")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let allow = digest(&component("allow"));
    assert_eq!(reply.header("etag"), format!("\"{allow}\""));
    let told = reply.json();
    assert_eq!((&told["in_force"]["digest"], &told["in_force"]["number"]), (&json!(allow), &json!(1)), "{told}");
    assert_eq!(told["in_force"]["until_restart"], true, "there is no file here: {told}");
    gateway.open("channel=c").await.connected("c").await;

    let nothing = ask(gateway.control, "POST", "/v1/policy/rollback", &[JSON], "{}").await;
    assert_eq!((nothing.status, &*nothing.code()), (409, "nothing_before"), "{}", nothing.body);
    let reply = put(&gateway, "/v1/policy", &[WASM], &component("deny")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(gateway.refused("channel=c").await.status, 418);
    assert_eq!(status(&gateway).await["rolls_back_to"], json!(allow));
    let back = ask(gateway.control, "POST", "/v1/policy/rollback", &[JSON], "{}").await;
    assert_eq!((back.status, &back.json()["in_force"]["digest"]), (200, &json!(allow)), "{}", back.body);
    gateway.open("channel=c").await.connected("c").await;
    let nothing = ask(gateway.control, "POST", "/v1/policy/rollback", &[JSON], "{}").await;
    assert_eq!(nothing.status, 409, "one goes back once a step: {}", nothing.body);
    let numbers = status(&gateway).await["history"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| v["number"].clone())
        .collect::<Vec<_>>();
    assert_eq!(numbers, [3, 2, 1]);
}

#[tokio::test]
async fn what_is_refused_changes_nothing_and_says_why() {
    let gateway = empty().await;
    assert_eq!(put(&gateway, "/v1/policy", &[WASM], &component("allow")).await.status, 200);
    let failing = "[[case]]\nname = \"nobody\"\nexpect.status = 403\n";
    let reads = "tokens.app.pem = \"/etc/hostname\"\n[[case]]\nname = \"a\"\nexpect.allow = true\n";
    let fetches = "tokens.app.jwks-url = \"http://127.0.0.1:1\"\n[[case]]\nname = \"a\"\nexpect.allow = true\n";
    let allow = component("allow");
    for (header, body, stage, words) in [
        (WASM, b"#!/bin/sh".to_vec(), "compiled", &["not WebAssembly"][..]),
        (WASM, allow[..allow.len() / 2].to_vec(), "compiled", &["not a valid component"]),
        (WASM, component("missing-import"), "linked", &["acme:secrets/vault"]),
        (WASM, component("wrong-world"), "linked", &["tidegate:policy/authorizer"]),
        (JSON, bundle("allow", failing), "tested", &["\"nobody\" (line 1)", "403"]),
        (JSON, bundle("allow", "[[case]]\nname = 1\n"), "tested", &["cases:2"]),
        (JSON, bundle("allow", reads), "tested", &["tokens.app.pem", "read no files"]),
        (JSON, bundle("allow", fetches), "tested", &["jwks-url", "cases fetch nothing"]),
        (JSON, bundle("allow", "requires.settings = [\"pepper\"]\n"), "linked", &["policy.settings.pepper"]),
    ] {
        let reply = put(&gateway, "/v1/policy", &[header], &body).await;
        assert_eq!((reply.status, &*reply.code()), (422, "refused"), "{words:?}: {}", reply.body);
        assert_eq!(reply.json()["error"]["stage"], stage, "{words:?}: {}", reply.body);
        for word in words {
            assert!(reply.body.contains(&word.replace('"', "\\\"")), "{word}: {}", reply.body);
        }
        let status = status(&gateway).await;
        assert_eq!(status["last_refusal"]["stage"], stage, "{status}");
        assert_eq!((&status["in_force"]["number"], &status["candidate"]), (&json!(1), &Value::Null), "{status}");
        gateway.open("channel=c").await.connected("c").await;
    }
    let failures = gateway.app.rollout.status().failures;
    assert_eq!(failures.iter().filter(|error| error.stage == Stage::Linked).count(), 3);
}

#[tokio::test]
async fn cases_that_pass_and_settings_that_are_there_let_it_in() {
    let gateway = empty().await;
    let cases = format!("requires.settings = [\"audience\"]\n{ALLOWS}");
    let reply = put(&gateway, "/v1/policy?dry-run", &[JSON], &bundle("allow", &cases)).await;
    let told = reply.json();
    assert_eq!((reply.status, &told["dry_run"], &told["cases"]), (200, &json!(true), &json!(1)), "{told}");
    assert_eq!(status(&gateway).await["in_force"], Value::Null, "nothing changed");
    let reply = put(&gateway, "/v1/policy", &[JSON], &bundle("allow", &cases)).await;
    assert_eq!(
        (reply.status, &reply.json()["in_force"]["cases"]),
        (200, &json!(digest(cases.as_bytes()))),
        "{}",
        reply.body
    );
    // What it requires is asked for whenever what is around it changes.
    let context = {
        let authorizer = &gateway.app.authorizer;
        let limits = authorizer.context().limits.clone();
        let store = std::sync::Arc::clone(&authorizer.context().env.store);
        let env = std::sync::Arc::new(tidegate::wasm::host::PolicyEnv::new(store, &limits));
        std::sync::Arc::new(tidegate::wasm::host::PolicyContext { env, limits })
    };
    let Err(refused) = gateway.app.rollout.lock_activation().await.revalidate_active(context).await else {
        panic!("it requires a setting")
    };
    assert!(refused.stage == Stage::Linked && refused.why.contains("policy.settings.audience"), "{refused}");
}

#[tokio::test]
async fn who_did_not_see_what_is_in_force_changes_nothing() {
    let gateway = empty().await;
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
    let known = ask(gateway.control, "GET", "/v1/policy", &[("if-none-match", &tag(&deny))], "").await;
    assert_eq!((known.status, known.header("etag")), (304, tag(&deny)));
    let back = ask(gateway.control, "POST", "/v1/policy/rollback", &[JSON, ("if-match", &tag(&allow))], "{}").await;
    assert_eq!(back.status, 412, "{}", back.body);
}

#[tokio::test]
async fn what_is_no_policy_is_told_before_anything_else() {
    let gateway = empty().await;
    let evil = ("origin", "https://evil.example");
    for (target, headers, body, expect, code) in [
        ("/v1/policy", &[][..], "x", 415, "not_a_policy"),
        ("/v1/policy", &[("content-type", "text/plain")], "x", 415, "not_a_policy"),
        ("/v1/policy", &[JSON], "{", 400, "invalid_json"),
        ("/v1/policy", &[JSON], r#"{"component":"?"}"#, 400, "invalid_policy"),
        ("/v1/policy", &[JSON], r#"{"komponent":"AA=="}"#, 400, "invalid_policy"),
        ("/v1/policy?dryrun", &[WASM], "x", 400, "invalid_parameter"),
        ("/v1/policy?dry-run=no", &[WASM], "x", 400, "invalid_parameter"),
        ("/v1/policy?timeout-ms=0", &[WASM], "x", 400, "invalid_parameter"),
        ("/v1/policy?timeout-ms=3600001", &[WASM], "x", 400, "invalid_parameter"),
        ("/v1/policy", &[WASM, evil], "x", 403, "foreign_origin"),
    ] {
        let reply = put(&gateway, target, headers, body.as_bytes()).await;
        assert_eq!((reply.status, &*reply.code()), (expect, code), "{target} {headers:?} {body}: {}", reply.body);
    }
    let open = Gateway::start("").await;
    let reply = put(&open, "/v1/policy", &[WASM], &component("allow")).await;
    assert_eq!((reply.status, &*reply.code()), (409, "no_policy_here"), "{}", reply.body);
    let reply = ask(gateway.control, "POST", "/v1/policy/rollback", &[], "").await;
    assert_eq!(reply.status, 415, "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_that_wait_the_last_one_goes_on() {
    let gateway = empty().await;
    let guard = gateway.app.rollout.lock_activation().await;
    let (allow, deny) = (component("allow"), component("deny"));
    let overtaken = tokio::sync::Notify::new();
    let first = async {
        let first = put(&gateway, "/v1/policy", &[WASM], &allow).await;
        overtaken.notify_one();
        first
    };
    let rehearsal = put(&gateway, "/v1/policy?dry-run", &[WASM], &allow);
    let last = async {
        crate::harness::until("two wait", || gateway.app.rollout.waiting() == 2).await;
        let release = async {
            overtaken.notified().await;
            drop(guard);
        };
        tokio::join!(put(&gateway, "/v1/policy", &[WASM], &deny), release).0
    };
    let (first, rehearsal, last) = tokio::join!(first, rehearsal, last);
    assert_eq!((first.status, &*first.code()), (409, "overtaken"), "{}", first.body);
    assert_eq!((rehearsal.status, last.status), (200, 200), "{} {}", rehearsal.body, last.body);
    assert_eq!(status(&gateway).await["in_force"]["digest"], json!(digest(&deny)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_longer_than_was_wanted_changes_nothing() {
    let gateway = empty().await;
    let rollout = &gateway.app.rollout;
    let late = async |target: &str, body: &[u8]| {
        let reply = put(&gateway, target, &[JSON], body).await;
        assert_eq!((reply.status, &*reply.code()), (503, "not_prepared"), "{}", reply.body);
    };
    // Another activation does not end: neither request waits for it any more.
    let guard = rollout.lock_activation().await;
    late("/v1/policy?timeout-ms=1", &bundle("allow", ALLOWS)).await;
    late("/v1/policy?timeout-ms=1&dry-run", &bundle("allow", ALLOWS)).await;
    crate::harness::until("nobody waits", || rollout.waiting() == 0).await;
    drop(guard);
    // The time passes in the middle of the stages, which take some hundred ms. They go on, and come to nothing.
    late("/v1/policy?timeout-ms=1", &bundle("slow", ALLOWS)).await;
    drop(rollout.lock_activation().await);
    let told = status(&gateway).await;
    assert_eq!((&told["in_force"], &told["candidate"], &told["refusals"]), (&Value::Null, &Value::Null, &json!([])));
    let reply = put(&gateway, "/v1/policy?timeout-ms=30000", &[JSON], &bundle("allow", ALLOWS)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test]
async fn one_that_is_prepared_takes_force_with_what_is_configured_then() {
    let gateway = empty().await;
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
async fn elsewhere_nobody_knows_what_is_configured() {
    let gateway = empty().await;
    let requires = |rollout: tidegate::rollout::Rollout| {
        let cases = Some(format!("requires.settings = [\"pepper\"]\n{ALLOWS}"));
        let artifact = PolicyBundle { cases, ..PolicyBundle::new(component("allow")) };
        let context = gateway.app.authorizer.context();
        async move { rollout.prepare(artifact, context, PolicyOrigin::default()).await.map(drop) }
    };
    assert!(requires(gateway.app.rollout.clone()).await.is_err());
    let elsewhere = tidegate::rollout::Rollout::without_requirements(std::sync::Arc::clone(&gateway.app.authorizer));
    assert!(requires(elsewhere).await.is_ok(), "its cases are asked all the same");
}
