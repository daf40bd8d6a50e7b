//! Child processes of the suite. All of them end with it, also if it is killed.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Reads process ids and mount points, and ends them at the end of its input, which the system closes when the suite ends in whatever way.
const REAPER: &str = r#"
trap '' INT TERM HUP
pids=' '
mounts=
dir=
while read -r verb value; do
  case $verb in
    add) pids="$pids$value " ;;
    remove) pids=$(printf %s "$pids" | sed "s/ $value / /") ; pids="$pids " ;;
    mount) mounts="$mounts $value" ;;
    dir) dir=$value ;;
  esac
done
for pid in $pids; do kill -KILL "$pid" 2>/dev/null; done
for mount in $mounts; do umount -l "$mount"; done
[ -n "$dir" ] && rm -rf "$dir"
"#;

/// A shell that ends what the suite started and removes its directory.
pub struct Reaper {
    input: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

impl Reaper {
    pub fn start(dir: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", REAPER]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().context("sh")?;
        let reaper = Self { input: Mutex::new(child.stdin.take()), child: Mutex::new(child) };
        reaper.note("dir", dir.display());
        Ok(reaper)
    }

    /// Unmounts this directory at the end.
    pub fn add_mount(&self, path: &Path) {
        self.note("mount", path.display());
    }

    fn note(&self, verb: &str, value: impl std::fmt::Display) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = input.as_mut() {
            let _ = writeln!(input, "{verb} {value}");
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.input.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

/// A running process with its log.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a process in its own process group, so that Ctrl-C does not reach it, and appends its output to a file.
    pub fn start(reaper: &Reaper, command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        reaper.note("add", child.id());
        Ok(Self { child })
    }

    /// Kills the process with `SIGKILL`, also if it is stopped.
    pub fn kill(mut self, reaper: &Reaper) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper.note("remove", self.child.id());
    }

    /// Sends a signal by name. The process was not waited for, so its id is valid.
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
    }

    /// The status of a process that ended by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

/// A free port that the system does not assign to an outgoing connection while its server restarts.
pub fn reserved_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ephemeral ports of Linux, and apart from those of the tests; each process starts at another port.
    let begin = u16::try_from(std::process::id() % 45)? * 60;
    let offsets = (0..2_700).map(|_| NEXT.fetch_add(1, Ordering::Relaxed));
    let mut ports = offsets.map(|offset| 30_000 + (begin + offset) % 2_700);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port is free")
}
