//! A gateway of the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::http;
use super::processes::{Process, Reaper, reserved_port};
use super::shared::{Ports, REST_TOKEN};

pub struct Gateway {
    pub ports: Ports,
    program: PathBuf,
    dir: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Gateway {
    /// A gateway with fixed ports, so that clients find it again after a restart.
    pub fn new(root: &Path, number: usize, program: &Path, store: &str) -> Result<Self> {
        let name = format!("gateway-{number}");
        let (dir, log) = (root.join(&name), root.join("logs").join(format!("{name}.log")));
        fs::create_dir_all(&dir)?;
        let ports = Ports { data: reserved_port()?, control: reserved_port()? };
        let toml = format!(
            "listen = \"127.0.0.1:{}\"\nstore = \"{store}\"\nwait-for-store = true\nallow-all = true\n\
             [control]\nlisten = \"127.0.0.1:{}\"\n[redis-rest]\ntokens = [\"{REST_TOKEN}\"]\n[fleet]\nnode-name = \"{name}\"\n\
             [drain]\ndelay = \"0s\"\n",
            ports.data, ports.control
        );
        fs::write(dir.join("tidegate.toml"), toml)?;
        Ok(Self { ports, program: program.to_owned(), dir, log, process: None })
    }

    pub fn start(&mut self, reaper: &Reaper) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("serve").current_dir(&self.dir).env("TIDEGATE_CACHE_DIR", self.dir.join("cache"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        self.process = Some(Process::start(reaper, &mut command, &self.log)?);
        Ok(())
    }

    pub fn kill(&mut self, reaper: &Reaper) {
        if let Some(process) = self.process.take() {
            process.kill(reaper);
        }
    }

    pub fn signal(&self, name: &str) {
        if let Some(process) = &self.process {
            process.signal(name);
        }
    }

    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// How the process ended by itself.
    pub fn exited(&mut self) -> Option<String> {
        let status = self.process.as_mut()?.exited()?;
        self.process = None;
        Some(status.to_string())
    }

    /// Whether it takes requests.
    pub fn is_up(&self) -> bool {
        self.is_started() && is_ok(self.ports.data, "/healthz")
    }

    /// Whether it is ready to deliver.
    pub fn is_ready(&self) -> bool {
        self.is_up() && is_ok(self.ports.control, "/readyz")
    }

    /// Lines of its log that report a panic.
    pub fn panics(&self) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }
}

fn is_ok(port: u16, path: &str) -> bool {
    let answer = http::request(port, &format!("GET {path} HTTP/1.1"), "", Duration::from_millis(500));
    matches!(answer, Ok((200, _)))
}
