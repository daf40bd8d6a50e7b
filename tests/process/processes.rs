//! Child processes of the tests. A process is killed when its handle is dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longer than any condition of a test takes, even on a busy machine: sentinels look at their
/// nodes every 10 s, and a failover may take several looks.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Awaits a future, and fails the test after the timeout.
pub async fn with_timeout<T>(condition: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TEST_TIMEOUT, future).await {
        Ok(value) => value,
        Err(_) => panic!("timed out after {TEST_TIMEOUT:?}: {condition}"),
    }
}

/// Polls a condition until it holds.
pub async fn wait_until(condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    with_timeout(condition, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

pub fn is_full_soak() -> bool {
    std::env::var("TIDEGATE_SOAK").is_ok_and(|size| size == "full")
}

/// The program, without variables of the environment that it would read as options.
pub fn tidegate(args: &[&str]) -> Command {
    let program = std::env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    // A relative path refers to the directory of the test run.
    let mut command = Command::new(std::fs::canonicalize(program).expect("the program exists"));
    command.args(args).kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    // Keep all files within the checkout.
    command.env("TIDEGATE_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// The same command in a process that can have this many file descriptors.
pub fn with_descriptor_limit(command: &Command, limit: usize) -> Command {
    let command = command.as_std();
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args()).kill_on_drop(true);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

/// An output of a process, readable while the process runs.
pub struct Output {
    text: watch::Receiver<String>,
    reader: JoinHandle<()>,
}

impl Output {
    fn of(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, text) = watch::channel(String::new());
        let reader = tokio::spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(read @ 1..) = pipe.read(&mut bytes).await {
                sender.send_modify(|text| text.push_str(&String::from_utf8_lossy(&bytes[..read])));
            }
        });
        Self { text, reader }
    }

    pub fn text_so_far(&self) -> String {
        self.text.borrow().clone()
    }

    /// Waits until the text fulfils a condition; false if the process ends before.
    pub async fn wait_for(&self, holds: impl Fn(&str) -> bool) -> bool {
        self.text.clone().wait_for(|text| holds(text)).await.is_ok()
    }

    /// Waits until the output contains this text: a log line is written some time after its event.
    pub async fn wait_for_text(&self, expected: &str) {
        let found = with_timeout(expected, self.wait_for(|text| text.contains(expected))).await;
        assert!(found, "the process ended without {expected:?}: {}", self.text_so_far());
    }

    pub async fn lines(&self, count: usize) -> Vec<String> {
        let condition = format!("{count} lines");
        let found = with_timeout(&condition, self.wait_for(|text| text.matches('\n').count() >= count)).await;
        let text = self.text_so_far();
        assert!(found, "the process ended before it wrote {count} lines: {text}");
        text.lines().map(str::to_owned).collect()
    }

    async fn whole(self) -> String {
        with_timeout("the output ends", self.reader).await.expect("the output is read");
        self.text.borrow().clone()
    }
}

/// A running process.
pub struct ChildProcess {
    child: Child,
    pub stdout: Output,
    pub stderr: Output,
}

/// The result of a process.
#[derive(Debug)]
pub struct ProcessOutput {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl ProcessOutput {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl ChildProcess {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Output::of(child.stdout.take().expect("its output"));
        let stderr = Output::of(child.stderr.take().expect("its log"));
        Self { child, stdout, stderr }
    }

    /// Starts a process without capturing standard error; the command determines where the log goes.
    pub fn start_without_log(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Output::of(child.stdout.take().expect("its output"));
        Self { child, stdout, stderr: Output::of(tokio::io::empty()) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// Sends a signal by name. The process has not been waited for, so its id is still valid.
    pub async fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        let sent = Command::new("sh").args(["-c", &kill]).status().await.expect("a shell");
        assert!(sent.success(), "{kill}");
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it is killed");
    }

    pub async fn end(mut self) -> ProcessOutput {
        drop(self.child.stdin.take());
        let status = with_timeout("the process ends", self.child.wait()).await.expect("the exit status is read");
        ProcessOutput { status, stdout: self.stdout.whole().await, stderr: self.stderr.whole().await }
    }

    /// Resident memory, in KiB.
    pub fn resident(&self) -> usize {
        self.memory("VmRSS:")
    }

    /// Resident memory without mapped files, in KiB.
    pub fn anonymous_memory(&self) -> usize {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("its memory");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// User and system time, in seconds.
    pub fn cpu_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("its status");
        let (_, after_name) = stat.rsplit_once(") ").expect("its name");
        // Linux reports hundredths of a second.
        after_name.split(' ').skip(11).take(2).map(|n| n.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
    }
}

/// Runs a command to its end.
pub async fn run(mut command: Command, stdin: Option<&str>) -> ProcessOutput {
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut running = ChildProcess::start(command);
    if let (Some(text), Some(mut pipe)) = (stdin, running.child.stdin.take()) {
        // A command that fails may not read its input to the end.
        let _ = pipe.write_all(text.as_bytes()).await;
    }
    running.end().await
}

/// Runs a command to its end without a timeout: a build may install its tools first, and a large component takes long to compile.
pub async fn run_unlimited(mut command: Command) -> ProcessOutput {
    let output = command.output().await.expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("its output is text");
    ProcessOutput { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `tidegate` in an empty folder.
pub async fn run_tidegate(args: &[&str]) -> ProcessOutput {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = tidegate(args);
    command.current_dir(dir.path());
    run(command, None).await
}

/// A running gateway.
pub struct Gateway {
    pub process: ChildProcess,
    pub data: SocketAddr,
    pub control: SocketAddr,
    _dir: TempDir,
}

impl Gateway {
    /// `tidegate serve` with these lines in its `tidegate.toml`, on free ports by default.
    pub async fn start(toml: &str) -> Self {
        let (process, dir) = Self::launch(toml, &[]);
        Self::wait_until_ready(process, dir).await
    }

    /// Starts `tidegate serve` without waiting until it listens.
    pub fn launch(toml: &str, args: &[&str]) -> (ChildProcess, TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut lines = toml.to_owned();
        for port in ["control.listen", "listen"] {
            if !toml.lines().any(|line| line.starts_with(port)) {
                lines = format!("{port} = \"127.0.0.1:0\"\n{lines}");
            }
        }
        if !toml.contains("drain.delay") {
            // No load balancer has to notice the drain, so it needs no delay.
            lines = format!("drain.delay = \"0s\"\n{lines}");
        }
        std::fs::write(dir.path().join("tidegate.toml"), lines).expect("the configuration is written");
        let mut command = tidegate(&["serve"]);
        command.args(args).current_dir(dir.path()).stdin(Stdio::null());
        if toml.lines().any(|line| line.starts_with("cache-dir")) {
            command.env_remove("TIDEGATE_CACHE_DIR");
        }
        (ChildProcess::start(command), dir)
    }

    pub async fn wait_until_ready(process: ChildProcess, dir: TempDir) -> Self {
        let is_ready =
            with_timeout("a gateway starts", process.stdout.wait_for(|text| address(text, "control on").is_some()))
                .await;
        let stdout = process.stdout.text_so_far();
        assert!(is_ready, "{stdout}{}", process.stderr.text_so_far());
        let (data, control) = (address(&stdout, "listening on"), address(&stdout, "control on"));
        Self { process, data: data.expect("its port"), control: control.expect("its port"), _dir: dir }
    }
}

/// The address in a complete line of the output.
fn address(text: &str, label: &str) -> Option<SocketAddr> {
    let (_, rest) = text.split_once(&format!("{label} http://"))?;
    rest.split_once('\n')?.0.parse().ok()
}

/// A free port that the system does not assign to an outgoing connection while its server restarts.
pub fn reserved_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ephemeral ports of Linux; each test process starts at another port.
    let begin = u16::try_from(std::process::id() % 10_000).expect("less than 10,000");
    let offsets = (0..10_000).map(|_| NEXT.fetch_add(1, Ordering::Relaxed));
    let mut ports = offsets.map(|offset| 20_000 + (begin + offset) % 10_000);
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(|port| is_free(port) && is_own(*port)).expect("a port is free")
}

/// Reserves a port among the test processes of this machine, until this process ends: its server may start later or be down for a while.
fn is_own(port: u16) -> bool {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = SocketAddr::from_abstract_name(format!("tidegate-test-port-{port}")).expect("a name");
    UnixListener::bind_addr(&name).map(std::mem::forget).is_ok()
}

/// A file in a directory, as an argument.
pub fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().expect("a path").to_owned()
}
