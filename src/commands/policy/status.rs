//! `tidegate policy status`: the nodes and the active policy of each; and `tidegate policy list`: the pushed policies, latest first.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::commands::control_client::{FleetTargetArgs, Target, parse};
use crate::commands::policy::fleet::find_fleet;
use crate::commands::{print, time};
use crate::fleet::node_status::NodeStatus;
use crate::fleet::record::ActiveRecord;
use crate::fleet::status::FleetStatus;

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    target: FleetTargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let status = match args.target.open().await? {
        Target::Store { fleet, .. } => FleetStatus::of(&*fleet).await?,
        Target::Gateway(gateway) => match find_fleet(&gateway).await? {
            Some((status, _)) => status,
            // A gateway on an in-memory store has no fleet.
            None => {
                let policy = gateway.call(Method::GET, "/v1/policy", None).await?;
                return print(args.json, &policy, || describe_single_gateway(&policy));
            }
        },
    };
    print(args.json, &json!({ "current": status.current, "nodes": status.nodes }), || text(&status))
}

pub async fn list(args: &StatusArgs) -> anyhow::Result<()> {
    let FleetStatus { current, history, .. } = match args.target.open().await? {
        Target::Store { fleet, .. } => FleetStatus::of(&*fleet).await?,
        Target::Gateway(gateway) => parse(gateway.call(Method::GET, "/v1/fleet", None).await?)?,
    };
    print(args.json, &json!({ "current": current, "history": history }), || {
        if history.is_empty() {
            return "nothing was pushed to this store\n".into();
        }
        history.iter().map(|record| describe_record(record, current.as_ref() == Some(record))).collect()
    })
}

fn describe_record(record: &ActiveRecord, is_current: bool) -> String {
    let ActiveRecord { sequence, component, .. } = record;
    let mark = if is_current { "*" } else { " " };
    let cases = if record.cases.is_some() { "with cases" } else { "no cases" };
    let signature = record.signature.as_ref();
    let by = signature.map_or_else(|| "not signed".into(), |signature| format!("key {}", signature.key_id()));
    let at = time(record.pushed_at);
    format!("{mark} {sequence:>4}  {at}  {component}  {cases}  {by}\n")
}

fn since(ms: u64) -> String {
    format!(", since {}", time(ms))
}

fn describe_single_gateway(policy: &Value) -> String {
    let active = &policy["active"];
    let digest = active["digest"].as_str().unwrap_or("no policy");
    let since = active["since"].as_u64().map(since).unwrap_or_default();
    let source = active["source"].as_str().unwrap_or("none");
    let until = if active["persisted"] == false { ", until it restarts" } else { "" };
    let mut text = format!("{digest}{since}  ({source}{until})\n");
    if let Some(reason) = policy["last_failure"]["reason"].as_str() {
        text += &format!("  {reason}\n");
    }
    text
}

fn text(status: &FleetStatus) -> String {
    let is_fleet = status.nodes.is_empty() || status.nodes.iter().any(|node| node.fleet_managed);
    let mut text = match &status.current {
        Some(record) => {
            let unused = if is_fleet { "" } else { ", which no node uses" };
            format!("fleet policy: {}, sequence {}{unused}\n", record.component, record.sequence)
        }
        None if is_fleet => "fleet policy: none was pushed\n".into(),
        None => String::new(),
    };
    if status.nodes.is_empty() {
        text += "no node is alive\n";
    }
    for node in &status.nodes {
        text += &describe_node(node);
        if let Some(error) = &node.error {
            text += &format!("    {error}\n");
        }
    }
    text
}

fn describe_node(node: &NodeStatus) -> String {
    let NodeStatus { name, address, .. } = node;
    let digest = node.digest.as_deref().unwrap_or("no policy");
    let sequence = node.sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
    let generation = node.generation.map(|generation| format!(", generation {generation}")).unwrap_or_default();
    let since = node.since.map(since).unwrap_or_default();
    let source = node.source.as_deref().unwrap_or(if node.fleet_managed { "fleet" } else { "none" });
    format!("  {name}  {address}  {digest}{sequence}{generation}{since}  ({source})\n")
}
