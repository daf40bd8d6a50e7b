//! `tidegate policy list`: the pushed policies, latest first.

use clap::Args;
use serde_json::json;

use crate::commands::control_client::FleetTargetArgs;
use crate::commands::policy::fleet::view;
use crate::commands::policy::say;
use crate::commands::{client_runtime, time};
use crate::fleet::record::ActiveRecord;

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    target: FleetTargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ListArgs) -> anyhow::Result<()> {
    client_runtime()?.block_on(async {
        let view = view(&args.target.open().await?).await?;
        if args.json {
            return say(&format!("{}\n", json!({ "current": view.current, "history": view.history })));
        }
        if view.history.is_empty() {
            return say("nothing was pushed to this store\n");
        }
        let lines = view.history.iter().map(|pointer| line(pointer, view.current.as_ref() == Some(pointer)));
        say(&lines.collect::<String>())
    })
}

fn line(pointer: &ActiveRecord, is_current: bool) -> String {
    let ActiveRecord { sequence, component, .. } = pointer;
    let mark = if is_current { "*" } else { " " };
    let cases = if pointer.cases.is_some() { "with cases" } else { "no cases" };
    let signature = pointer.signature.as_ref();
    let by = signature.map_or_else(|| "not signed".into(), |signature| format!("key {}", signature.key_id()));
    let at = time(pointer.pushed_at);
    format!("{mark} {sequence:>4}  {at}  {component}  {cases}  {by}\n")
}
