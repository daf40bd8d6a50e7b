//! `tidegate policy list`: what was in force.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::push::fleet;
use super::say;
use crate::commands::client_runtime;
use crate::commands::target::{Target, TargetArgs};
use crate::fleet::Pointer;
use crate::fleet::push::{current, history};

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ListArgs) -> anyhow::Result<()> {
    client_runtime()?.block_on(async {
        match args.target.open()? {
            Target::Store(store) => {
                let store = fleet(&store)?;
                let (current, history) = (current(&store).await?, history(&store).await?);
                if args.json {
                    return say(&format!("{}\n", json!({ "current": current, "history": history })));
                }
                if history.is_empty() && current.is_none() {
                    return say("nothing was pushed to this store\n");
                }
                let lines = history.iter().map(|pointer| line(pointer, current.as_ref() == Some(pointer)));
                say(&lines.collect::<String>())
            }
            Target::Gateway(_) => bail!("give --store, the fleet's store"),
        }
    })
}

fn line(pointer: &Pointer, is_current: bool) -> String {
    let mark = if is_current { "*" } else { " " };
    let cases = if pointer.cases.is_some() { "with cases" } else { "without cases" };
    let by =
        pointer.signature.as_ref().map_or_else(|| "not signed".into(), |signature| format!("key {}", signature.key()));
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(pointer.pushed_at);
    format!(
        "{mark} {:>4}  {}  {}  {cases}  {by}\n",
        pointer.sequence,
        humantime::format_rfc3339_seconds(at),
        pointer.component
    )
}
