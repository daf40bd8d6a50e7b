//! `rediss://`, with certificates that the test generates.

use std::path::Path;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use tokio::process::Command;

use crate::client::Sse;
use crate::control_port::metric;
use crate::processes::{ChildProcess, Gateway, path, reserved_port, run, run_tidegate, wait_until};
use crate::redis_cluster::ClusterNode;
use crate::redis_sentinel::NAME;
use crate::redis_server::{Redis, server, supports_tls};
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

/// Generates a client certificate of the root, and its key.
async fn client_certificate(dir: &Path, name: &str, days: &str) {
    let script = format!(
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr
         printf 'basicConstraints=CA:FALSE\\n' > {name}.ext
         openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile {name}.ext -out {name}.pem"
    );
    let mut command = Command::new("sh");
    command.args(["-e", "-c", &script]).current_dir(dir);
    let ended = run(command, None).await;
    assert!(ended.status.success(), "{ended:?}");
}

/// Options of a Redis that requires client certificates of the root at this port.
fn strict_options(dir: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| path(dir, name);
    let options = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", file("server.pem")),
        ("--tls-key-file", file("server.key")),
        ("--tls-ca-cert-file", file("ca.pem")),
        ("--tls-auth-clients", "yes".to_owned()),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// A Redis that requires client certificates of the root, and its URL. It also has a port without TLS.
async fn strict_redis(dir: &Path) -> (Redis, String) {
    let port = reserved_port();
    let options = strict_options(dir, port);
    let redis = Redis::start(&options.iter().map(|option| &**option).collect::<Vec<_>>()).await;
    (redis, format!("rediss://127.0.0.1:{port}"))
}

/// Lines with the files of a client certificate.
fn certificate_lines(dir: &Path) -> String {
    let file = |name: &str| path(dir, name);
    format!(
        "store-ca = \"{}\"\nstore-cert = \"{}\"\nstore-key = \"{}\"\n",
        file("ca.pem"),
        file("use.pem"),
        file("use.key")
    )
}

fn use_certificate(dir: &Path, name: &str) {
    for kind in ["pem", "key"] {
        std::fs::copy(dir.join(format!("{name}.{kind}")), dir.join(format!("use.{kind}"))).expect("copied");
    }
}

#[tokio::test]
async fn mistakes_in_client_certificates_are_reported_with_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path()).await;
    client_certificate(dir.path(), "one", "2").await;
    client_certificate(dir.path(), "two", "2").await;
    client_certificate(dir.path(), "expired", "-1").await;
    let (redis, store) = strict_redis(dir.path()).await;
    let config = path(dir.path(), "tidegate.toml");
    let lines = certificate_lines(dir.path());
    let run_with = async |toml: &str, command: &str| {
        std::fs::write(&config, toml).expect("written");
        run_tidegate(&[command, "--config", &config]).await
    };
    let check = async |code: i32, says: &[&str]| {
        for command in ["serve", "check"] {
            let toml = format!(
                "{lines}listen = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"\nstore = \"{store}\"\nallow-all = true"
            );
            let ended = run_with(&toml, command).await;
            assert_eq!(ended.code(), Some(code), "{command}: {ended:?}");
            assert!(says.iter().all(|part| ended.stderr.contains(part)), "{command}: {}", ended.stderr);
            let key = std::fs::read_to_string(dir.path().join("use.key")).unwrap_or_default();
            assert!(key.lines().skip(1).all(|line| !ended.stderr.contains(line)), "{}", ended.stderr);
        }
    };
    check(2, &["store-cert: cannot read", "use.pem"]).await;
    use_certificate(dir.path(), "one");
    std::fs::copy(dir.path().join("two.key"), dir.path().join("use.key")).expect("copied");
    check(2, &["store-key: ", "use.key: is not the key of the first certificate in ", "use.pem"]).await;
    std::fs::write(dir.path().join("use.key"), "no key").expect("written");
    check(2, &["store-key: ", "has no private key"]).await;
    use_certificate(dir.path(), "expired");
    check(2, &["store-cert: ", "use.pem: expired at ", "renew"]).await;
    // The key is restored, and all is well.
    use_certificate(dir.path(), "one");
    let gateway = Gateway::start(&format!("{lines}{}", trace_config(&store))).await;
    assert_store_works(gateway, &mut redis.connect().await).await;
    let file = |name: &str| path(dir.path(), name);
    let with = [
        "--store",
        &store,
        "--store-ca",
        &file("ca.pem"),
        "--store-cert",
        &file("one.pem"),
        "--store-key",
        &file("one.key"),
    ];
    let emitted = run_tidegate(&[&["emit", "tls", "e", "1"], &with[..]].concat()).await;
    assert_eq!(emitted.code(), Some(0), "{emitted:?}");
    let emitted = run_tidegate(&[&["emit", "tls", "e", "1"], &with[..6]].concat()).await;
    assert_eq!(emitted.code(), Some(2), "{emitted:?}");
    assert!(emitted.stderr.contains("--store-cert: a certificate needs its private key"), "{}", emitted.stderr);
    // The server requires a certificate.
    let without = format!("store-ca = \"{}\"\n{}", file("ca.pem"), trace_config(&store));
    let ended =
        run_with(&format!("listen = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"\n{without}"), "serve").await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let error = ended.stderr.lines().last().unwrap_or_default();
    assert!(error.contains("store-cert") && error.contains(&store), "{error}");
}

#[tokio::test]
async fn renewed_certificates_are_used_without_a_lost_notification() {
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path()).await;
    client_certificate(dir.path(), "one", "2").await;
    client_certificate(dir.path(), "two", "2").await;
    let (redis, store) = strict_redis(dir.path()).await;
    let mut admin = redis.connect().await;
    use_certificate(dir.path(), "one");
    // Without reconciliation an event whose notification is lost would arrive late.
    let gateway = Gateway::start(&format!(
        "{}stream.reconcile-interval = \"1h\"\n{}",
        certificate_lines(dir.path()),
        trace_config(&store)
    ))
    .await;
    let mut streams = Vec::new();
    for n in 0..40 {
        let mut stream = Sse::open(gateway.data, &format!("channel=c{n}")).await;
        stream.connected(&format!("c{n}")).await;
        streams.push(stream);
    }
    let failures = metric(gateway.control, "tidegate_store_pubsub_failures_total").await;
    let before = tls_clients(&mut admin).await;
    // A key that does not match is not used.
    std::fs::copy(dir.path().join("two.key"), dir.path().join("use.key")).expect("copied");
    gateway.process.stderr.wait_for_text("the new certificates for the store are not used").await;
    assert!(metric(gateway.control, "tidegate_store_certificate_errors_total").await >= 1.0);
    let mut round = 0;
    emit_to_all(&mut admin, &mut streams, &mut round).await;
    assert_eq!(tls_clients(&mut admin).await, before, "no connection was replaced");

    use_certificate(dir.path(), "two");
    // Events arrive while connections are replaced.
    wait_until("all connections are new", async || {
        emit_to_all(&mut admin, &mut streams, &mut round).await;
        let now = tls_clients(&mut admin).await;
        now.iter().all(|client| !before.contains(client)) && now.len() >= before.len()
    })
    .await;
    emit_to_all(&mut admin, &mut streams, &mut round).await;
    assert_eq!(metric(gateway.control, "tidegate_store_pubsub_failures_total").await, failures);
    assert!(!gateway.process.stderr.text_so_far().contains("store connection lost"));
}

