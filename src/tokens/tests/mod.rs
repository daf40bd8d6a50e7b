//! Verification of tokens: every algorithm, and the known attacks on JWT libraries.

pub(crate) mod jwks_url;
pub(crate) mod keys;

use serde_json::{Value, json};

use super::*;
use crate::tokens::key::{KeySet, TokenKeyError};
use crate::tokens::tests::keys::{ED, P256, P384, Pair, RSA, RSA_OTHER, SECRET, forge, signed};

/// The time of these tests, in seconds since the Unix epoch, and in ms.
const NOW: u64 = 1_767_225_600;
const NOW_MS: u64 = NOW * 1000;

fn claims() -> Value {
    json!({"iss": "https://auth.example", "aud": "app", "sub": "alice", "exp": NOW + 300})
}

fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

fn profile(keys: KeySet) -> Profile {
    Profile {
        issuer: Some("https://auth.example".into()),
        audience: Audience::Of(vec!["app".into(), "api".into()]),
        leeway: 60,
        require_exp: true,
        algorithms: keys.algorithms(),
        keys: KeySource::Fixed(keys),
        warning: None,
    }
}

fn tokens(profiles: impl IntoIterator<Item = (&'static str, Profile)>) -> Tokens {
    profiles.into_iter().map(|(name, profile)| (name.to_owned(), profile)).collect()
}

fn only(keys: KeySet) -> Tokens {
    tokens([("app", profile(keys))])
}

/// The claims, or why the token is invalid.
fn verdict(tokens: &Tokens, token: &str) -> Result<Value, TokenError> {
    match tokens.verify(token, NOW_MS) {
        Verdict::Valid(claims) => Ok(serde_json::from_str(&claims).expect("claims are JSON")),
        Verdict::Invalid(error) => Err(error),
        Verdict::Pending(_) => panic!("fixed keys are never pending"),
    }
}

#[test]
fn every_algorithm_is_verified_by_pem_and_jwk_keys() {
    for pair in [&*RSA, &*P256, &*P384, &*ED] {
        let pem = only(KeySet::from_pem(&pair.public).expect("a PEM"));
        let jwks = only(KeySet::from_jwks(&pair.jwks("k"), false).expect("a JWKS"));
        let certificate = only(KeySet::from_pem(&pair.certificate()).expect("a certificate"));
        for algorithm in pair.algorithms() {
            let token = signed(json!({"alg": algorithm, "kid": "k"}), &claims(), pair);
            for tokens in [&pem, &jwks, &certificate] {
                assert_eq!(verdict(tokens, &token), Ok(claims()), "{algorithm:?}");
            }
            let other = claims().to_string().replace("alice", "root");
            let forged = token.split('.').collect::<Vec<_>>();
            let forged = [forged[0], &keys::base64(other.as_bytes()), forged[2]].join(".");
            assert_eq!(verdict(&pem, &forged), Err(TokenError::Untrusted), "{algorithm:?}");
        }
    }
    let secret = only(KeySet::from_secret(SECRET));
    for algorithm in ["HS256", "HS384", "HS512"] {
        let token = keys::hmac(json!({"alg": algorithm}), &claims(), SECRET);
        assert_eq!(verdict(&secret, &token), Ok(claims()), "{algorithm}");
        let other = keys::hmac(json!({"alg": algorithm}), &claims(), b"another secret of at least 32 bytes");
        assert_eq!(verdict(&secret, &other), Err(TokenError::Untrusted), "{algorithm}");
    }
}

#[test]
fn unsigned_tokens_are_untrusted() {
    for keys in [KeySet::from_secret(SECRET), KeySet::from_pem(&RSA.public).expect("a PEM")] {
        let tokens = only(keys);
        for alg in ["none", "None", "NONE", "nOnE", "", "HS1", "RS256 ", "rs256"] {
            let unsigned = forge(json!({"alg": alg}), &claims(), b"");
            assert_eq!(verdict(&tokens, &unsigned), Err(TokenError::Untrusted), "{alg}");
        }
        let unsigned = forge(json!({"alg": "RS256"}), &claims(), b"");
        assert_eq!(verdict(&tokens, &unsigned), Err(TokenError::Untrusted));
    }
}

#[test]
fn public_key_as_hmac_secret_is_untrusted() {
    let tokens = only(KeySet::from_pem(&RSA.public).expect("a PEM"));
    let jwks = only(KeySet::from_jwks(&RSA.jwks("k"), false).expect("a JWKS"));
    let der = keys::openssl(&["pkey", "-pubin", "-outform", "DER"], RSA.public.as_bytes());
    for secret in [RSA.public.as_bytes(), RSA.public.trim_end().as_bytes(), &der, b""] {
        let token = keys::hmac(json!({"alg": "HS256", "kid": "k"}), &claims(), secret);
        assert_eq!(verdict(&tokens, &token), Err(TokenError::Untrusted));
        assert_eq!(verdict(&jwks, &token), Err(TokenError::Untrusted));
    }
    // Also if the operator allows an algorithm that the keys are not for.
    let mut careless = profile(KeySet::from_pem(&RSA.public).expect("a PEM"));
    careless.algorithms.push(Algorithm::HS256);
    let token = keys::hmac(json!({"alg": "HS256"}), &claims(), RSA.public.as_bytes());
    assert_eq!(verdict(&crate::tokens::tests::tokens([("app", careless)]), &token), Err(TokenError::Untrusted));
}

#[test]
fn keys_named_in_the_header_are_ignored() {
    let tokens = only(KeySet::from_pem(&RSA.public).expect("a PEM"));
    let own: Value = serde_json::from_slice(&RSA_OTHER.jwks("k")).expect("JSON");
    for (name, value) in [
        ("jwk", own["keys"][0].clone()),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!([keys::base64(RSA_OTHER.certificate().as_bytes())])),
    ] {
        let mut header = json!({"alg": "RS256"});
        header[name] = value;
        assert_eq!(verdict(&tokens, &signed(header, &claims(), &RSA_OTHER)), Err(TokenError::Untrusted), "{name}");
    }
}

