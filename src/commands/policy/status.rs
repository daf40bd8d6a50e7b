//! `tidegate policy status`: the nodes and the active policy of each.

use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::commands::control_client::{FleetTargetArgs, Target};
use crate::commands::policy::fleet::fetch_status;
use crate::commands::policy::print_text;
use crate::commands::{client_runtime, time};
use crate::fleet::node_status::NodeStatus;
use crate::fleet::status::FleetStatus;

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    target: FleetTargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    client_runtime()?.block_on(async {
        let target = args.target.open().await?;
        if let Target::Gateway(gateway) = &target
            && gateway.request(Method::GET, "/v1/fleet", None).await?.0 == StatusCode::CONFLICT
        {
            // A gateway on an in-memory store has no fleet.
            let policy = gateway.call(Method::GET, "/v1/policy", None).await?;
            return if args.json {
                print_text(&format!("{policy}\n"))
            } else {
                print_text(&describe_single_gateway(&policy))
            };
        }
        let status = fetch_status(&target).await?;
        if args.json {
            return print_text(&format!("{}\n", json!({ "current": status.current, "nodes": status.nodes })));
        }
        print_text(&text(&status))
    })
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
        Some(pointer) => {
            let unused = if is_fleet { "" } else { ", which no node uses" };
            format!("fleet policy: {}, sequence {}{unused}\n", pointer.component, pointer.sequence)
        }
        None if is_fleet => "fleet policy: none was pushed\n".into(),
        None => String::new(),
    };
    if status.nodes.is_empty() {
        text += "no node is alive\n";
    }
    for node in &status.nodes {
        text += &line(node);
        if let Some(error) = &node.error {
            text += &format!("    {error}\n");
        }
    }
    text
}

fn line(node: &NodeStatus) -> String {
    let NodeStatus { name, address, .. } = node;
    let digest = node.digest.as_deref().unwrap_or("no policy");
    let sequence = node.sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
    let generation = node.generation.map(|generation| format!(", generation {generation}")).unwrap_or_default();
    let since = node.since.map(since).unwrap_or_default();
    let source = node.source.as_deref().unwrap_or(if node.fleet_managed { "fleet" } else { "none" });
    format!("  {name}  {address}  {digest}{sequence}{generation}{since}  ({source})\n")
}
