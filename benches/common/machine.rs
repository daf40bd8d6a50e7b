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
#[derive(Clone)]
pub struct Machine {
    /// The cores of the servers, and that of the load; `None` if processes cannot be pinned.
    cores: Option<(Vec<usize>, usize)>,
    /// The cores of this machine that the bench may use.
    allowed: Vec<usize>,
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
        // The load does not move between the turns with one core and those with two, so it takes the third core if there is one.
        let cores = match allowed[..] {
            [server, _, load, ..] | [server, load] if pin(load) => Some((vec![server], load)),
            _ => {
                eprintln!("servers and load share their cores: to separate them, two cores and `taskset` are needed");
                None
            }
        };
        Self { cores, allowed, files }
    }

    /// The same machine with this number of cores for the servers; `None` if it has fewer, or processes cannot be pinned.
    pub fn with_server_cores(&self, count: usize) -> Option<Self> {
        let (_, load) = self.cores.as_ref()?;
        let servers = self.allowed.get(..count)?.to_vec();
        Some(Self { cores: Some((servers, *load)), ..self.clone() })
    }

    /// Whether the load runs on a core that servers use.
    pub fn is_load_shared(&self) -> bool {
        self.cores.as_ref().is_none_or(|(servers, load)| servers.contains(load))
    }

    /// A command that runs on the servers' cores.
    pub fn on_server_cores(&self, program: impl AsRef<Path>) -> Command {
        let Some((servers, _)) = &self.cores else { return Command::new(program.as_ref()) };
        let list: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let mut command = Command::new("taskset");
        command.args(["-c", &list.join(",")]).arg(program.as_ref());
        command
    }

    /// A line that describes the conditions of the measurement.
    pub fn describe(&self) -> String {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|m| m.1);
        let cores = if self.cores.is_some() { "" } else { "; processes share cores" };
        format!("{}, {} cores{cores}.", model.unwrap_or("?"), self.allowed.len())
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

/// Memory that only this process has, in KiB: `Private_Clean` and `Private_Dirty` of `smaps_rollup`.
pub fn private(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("the server still runs");
    let private = text.lines().filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"));
    private.map(kib).sum()
}

/// The most memory that a process has had so far, in KiB.
pub fn peak(process: u32) -> f64 {
    kib(&format!("VmHWM: {}", status(process, "VmHWM:").expect("the server still runs")))
}

/// Memory of the kernel on this machine in KiB: its objects (`Slab`), and the buffers of TCP.
pub fn kernel() -> (f64, f64) {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let slab = memory.lines().find(|line| line.starts_with("Slab:")).map_or(f64::NAN, kib);
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let pages = sockets.lines().find(|line| line.starts_with("TCP:")).and_then(|line| line.rsplit(' ').next());
    let pages = pages.and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (slab, pages * 4.0)
}

/// The number of a line like `Slab: 12 kB`.
fn kib(line: &str) -> f64 {
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// The first child of a process.
pub fn child_of(process: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split(' ').next()?.parse().ok()
}