#[test]
fn tokens_with_critical_extensions_are_untrusted() {
    let tokens = only(KeySet::from_pem(&P256.public).expect("a PEM"));
    for crit in [json!(null), json!(["exp"]), json!(["b64"]), json!([]), json!("exp")] {
        let token = signed(json!({"alg": "ES256", "crit": crit, "b64": true}), &claims(), &P256);
        assert_eq!(verdict(&tokens, &token), Err(TokenError::Untrusted), "{crit}");
    }
}

#[test]
fn key_id_selects_the_key() {
    let set = |keys: &[(&Pair, Option<&str>)]| {
        let keys: Vec<Value> = keys
            .iter()
            .map(|(pair, id)| {
                let jwks: Value = serde_json::from_slice(&pair.jwks("")).expect("JSON");
                let mut key = jwks["keys"][0].clone();
                match id {
                    Some(id) => key["kid"] = json!(id),
                    None => _ = key.as_object_mut().expect("an object").remove("kid"),
                }
                key
            })
            .collect();
        only(KeySet::from_jwks(json!({"keys": keys}).to_string().as_bytes(), false).expect("a JWKS"))
    };
    let two = set(&[(&RSA, Some("a")), (&RSA_OTHER, Some("b")), (&P256, Some("c"))]);
    let one = set(&[(&RSA, None)]);
    let ask =
        |tokens: &Tokens, header: Value, pair: &Pair| verdict(tokens, &signed(header, &claims(), pair)).map(|_| ());
    let untrusted = Err(TokenError::Untrusted);
    assert_eq!(ask(&two, json!({"alg": "RS256", "kid": "a"}), &RSA), Ok(()));
    assert_eq!(ask(&two, json!({"alg": "RS256", "kid": "b"}), &RSA_OTHER), Ok(()));
    assert_eq!(ask(&two, json!({"alg": "RS256", "kid": "b"}), &RSA), untrusted, "the id of another key");
    assert_eq!(ask(&two, json!({"alg": "RS256", "kid": "d"}), &RSA), untrusted, "an unknown id");
    assert_eq!(ask(&two, json!({"alg": "RS256"}), &RSA_OTHER), Ok(()), "without an id any key may verify");
    assert_eq!(ask(&two, json!({"alg": "ES256"}), &P256), Ok(()), "without an id any key of the algorithm may verify");
    assert_eq!(
        ask(&two, json!({"alg": "ES256", "kid": "a"}), &P256),
        untrusted,
        "the id of a key for another algorithm"
    );
    assert_eq!(ask(&one, json!({"alg": "RS256", "kid": "a"}), &RSA), Ok(()), "a key without an id verifies any id");
    assert_eq!(ask(&one, json!({"alg": "RS256", "kid": "a"}), &RSA_OTHER), untrusted);
}

