//! The options of `cargo xtask faults`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::topology::Kind;

pub const USAGE: &str =
    "usage: cargo xtask faults [--seed N] [--minutes M] [--only cluster|sentinel|single] [--durable] [--clients N]
                          [--replay LOG] [--write]";

/// What `--help` prints after the usage.
pub const HELP: &str = "
  --seed N       the seed; a new one without it
  --minutes M    minutes of faults, over all rounds (6)
  --only NAME    one topology
  --durable      acknowledged entries must survive in all rounds
  --clients N    the number of clients (200); without any, the round shows what the store itself loses
  --replay LOG   the faults of a log, with --only
  --write        write the figures into docs/internals/testing.md

REDIS_SERVER and TIDEGATE_BIN name other programs. docs/internals/testing.md has the faults and the rules.";

/// Clients of a run.
const CLIENTS: usize = 200;

/// Minutes of faults of a run over all topologies.
const MINUTES: f64 = 6.0;

pub struct Options {
    pub seed: u64,
    /// The time of faults, over all rounds.
    pub length: Duration,
    pub kinds: Vec<Kind>,
    /// Everything that is acknowledged has to survive, in each round. Otherwise rounds of both kinds alternate.
    pub durable: Option<bool>,
    /// Without clients there are no gateways either: a round then shows what the store loses.
    pub clients: usize,
    /// A log of faults to repeat instead of drawing from the seed.
    pub replay: Option<PathBuf>,
    /// Write the figures into the documentation.
    pub write: bool,
}

impl Options {
    pub fn parse(args: &[&str]) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut options = Self {
            seed: now % 100_000,
            length: Duration::from_secs_f64(MINUTES * 60.0),
            kinds: Kind::ALL.to_vec(),
            durable: None,
            clients: CLIENTS,
            replay: None,
            write: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().context(USAGE);
            match *arg {
                "--seed" => options.seed = value()?.parse().context(USAGE)?,
                "--minutes" => {
                    let minutes: f64 = value()?.parse().context(USAGE)?;
                    options.length = Duration::try_from_secs_f64(minutes * 60.0).context(USAGE)?;
                }
                "--only" => {
                    let name = value()?;
                    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == *name).context(USAGE)?;
                    options.kinds = vec![kind];
                }
                "--durable" => options.durable = Some(true),
                "--clients" => options.clients = value()?.parse().context(USAGE)?,
                "--replay" => options.replay = Some(value()?.into()),
                "--write" => options.write = true,
                _ => bail!("{USAGE}"),
            }
        }
        if options.replay.is_some() && options.kinds.len() != 1 {
            bail!("--replay needs --only: a log is of one topology");
        }
        Ok(options)
    }
}
