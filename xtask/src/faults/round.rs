//! One round: a store, its gateways and clients, faults, and the comparison at the end.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::checker::{Figures, Rule, Violation, check};
use super::client::Client;
use super::emitter;
use super::gateway::Gateway;
use super::history::{Evidence, History, Way};
use super::injector::{Injector, surviving};
use super::options::Options;
use super::processes::Reaper;
use super::random::Random;
use super::schedule::{self, Entry};
use super::shared::Shared;
use super::topology::{Kind, STEP_TIMEOUT, Topology};
use crate::root;

/// The longest round of a run that has several.
const MAX_LENGTH: Duration = Duration::from_secs(300);

const CHANNELS: usize = 30;

/// After the faults each client has to receive everything. The suite gives up when no client has received anything for this time, which
/// is many times the interval in which gateways check quiet channels.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Clients have small stacks.
const STACK_BYTES: usize = 512 << 10;

/// The way, the number and the interval of emitters.
const EMITTERS: [(Way, usize, Duration); 4] = [
    (Way::Direct, 4, Duration::from_millis(110)),
    (Way::Rest, 1, Duration::from_millis(150)),
    (Way::Control, 1, Duration::from_millis(150)),
    (Way::Command, 1, Duration::from_millis(2_000)),
];

/// The C source of the library that shifts the clock of a process.
const CLOCK_SOURCE: &str = include_str!("clock.c");

pub struct Round {
    pub kind: Kind,
    pub seed: u64,
    pub durable: bool,
    pub length: Duration,
    clients: usize,
    schedule: Vec<Entry>,
    replay: Option<PathBuf>,
}

/// What a round had.
pub struct Outcome {
    pub figures: Figures,
    pub violations: Vec<Violation>,
    pub histories: Vec<History>,
    pub applied: Vec<(String, usize)>,
    pub skipped: Vec<(String, usize)>,
    /// A directory with the logs of all processes.
    logs: PathBuf,
}

impl Round {
    /// The rounds of a run.
    pub fn of(options: &Options) -> Result<Vec<Self>> {
        let kinds = u32::try_from(options.kinds.len())?;
        let cycles = options.length.div_duration_f64(MAX_LENGTH * kinds).ceil().max(1.0) as u32;
        let length = options.length / (cycles * kinds);
        let mut rounds = Vec::new();
        for cycle in 0..cycles {
            for (position, kind) in (0..).zip(&options.kinds) {
                let seed = options.seed + u64::from(cycle);
                let durable = options.durable.unwrap_or(options.kinds.len() > 1 && (cycle + position) % 2 == 1);
                let schedule = match &options.replay {
                    Some(log) => schedule::parse(&fs::read_to_string(log).with_context(|| log.display().to_string())?)?,
                    None => schedule::draw(seed, *kind, durable, length),
                };
                let replay = options.replay.clone();
                rounds.push(Self { kind: *kind, seed, durable, length, clients: options.clients, schedule, replay });
            }
        }
        Ok(rounds)
    }

    /// The command that repeats the round.
    pub fn command(&self) -> String {
        let durable = if self.durable { " --durable" } else { "" };
        let replay = self.replay.as_ref().map(|log| format!(" --replay {}", log.display())).unwrap_or_default();
        let minutes = self.length.as_secs_f64() / 60.0;
        format!(
            "cargo xtask faults --seed {} --minutes {minutes:.4} --only {}{durable}{replay}",
            self.seed,
            self.kind.name()
        )
    }

    fn log(&self) -> String {
        let lines: String = self.schedule.iter().map(|entry| format!("{entry}\n")).collect();
        format!("# {}\n# offset in s, fault, role, index, duration in ms\n{lines}", self.command())
    }

    pub fn run(&self, program: &Path) -> Result<Outcome> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("run-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = root().join("target/faults").join(name);
        fs::create_dir_all(dir.join("logs"))?;
        let dir = fs::canonicalize(dir)?;
        let logs = dir.with_file_name(format!("logs-{}-{}", self.kind.name(), self.seed));
        let _ = fs::remove_dir_all(&logs);
        let reaper = Reaper::start(&dir)?;
        let outcome = self.run_in(&dir, program, &reaper);
        // Also after an error, for which they may have the reason.
        fs::rename(dir.join("logs"), &logs)?;
        fs::write(logs.join("faults.log"), self.log())?;
        drop(reaper);
        let mut outcome =
            outcome.with_context(|| format!("the logs are in {}; again: {}", logs.display(), self.command()))?;
        outcome.logs = logs;
        Ok(outcome)
    }