#[test]
fn jwk_fields_restrict_the_algorithms() {
    let key = |name: &str, value: Value| {
        let mut jwks: Value = serde_json::from_slice(&RSA.jwks("k")).expect("JSON");
        jwks["keys"][0][name] = value;
        KeySet::from_jwks(jwks.to_string().as_bytes(), false).map(|keys| keys.algorithms())
    };
    assert_eq!(key("alg", json!("RS256")), Ok(vec![Algorithm::RS256]));
    assert_eq!(key("use", json!("sig")).map(|all| all.len()), Ok(6));
    assert_eq!(key("use", json!("enc")), Err(TokenKeyError::Empty));
    assert_eq!(key("key_ops", json!(["encrypt"])), Err(TokenKeyError::Empty));
    assert_eq!(key("alg", json!("RSA-OAEP")), Err(TokenKeyError::Empty));
    assert_eq!(key("alg", json!("HS256")), Err(TokenKeyError::Empty), "a public key is not for HMAC");
    assert_eq!(key("e", json!("!")), Err(TokenKeyError::Empty));
    assert_eq!(key("n", json!("AQAB")), Err(TokenKeyError::Empty), "too short");
}

#[test]
fn invalid_keys_are_refused() {
    let jwks =
        |keys: Value, secrets| KeySet::from_jwks(json!({"keys": keys}).to_string().as_bytes(), secrets).map(|_| ());
    let oct = json!({"kty": "oct", "k": keys::base64(SECRET)});
    let rsa = serde_json::from_slice::<Value>(&RSA.jwks("k")).expect("JSON")["keys"][0].clone();
    assert_eq!(jwks(json!([oct]), true), Ok(()));
    assert_eq!(jwks(json!([oct]), false), Err(TokenKeyError::Empty), "a secret that anybody can fetch is no secret");
    assert_eq!(jwks(json!([oct, rsa]), true), Err(TokenKeyError::Mixed));
    assert_eq!(jwks(json!([oct, rsa, {"kty": "new"}, 5, null]), false), Ok(()));
    assert_eq!(jwks(json!([]), true), Err(TokenKeyError::Empty));
    assert_eq!(jwks(json!(vec![rsa.clone(); 101]), true), Err(TokenKeyError::TooMany));
    for x in ["", "AA", &keys::base64(&[1; 31]), &keys::base64(&[1; 33]), "!"] {
        assert_eq!(jwks(json!([{"kty": "OKP", "crv": "Ed25519", "x": x}]), true), Err(TokenKeyError::Empty), "{x}");
        assert_eq!(
            jwks(json!([{"kty": "EC", "crv": "P-256", "x": x, "y": x}]), true),
            Err(TokenKeyError::Empty),
            "{x}"
        );
    }
    let off = keys::base64(&[1; 32]);
    assert_eq!(
        jwks(json!([{"kty": "EC", "crv": "P-256", "x": off, "y": off}]), true),
        Err(TokenKeyError::Empty),
        "off the curve"
    );
    for text in ["", "{}", "[]", "{\"keys\": {}}", "<html>"] {
        assert_eq!(KeySet::from_jwks(text.as_bytes(), true).map(|_| ()), Err(TokenKeyError::NotJwks), "{text}");
    }
    let pem = |text: &str| KeySet::from_pem(text).map(|_| ());
    assert_eq!(pem(""), Err(TokenKeyError::NotPem));
    assert_eq!(pem(&RSA.private), Err(TokenKeyError::Private));
    assert_eq!(pem(&ED.private), Err(TokenKeyError::Private));
    assert_eq!(pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), Err(TokenKeyError::Unknown));
    assert_eq!(pem(&Pair::new(&["RSA", "-pkeyopt", "rsa_keygen_bits:1024"]).public), Err(TokenKeyError::RsaBits(1024)));
    assert_eq!(pem(&Pair::new(&["EC", "-pkeyopt", "ec_paramgen_curve:P-521"]).public), Err(TokenKeyError::Unknown));
    assert_eq!(pem(&format!("{}{}", RSA.public, RSA_OTHER.public)), Ok(()), "two keys, for a rotation");
}

