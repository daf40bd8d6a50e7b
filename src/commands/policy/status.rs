//! `tidegate policy status`: the nodes and the active policy of each; and `tidegate policy list`: the pushed policies, latest first.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::artifact::signature::key::TrustedKeys;
use crate::artifact::signature::proof::{NotProven, Proof};
use crate::commands::control_client::{FleetTargetArgs, Target, parse};
use crate::commands::policy::fleet::find_fleet;
use crate::commands::policy::signing::TrustArgs;
use crate::commands::{print, time};
use crate::fleet::node_status::NodeStatus;
use crate::fleet::record::ActiveRecord;
use crate::fleet::status::FleetStatus;
use crate::util::printable::printable;

/// Hexadecimal digits of a digest that identify test cases for people.
const SHORT_DIGEST_DIGITS: usize = 12;

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    target: FleetTargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let keys = args.trust.load()?;
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
    let current = status.current.as_ref().map(|record| verified_json(record, &keys));
    print(args.json, &json!({ "current": current, "nodes": status.nodes }), || text(&status, &keys))
}

pub async fn list(args: &StatusArgs) -> anyhow::Result<()> {
    let keys = args.trust.load()?;
    let FleetStatus { current, history, .. } = match args.target.open().await? {
        Target::Store { fleet, .. } => FleetStatus::of(&*fleet).await?,
        Target::Gateway(gateway) => parse(gateway.call(Method::GET, "/v1/fleet", None).await?)?,
    };
    let json = |record| verified_json(record, &keys);
    let (current_json, history_json) = (current.as_ref().map(json), history.iter().map(json).collect::<Vec<_>>());
    print(args.json, &json!({ "current": current_json, "history": history_json }), || {
        if history.is_empty() {
            return "nothing was pushed to this store\n".into();
        }
        history.iter().map(|record| describe_record(record, current.as_ref() == Some(record), &keys)).collect()
    })
}

/// A record, and whether one of these keys signed it.
fn verified_json(record: &ActiveRecord, keys: &TrustedKeys) -> Value {
    let mut json = json!(record);
    json["verification"] = verification_json(record.prove(keys));
    json
}

/// `verification` of a record.
pub fn verification_json(proof: Result<Proof, NotProven>) -> Value {
    match proof {
        Ok(proof) => json!({ "verified": true, "key": proof.key_id(), "reason": null }),
        Err(reason) => json!({ "verified": false, "key": null, "reason": reason.to_string() }),
    }
}

/// The key that signed a policy, or why that is not verified. The key id in the record alone would prove nothing.
pub fn describe_proof(proof: Result<Proof, NotProven>) -> String {
    match proof {
        Ok(proof) => format!("key {}", proof.key_id()),
        Err(NotProven::NoKey) => "not verified: name the public key with --trusted-keys".into(),
        Err(reason) => format!("not verified: {reason}"),
    }
}

fn describe_record(record: &ActiveRecord, is_current: bool, keys: &TrustedKeys) -> String {
    let ActiveRecord { sequence, component, .. } = record;
    let mark = if is_current { "*" } else { " " };
    let cases = record.cases.map(|cases| cases.hex().chars().take(SHORT_DIGEST_DIGITS).collect::<String>());
    let cases = cases.map_or_else(|| "no cases".into(), |cases| format!("cases {cases}"));
    let rollback = record.rollback_of.map(|of| format!("  (rollback to {of})")).unwrap_or_default();
    let (at, by) = (time(record.pushed_at), describe_proof(record.prove(keys)));
    format!("{mark} {sequence:>4}  {at}  {component}  {cases}  {by}{rollback}\n")
}

fn since(ms: u64) -> String {
    format!(", since {}", time(ms))
}

fn describe_single_gateway(policy: &Value) -> String {
    let active = &policy["active"];
    let digest = printable(active["digest"].as_str().unwrap_or("no policy"));
    let since = active["since"].as_u64().map(since).unwrap_or_default();
    let source = printable(active["source"].as_str().unwrap_or("none"));
    let until = if active["persisted"] == false { ", until it restarts" } else { "" };
    let mut text = format!("{digest}{since}  ({source}{until})\n");
    if let Some(reason) = policy["last_failure"]["reason"].as_str() {
        text += &format!("  {}\n", printable(reason));
    }
    text
}

fn text(status: &FleetStatus, keys: &TrustedKeys) -> String {
    let is_fleet = status.nodes.is_empty() || status.nodes.iter().any(|node| node.fleet_managed);
    let mut text = match &status.current {
        Some(record) => {
            let unused = if is_fleet { "" } else { ", which no node uses" };
            let by = describe_proof(record.prove(keys));
            format!("fleet policy: {}, sequence {}, {by}{unused}\n", record.component, record.sequence)
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
            text += &format!("    {}\n", printable(error));
        }
    }
    text
}

fn describe_node(node: &NodeStatus) -> String {
    let (name, address) = (printable(&node.name), printable(&node.address));
    let digest = printable(node.digest.as_deref().unwrap_or("no policy"));
    let sequence = node.sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
    let generation = node.generation.map(|generation| format!(", generation {generation}")).unwrap_or_default();
    let since = node.since.map(since).unwrap_or_default();
    let source = printable(node.source.as_deref().unwrap_or(if node.fleet_managed { "fleet" } else { "none" }));
    format!("  {name}  {address}  {digest}{sequence}{generation}{since}  ({source})\n")
}
