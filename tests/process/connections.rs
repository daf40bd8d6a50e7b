//! More connections than a node can have.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::control_port::get_text;
use crate::processes::{ChildProcess, Gateway, tidegate, wait_until, with_descriptor_limit, with_timeout};
use crate::redis_server::Redis;

const DESCRIPTORS: usize = 1_024;

/// The value of a metric without labels.
async fn metric(gateway: &Gateway, name: &str) -> f64 {
    let (status, text) = get_text(gateway.control, "/metrics").await;
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_leave_room_for_operators_clients_and_the_store() {
    // They are descriptors of this process, too.
    tidegate::util::descriptors::raise_limit().expect("the limit is raised");
    let redis = Redis::start(&[]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let toml = format!(
        "store = \"{}\"\nallow-all = true\nlisten = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"\ndrain.delay = \"0s\"\n\
         server.head-timeout = \"5s\"",
        redis.url()
    );
    std::fs::write(dir.path().join("tidegate.toml"), toml).expect("the configuration is written");
    let mut command = with_descriptor_limit(&tidegate(&["serve"]), DESCRIPTORS);
    command.current_dir(dir.path());
    let gateway = Gateway::wait_until_ready(ChildProcess::start(command), dir).await;
    let connects = metric(&gateway, "tidegate_store_pubsub_connects_total").await;
    let mut silent = Vec::new();
    let mut operators_served = 0;
    for n in 0..1_100 {
        silent.push(with_timeout("a connection", TcpStream::connect(gateway.data)).await.expect("the kernel accepts"));
        if n % 100 == 99 {
            assert_eq!(get_text(gateway.control, "/healthz").await.0, 200);
            assert_eq!(get_text(gateway.data, "/healthz").await.0, 200, "the oldest silent connection makes room");
            operators_served += 1;
        }
    }
    assert_eq!(operators_served, 11);
    assert!(metric(&gateway, "process_open_fds").await < 700.0, "some are left for the store and for files");
    // A link to Redis that breaks is made again.
    let mut connection = redis.connect().await;
    let killed: i64 =
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut connection).await.expect("killed");
    assert!(killed > 0);
    wait_until("the node subscribes again", async || {
        metric(&gateway, "tidegate_store_pubsub_connects_total").await > connects
    })
    .await;
    let closed = silent.iter_mut().map(|socket| async { socket.read(&mut [0]).await });
    let closed = with_timeout("all are closed", futures_util::future::join_all(closed)).await;
    assert!(closed.iter().all(|read| matches!(read, Ok(0) | Err(_))));
    wait_until("only those of the tests are open", async || metric(&gateway, "process_open_fds").await < 100.0).await;
    let log = gateway.process.stderr.text_so_far();
    assert!(log.contains("connections=576 descriptors=1024"), "{log}");
    assert!(log.contains("stream.max-streams is 20000, but the data port can have only 576 connections"), "{log}");
    assert!(log.lines().count() < 30, "the log is not flooded: {log}");
}

#[tokio::test]
async fn check_warns_of_streams_that_do_not_fit() {
    let run = async |limit, args: &[&str]| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = with_descriptor_limit(&tidegate(args), limit);
        command.current_dir(dir.path());
        crate::processes::run(command, None).await
    };
    let few = run(DESCRIPTORS, &["check", "--store", "memory:", "--allow-all"]).await;
    assert_eq!(few.code(), Some(0), "{}", few.all());
    assert!(few.stdout.contains("warning stream.max-streams is 20000"), "{}", few.stdout);
    let json = run(DESCRIPTORS, &["check", "--store", "memory:", "--allow-all", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1), "{json}");
}
