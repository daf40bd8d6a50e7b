//! Socket activation: successive gateways serve on sockets that the service manager keeps open, and no client is refused.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::Command;

use crate::client::Wire;
use crate::emitter::{self, EmitterReport};
use crate::event_source::{Received, Source, assert_complete, stored_entries, wait_for_all};
use crate::processes::{ChildProcess, Gateway, with_timeout};
use crate::redis_server::Redis;

/// A socket like that of a service manager, with a backlog for connections between two gateways.
pub fn listening(address: &str) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&address.parse::<SocketAddr>().expect("an address").into()).expect("a free port");
    socket.listen(4096).expect("it listens");
    socket.into()
}

pub fn inherited(socket: &TcpListener) -> Stdio {
    OwnedFd::from(socket.try_clone().expect("another handle")).into()
}

/// Starts `tidegate serve` with inherited sockets, as the protocol requires: from file descriptor 3 on, and with the process id.
pub fn launch(toml: &str, first: Stdio, second: Option<Stdio>, env: &[(&str, &str)]) -> (ChildProcess, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("tidegate.toml"), toml).expect("the configuration is written");
    let gateway = crate::processes::tidegate(&["serve"]);
    let script = "exec 3<&0 4<&2 </dev/null 2>&1; export LISTEN_PID=$$; exec \"$0\" serve";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(gateway.as_std().get_program());
    for (name, value) in gateway.as_std().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let count = if second.is_some() { "2" } else { "1" };
    command.current_dir(dir.path()).stdin(first).stderr(second.unwrap_or_else(Stdio::null)).env("LISTEN_FDS", count);
    command.envs(env.iter().copied());
    (ChildProcess::start_without_log(command), dir)
}

