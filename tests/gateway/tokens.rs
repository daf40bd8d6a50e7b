//! Tokens, from a client's header to the policy's answer.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Reply, send_request};
use crate::guests::component;
use crate::harness::{Gateway, wait_until};
use crate::origin::{Answer, Origin};

const SECRET: &str = "a secret that only the tests and their gateways know";

fn claims(issuer: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    json!({"iss": issuer, "aud": "app", "sub": "alice", "exp": now + 300})
}

fn hmac(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

/// A key pair generated for the test, as files and as a JWKS.
struct Key {
    folder: TempDir,
    key: EncodingKey,
}

impl Key {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let script = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
            openssl pkey -in key.pem -pubout -out public.pem";
        let output = Command::new("sh").args(["-ec", script]).current_dir(&folder).output().expect("a shell");
        assert!(output.status.success(), "{output:?}");
        let key =
            EncodingKey::from_ec_pem(&fs::read(folder.path().join("key.pem")).expect("a key")).expect("an EC key");
        let pair = Self { folder, key };
        fs::write(pair.folder.path().join("jwks.json"), pair.jwks("k")).expect("a file");
        pair
    }

    fn jwks(&self, kid: &str) -> Vec<u8> {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).expect("a JWK");
        jwk.common.key_id = Some(kid.into());
        serde_json::to_vec(&JwkSet { keys: vec![jwk] }).expect("JSON")
    }

    fn sign(&self, kid: &str, claims: &Value) -> String {
        let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.key).expect("a token")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

async fn request_with_token(gateway: &Gateway, token: &str) -> Reply {
    let authorization = format!("Bearer {token}");
    send_request(gateway.data, "GET", "/api/realtime?channel=c", &[("authorization", &authorization)], "").await
}

fn token_profiles(origin: &Origin, options: &str) -> String {
    format!(
        "{options}
        [policy.tokens.remote]
        issuer = 'remote'
        audience = 'app'
        jwks-url = 'http://{}/jwks.json'
        allow-private = true
        [policy.tokens.local]
        issuer = 'local'
        audience = ['app', 'other']
        secret = '{SECRET}'",
        origin.address
    )
}

#[tokio::test]
async fn tokens_are_verified_with_keys_of_every_source() {
    let key = Key::new();
    let origin = Origin::start(Answer::new("200 OK", "", key.jwks("k"))).await;
    let mut profiles = token_profiles(&origin, "policy.settings = { none = 'x' }");
    for (name, path) in [("pem", key.path("public.pem")), ("jwks", key.path("jwks.json"))] {
        write!(profiles, "\n[policy.tokens.{name}]\nissuer = '{name}'\naudience = 'app'\n{name} = '{path}'")
            .expect("text");
    }
    let gateway = Gateway::with_policy(&component("bearer"), &profiles).await;
    for (issuer, token) in [
        ("local", hmac(&claims("local"))),
        ("pem", key.sign("any", &claims("pem"))),
        ("jwks", key.sign("k", &claims("jwks"))),
        ("remote", key.sign("k", &claims("remote"))),
    ] {
        let reply = request_with_token(&gateway, &token).await;
        assert_eq!(reply.status, 200, "{issuer}: {}", reply.body);
        assert_eq!((&reply.json()["sub"], &reply.json()["iss"]), (&json!("alice"), &json!(issuer)));
    }
    let mut expired = claims("local");
    expired["exp"] = json!(1);
    for (token, body) in [
        ("x".to_owned(), "malformed"),
        (hmac(&claims("pem")), "untrusted"),
        (key.sign("k", &claims("local")), "untrusted"),
        (Key::new().sign("k", &claims("remote")), "untrusted"),
        (hmac(&expired), "expired"),
        (hmac(&claims("unknown")), "claims"),
    ] {
        let reply = request_with_token(&gateway, &token).await;
        assert_eq!((reply.status, &*reply.body), (401, body));
    }
}

#[tokio::test]
async fn decisions_waiting_for_jwks_do_not_block_others() {
    let key = Key::new();
    let origin = Origin::start(Answer::Wait).await;
    let bounds = "policy.concurrency = 4\npolicy.timeout = '40s'\npolicy.queue-timeout = '10s'";
    let gateway = Gateway::with_policy(&component("bearer"), &token_profiles(&origin, bounds)).await;
    let (remote, local) = (key.sign("k", &claims("remote")), hmac(&claims("local")));
    let waiting = async { join_all((0..300).map(|_| request_with_token(&gateway, &remote))).await };
    let others = async {
        wait_until("the JWKS is requested", || origin.requests() == 1).await;
        wait_until("all decisions wait for the JWKS", || gateway.app.authorizer.waiting_for_keys() == 300).await;
        for _ in 0..100 {
            assert_eq!(request_with_token(&gateway, &local).await.status, 200);
        }
        origin.answer.send_replace(Answer::new("200 OK", "", key.jwks("k")));
    };
    let (replies, ()) = tokio::join!(waiting, others);
    for reply in replies {
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    assert_eq!(origin.requests(), 1);
    assert_eq!(gateway.app.authorizer.waiting_for_keys(), 0);
}

#[tokio::test]
async fn waiting_for_jwks_does_not_repeat_outbound_requests() {
    let key = Key::new();
    let (keys, service) = (Origin::start(Answer::Wait).await, Origin::start(Answer::new("200 OK", "", "once")).await);
    let hosts = format!("[policy.egress]\nhosts = [{{ url = 'http://{}', allow-private = true }}]", service.address);
    let config = format!("{}\n{hosts}", token_profiles(&keys, "policy.timeout = '20s'"));
    let gateway = Gateway::with_policy(&component("fetch"), &config).await;
    let (to, token) = (service.address.to_string(), key.sign("k", &claims("remote")));
    let headers = [("x-to", &*to), ("x-times", "i"), ("x-then-verify", &token)];
    let asking = send_request(gateway.data, "GET", "/api/realtime?channel=c", &headers, "");
    let answering = async {
        wait_until("the outbound request is sent", || service.requests() == 1).await;
        wait_until("the JWKS is requested", || keys.requests() == 1).await;
        keys.answer.send_replace(Answer::new("200 OK", "", key.jwks("k")));
    };
    let (reply, ()) = tokio::join!(asking, answering);
    assert_eq!((reply.status, &*reply.body), (200, "once"));
    assert_eq!(service.requests(), 1, "the decision was suspended and not repeated");
}

#[tokio::test]
async fn missing_jwks_is_reported_to_the_policy_as_unavailable() {
    let key = Key::new();
    let origin = Origin::start(Answer::Wait).await;
    let gateway = Gateway::with_policy(&component("bearer"), &token_profiles(&origin, "policy.timeout = '1s'")).await;
    let reply = request_with_token(&gateway, &key.sign("k", &claims("remote"))).await;
    assert_eq!((reply.status, &*reply.body), (503, "unavailable"));
    assert!(gateway.is_idle());
}
