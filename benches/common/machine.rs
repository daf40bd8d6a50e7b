//! The machine: the cores of the processes, their CPU time and memory, and the limit of open files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// The machine, with the cores that this bench has assigned.
pub struct Machine {
    /// The core of the servers and that of the load; `None` if processes cannot be pinned.
    cores: Option<(usize, usize)>,
    /// Files that a process may have open.
    pub files: usize,
}

impl Machine {
    /// Pins this process to the load's core, and raises the limit of open files for it and its children to the maximum.
    pub fn prepare() -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
        let files =
            getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let allowed = status(std::process::id(), "Cpus_allowed_list:").map(|list| numbers(&list)).unwrap_or_default();
        let cores = match allowed[..] {
            [server, load, ..] if pin(load) => Some((server, load)),
            _ => {
                eprintln!("servers and load share their cores: to separate them, two cores and `taskset` are needed");
                None
            }
        };
        Self { cores, files }
    }

    /// A command that runs on the servers' core.
    pub fn on_server_core(&self, program: impl AsRef<Path>) -> Command {
        let Some((server, _)) = self.cores else { return Command::new(program.as_ref()) };
        let mut command = Command::new("taskset");
        command.args(["-c", &server.to_string()]).arg(program.as_ref());
        command
    }

    /// A line that describes the conditions of the measurement.
    pub fn describe(&self) -> String {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|m| m.1);
        let cores = if self.cores.is_some() {
            "servers on one core, load and Redis on another"
        } else {
            "processes share cores"
        };
        format!(
            "{}; {cores}; CPU is the server process's own time; medians of rounds in which the servers alternate.",
            model.unwrap_or("?")
        )
    }
}

/// Pins this process and those that it starts to a core.
fn pin(core: usize) -> bool {
    let mut command = Command::new("taskset");
    command.args(["-a", "-c", "-p", &core.to_string(), &std::process::id().to_string()]);
    command.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The cores of a list like `0-3,8`.
fn numbers(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn status(process: u32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

/// CPU time of a process's threads. An idle thread may end, and its time disappears from `/proc`: the last known time counts then.
pub fn cpu(process: u32) -> Duration {
    static LAST_TIMES: Mutex<BTreeMap<(u32, OsString), u64>> = Mutex::new(BTreeMap::new());
    let time = |thread: &Path| {
        let text = fs::read_to_string(thread.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let mut times = LAST_TIMES.lock().unwrap();
    for thread in fs::read_dir(format!("/proc/{process}/task")).expect("the server still runs").flatten() {
        // It may end meanwhile.
        if let Some(ns) = time(&thread.path()) {
            let last = times.entry((process, thread.file_name())).or_default();
            *last = ns.max(*last);
        }
    }
    let own = times.iter().filter(|((of, _), _)| *of == process);
    Duration::from_nanos(own.map(|(_, ns)| ns).sum())
}

/// CPU time of a process, once it has completed the work that was left.
pub async fn settled_cpu(process: u32) -> Duration {
    let mut before = cpu(process);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = cpu(process);
        if now - before < Duration::from_micros(200) {
            return now;
        }
        before = now;
    }
    before
}

/// Resident memory of a process in KiB.
pub fn resident(process: u32) -> f64 {
    let text = status(process, "VmRSS:").expect("the server still runs");
    text.trim_end_matches("kB").trim().parse().expect("a number")
}

/// The first child of a process.
pub fn child_of(process: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split(' ').next()?.parse().ok()
}
