//! A master with two replicas, and three sentinels that fail over.

use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use redis::{Client, cmd};
use tempfile::TempDir;
use tokio::process::Command;

use crate::processes::{ChildProcess, path, reserved_port, wait_until};
use crate::redis_server::{Redis, server};

/// The master's name.
pub const NAME: &str = "tide-master";
/// The user of the sentinels on the nodes, with the rights that the documentation of Redis gives it.
const SENTINEL_USER: &[&str] = &[
    "--user",
    "sentinel",
    "on",
    ">sentinel-password",
    "&__sentinel__:hello",
    "+multi",
    "+slaveof",
    "+ping",
    "+exec",
    "+subscribe",
    "+config|rewrite",
    "+role",
    "+publish",
    "+info",
    "+client|setname",
    "+client|kill",
    "+script|kill",
];

/// The password of the default user, so that a connection that fails to log in has no rights.
pub const PASSWORD: &str = "node-password";

pub struct SentinelGroup {
    /// The first master is the first of them.
    pub nodes: Vec<Redis>,
    pub sentinels: Vec<SentinelProcess>,
}

pub struct SentinelProcess {
    process: Option<ChildProcess>,
    pub port: u16,
    pub dir: TempDir,
    /// Credentials of the tests.
    login: String,
}

/// What a group needs besides its default.
#[derive(Default)]
pub struct GroupOptions<'a> {
    /// Arguments of each node.
    pub node_args: &'a [&'a str],
    /// Lines of each sentinel's configuration.
    pub sentinel_lines: &'a str,
    /// How the tests log in to the sentinels, such as `:password@`.
    pub sentinel_login: &'a str,
}

impl SentinelGroup {
    pub async fn start() -> Self {
        Self::with(GroupOptions::default()).await
    }

    pub async fn with(options: GroupOptions<'_>) -> Self {
        let common = ["--repl-diskless-sync-delay", "0", "--requirepass", PASSWORD, "--masterauth", PASSWORD];
        let args = [SENTINEL_USER, &common, options.node_args].concat();
        let start = async |args: &[&str]| Redis::with_password(args, &format!(":{PASSWORD}")).await;
        let master = start(&args).await;
        let follow = ["127.0.0.1".to_owned(), master.port.to_string()];
        let replica_args = [&args[..], &["--replicaof", &follow[0], &follow[1]]].concat();
        let nodes = vec![master, start(&replica_args).await, start(&replica_args).await];
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(SentinelProcess::start(nodes[0].port, options.sentinel_lines, options.sentinel_login).await);
        }
        let group = Self { nodes, sentinels };
        group.wait_until_complete().await;
        group
    }

    /// Waits until each sentinel knows the others and two replicas that follow the master.
    pub async fn wait_until_complete(&self) {
        for sentinel in &self.sentinels {
            wait_until("a sentinel knows its group", async || {
                let Some(mut connection) = sentinel.connect().await else { return false };
                let mut list = async |what: &str| -> Vec<std::collections::HashMap<String, String>> {
                    cmd("SENTINEL").arg(what).arg(NAME).query_async(&mut connection).await.unwrap_or_default()
                };
                let (others, replicas) = (list("SENTINELS").await, list("REPLICAS").await);
                let follows = |replica: &std::collections::HashMap<String, String>| {
                    replica.get("master-link-status").is_some_and(|status| status == "ok")
                        && replica.get("flags").is_some_and(|flags| flags == "slave")
                };
                others.len() == 2 && replicas.iter().filter(|replica| follows(replica)).count() == 2
            })
            .await;
        }
    }

    /// The URL, with two of the three sentinels.
    pub fn url(&self) -> String {
        self.url_of(&format!(":{PASSWORD}"))
    }

    /// The same for another user of the nodes.
    pub fn url_of(&self, credentials: &str) -> String {
        let [first, second, ..] = &self.sentinels[..] else { panic!("three sentinels") };
        format!("redis-sentinel://{credentials}@127.0.0.1:{},127.0.0.1:{}/{NAME}", first.port, second.port)
    }

    /// The index of the node that the last sentinel names.
    pub async fn master(&self) -> usize {
        let sentinel = self.sentinels.last().expect("a sentinel");
        let mut connection = sentinel.connect().await.expect("a sentinel answers");
        let (_, port): (String, u16) = cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(NAME)
            .query_async(&mut connection)
            .await
            .expect("an address");
        self.nodes.iter().position(|node| node.port == port).expect("it is a node of the group")
    }

    /// Waits until all sentinels that run name another master than this one, which says that it is one; returns its index.
    pub async fn wait_for_failover(&self, from: usize) -> usize {
        wait_until("the sentinels name another master", async || {
            for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.process.is_some()) {
                let Some(mut connection) = sentinel.connect().await else { return false };
                let named: Result<(String, u16), _> =
                    cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(NAME).query_async(&mut connection).await;
                if !named.is_ok_and(|(_, port)| port != self.nodes[from].port) {
                    return false;
                }
            }
            true
        })
        .await;
        self.master().await
    }
}

impl SentinelProcess {
    async fn start(master: u16, lines: &str, login: &str) -> Self {
        let (port, dir) = (reserved_port(), tempfile::tempdir().expect("a directory"));
        let config = format!(
            "port {port}\nbind 127.0.0.1\n{lines}\n\
             sentinel monitor {NAME} 127.0.0.1 {master} 2\n\
             sentinel auth-user {NAME} sentinel\nsentinel auth-pass {NAME} sentinel-password\n\
             sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 1500\nsentinel parallel-syncs {NAME} 2\n"
        );
        std::fs::write(dir.path().join("sentinel.conf"), config).expect("the configuration is written");
        let mut sentinel = Self { process: None, port, dir, login: login.to_owned() };
        sentinel.restart().await;
        sentinel
    }

    pub async fn restart(&mut self) {
        let mut command = Command::new(server());
        command.arg(path(self.dir.path(), "sentinel.conf")).args(["--sentinel", "--dir"]).arg(self.dir.path());
        self.process = Some(ChildProcess::start({
            command.stdin(Stdio::null());
            command
        }));
        wait_until("a sentinel starts", async || self.connect().await.is_some()).await;
    }

    pub async fn kill(&mut self) {
        self.process.take().expect("the sentinel runs").kill().await;
    }

    pub async fn connect(&self) -> Option<MultiplexedConnection> {
        let client = Client::open(format!("redis://{}127.0.0.1:{}", self.login, self.port)).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        cmd("PING").query_async::<String>(&mut connection).await.ok()?;
        Some(connection)
    }
}
