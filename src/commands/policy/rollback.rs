//! `tidegate policy rollback`: what was in force before is in force again, as a push of its own.

use anyhow::{Context, bail};
use clap::Args;

use super::push::{SigningArgs, WaitingArgs, fleet, push_and_tell};
use crate::commands::client_runtime;
use crate::commands::target::{Target, TargetArgs};
use crate::config::ConfigError;
use crate::fleet::Pointer;
use crate::fleet::push::{Bundle, How, current, history};

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The number of what shall be in force again, or the beginning of its digest [default: the policy before]
    #[arg(value_name = "NUMBER|DIGEST")]
    to: Option<String>,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    waiting: WaitingArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &RollbackArgs) -> anyhow::Result<()> {
    client_runtime()?.block_on(async {
        match args.target.open()? {
            Target::Store(store) => {
                let store = fleet(&store)?;
                let current = current(&store).await?;
                let to = choose(args.to.as_deref(), current.as_ref(), &history(&store).await?)?;
                if to.signature.is_some() && args.signing.key.is_none() {
                    let text = "rollback: the fleet's policies are signed, and no node goes back to a smaller number: \
                                give --key, to sign the older policy anew under a greater one";
                    return Err(ConfigError(text.into()).into());
                }
                let artifact = to.fetch(&store).await?;
                let (component, cases) = (artifact.component.to_vec(), artifact.cases);
                let signature = args.signing.sign(&store, &component, cases.as_deref()).await?;
                let how = How { dry_run: false, timeout: args.waiting.timeout, untried: false };
                push_and_tell(&store, Bundle { component, cases, signature }, how, args.json).await
            }
            Target::Gateway(_) => bail!("give --store, the fleet's store"),
        }
    })
}

/// The one that is meant; without a word, the latest that is not what is in force.
fn choose(to: Option<&str>, current: Option<&Pointer>, history: &[Pointer]) -> anyhow::Result<Pointer> {
    let same = |pointer: &&Pointer| {
        current.is_some_and(|now| (now.component, now.cases) == (pointer.component, pointer.cases))
    };
    let found = match to {
        None => history.iter().find(|pointer| !same(pointer)).context("nothing else was in force before")?,
        Some(text) => {
            let number = text.parse::<u64>().ok();
            let digits = text.strip_prefix("sha256:").unwrap_or(text);
            let by_number = history.iter().find(|pointer| Some(pointer.sequence) == number);
            let by_digest =
                || history.iter().find(|pointer| digits.len() >= 6 && pointer.component.hex().starts_with(digits));
            by_number.or_else(by_digest).with_context(|| {
                format!("{text} was not in force, as far as is remembered: `tidegate policy list` shows what was")
            })?
        }
    };
    Ok(found.clone())
}
