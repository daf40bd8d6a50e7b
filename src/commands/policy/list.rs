//! `tidegate policy list`: the pushed policies, latest first.

use clap::Args;
use serde_json::json;

use crate::commands::control_client::{FleetTargetArgs, Target, parse};
use crate::commands::{client_runtime, print, time};
use crate::fleet::record::ActiveRecord;
use crate::fleet::status::FleetStatus;

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
        let FleetStatus { current, history, .. } = match args.target.open().await? {
            Target::Store { fleet, .. } => FleetStatus::of(&*fleet).await?,
            Target::Gateway(gateway) => parse(gateway.get("/v1/fleet").await?)?,
        };
        print(args.json, &json!({ "current": current, "history": history }), || {
            if history.is_empty() {
                return "nothing was pushed to this store\n".into();
            }
            history.iter().map(|record| line(record, current.as_ref() == Some(record))).collect()
        })
    })
}

fn line(record: &ActiveRecord, is_current: bool) -> String {
    let ActiveRecord { sequence, component, .. } = record;
    let mark = if is_current { "*" } else { " " };
    let cases = if record.cases.is_some() { "with cases" } else { "no cases" };
    let signature = record.signature.as_ref();
    let by = signature.map_or_else(|| "not signed".into(), |signature| format!("key {}", signature.key_id()));
    let at = time(record.pushed_at);
    format!("{mark} {sequence:>4}  {at}  {component}  {cases}  {by}\n")
}