/// Opens streams without a pause, each on a new connection, until it is stopped; returns unexpected answers.
async fn open_streams(to: SocketAddr, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Vec<String> {
    let mut unexpected = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match with_timeout("an answer", Wire::get(to, "/api/realtime?channel=test", None, None)).await {
            Ok(wire) if wire.status == 200 => {}
            Ok(wire) => unexpected.push(wire.head),
            Err(error) => unexpected.push(error.to_string()),
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    unexpected
}

const CHANNELS: [&str; 2] = ["activated-a", "activated-b"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_with_inherited_sockets_refuses_no_connection_and_loses_no_events() {
    let redis = Redis::start(&[]).await;
    let data = listening("127.0.0.1:0");
    let to = data.local_addr().expect("its address");
    let toml = format!(
        "store = \"{}\"\nallow-all = true\ncontrol.listen = \"127.0.0.1:0\"\nlog.filter = \"tidegate=info,tidegate::authz=warn\"\ndrain.duration = \"1s\"",
        redis.url()
    );
    let start = async || {
        let (process, dir) = launch(&toml, inherited(&data), None, &[]);
        Gateway::wait_until_ready(process, dir).await
    };
    let mut gateway = start().await;
    let emitter = emitter::start(redis.port, &CHANNELS, 7, 25, Duration::from_secs(9));
    let sources: Vec<_> = (0..100).map(|number| Source::new(number, &CHANNELS, None)).collect();
    for source in &sources {
        tokio::spawn(Arc::clone(source).follow(to));
    }
    let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> =
        (0..3).map(|_| tokio::spawn(open_streams(to, Arc::clone(&stop), Arc::clone(&opened)))).collect();
    for round in 1..=2 {
        let has_connected = |received: &Received| received.connections == round && received.is_open();
        assert_eq!(wait_for_all(&sources, Duration::from_secs(20), has_connected).await, 0, "all streams are open");
        let before = opened.load(Ordering::Relaxed);
        crate::processes::wait_until("some streams are opened", async || opened.load(Ordering::Relaxed) > before + 50)
            .await;
        gateway.process.signal("TERM").await;
        let ended = gateway.process.end().await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.contains("drained"), "{}", ended.stdout);
        assert!(!ended.stdout.contains("leaving"), "inherited sockets need no delay: {}", ended.stdout);
        gateway = start().await;
    }
    let report = EmitterReport::of(emitter).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let unexpected = client.await.expect("no panic");
        assert!(unexpected.is_empty(), "{} of {opened:?} answers, such as {}", unexpected.len(), unexpected[0]);
    }
    let mut all = Vec::new();
    for channel in CHANNELS {
        all.push(stored_entries(&redis, channel).await);
    }
    let late = wait_for_all(&sources, Duration::from_secs(20), |received| received.has_all(&all)).await;
    let deliveries = assert_complete(&sources, &all);
    let reconnects: Vec<usize> = sources.iter().map(|source| source.lock().reconnects.len()).collect();
    println!("sockets: {} entries, {deliveries} deliveries, {opened:?} streams opened meanwhile", report.added);
    assert_eq!(late, 0);
    assert!(reconnects.iter().all(|count| *count == 2), "each gateway closes each stream once: {reconnects:?}");
}

#[tokio::test]
async fn sockets_are_matched_by_name_and_the_service_manager_is_notified() {
    let (data, control) = (listening("127.0.0.1:0"), listening("127.0.0.1:0"));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let notification = async || {
        let mut text = vec![0; 4096];
        let read = with_timeout("the service manager is notified", manager.recv(&mut text)).await.expect("a message");
        String::from_utf8_lossy(&text[..read]).trim().to_owned()
    };
    // The unused `listen` is an address that cannot be bound.
    let toml = "store = \"memory:\"\nallow-all = true\nlisten = \"192.0.2.1:1\"\ndrain.delay = \"1h\"";
    let names = [("LISTEN_FDNAMES", "control:data"), ("NOTIFY_SOCKET", path.to_str().expect("a path"))];
    let (process, dir) = launch(toml, inherited(&control), Some(inherited(&data)), &names);
    let gateway = Gateway::wait_until_ready(process, dir).await;
    assert_eq!(notification().await, "READY=1");
    let address = |socket: &TcpListener| socket.local_addr().expect("its address");
    assert_eq!((gateway.data, gateway.control), (address(&data), address(&control)));
    gateway.process.stdout.wait_for_text("`listen` is not used").await;
    let ready = with_timeout("an answer", Wire::get(gateway.control, "/readyz", None, None)).await.expect("an answer");
    assert_eq!(ready.status, 200);
    gateway.process.signal("TERM").await;
    assert_eq!(notification().await, "STOPPING=1");
    assert_eq!(gateway.process.end().await.code(), Some(0));
    // The gateway does not close inherited sockets.
    TcpStream::connect(address(&data)).expect("connections wait for the next gateway");
}

#[tokio::test]
async fn invalid_inherited_sockets_fail_the_start() {
    const TOML: &str =
        "store = \"memory:\"\nallow-all = true\nlisten = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"";
    let refused = async |first: Stdio, second: Option<Stdio>, names: &str, expect: &str| {
        let (process, _dir) = launch(TOML, first, second, &[("LISTEN_FDNAMES", names)]);
        let ended = process.end().await;
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        assert!(ended.stdout.contains(expect), "{expect}: {}", ended.stdout);
    };
    let socket = || listening("127.0.0.1:0");
    refused(Stdio::null(), None, "", "LISTEN_FDS: socket 0 (data): fd 3 is not a socket").await;
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    refused(OwnedFd::from(udp).into(), None, "", "fd 3 is not a valid tcp socket").await;
    let peer = socket();
    let connected = TcpStream::connect(peer.local_addr().expect("its address")).expect("it listens");
    refused(OwnedFd::from(connected).into(), None, "", "set Accept=no").await;
    refused(inherited(&socket()), Some(inherited(&socket())), "data:data", "two sockets have the name data").await;
    refused(inherited(&socket()), Some(inherited(&socket())), "data:ops", "\"ops\" is neither data nor control").await;
    refused(inherited(&socket()), Some(inherited(&listening("0.0.0.0:0"))), "", "set control.token").await;
}
