//! A node has one name: in the fleet, in its replies to commands and for its files below `cache-dir`. The default name contains
//! the address at which the node listens, which is known once its sockets are bound.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tokio::net::TcpStream;

use crate::control_port::send_request;
use crate::guests::component;
use crate::processes::{Gateway, reserved_port, run, tidegate};
use crate::redis_server::Redis;
use crate::socket_activation::{inherited, launch, listening};

/// The names of the nodes in the fleet's status, and in their replies to a command.
async fn names(redis: &Redis) -> (BTreeSet<String>, BTreeSet<String>) {
    let url = redis.url();
    let json = async |args: &[&str]| -> Value {
        let ended = run(tidegate(&[args, &["--json", "--store", &url]].concat()), None).await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    let status = json(&["policy", "status"]).await;
    let nodes = status["nodes"].as_array().expect("a list").iter();
    let replies = json(&["revoke", "--all"]).await;
    let replied = replies["nodes"].as_object().expect("the streams of each node").keys().cloned();
    (nodes.map(|node| node["name"].as_str().expect("a name").to_owned()).collect(), replied.collect())
}

/// The names of the files of nodes below this `cache-dir` that contain `part`.
fn records_of(cache: &Path, part: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(cache.join("nodes")).expect("a directory");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    names.filter(|name| name.contains(part)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_with_inherited_sockets_have_distinct_names_and_directories() {
    let redis = Redis::start(&[]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let cache = dir.path().join("cache");
    let toml = format!(
        "store = {:?}\ncontrol.listen = \"127.0.0.1:0\"\npolicy.source = \"fleet\"\npolicy.allow-unsigned = true\ndrain.delay = \"0s\"\n",
        redis.url()
    );
    let (first, second) = (listening("127.0.0.1:0"), listening("127.0.0.1:0"));
    let env = [("TIDEGATE_CACHE_DIR", cache.to_str().expect("a path"))];
    let mut gateways = Vec::new();
    for socket in [&first, &second] {
        let (process, dir) = launch(&toml, inherited(socket), None, &env);
        gateways.push(Gateway::wait_until_ready(process, dir).await);
    }
    std::fs::write(dir.path().join("deny.wasm"), component("deny")).expect("written");
    let mut push = tidegate(&["policy", "push", "deny.wasm", "--store", &redis.url()]);
    push.current_dir(dir.path());
    let pushed = run(push, None).await;
    assert_eq!(pushed.code(), Some(0), "{pushed:?}");
    let (nodes, replied) = names(&redis).await;
    assert_eq!((nodes.len(), &nodes), (2, &replied));
    let records: BTreeSet<String> = nodes.iter().map(|name| format!("{name}.fleet.json")).collect();
    assert_eq!(records_of(&cache, ".fleet.json"), records, "each node has a record of the policy");
    for name in &nodes {
        let record = cache.join("nodes").join(format!("{name}.fleet.json"));
        assert!(record.is_file(), "{name} keeps a record of the policy");
    }
    for gateway in &gateways {
        let (_, status) = send_request(gateway.control, "GET", "/v1/status", "", b"").await;
        let name = status["node"].as_str().expect("a name");
        assert!(nodes.contains(name) && name.ends_with(&gateway.data.to_string()), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_on_port_0_have_distinct_names_and_files() {
    let redis = Redis::start(&[]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let operator = async |args: &[&str]| {
        let mut command = tidegate(args);
        command.current_dir(dir.path());
        let ended = run(command, None).await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    };
    std::fs::write(dir.path().join("policy.wasm"), component("deny")).expect("written");
    operator(&["policy", "keygen", "-o", "release"]).await;
    operator(&["policy", "sign", "policy.wasm", "--key", "release.pem", "--sequence", "1"]).await;
    let file = |name: &str| dir.path().join(name);
    let toml = format!(
        "store = {:?}\ncache-dir = {:?}\n[policy]\nfile = {:?}\ntrusted-keys = [{:?}]\n",
        redis.url(),
        file("cache"),
        file("policy.wasm"),
        file("release.pub.pem")
    );
    let _gateways = [Gateway::start(&toml).await, Gateway::start(&toml).await];
    let (nodes, replied) = names(&redis).await;
    assert_eq!((nodes.len(), &nodes), (2, &replied));
    let ledgers: BTreeSet<String> = nodes.iter().map(|name| format!("{name}.sequence.json")).collect();
    assert_eq!(records_of(&file("cache"), ".sequence.json"), ledgers);
    assert_eq!(records_of(&file("cache"), ".history-").len(), 2, "each has its own rollback history");
}

#[tokio::test]
async fn port_refuses_connections_until_the_gateway_is_ready() {
    let mut redis = Redis::unstarted(&[]);
    let port = reserved_port();
    let toml = format!("listen = \"127.0.0.1:{port}\"\nstore = {:?}\nallow-all = true\n", redis.url());
    let (process, dir) = Gateway::launch(&toml, &["--wait-for-store"]);
    process.stderr.wait_for_text("waiting for the store").await;
    let connect = async || TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.kind());
    assert_eq!(connect().await, Err(std::io::ErrorKind::ConnectionRefused));
    redis.restart().await;
    let gateway = Gateway::wait_until_ready(process, dir).await;
    assert_eq!((gateway.data.port(), connect().await), (port, Ok(())));
    // A second gateway cannot bind the address.
    let (process, _dir) = Gateway::launch(&toml, &[]);
    let ended = process.end().await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("cannot listen on"), "{ended:?}");
}
