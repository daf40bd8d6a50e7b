//! `rediss://`, with certificates that the test generates.

use std::path::Path;

use redis::cmd;
use tokio::process::Command;

use crate::processes::{Gateway, path, reserved_port, run, run_tidegate};
use crate::redis_server::{Redis, supports_tls};
use crate::stores::{assert_store_works, trace_config};

/// Generates a root certificate, and a server certificate that it signs.
pub async fn certificates(dir: &Path) {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=Tests of Tidegate' \
            -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' > server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem
    ";
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(dir);
    let ended = run(command, None).await;
    assert!(ended.status.success(), "{ended:?}");
}

#[tokio::test]
async fn store_over_tls_is_verified_with_the_configured_root() {
    assert!(
        supports_tls().await,
        "this redis-server was built without TLS; use one with TLS, such as the package of Debian or Ubuntu"
    );
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path()).await;
    let file = |name: &str| path(dir.path(), name);
    let port = reserved_port();
    let redis = Redis::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let (store, ca) = (format!("rediss://127.0.0.1:{port}"), file("ca.pem"));
    let trusting = format!("store-ca = \"{ca}\"\n{}", trace_config(&store));
    assert_store_works(Gateway::start(&trusting).await, &mut redis.connect().await).await;
    let named = trusting.replace("127.0.0.1", "localhost");
    let _: () = cmd("FLUSHALL").query_async(&mut redis.connect().await).await.expect("emptied");
    assert_store_works(Gateway::start(&named).await, &mut redis.connect().await).await;

    let emitted = run_tidegate(&["emit", "tls", "e", "1", "--store", &store, "--store-ca", &ca]).await;
    assert_eq!(emitted.code(), Some(0), "{emitted:?}");
    assert_eq!(redis.entries("tls").await.len(), 1);

    // Certificates of another root are rejected, and so is a server without TLS.
    certificates(dir.path()).await;
    let plain = trusting.replace(&store, &format!("rediss://127.0.0.1:{}", redis.port));
    for (toml, cause) in [(trace_config(&store), "certificate"), (trusting, "certificate"), (plain, "rediss://")] {
        let (process, _dir) = Gateway::launch(&toml, &[]);
        let ended = process.end().await;
        assert_eq!((ended.code(), ended.stdout.is_empty()), (Some(1), true), "{ended:?}");
        let error = ended.stderr.lines().last().unwrap_or_default();
        assert!(error.contains(cause) && error.contains("rediss://127.0.0.1"), "{error}");
    }
    // A file without certificates is a mistake in the configuration, for `check` as well.
    std::fs::write(file("empty.pem"), "").expect("written");
    for name in ["missing.pem", "empty.pem"] {
        let config = file("tidegate.toml");
        let toml = format!("store-ca = \"{}\"\n{}", file(name), trace_config(&store));
        std::fs::write(&config, toml).expect("written");
        for command in ["serve", "check"] {
            let ended = run_tidegate(&[command, "--config", &config]).await;
            assert_eq!(ended.code(), Some(2), "{command}: {ended:?}");
            assert!(ended.stderr.contains("store-ca") && ended.stderr.contains(name), "{command}: {}", ended.stderr);
        }
    }
}
