//! Keys that OpenSSL generates for a run of tests, and tokens signed with them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey};
use serde_json::{Value, json};

pub const SECRET: &[u8] = b"a secret of the tests, of more than 64 bytes, so that it is good for HS512 as well";

pub static RSA: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]));
pub static RSA_OTHER: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["RSA", "-pkeyopt", "rsa_keygen_bits:3072"]));
pub static P256: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]));
pub static P384: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]));
pub static ED: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["ED25519"]));

/// A key pair, as PEM.
pub struct Pair {
    pub private: String,
    pub public: String,
}

impl Pair {
    pub fn new(kind: &[&str]) -> Self {
        let private = openssl(&[&["genpkey", "-algorithm"], kind].concat(), b"");
        let public = openssl(&["pkey", "-pubout"], &private);
        let text = |pem| String::from_utf8(pem).expect("PEM is text");
        Self { private: text(private), public: text(public) }
    }

    pub fn algorithms(&self) -> &'static [Algorithm] {
        let (algorithm, _) = self.signer();
        match algorithm.family() {
            AlgorithmFamily::Ec if algorithm == Algorithm::ES384 => &[Algorithm::ES384],
            AlgorithmFamily::Ec => &[Algorithm::ES256],
            AlgorithmFamily::Ed => &[Algorithm::EdDSA],
            _ => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
        }
    }

    /// A JWKS of the public key, under an id.
    pub fn jwks(&self, kid: &str) -> Vec<u8> {
        let (algorithm, key) = self.signer();
        let mut jwk = Jwk::from_encoding_key(&key, algorithm).expect("a JWK");
        jwk.common.key_id = Some(kid.into());
        // Without it the key is for all algorithms of its family.
        jwk.common.key_algorithm = None;
        serde_json::to_vec(&JwkSet { keys: vec![jwk] }).expect("JSON")
    }

    /// A certificate of the public key.
    pub fn certificate(&self) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        std::fs::write(&path, &self.private).expect("a file");
        let path = path.to_str().expect("a path that is text");
        let pem = openssl(&["req", "-x509", "-key", path, "-days", "2", "-subj", "/CN=Tests of Tidegate"], b"");
        String::from_utf8(pem).expect("PEM is text")
    }

    fn signer(&self) -> (Algorithm, EncodingKey) {
        let pem = self.private.as_bytes();
        if let Ok(key) = EncodingKey::from_rsa_pem(pem) {
            return (Algorithm::RS256, key);
        }
        if let Ok(key) = EncodingKey::from_ed_pem(pem) {
            return (Algorithm::EdDSA, key);
        }
        let key = EncodingKey::from_ec_pem(pem).expect("a key of some kind");
        let algorithm = [Algorithm::ES256, Algorithm::ES384]
            .into_iter()
            .find(|algorithm| jsonwebtoken::crypto::sign(b"", &key, *algorithm).is_ok());
        (algorithm.expect("P-256 or P-384"), key)
    }
}

pub fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with any signature.
pub fn forge(header: Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes());
    format!("{}.{}.{}", part(&header), part(claims), base64(signature))
}

/// A token signed with the algorithm of its header.
pub fn signed(header: Value, claims: &Value, pair: &Pair) -> String {
    sign(header, claims, &pair.signer().1)
}

/// A token with a secret.
pub fn hmac(header: Value, claims: &Value, secret: &[u8]) -> String {
    sign(header, claims, &EncodingKey::from_secret(secret))
}

fn sign(header: Value, claims: &Value, key: &EncodingKey) -> String {
    let algorithm: Algorithm = serde_json::from_value(header["alg"].clone()).expect("an algorithm");
    let mut header = header;
    header["typ"] = json!("JWT");
    let message = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

/// Runs OpenSSL.
pub fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is there");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}
