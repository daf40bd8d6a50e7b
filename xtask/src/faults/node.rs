//! One process of Redis: a data node with its links, or a sentinel.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::processes::{Process, Reaper, reserved_port};
use super::proxy::Proxy;
use super::resp::{self, Reply};

/// The limit of a command of the suite itself, which a stopped node does not answer.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The size of a node's disk.
const DISK_BYTES: usize = 64 << 20;

pub struct Node {
    pub name: String,
    pub port: u16,
    /// The address that its own connections come from.
    pub source: IpAddr,
    /// The link for commands, which is the address that the node announces. A sentinel has none.
    pub proxy: Option<Proxy>,
    /// The port of the cluster bus, and the link to it.
    pub bus: Option<(u16, Proxy)>,
    /// Whether its directory is a disk of its own, which can be full.
    pub has_disk: bool,
    dir: PathBuf,
    log: PathBuf,
    is_sentinel: bool,
    process: Option<Process>,
    /// Seconds that its clock is ahead.
    clock: i64,
    /// The library that shifts the clock.
    clock_library: Option<PathBuf>,
}

impl Node {
    pub fn new(root: &Path, name: &str, source: u8, clock_library: Option<&Path>) -> Result<Self> {
        let (dir, log) = (root.join(name), root.join("logs").join(format!("{name}.log")));
        fs::create_dir_all(&dir)?;
        Ok(Self {
            name: name.to_owned(),
            port: reserved_port()?,
            source: IpAddr::V4(Ipv4Addr::new(127, 0, 1, source)),
            proxy: None,
            bus: None,
            has_disk: false,
            dir,
            log,
            is_sentinel: false,
            process: None,
            clock: 0,
            clock_library: clock_library.map(Path::to_owned),
        })
    }

    /// The port that other nodes and gateways know.
    pub fn announced(&self) -> u16 {
        self.proxy.as_ref().map_or(self.port, |proxy| proxy.port)
    }

    /// Gives the node links, and with `bus` a port for the cluster bus.
    pub fn add_links(&mut self, bus: bool) -> Result<()> {
        self.proxy = Some(Proxy::start(self.port)?);
        if bus {
            let port = reserved_port()?;
            self.bus = Some((port, Proxy::start(port)?));
        }
        Ok(())
    }

    /// Mounts a small file system as the node's disk, which needs the rights of root.
    pub fn mount_disk(&mut self, reaper: &Reaper) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"]).arg(&self.dir);
        self.has_disk = mount.output().is_ok_and(|output| output.status.success());
        if self.has_disk {
            reaper.add_mount(&self.dir);
        }
    }

    /// Writes the configuration of a data node.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let common = format!(
            "port {}\nbind 127.0.0.1\nbind-source-addr {}\ndir {}\nsave \"\"\nappendonly yes\nrepl-diskless-sync-delay 0\n\
             repl-ping-replica-period 1\nrepl-timeout 10\n",
            self.port,
            self.source,
            self.dir.display()
        );
        Ok(fs::write(self.dir.join("redis.conf"), common + lines)?)
    }

    /// Writes the configuration of a sentinel.
    pub fn configure_sentinel(&mut self, lines: &str) -> Result<()> {
        self.is_sentinel = true;
        let (port, source, dir) = (self.port, self.source, self.dir.display());
        let common = format!("port {port}\nbind 127.0.0.1\nbind-source-addr {source}\ndir {dir}\n");
        Ok(fs::write(self.dir.join("redis.conf"), common + lines)?)
    }

    pub fn start(&mut self, reaper: &Reaper) -> Result<()> {
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut command = Command::new(program);
        command.arg(self.dir.join("redis.conf"));
        if self.is_sentinel {
            command.arg("--sentinel");
        }
        if let (Some(library), true) = (&self.clock_library, self.clock != 0) {
            command.env("LD_PRELOAD", library).env("CLOCK_OFFSET", self.clock.to_string());
        }
        self.process = Some(Process::start(reaper, &mut command, &self.log)?);
        Ok(())
    }

    pub fn kill(&mut self, reaper: &Reaper) {
        if let Some(process) = self.process.take() {
            process.kill(reaper);
        }
    }

    /// Sets the clock of the next start. False if clocks cannot be shifted here.
    pub fn set_clock(&mut self, seconds: i64) -> bool {
        self.clock = seconds;
        self.clock_library.is_some()
    }

    /// Removes the data of a node that is not running.
    pub fn empty_disk(&self) {
        let _ = fs::remove_dir_all(self.dir.join("appendonlydir"));
        let _ = fs::remove_file(self.dir.join("dump.rdb"));
    }

    /// Repairs the append-only file of a node that does not start, as an operator does. A full disk may leave a file that Redis refuses.
    pub fn repair(&self) {
        let mut check = Command::new("redis-check-aof");
        check.arg("--fix").arg(self.dir.join("appendonlydir/appendonly.aof.manifest"));
        let Ok(mut child) = check.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            return;
        };
        // It asks before it truncates the file.
        if let Some(mut input) = child.stdin.take() {
            let _ = input.write_all(b"y\n");
        }
        let _ = child.wait();
    }

    /// Writes to the disk until it is full. The append-only file is then synced by the clock: with `always` the node would exit.
    pub fn fill_disk(&self) -> Result<()> {
        self.admin(&["CONFIG", "SET", "appendfsync", "everysec"]).context("the node does not answer")?;
        let mut file = File::create(self.dir.join("filler"))?;
        let zeros = vec![0; 64 << 10];
        for size in [zeros.len(), 512, 1] {
            while file.write_all(&zeros[..size]).is_ok() {}
        }
        Ok(())
    }

    pub fn free_disk(&self, appendfsync: &str) {
        let _ = fs::remove_file(self.dir.join("filler"));
        let _ = self.admin(&["CONFIG", "SET", "appendfsync", appendfsync]);
    }

    pub fn signal(&self, name: &str) {
        if let Some(process) = &self.process {
            process.signal(name);
        }
    }

    /// Whether the process runs. One that ended by itself is forgotten.
    pub fn is_running(&mut self) -> bool {
        let exited = self.process.as_mut().is_none_or(|process| process.exited().is_some());
        if exited {
            self.process = None;
        }
        !exited
    }

    /// Whether the process ended by itself since it was started.
    pub fn has_exited(&mut self) -> bool {
        self.process.is_some() && !self.is_running()
    }

    /// Sends a command, not through the link.
    pub fn admin(&self, args: &[&str]) -> Option<Reply> {
        self.process.as_ref()?;
        match resp::command(self.port, args, ADMIN_TIMEOUT) {
            Ok(Reply::Error(_)) | Err(_) => None,
            Ok(reply) => Some(reply),
        }
    }

    /// A line `name:value` in the answer of a command such as `INFO`.
    pub fn info(&self, args: &[&str], field: &str) -> Option<String> {
        let text = self.admin(args)?;
        let line = text.text().lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }
}
