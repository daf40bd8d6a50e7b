//! The processes of a soak: each is ended by its own handle.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

/// How long anything may take to start or to settle.
const PATIENCE: Duration = Duration::from_secs(30);

/// Debian's Redis on a free port.
pub struct Redis {
    child: Child,
    port: u16,
    dir: TempDir,
    args: Vec<String>,
}

impl Redis {
    pub async fn start(args: &[&str]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let dir = tempfile::tempdir().expect("a folder");
        let args: Vec<String> = args.iter().map(|s| (*s).to_owned()).collect();
        let child = launch(port, &dir, &args);
        let redis = Self { child, port, dir, args };
        redis.until_up().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    pub async fn restart(&mut self) {
        self.child = launch(self.port, &self.dir, &self.args);
        self.until_up().await;
    }

    async fn connect(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    async fn until_up(&self) {
        let begin = Instant::now();
        loop {
            if let Ok(mut connection) = self.connect().await
                && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "redis-server does not start");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// What the stream holds.
    pub async fn ids(&self, channel: &str) -> Vec<(u64, u64)> {
        let mut connection = self.connect().await.expect("a connection");
        let mut ids = Vec::new();
        let mut from = "-".to_owned();
        loop {
            type Rows = Vec<(String, Vec<(String, Vec<u8>)>)>;
            let mut range = redis::cmd("XRANGE");
            let rows: Rows = range
                .arg(channel)
                .arg(&from)
                .arg("+")
                .arg("COUNT")
                .arg(5000)
                .query_async(&mut connection)
                .await
                .expect("a range");
            let Some((last, _)) = rows.last() else { return ids };
            from = format!("({last}");
            ids.extend(rows.iter().map(|(id, _)| super::client::parse_id(id)));
        }
    }

    /// As a stock emitter does it, many at once: `XADD`, then `PUBLISH`.
    pub async fn emit_batch(&self, channel: &str, from: usize, count: usize, size: usize) {
        let mut connection = self.connect().await.expect("a connection");
        let text = "x".repeat(size);
        let mut add = redis::pipe();
        for n in from..from + count {
            let data = format!("{n}{text}");
            add.cmd("XADD").arg(channel).arg("*").arg(&["data", &data[..size], "event", "e", "channel", channel]);
        }
        let ids: Vec<String> = add.query_async(&mut connection).await.expect("added");
        let mut publish = redis::pipe();
        for (n, id) in (from..).zip(&ids) {
            let data = format!("{n}{text}");
            publish.cmd("PUBLISH").arg(channel).arg(payload(channel, id, &data[..size])).ignore();
        }
        publish.exec_async(&mut connection).await.expect("published");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may be dead already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, dir: &TempDir, args: &[String]) -> Child {
    let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir.path())
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server starts")
}

fn payload(channel: &str, id: &str, data: &str) -> String {
    format!(r#"{{"data":"{data}","event":"e","channel":"{channel}","id":"{id}"}}"#)
}

/// An emitter in a process of its own: this test program again, at its `emitter_process`.
pub struct Emitter(Child);

impl Emitter {
    pub fn start(redis: &Redis, channels: &[&str], per_second: u32, time: Duration, seed: u64) -> Self {
        let plan = format!("{} {} {per_second} {} {seed}", redis.url(), channels.join(","), time.as_millis());
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .args(["--exact", "emitter_process", "--nocapture"])
            .env("SOAK_EMITTER", plan)
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("an emitter starts"))
    }

    /// Waits for its end; what it knows to have emitted.
    pub fn finish(self) -> u64 {
        let output = self.0.wait_with_output().expect("an emitter ends");
        let text = String::from_utf8_lossy(&output.stdout);
        let count = text.lines().find_map(|line| line.split_once("emitted ")?.1.trim().parse().ok());
        count.unwrap_or_else(|| panic!("an emitter failed: {text}"))
    }
}

/// What an emitter's process does: a stock emitter's two steps with some time between, come what may.
pub fn emit_until(plan: &str) {
    let [url, channels, per_second, ms, seed] = plan.split(' ').collect::<Vec<_>>()[..] else {
        panic!("a plan: {plan}")
    };
    let channels: Vec<&str> = channels.split(',').collect();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let mut rng = rand::rngs::StdRng::seed_from_u64(number(seed));
    let (pause, end) =
        (Duration::from_millis(1000 / number(per_second)), Instant::now() + Duration::from_millis(number(ms)));
    let client = redis::Client::open(url).expect("a URL");
    let (mut connection, mut emitted) = (None, 0);
    while Instant::now() < end {
        std::thread::sleep(pause);
        let Some(mut link) = connection.take().or_else(|| client.get_connection().ok()) else { continue };
        let channel = channels[rng.random_range(0..channels.len())];
        let data = emitted.to_string();
        let mut add = redis::cmd("XADD");
        // One that failed may be there or not: the stream itself is the truth.
        let Ok(id) = add
            .arg(channel)
            .arg("*")
            .arg(&["data", &data, "event", "e", "channel", channel])
            .query::<String>(&mut link)
        else {
            continue;
        };
        emitted += 1;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..8)));
        // Some emitters die between the two.
        if rng.random_bool(0.98)
            && redis::cmd("PUBLISH").arg(channel).arg(payload(channel, &id, &data)).query::<i64>(&mut link).is_err()
        {
            continue;
        }
        connection = Some(link);
    }
    println!("emitted {emitted}");
}

/// The program itself.
pub struct Gateway {
    child: Child,
    pub port: u16,
    _dir: TempDir,
}

impl Gateway {
    pub async fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("tidegate.toml");
        std::fs::write(&file, format!("listen = '127.0.0.1:0'\ncontrol = '127.0.0.1:0'\n{config}\n")).expect("written");
        let program = std::env::var("TIDEGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tidegate").into());
        let mut command = Command::new(program);
        command
            .args(["serve", "--config"])
            .arg(&file)
            .env_remove("TIDEGATE_SOAK")
            .env_remove("TIDEGATE_REQUIRE_GUESTS");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the gateway starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let port = lines.find_map(|line| line.ok()?.split_once("listening on http://127.0.0.1:")?.1.parse().ok());
        // It must be able to write on.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port: port.expect("it says where it listens"), _dir: dir }
    }

    /// KiB.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// User and system time.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its status");
        let after_name = stat.rsplit_once(") ").expect("its name").1;
        // In hundredths of a second, as Linux counts for programs.
        after_name.split(' ').skip(11).take(2).map(|n| n.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
    }

    /// Until it uses next to no CPU time.
    pub async fn until_quiet(&self) {
        let begin = Instant::now();
        loop {
            let before = self.cpu_seconds();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.cpu_seconds() - before < 0.05 {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "the gateway does not come to rest");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
