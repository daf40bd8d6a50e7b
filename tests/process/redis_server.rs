//! A `redis-server` process with its own port and directory.

use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, cmd};
use tempfile::TempDir;
use tokio::process::Command;

use crate::client::Id;
use crate::processes::{ChildProcess, TEST_TIMEOUT, reserved_port, run, wait_until};

/// Options with which all entries survive a kill.
pub const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

pub struct Redis {
    process: Option<ChildProcess>,
    pub port: u16,
    pub dir: TempDir,
    args: Vec<String>,
    admin: String,
}

impl Redis {
    pub async fn start(args: &[&str]) -> Self {
        let mut redis = Self::unstarted(args);
        redis.restart().await;
        redis
    }

    /// A Redis that is not started yet, with a reserved port.
    pub fn unstarted(args: &[&str]) -> Self {
        let port = reserved_port();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let admin = format!("redis://127.0.0.1:{port}");
        Self { process: None, port, dir: tempfile::tempdir().expect("a directory"), args, admin }
    }

    /// A Redis that requires credentials; the tests themselves connect with `credentials`.
    pub async fn with_password(args: &[&str], credentials: &str) -> Self {
        let mut redis = Self::unstarted(args);
        redis.admin = format!("redis://{credentials}@127.0.0.1:{}", redis.port);
        redis.restart().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills Redis with SIGKILL.
    pub async fn kill(&mut self) {
        self.process.take().expect("Redis runs").kill().await;
    }

    /// Sends a signal by name.
    pub async fn signal(&self, name: &str) {
        self.process.as_ref().expect("Redis runs").signal(name).await;
    }

    pub async fn restart(&mut self) {
        let mut command = Command::new(server());
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        command.arg(self.dir.path()).args(&self.args).stdin(Stdio::null());
        self.process = Some(ChildProcess::start(command));
        wait_until("redis-server starts", async || self.is_up().await).await;
    }

    async fn is_up(&self) -> bool {
        let client = Client::open(&*self.admin).expect("a URL");
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
        cmd("PING").query_async::<String>(&mut connection).await.is_ok()
    }

    pub async fn connect(&self) -> MultiplexedConnection {
        let client = Client::open(&*self.admin).expect("a URL");
        // The default limits are half a second and one second, which a busy machine exceeds.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(TEST_TIMEOUT));
        let config = config.set_response_timeout(Some(TEST_TIMEOUT));
        client.get_multiplexed_async_connection_with_config(&config).await.expect("Redis answers")
    }

    /// All entries of a stream, each with its id and its unparsed data.
    pub async fn entries(&self, channel: &str) -> Vec<(Id, String)> {
        let mut connection = self.connect().await;
        let (mut entries, mut from) = (Vec::new(), "-".to_owned());
        loop {
            let mut range = cmd("XRANGE");
            range.arg(channel).arg(&from).arg("+").arg("COUNT").arg(2000);
            let page: Vec<(String, Vec<String>)> = range.query_async(&mut connection).await.expect("a range");
            let Some((last, _)) = page.last() else { return entries };
            from = format!("({last}");
            let entry = |(id, fields): (String, Vec<String>)| {
                let data = fields.chunks_exact(2).find(|pair| pair[0] == "data").expect("an entry has data");
                (id.parse().expect("an id"), data[1].clone())
            };
            entries.extend(page.into_iter().map(entry));
        }
    }
}

pub fn server() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into())
}

/// Whether this Redis was built with TLS: without TLS it does not know the options.
pub async fn supports_tls() -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(server());
    // With an unusable certificate Redis exits either way.
    command.args(["--port", "0", "--tls-port", "1", "--tls-cert-file", "/dev/null", "--tls-key-file", "/dev/null"]);
    command.current_dir(dir.path());
    !run(command, None).await.all().contains("Bad directive")
}