/// Emits an event to each channel, and reads it from its stream.
async fn emit_to_all(admin: &mut MultiplexedConnection, streams: &mut [Sse], round: &mut u64) {
    *round += 1;
    for n in 0..streams.len() {
        let channel = format!("c{n}");
        let mut add = cmd("XADD");
        add.arg(&channel).arg("*").arg("data").arg(*round).arg(&["event", "e", "channel", &channel]);
        let id: String = add.query_async(admin).await.expect("added");
        let payload = format!(r#"{{"data":{round},"event":"e","channel":"{channel}","id":"{id}"}}"#);
        let _: u64 = cmd("PUBLISH").arg(&channel).arg(payload).query_async(admin).await.expect("published");
    }
    for stream in streams {
        assert_eq!(stream.data().await, *round);
    }
}

/// The ids of the connections of the gateway.
async fn tls_clients(admin: &mut MultiplexedConnection) -> Vec<u64> {
    let own: u64 = cmd("CLIENT").arg("ID").query_async(admin).await.expect("an id");
    let list: String = cmd("CLIENT").arg("LIST").query_async(admin).await.expect("the clients");
    let ids = list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok());
    ids.filter(|id| *id != own).collect()
}

#[tokio::test]
async fn sentinel_and_master_are_verified_and_get_the_client_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path()).await;
    client_certificate(dir.path(), "one", "2").await;
    use_certificate(dir.path(), "one");
    let (redis, store) = strict_redis(dir.path()).await;
    let master = store.rsplit(':').next().expect("a port");
    let (port, file) = (reserved_port(), |name: &str| path(dir.path(), name));
    let config = format!(
        "port 0\ntls-port {port}\nbind 127.0.0.1\ndir {}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
         tls-auth-clients yes\ntls-replication yes\nsentinel monitor {NAME} 127.0.0.1 {master} 1\n",
        dir.path().display(),
        file("server.pem"),
        file("server.key"),
        file("ca.pem"),
    );
    std::fs::write(dir.path().join("sentinel.conf"), config).expect("the configuration is written");
    let mut command = Command::new(server());
    command.arg(file("sentinel.conf")).arg("--sentinel");
    let sentinel = ChildProcess::start(command);
    sentinel.stdout.wait_for_text("+monitor").await;
    let store = format!("rediss-sentinel://127.0.0.1:{port}/{NAME}");
    let lines = certificate_lines(dir.path());
    assert_store_works(Gateway::start(&format!("{lines}{}", trace_config(&store))).await, &mut redis.connect().await)
        .await;
    // The sentinel requires the certificate, too.
    let (process, _dir) = Gateway::launch(&format!("store-ca = \"{}\"\n{}", file("ca.pem"), trace_config(&store)), &[]);
    let ended = process.end().await;
    let error = ended.stderr.lines().last().unwrap_or_default();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(error.contains("store-cert and store-key") && error.contains(&store), "{error}");
}

