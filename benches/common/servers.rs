//! The servers, each a process with a folder of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, cmd};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

use super::baseline;
use super::clients::StreamRequest;
use super::machine::{Machine, child_of};

/// The session of the client: the cookie of [`StreamRequest::new`] names it.
const ALICE: &str = r#"{"id":"alice","role":"member"}"#;
const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A process that ends with this value.
pub struct Server {
    child: Child,
    /// The process that does the work.
    pub pid: u32,
    pub address: SocketAddr,
    /// The control port, if it has one.
    pub control: Option<SocketAddr>,
    _stdout: Option<BufReader<ChildStdout>>,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers on SIGTERM, and the other servers have no data to save.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server that prints its addresses on stdout, one per line.
    fn start(mut command: Command, dir: TempDir, lines: usize) -> Self {
        let log = File::create(dir.path().join("stderr")).expect("a file");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut address = || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("text");
            let text = line.rsplit_once("http://").map(|(_, address)| address.trim());
            text.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
                let stderr = std::fs::read_to_string(dir.path().join("stderr")).unwrap_or_default();
                panic!("no address: {line}{stderr}")
            })
        };
        let (address, control) = (address(), (lines > 1).then(&mut address));
        let pid = child.id();
        Self { child, pid, address, control, _stdout: Some(stdout), _dir: dir }
    }

    /// Starts a server that listens at this address.
    async fn start_at(mut command: Command, dir: TempDir, address: SocketAddr) -> Self {
        let log = File::create(dir.path().join("stderr")).expect("a file");
        let stdio = (Stdio::null(), log.try_clone().expect("a handle"), log);
        let mut child = command.stdin(stdio.0).stdout(stdio.1).stderr(stdio.2).spawn().expect("it starts");
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if child.try_wait().expect("a child").is_some() {
                panic!("{}", std::fs::read_to_string(dir.path().join("stderr")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let pid = child.id();
        Self { child, pid, address, control: None, _stdout: None, _dir: dir }
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A port that is free now.
fn free() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address")
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Redis with the data of the example policy, on the load's core. None if it is not installed.
pub async fn redis() -> Option<(Server, MultiplexedConnection)> {
    let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    if !is_installed(&program) {
        eprintln!("redis-server is not installed: measurements that need it are left out");
        return None;
    }
    let (address, dir) = (free(), tempfile::tempdir().expect("a folder"));
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &address.port().to_string(), "--dir"]).arg(dir.path());
    let server = Server::start_at(command, dir, address).await;
    let client = Client::open(format!("redis://{address}")).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    cmd("SET").arg("session:alice").arg(ALICE).exec_async(&mut connection).await.expect("Redis sets a session");
    Some((server, connection))
}

/// Tidegate with the example policy, and with these lines in its configuration.
pub fn tidegate(machine: &Machine, redis: &Server, args: &[&str], lines: &str) -> Server {
    let dir = tempfile::tempdir().expect("a folder");
    let policy = root().join("guest-examples/rust-role-based/policy.wasm");
    let policy_lines = if args.contains(&"--allow-all") {
        String::new()
    } else {
        format!("[policy]\nfile = {policy:?}\ntimeout = \"20s\"\nlookup.prefixes = [\"session:\", \"team:\"]\n")
    };
    // Long timeouts, so that a busy machine fails no request.
    let config = format!(
        "listen = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"\nstore = \"redis://{}\"\ndrain.delay = \"0s\"\ndrain.duration = \"0s\"\n\
         store-timeout = \"20s\"\nstream.max-streams = 100000\n{lines}\n{policy_lines}",
        redis.address
    );
    std::fs::write(dir.path().join("tidegate.toml"), config).expect("the configuration is written");
    let program = std::env::var_os("TIDEGATE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_tidegate").into(), PathBuf::from);
    let mut command = machine.on_server_core(program);
    command.arg("serve").args(args).current_dir(dir.path());
    // Variables of the environment would override the configuration.
    std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("TIDEGATE_")).for_each(
        |name| {
            command.env_remove(name);
        },
    );
    command.env("TIDEGATE_CACHE_DIR", root().join("target/tmp"));
    Server::start(command, dir, 2)
}

/// nginx with nchan. None if it is not installed.
pub async fn nchan(machine: &Machine, authority: Option<SocketAddr>) -> Option<Server> {
    if !is_installed("nginx") || !Path::new(NCHAN).exists() {
        eprintln!("nchan is left out: it needs nginx and {NCHAN}");
        return None;
    }
    let (address, dir) = (free(), tempfile::tempdir().expect("a folder"));
    let folder = dir.path().display();
    let user = if getuid().is_root() { "user root;" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {folder}/{of};\n"))
        .concat();
    let authority = authority.unwrap_or(address);
    let config = format!(
        "load_module {NCHAN};\n{user}\ndaemon off;\nworker_processes 1;\nworker_rlimit_nofile {files};\npid {folder}/pid;\n\
         events {{ worker_connections {files}; }}\n\
         http {{\n{temporary}\naccess_log {folder}/access.log;\nnchan_message_buffer_length 256;\n\
         upstream authority {{ server {authority}; keepalive 64; }}\n\
         server {{ listen {address} backlog=1024;\n\
         location = /open {{ nchan_subscriber eventsource; nchan_subscriber_first_message newest; nchan_channel_id $arg_channel; }}\n\
         location = /authorized {{ nchan_subscriber eventsource; nchan_subscriber_first_message newest; nchan_channel_id $arg_channel; nchan_authorize_request /authority; }}\n\
         location = /authority {{ internal; proxy_pass http://authority/; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_pass_request_body off; proxy_set_header Content-Length \"\"; }}\n\
         location = /publish {{ nchan_publisher; nchan_channel_id $arg_channel; }}\n}} }}\n",
        files = machine.files.min(1 << 20),
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config).expect("the configuration is written");
    let mut command = machine.on_server_core("nginx");
    command.arg("-e").arg(dir.path().join("error.log")).arg("-c").arg(file);
    let mut server = Server::start_at(command, dir, address).await;
    while child_of(server.pid).is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.pid = child_of(server.pid).expect("a worker");
    Some(server)
}

/// The npm package's own `handle()` on Node. None if either is not installed.
pub fn node(machine: &Machine, redis: &Server) -> Option<Server> {
    let package = root().join("tests/e2e/package.json");
    if !is_installed("node") || !root().join("tests/e2e/node_modules/@upstash/realtime").exists() {
        eprintln!("`handle()` on Node is left out: it needs node, and `npm ci` in tests/e2e");
        return None;
    }
    let mut command = machine.on_server_core("node");
    command.arg(root().join("benches/streams/node.mjs")).arg(redis.address.port().to_string()).arg(package);
    Some(Server::start(command, tempfile::tempdir().expect("a folder"), 1))
}

/// This program as the baseline.
pub fn baseline(machine: &Machine) -> Server {
    let mut command = machine.on_server_core(std::env::current_exe().expect("this program"));
    command.arg(baseline::PART);
    Server::start(command, tempfile::tempdir().expect("a folder"), 1)
}

/// A request to Tidegate, or to Node.
pub fn realtime_request(server: &Server, channel: &str) -> StreamRequest {
    StreamRequest::new(server.address, &format!("/api/realtime?channel={channel}"), "\"connected\"")
}

/// A request to nchan.
pub fn nchan_request(server: &Server, location: &str) -> StreamRequest {
    // The first bytes of nchan's body are `: hi`.
    StreamRequest::new(server.address, &format!("/{location}?channel=fox"), ": hi")
}
