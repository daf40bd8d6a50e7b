//! `tidegate policy status`: the nodes and the active policy of each.

use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::commands::control_client::{FleetTargetArgs, Target};
use crate::commands::policy::fleet::view;
use crate::commands::policy::say;
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
            return if args.json { say(&format!("{policy}\n")) } else { say(&alone(&policy)) };
        }
        let view = view(&target).await?;
        if args.json {
            return say(&format!("{}\n", json!({ "current": view.current, "nodes": view.nodes })));
        }
        say(&text(&view))
    })
}

fn since(ms: u64) -> String {
    format!(", since {}", time(ms))
}

fn alone(policy: &Value) -> String {
    let active = &policy["active"];
    let digest = active["digest"].as_str().unwrap_or("no policy");
    let since = active["since"].as_u64().map(since).unwrap_or_default();
    let source = active["source"].as_str().unwrap_or("none");
    let until = if active["persisted"] == false { ", until it restarts" } else { "" };
    let mut text = format!("{digest}{since}  ({source}{until})\n");
    if let Some(why) = policy["last_failure"]["reason"].as_str() {
        text += &format!("  {why}\n");
    }
    text
}

fn text(view: &FleetStatus) -> String {
    let is_fleet = view.nodes.is_empty() || view.nodes.iter().any(|node| node.fleet_managed);
    let mut text = match &view.current {
        Some(pointer) => {
            let nobody = if is_fleet { "" } else { ", which no node uses" };
            format!("fleet policy: {}, sequence {}{nobody}\n", pointer.component, pointer.sequence)
        }
        None if is_fleet => "fleet policy: none was pushed\n".into(),
        None => String::new(),
    };
    if view.nodes.is_empty() {
        text += "no node is alive\n";
    }
    for node in &view.nodes {
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
