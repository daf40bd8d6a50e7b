//! Token profiles: keys are fetched over TLS, secrets come from the environment, and no key or secret is logged.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use crate::guests::component;
use crate::processes::{ChildProcess, Gateway, path, run, tidegate, wait_until, with_timeout};
use crate::tls::certificates;

const SECRET: &str = "hunter2 hunter2 hunter2 hunter2 hunter2";

/// Serves these bytes over TLS, with the certificate in this directory.
async fn serve(dir: &Path, body: Vec<u8>) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(dir.join("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key belongs to the certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A client that does not trust the certificate disconnects here.
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = socket.write_all(&[head.as_bytes(), &body].concat()).await;
            let _ = socket.shutdown().await;
        }
    });
    address
}

/// Requests a stream with this token, and returns the status and the body.
pub async fn request_with_token(to: SocketAddr, token: &str) -> (u16, String) {
    let request = format!(
        "GET /api/realtime?channel=c HTTP/1.1\r\nhost: {to}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    let mut answer = String::new();
    let exchange = async {
        let mut socket = TcpStream::connect(to).await.expect("the port is open");
        socket.write_all(request.as_bytes()).await.expect("it is sent");
        socket.read_to_string(&mut answer).await.expect("an answer");
    };
    with_timeout("an answer", exchange).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("the response head").1.to_owned())
}

fn launch(dir: TempDir, toml: &str, roots: Option<&str>) -> (ChildProcess, TempDir) {
    fs::write(dir.path().join("policy.wasm"), component("bearer")).expect("the policy is written");
    fs::write(dir.path().join("tidegate.toml"), toml).expect("the configuration is written");
    let mut command = tidegate(&["serve"]);
    command.current_dir(dir.path()).stdin(Stdio::null()).env("TEST_SECRET", SECRET);
    if let Some(roots) = roots {
        command.env("SSL_CERT_FILE", roots);
    }
    (ChildProcess::start(command), dir)
}

pub fn claims(issuer: &str) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    json!({"iss": issuer, "aud": "app", "sub": "alice", "exp": now + 300})
}

#[tokio::test]
async fn keys_are_fetched_over_tls_and_secrets_are_not_logged() {
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path()).await;
    let mut command = Command::new("sh");
    let script = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem";
    command.args(["-ec", script]).current_dir(dir.path());
    assert!(run(command, None).await.status.success());
    let key = EncodingKey::from_ec_pem(&fs::read(dir.path().join("key.pem")).expect("a key")).expect("an EC key");
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a JWK");
    jwk.common.key_id = Some("k".into());
    let address = serve(dir.path(), serde_json::to_vec(&JwkSet { keys: vec![jwk] }).expect("JSON")).await;
    let toml = format!(
        "listen = '127.0.0.1:0'
        control.listen = '127.0.0.1:0'
        store = 'memory:'
        log.filter = 'tidegate=trace'
        drain.delay = '0s'
        [policy]
        file = 'policy.wasm'
        timeout = '10s'
        settings = {{ word = '${{TEST_SECRET}}' }}
        [policy.tokens.remote]
        issuer = 'remote'
        audience = 'app'
        jwks-url = 'https://localhost:{}/jwks.json?key=hunter2'
        allow-private = true
        [policy.tokens.local]
        issuer = 'local'
        audience = 'app'
        secret = '${{TEST_SECRET}}'",
        address.port()
    );
    let header = Header { kid: Some("k".into()), ..Header::new(Algorithm::ES256) };
    let remote = encode(&header, &claims("remote"), &key).expect("a token");
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let local = encode(&Header::new(Algorithm::HS256), &claims("local"), &secret).expect("a token");

    let roots = path(dir.path(), "ca.pem");
    let folder = || tempfile::tempdir().expect("a directory");
    for (roots, expected) in [(Some(&*roots), 200), (None, 503)] {
        let (process, dir) = launch(folder(), &toml, roots);
        let gateway = Gateway::wait_until_ready(process, dir).await;
        wait_until("the first fetch has finished", async || {
            request_with_token(gateway.data, &remote).await.0 == expected
        })
        .await;
        assert_eq!(request_with_token(gateway.data, &local).await.0, 200);
        assert_eq!(request_with_token(gateway.data, "x").await, (401, "malformed".into()));
        if expected == 503 {
            gateway.process.stderr.wait_for_text("cannot fetch the keys").await;
        }
        // The whole log, including the lines of the shutdown.
        gateway.process.signal("TERM").await;
        let log = gateway.process.end().await.all();
        assert_eq!(log.contains("cannot fetch the keys"), expected == 503, "{log}");
        for secret in ["hunter2", &remote, &local] {
            assert!(!log.contains(secret), "{log}");
        }
    }

    // A missing variable fails the start, and the error names the variable.
    let (process, _dir) = launch(folder(), &toml.replace("TEST_SECRET", "TEST_SECRET_THAT_IS_NOT_THERE"), None);
    let ended = process.end().await;
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("TEST_SECRET_THAT_IS_NOT_THERE"), "{}", ended.stderr);
}
