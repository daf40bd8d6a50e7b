//! `tidegate policy status`: the nodes and the active policy of each.

use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::fleet::view;
use super::say;
use crate::commands::control_client::{FleetTargetArgs, Target};
use crate::commands::{client_runtime, time};
use crate::fleet::{Node, View};

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
    let in_force = &policy["in_force"];
    let digest = in_force["digest"].as_str().unwrap_or("no policy");
    let since = in_force["since"].as_u64().map(since).unwrap_or_default();
    let source = in_force["source"].as_str().unwrap_or("none");
    let until = if in_force["until_restart"] == true { ", until it restarts" } else { "" };
    let mut text = format!("{digest}{since}  ({source}{until})\n");
    if let Some(why) = policy["last_refusal"]["why"].as_str() {
        text += &format!("  {why}\n");
    }
    text
}

fn text(view: &View) -> String {
    let is_fleet = view.nodes.is_empty() || view.nodes.iter().any(|node| node.fleet);
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

fn line(node: &Node) -> String {
    let Node { name, address, .. } = node;
    let digest = node.digest.as_deref().unwrap_or("no policy");
    let number = node.sequence.map(|number| format!(", sequence {number}")).unwrap_or_default();
    let version = node.version.map(|version| format!(", generation {version}")).unwrap_or_default();
    let since = node.since.map(since).unwrap_or_default();
    let source = node.source.as_deref().unwrap_or(if node.fleet { "fleet" } else { "none" });
    format!("  {name}  {address}  {digest}{number}{version}{since}  ({source})\n")
}