#[tokio::test]
async fn nodes_of_a_cluster_are_verified_and_get_the_client_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path()).await;
    client_certificate(dir.path(), "one", "2").await;
    use_certificate(dir.path(), "one");
    let port = reserved_port();
    let options = [strict_options(dir.path(), port), vec!["--tls-cluster".into(), "yes".into()]].concat();
    let node = ClusterNode::start(&options.iter().map(|option| &**option).collect::<Vec<_>>()).await;
    // A cluster may have one node.
    node.cluster(&["ADDSLOTSRANGE", "0", "16383"]).await;
    wait_until("the cluster is up", async || node.cluster(&["INFO"]).await.contains("cluster_state:ok")).await;
    // The node itself names the port with TLS.
    let store = format!("rediss-cluster://127.0.0.1:{port}");
    let lines = certificate_lines(dir.path());
    assert_store_works(Gateway::start(&format!("{lines}{}", trace_config(&store))).await, &mut node.connect().await)
        .await;
    let root = format!("store-ca = \"{}\"\n{}", path(dir.path(), "ca.pem"), trace_config(&store));
    let (process, _dir) = Gateway::launch(&root, &[]);
    let ended = process.end().await;
    let error = ended.stderr.lines().last().unwrap_or_default();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(error.contains("store-cert and store-key") && error.contains(&store), "{error}");
}