#[test]
fn malformed_tokens_are_refused() {
    let tokens = only(KeySet::from_secret(SECRET));
    let part = |text: &str| keys::base64(text.as_bytes());
    let good = keys::hmac(json!({"alg": "HS256"}), &claims(), SECRET);
    let twice = format!("{}.{}.AAAA", part(r#"{"alg":"HS256"}"#), part(r#"{"sub":"a","s\u0075b":"b"}"#));
    let two_algs = format!("{}.{}.AAAA", part(r#"{"alg":"HS256","alg":"none"}"#), part("{}"));
    let long = keys::hmac(json!({"alg": "HS256"}), &with(&json!({"x": "y".repeat(16 << 10)})), SECRET);
    let long_kid = keys::hmac(json!({"alg": "HS256", "kid": "k".repeat(300)}), &claims(), SECRET);
    for token in [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b",
        &format!("{good}.{good}"),
        &format!("{good}="),
        &format!("{good}\n"),
        &format!(" {good}"),
        &format!("Bearer {good}"),
        &format!("{}.{}.AAAA", part("[]"), part("{}")),
        &format!("{}.{}.AAAA", part("{}"), part("{}")),
        &format!("{}.{}.AAAA", part(r#"{"alg":5}"#), part("{}")),
        &format!("{}.{}.AAAA", part(r#"{"alg":"HS256"}"#), part("[]")),
        &format!("{}.{}.AAAA", part(r#"{"alg":"HS256"}"#), part("{} {}")),
        &format!("{}.{}.AAAA", part(r#"{"alg":"HS256"}"#), keys::base64(b"{\"a\":\"\xff\"}")),
        &twice,
        &two_algs,
        &long,
        &long_kid,
    ] {
        assert_eq!(verdict(&tokens, token), Err(TokenError::Malformed), "{token}");
    }
}

#[test]
fn claims_are_checked_against_the_profile() {
    let secret = || KeySet::from_secret(SECRET);
    let strict = only(secret());
    let open = tokens([(
        "app",
        Profile { issuer: None, audience: Audience::Of(vec![]), require_exp: false, ..profile(secret()) },
    )]);
    let any = tokens([("app", Profile { audience: Audience::Any, ..profile(secret()) })]);
    let ask =
        |tokens: &Tokens, claims: &Value| match verdict(tokens, &keys::hmac(json!({"alg": "HS256"}), claims, SECRET)) {
            Ok(_) => "holds".to_owned(),
            Err(TokenError::Expired) => "expired".to_owned(),
            Err(TokenError::Claims(reason)) => reason,
            Err(other) => format!("{other:?}"),
        };
    for (tokens, claims, expected) in [
        (&strict, claims(), "holds"),
        (&strict, with(&json!({"exp": NOW + 1})), "holds"),
        (&strict, with(&json!({"exp": NOW - 59})), "holds"),
        (&strict, with(&json!({"exp": NOW as f64 - 59.5})), "holds"),
        (&strict, with(&json!({"exp": NOW - 60})), "expired"),
        (&strict, with(&json!({"exp": 0})), "expired"),
        (&strict, with(&json!({"exp": -1})), "expired"),
        (&strict, with(&json!({"exp": u64::MAX})), "holds"),
        (&strict, with(&json!({"exp": NOW_MS.to_string()})), "exp is not a time"),
        (&strict, with(&json!({"exp": null})), "exp is not a time"),
        (&strict, without("exp"), "exp is missing"),
        (&strict, with(&json!({"nbf": NOW + 60})), "holds"),
        (&strict, with(&json!({"nbf": NOW + 61})), "nbf"),
        (&strict, with(&json!({"nbf": "soon"})), "nbf is not a time"),
        (&strict, with(&json!({"aud": ["other", "api"]})), "holds"),
        (&strict, with(&json!({"aud": ["other"]})), "aud"),
        (&strict, with(&json!({"aud": []})), "aud"),
        (&strict, with(&json!({"aud": "App"})), "aud"),
        (&strict, with(&json!({"aud": {"app": 1}})), "aud"),
        (&strict, without("aud"), "aud is missing"),
        (&any, without("aud"), "holds"),
        (&any, with(&json!({"aud": "anybody"})), "holds"),
        (&strict, with(&json!({"iss": "https://auth.example/"})), "iss"),
        (&strict, with(&json!({"iss": ["https://auth.example"]})), "iss"),
        (&strict, without("iss"), "iss"),
        (&open, json!({}), "holds"),
        (&open, json!({"aud": "other"}), "the profile has no audience"),
        (&open, json!({"exp": NOW - 100}), "expired"),
    ] {
        let result = ask(tokens, &claims);
        assert!(result.contains(expected), "{claims}: {result}, not {expected}");
    }
}

#[test]
fn issuer_selects_the_profile() {
    let profile_of = |issuer: Option<&str>, secret: &str| Profile {
        issuer: issuer.map(Into::into),
        audience: Audience::Any,
        ..profile(KeySet::from_secret(secret.repeat(32).as_bytes()))
    };
    let token = |issuer: Option<&str>, secret: &str| {
        let claims = issuer.map_or_else(|| without("iss"), |issuer| with(&json!({"iss": issuer})));
        keys::hmac(json!({"alg": "HS256"}), &claims, secret.repeat(32).as_bytes())
    };
    let many =
        tokens([("a", profile_of(Some("a"), "1")), ("b", profile_of(Some("b"), "2")), ("rest", profile_of(None, "3"))]);
    let ask = |tokens: &Tokens, issuer, secret| verdict(tokens, &token(issuer, secret)).map(|_| ());
    assert_eq!(ask(&many, Some("a"), "1"), Ok(()));
    assert_eq!(ask(&many, Some("b"), "2"), Ok(()));
    assert_eq!(ask(&many, Some("a"), "2"), Err(TokenError::Untrusted), "each profile uses its own keys");
    assert_eq!(ask(&many, Some("a"), "3"), Err(TokenError::Untrusted));
    assert_eq!(ask(&many, Some("c"), "3"), Ok(()), "the profile without an issuer is for all others");
    assert_eq!(ask(&many, None, "3"), Ok(()));
    let is_claims = |result| assert!(matches!(result, Err(TokenError::Claims(_))), "{result:?}");
    is_claims(ask(&tokens([("a", profile_of(Some("a"), "1"))]), Some("c"), "1"));
    is_claims(ask(&tokens([("a", profile_of(None, "1")), ("b", profile_of(None, "1"))]), Some("c"), "1"));
    is_claims(ask(&tokens([("a", profile_of(Some("a"), "1")), ("b", profile_of(Some("a"), "1"))]), Some("a"), "1"));
    assert!(matches!(ask(&Tokens::default(), Some("a"), "1"), Err(TokenError::Unavailable(_))));

    let with = |profile: &str, token: &str| match many.verify_with(profile, token, NOW_MS) {
        Verdict::Valid(_) => Ok(()),
        Verdict::Invalid(error) => Err(error),
        Verdict::Pending(_) => panic!("fixed keys are never pending"),
    };
    assert_eq!(with("b", &token(Some("b"), "2")), Ok(()));
    assert_eq!(with("b", &token(Some("a"), "1")), Err(TokenError::Untrusted));
    is_claims(with("b", &token(Some("a"), "2")));
    assert!(matches!(with("c", &token(Some("c"), "3")), Err(TokenError::Unavailable(_))));
}
