//! `tidegate policy status`: every node, and what is in force there.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::push::fleet;
use super::say;
use crate::commands::client_runtime;
use crate::commands::target::{Target, TargetArgs};
use crate::fleet::push::{current, nodes};
use crate::fleet::{Node, Pointer};

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    client_runtime()?.block_on(async {
        match args.target.open()? {
            Target::Store(store) => {
                let store = fleet(&store)?;
                let (current, nodes) = (current(&store).await?, nodes(&store).await?);
                if args.json {
                    return say(&format!("{}\n", json!({ "current": current, "nodes": nodes })));
                }
                say(&text(current.as_ref(), &nodes))
            }
            Target::Gateway(_) => bail!("give --store, the fleet's store"),
        }
    })
}

fn text(current: Option<&Pointer>, nodes: &[Node]) -> String {
    let mut text = match current {
        Some(pointer) => format!("the fleet's policy: {}, number {}\n", pointer.component, pointer.sequence),
        None => "the fleet's policy: nothing was pushed\n".into(),
    };
    if nodes.is_empty() {
        text += "no node lives\n";
    }
    for node in nodes {
        let digest = node.digest.as_deref().unwrap_or("no policy");
        let number = node.sequence.map(|number| format!(", number {number}")).unwrap_or_default();
        let since = node.since.map(|ms| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)));
        let since = since.map(|time| format!(", since {time}")).unwrap_or_default();
        let source = node.source.as_deref().unwrap_or(if node.fleet { "fleet" } else { "none" });
        text += &format!("  {}  {}  {digest}{number}{since}  ({source})\n", node.name, node.address);
        if let Some(error) = &node.error {
            text += &format!("    {error}\n");
        }
    }
    text
}