    fn run_in(&self, dir: &Path, program: &Path, reaper: &Reaper) -> Result<Outcome> {
        let clock = clock_library(dir);
        let topology = Topology::start(self.kind, self.durable, dir, reaper, clock.as_deref())?;
        let count = match (self.clients, self.kind) {
            (0, _) => 0,
            (_, Kind::Single) => 2,
            (_, Kind::Cluster | Kind::Sentinel) => 3,
        };
        let url = topology.url();
        let mut gateways = (0..count).map(|n| Gateway::new(dir, n, program, &url)).collect::<Result<Vec<_>>>()?;
        for gateway in &mut gateways {
            gateway.start(reaper)?;
        }
        let end = Instant::now() + STEP_TIMEOUT;
        while let Some(number) = gateways.iter().position(|gateway| !gateway.is_ready()) {
            if let Some(status) = gateways[number].exited() {
                anyhow::bail!("gateway {number} does not start: {status}");
            }
            ensure!(Instant::now() < end, "gateway {number} is not ready");
            thread::sleep(Duration::from_millis(100));
        }
        // A forced failover of sentinels selects any replica: only an entry that all replicas have survives it.
        let wait = match (self.durable, self.kind) {
            (false, _) | (_, Kind::Single) => None,
            (true, Kind::Cluster) => Some(1),
            (true, Kind::Sentinel) => Some(2),
        };
        let shared = Shared::new(CHANNELS, gateways.iter().map(|gateway| gateway.ports).collect(), wait);
        let mut random = Random::new(self.seed, "clients");
        let clients: Vec<Client> = (0..self.clients).map(|n| Client::new(n, CHANNELS, &mut random)).collect();
        let directory = topology.directory.clone();
        let injections = Random::new(self.seed, "injector");
        let mut injector = Injector::new(topology, gateways, reaper, &shared, self.durable, injections);
        thread::scope(|scope| {
            let result = self.observe(scope, &shared, &clients, &directory, program, &mut injector);
            shared.stop();
            result
        })?;
        let gateway_panics: Vec<String> = injector.gateways.iter().flat_map(Gateway::panics).collect();
        let evidence = self.evidence(&shared, &injector)?;
        let histories: Vec<History> = clients.iter().map(Client::history).collect();
        let (figures, mut violations) = check(&histories, &evidence);
        for text in injector.crashes.iter().cloned().chain(gateway_panics) {
            violations.push(Violation { rule: Rule::StreamEnded, client: None, text });
        }
        let applied = injector.applied.iter().map(|(name, count)| ((*name).to_owned(), *count));
        let skipped = injector.skipped.iter().map(|((name, reason), count)| (format!("{name}: {reason}"), *count));
        Ok(Outcome {
            figures,
            violations,
            histories,
            applied: applied.collect(),
            skipped: skipped.collect(),
            logs: PathBuf::new(),
        })
    }

