//! The servers, each a process with a folder of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, cmd};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::clients::StreamRequest;
use super::machine::Machine;
use super::{allocator_stats, baseline, recording};

/// The session of the client: the cookie of [`StreamRequest::new`] names it.
const ALICE: &str = r#"{"id":"alice","role":"member"}"#;

/// Lines of the section `policy`, so that a busy machine fails no request.
pub const LONG_TIMEOUTS: &str = "timeout = \"20s\"\nlookup.timeout = \"20s\"";

/// A process that ends with this value.
pub struct Server {
    child: Child,
    /// The process that does the work.
    pub pid: u32,
    pub address: SocketAddr,
    /// The control port, if it has one.
    pub control: Option<SocketAddr>,
    /// The address for HTTP/2 without TLS, if it has one.
    pub http2: Option<SocketAddr>,
    _stdout: Option<BufReader<ChildStdout>>,
    dir: TempDir,
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
    /// The folder that the server runs in.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a line to a gateway that records its allocations.
    pub fn command(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the server reads");
    }

    /// What the server writes to standard error.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("stderr")
    }

    /// Starts a server that prints its addresses on stdout, one per line.
    pub fn start(mut command: Command, dir: TempDir, lines: usize) -> Self {
        let log = File::create(dir.path().join("stderr")).expect("a file");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
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
        Self { child, pid, address, control, http2: None, _stdout: Some(stdout), dir }
    }

    /// Starts a server that listens at this address.
    pub async fn start_at(mut command: Command, dir: TempDir, address: SocketAddr) -> Self {
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
        Self { child, pid, address, control: None, http2: None, _stdout: None, dir }
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A port that is free now.
pub fn free() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address")
}

pub fn is_installed(program: &str) -> bool {
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
    // Redis may be busy with 100,000 subscriptions.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connection.expect("Redis answers");
    cmd("SET").arg("session:alice").arg(ALICE).exec_async(&mut connection).await.expect("Redis sets a session");
    Some((server, connection))
}

/// Commands that Redis has processed.
pub async fn commands_processed(connection: &mut MultiplexedConnection) -> f64 {
    let stats: String = cmd("INFO").arg("stats").query_async(connection).await.expect("Redis answers");
    let number = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    number.and_then(|number| number.trim().parse().ok()).expect("a number")
}

/// How a gateway runs.
pub struct Gateway<'a> {
    pub args: &'a [&'a str],
    /// Lines of its configuration.
    pub lines: &'a str,
    /// The file of the policy, and lines of its section; the example policy if there is none.
    pub policy: Option<(&'a Path, &'a str)>,
    pub listen: SocketAddr,
    /// Whether its log has reports of the allocator.
    pub reports_allocator: bool,
    /// Whether this program is the gateway, so that its allocations can be recorded.
    pub records_allocations: bool,
}

impl Default for Gateway<'_> {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { args: &[], lines: "", policy: None, listen, reports_allocator: false, records_allocations: false }
    }
}

impl Gateway<'_> {
    pub fn start(&self, machine: &Machine, redis: &Server) -> Server {
        let dir = tempfile::tempdir().expect("a folder");
        let example = root().join("guest-examples/rust-role-based/policy.wasm");
        let (file, lines) = self.policy.unwrap_or((&example, LONG_TIMEOUTS));
        let policy = if self.args.contains(&"--allow-all") {
            String::new()
        } else {
            format!("[policy]\nfile = {file:?}\n{lines}\nlookup.prefixes = [\"session:\", \"team:\"]\n")
        };
        let config = format!(
            "listen = \"{}\"\ncontrol.listen = \"127.0.0.1:0\"\nstore = \"redis://{}\"\ndrain.delay = \"0s\"\ndrain.duration = \
             \"0s\"\nstore-timeout = \"20s\"\nstream.max-streams = 100000\n{}\n{policy}",
            self.listen, redis.address, self.lines
        );
        std::fs::write(dir.path().join("tidegate.toml"), config).expect("the configuration is written");
        let program =
            std::env::var_os("TIDEGATE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_tidegate").into(), PathBuf::from);
        let mut command = if self.records_allocations {
            let mut command = machine.on_server_cores(std::env::current_exe().expect("this program"));
            command.arg(recording::PART).stdin(Stdio::piped());
            command
        } else {
            let mut command = machine.on_server_cores(program);
            command.stdin(Stdio::null());
            command
        };
        command.arg("serve").args(self.args).current_dir(dir.path());
        // Variables of the environment would override the configuration.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        command.env("TIDEGATE_CACHE_DIR", root().join("target/tmp"));
        if self.reports_allocator {
            command.env(allocator_stats::ENVIRONMENT.0, allocator_stats::ENVIRONMENT.1);
        }
        let mut server = Server::start(command, dir, 2);
        server.http2 = Some(server.address);
        server
    }
}

/// Tidegate with the example policy, and with these lines in its configuration. Its log has no line for each request.
pub fn tidegate(machine: &Machine, redis: &Server, args: &[&str], lines: &str) -> Server {
    let lines = format!("log.filter = \"warn\"\n{lines}");
    Gateway { args, lines: &lines, ..Gateway::default() }.start(machine, redis)
}

/// This program as the baseline.
pub fn baseline(machine: &Machine) -> Server {
    let mut command = machine.on_server_cores(std::env::current_exe().expect("this program"));
    command.arg(baseline::PART);
    Server::start(command, tempfile::tempdir().expect("a folder"), 1)
}

/// A request to Tidegate, or to Node.
pub fn realtime_request(server: &Server, channel: &str) -> StreamRequest {
    StreamRequest::new(server.address, &format!("/api/realtime?channel={channel}"), "\"connected\"")
}
