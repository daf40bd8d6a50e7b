//! `tidegate policy list`: the pushed policies, latest first.

use clap::Args;
use serde_json::json;

use crate::commands::control_client::FleetTargetArgs;
use crate::commands::policy::fleet::fetch_status;
use crate::commands::policy::print_text;
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
        let status = fetch_status(&args.target.open().await?).await?;
        if args.json {
            return print_text(&format!("{}\n", json!({ "current": status.current, "history": status.history })));
        }
        if status.history.is_empty() {
            return print_text("nothing was pushed to this store\n");
        }
        let lines = status.history.iter().map(|pointer| line(pointer, status.current.as_ref() == Some(pointer)));
        print_text(&lines.collect::<String>())
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