    /// Runs clients and emitters while faults happen, and waits until each client has received everything.
    fn observe<'scope, 'a: 'scope>(
        &self,
        scope: &'scope thread::Scope<'scope, '_>,
        shared: &'a Shared,
        clients: &'a [Client],
        directory: &'a super::directory::Directory,
        program: &'a Path,
        injector: &mut Injector<'_>,
    ) -> Result<()> {
        let spawn = || thread::Builder::new().stack_size(STACK_BYTES);
        for (number, client) in clients.iter().enumerate() {
            let random = Random::new(self.seed, &format!("client {number}"));
            spawn().spawn_scoped(scope, move || client.run(shared, random))?;
        }
        let mut emitters = Vec::new();
        for (way, count, interval) in
            EMITTERS.into_iter().filter(|(way, ..)| *way == Way::Direct || !clients.is_empty())
        {
            for number in 0..count {
                let random = Random::new(self.seed, &format!("emitter {way:?} {number}"));
                emitters
                    .push(spawn().spawn_scoped(scope, move || {
                        emitter::run(shared, directory, program, way, interval, random)
                    })?);
            }
        }
        injector.run(&self.schedule, self.length)?;
        shared.settle();
        emitters.into_iter().for_each(|emitter| drop(emitter.join()));
        injector.heal()?;
        println!("   {:>8.3} all faults are over", shared.begin.elapsed().as_secs_f64());
        let mut progress = (usize::MAX, Instant::now());
        loop {
            let evidence = self.evidence(shared, injector)?;
            let histories: Vec<History> = clients.iter().map(Client::history).collect();
            let (figures, _) = check(&histories, &evidence);
            let pending = figures.count(Rule::Missing) + figures.count(Rule::LossWithoutGap);
            if pending < progress.0 {
                progress = (pending, Instant::now());
            }
            if pending == 0 || progress.1.elapsed() > SETTLE_TIMEOUT {
                println!(
                    "   {:>8.3} settled, {pending} deliveries or gaps are missing",
                    shared.begin.elapsed().as_secs_f64()
                );
                return Ok(());
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn evidence(&self, shared: &Shared, injector: &Injector<'_>) -> Result<Evidence> {
        let topology = &injector.topology;
        Ok(Evidence {
            emits: shared.emits().clone(),
            surviving: shared.channels.iter().map(|channel| surviving(topology, channel)).collect::<Result<_>>()?,
            gateway_faults: injector.gateway_faults.clone(),
            durable: self.durable,
        })
    }

    /// Removes the logs of a round that broke no rule; adds the histories of the clients concerned to others. Returns the directory.
    pub fn keep<'a>(&self, outcome: &'a Outcome) -> Result<&'a Path> {
        let kept = outcome.logs.as_path();
        if outcome.violations.is_empty() {
            fs::remove_dir_all(kept)?;
            return Ok(kept);
        }
        let lines: String = outcome.violations.iter().map(|violation| format!("{violation}\n")).collect();
        fs::write(kept.join("violations.txt"), lines)?;
        let mut concerned: Vec<usize> = outcome.violations.iter().filter_map(|violation| violation.client).collect();
        concerned.sort_unstable();
        concerned.dedup();
        let clients = kept.join("clients");
        fs::create_dir_all(&clients)?;
        for number in concerned {
            let records: String =
                outcome.histories[number].records.iter().map(|record| format!("{record}\n")).collect();
            fs::write(clients.join(format!("{number}.txt")), records)?;
        }
        Ok(kept)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.durable { ", acknowledged entries must survive" } else { "" };
        let (kind, seed, seconds, faults) = (self.kind.name(), self.seed, self.length.as_secs(), self.schedule.len());
        write!(f, "faults: {kind}, seed {seed}, {faults} faults in {seconds} s, {} clients{mode}", self.clients)
    }
}

impl Outcome {
    /// Lines about the round.
    pub fn summary(&self) -> String {
        let figures = &self.figures;
        let mut text = format!(
            "   emits: {} acknowledged, {} rejected, {} unknown; {} survived, {} acknowledged were lost by Redis\n   clients: {} connections, \
             {} deliveries, {} of entries that Redis lost; the longest delay was {:.3} s\n",
            figures.acknowledged,
            figures.rejected,
            figures.unknown,
            figures.surviving,
            figures.lost,
            figures.connections,
            figures.deliveries,
            figures.lost_deliveries,
            f64::from(figures.longest_delay) / 1000.0
        );
        for ((reason, certain), count) in &figures.gaps {
            text += &format!("   gaps: {count} {reason:?}, certain {certain}\n");
        }
        for (reason, count) in &self.skipped {
            text += &format!("   skipped: {count} {reason}\n");
        }
        for violation in self.violations.iter().take(20) {
            text += &format!("   VIOLATION {violation}\n");
        }
        text
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: ", self.rule)?;
        if let Some(client) = self.client {
            write!(f, "client {client}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// Builds the library that shifts clocks. `None` without a C compiler.
fn clock_library(dir: &Path) -> Option<PathBuf> {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    fs::write(&source, CLOCK_SOURCE).ok()?;
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]);
    compile.status().is_ok_and(|status| status.success()).then_some(library)
}
