//! `tidegate policy shadow` and `tidegate policy promote`: evaluates a shadow policy in addition to the active one, and activates it.

use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::commands::control_client::{FleetTargetArgs, Target, parse};
use crate::commands::policy::fleet::{WaitingArgs, print_change, push_and_print};
use crate::commands::policy::sign::{BundleArgs, request_body};
use crate::commands::policy::signing::SigningArgs;
use crate::commands::policy::status::{describe_proof, verification_json};
use crate::commands::{count_lines, print, print_text, time};
use crate::config::ConfigError;
use crate::fleet::push::Bundle;
use crate::fleet::shadow::push;
use crate::fleet::shadow::push::{SHADOW_REPORT_TIMEOUT, ShadowOnNode, ShadowStatus};
use crate::rollout::stage::StageError;
use crate::shadow::counts::ShadowCounts;
use crate::util::printable::{printable, printable_json};
use crate::util::ratio::Ratio;

/// Path of the shadow policy on the control port.
const SHADOW_PATH: &str = "/v1/policy/shadow";

/// Default share with `--store`, where no configuration of a gateway applies.
const DEFAULT_SHARE: f64 = 0.1;

#[derive(Debug, Args)]
pub struct ShadowArgs {
    /// Component of the shadow policy; without it, show the results of the present one
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Share of clients to evaluate it for, from 0 to 1 [default: policy.shadow.share of the gateway; 0.1 with --store]
    #[arg(long, value_name = "SHARE", requires = "file")]
    share: Option<f64>,
    /// Test cases that it has to pass [default: NAME.cases.toml next to NAME.wasm, if it exists]
    #[arg(long, value_name = "FILE", requires = "file")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    signing: SigningArgs,
    /// Signature file [default: NAME.wasm.sig next to NAME.wasm, if it exists and --key is not set]
    #[arg(long, value_name = "FILE", requires = "file", conflicts_with = "key")]
    signature: Option<PathBuf>,
    /// Remove the shadow policy
    #[arg(long, conflicts_with_all = ["file", "key"])]
    stop: bool,
    #[command(flatten)]
    target: FleetTargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// Activate it only if its component has this digest (sha256:…)
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    target: FleetTargetArgs,
    #[command(flatten)]
    waiting: WaitingArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &ShadowArgs) -> anyhow::Result<()> {
    if let Some(share) = args.share {
        check_share(share)?;
    }
    let signer = args.signing.load()?;
    let target = args.target.open().await?;
    let bundle = match &args.file {
        Some(file) => {
            let files = BundleArgs { file: file.clone(), cases: args.cases.clone() };
            let mut bundle = files.read()?;
            signer.sign_files(&target, &mut bundle, &files, args.signature.as_deref()).await?;
            Some(bundle)
        }
        None => None,
    };
    let mut answer = match (target, bundle) {
        (Target::Store { fleet, .. }, Some(bundle)) => {
            let share = check_share(args.share.unwrap_or(DEFAULT_SHARE))?;
            let pushed = push::set(&*fleet, &bundle, share).await?;
            json!(push::wait_reported(&*fleet, &pushed, SHADOW_REPORT_TIMEOUT).await?)
        }
        (Target::Store { fleet, .. }, None) if args.stop => {
            push::remove(&*fleet).await?.map_or_else(|| json!({ "unreadable": true }), |status| json!(status))
        }
        (Target::Store { fleet, .. }, None) => json!(push::status(&*fleet).await?),
        (Target::Gateway(gateway), Some(bundle)) => {
            let share = args.share.map(|share| format!("?share={share}")).unwrap_or_default();
            let body = request_body(&bundle).to_string();
            gateway.call(Method::PUT, &format!("{SHADOW_PATH}{share}"), Some(body)).await?
        }
        (Target::Gateway(gateway), None) => {
            let method = if args.stop { Method::DELETE } else { Method::GET };
            gateway.call(method, SHADOW_PATH, None).await?
        }
    };
    if answer["unreadable"] == true {
        return print(args.json, &answer, || "removed a shadow policy that could not be read\n".into());
    }
    let report: ShadowSummary = parse(answer.clone())?;
    // Only that of a fleet comes from a store, where others may have written it.
    let fleet_shadow = ShadowStatus::deserialize(&answer).ok();
    let verification = fleet_shadow.map(|shadow| shadow.prove(signer.keys()));
    if let Some(proof) = &verification {
        answer["verification"] = verification_json(proof.clone());
    }
    print(args.json, &answer, || {
        let by = verification.map(|proof| format!("{}\n", describe_proof(proof))).unwrap_or_default();
        let removed = if args.stop { "removed the shadow policy; its last results:\n" } else { "" };
        format!("{removed}{}{by}", report.text(args.stop))
    })?;
    let failures: Vec<String> = report.nodes.iter().flatten().filter_map(describe_failure).collect();
    if args.file.is_some() && !failures.is_empty() {
        bail!("some nodes do not evaluate the shadow policy: {}", failures.join("; "));
    }
    Ok(())
}

fn check_share(share: f64) -> Result<Ratio, ConfigError> {
    Ratio::try_from(share).map_err(|error| ConfigError(format!("--share {error}")))
}

pub async fn promote(args: &PromoteArgs) -> anyhow::Result<()> {
    let signer = args.signing.load()?;
    let target = args.target.open().await?;
    let what = |digest: Digest| format!("promote: the shadow policy {digest}");
    let gateway = match &target {
        Target::Store { fleet, .. } => {
            let record = push::record(&**fleet).await?.record;
            check_digest(args, record.component)?;
            let proof = record.prove(signer.keys());
            let signature = signer.sign_again(&target, &what(record.component), proof).await?;
            let PolicyBundle { component, cases, .. } = record.fetch(&**fleet).await?;
            let signature = signature.or(record.signature);
            let bundle = Bundle { component: component.to_vec(), cases, signature };
            return push_and_print(&**fleet, signer.keys(), bundle, args.waiting.options(), args.json).await;
        }
        Target::Gateway(gateway) => gateway,
    };
    let mut body = json!({ "digest": args.digest });
    if args.signing.key.is_some() {
        let Ok(shadow) = ShadowStatus::deserialize(gateway.call(Method::GET, SHADOW_PATH, None).await?) else {
            let text = "promote: --key is for the shadow policy of a fleet; a single gateway activates its own with the signature that it came with";
            return Err(ConfigError(text.into()).into());
        };
        check_digest(args, shadow.digest)?;
        let proof = shadow.prove(signer.keys());
        let signature = signer.sign_again(&target, &what(shadow.digest), proof).await?;
        body = json!({ "digest": shadow.digest, "signature": signature.map(|signature| signature.text()) });
    }
    let answer = args.waiting.call(gateway, Method::POST, "/v1/policy/promote", body.to_string()).await?;
    if args.json || answer["nodes"].is_array() {
        return print_change(&answer, args.json);
    }
    let (digest, generation) = (&answer["active"]["digest"], answer["active"]["generation"].as_u64().unwrap_or(0));
    let digest = printable(digest.as_str().unwrap_or_default());
    let mut text = format!("{digest} is active, generation {generation}\n");
    if let Some(reason) = answer["not_persisted_reason"].as_str() {
        text += &format!("until the next start: {}\n", printable(reason));
    }
    print_text(&text)
}

fn check_digest(args: &PromoteArgs, shadow: Digest) -> anyhow::Result<()> {
    ensure!(args.digest.as_ref().is_none_or(|digest| *digest == shadow.to_string()), "the shadow policy is {shadow}");
    Ok(())
}

/// The report of a shadow policy: of a single gateway, or of a fleet.
#[derive(Deserialize)]
struct ShadowSummary {
    digest: String,
    source: String,
    /// Evaluated since, ms since 1970.
    since: u64,
    share: f64,
    counts: ShadowCounts,
    /// The nodes of a fleet.
    nodes: Option<Vec<ShadowOnNode>>,
    /// Differences between decisions, which only a gateway has.
    disagreements: Option<Vec<Value>>,
}

/// What the counts mean, in the order of [`ShadowCounts::named`].
const COUNT_LABELS: [&str; 8] = [
    "identical",
    "allow → reject",
    "reject → allow",
    "same outcome, different response",
    "error: a trap, a limit or a timeout",
    "not compared: needed a look-up that the active policy did not make",
    "not evaluated: all permits were in use",
    "not evaluated: the active decision came from the cache",
];

impl ShadowSummary {
    /// The report, of a policy that is evaluated or was removed.
    fn text(&self, is_removed: bool) -> String {
        let (digest, source, share) = (printable(&self.digest), printable(&self.source), self.share);
        // Without trailing zeros: 0.1 is printed as 10, not as 10.000.
        let percent = (share * 1e5).round() / 1e3;
        let since = time(self.since);
        let mut text = format!("{digest} ({source}), evaluated for {percent} % of clients since {since}\n");
        text += &count_lines(self.counts.named().map(|(_, count)| count).into_iter().zip(COUNT_LABELS));
        if let Some(nodes) = &self.nodes {
            text.extend(nodes.iter().map(describe_node));
            if is_removed {
                // Nothing will be evaluated any more.
            } else if nodes.is_empty() {
                text += "  no node is alive; nodes that start will evaluate it\n";
            } else if self.disagreements.is_none() {
                text += "each node lists its own differences: use --control\n";
            }
        }
        text.extend(self.disagreements.iter().flatten().map(describe_disagreement));
        text
    }
}

/// Why a node does not evaluate the shadow policy; none if it does.
fn describe_failure(node: &ShadowOnNode) -> Option<String> {
    let StageError { stage, reason } = node.failure.as_ref()?;
    let (name, reason) = (printable(&node.name), printable(reason));
    Some(format!("node {name} did not reach stage {}: {reason}", stage.as_str()))
}

/// One node's line of the report.
fn describe_node(node: &ShadowOnNode) -> String {
    let state = match (&node.failure, node.since) {
        (Some(StageError { stage, reason }), _) => {
            format!("did not reach stage {}: {}", stage.as_str(), printable(reason))
        }
        (None, None) => "not evaluated yet".into(),
        (None, Some(since)) => {
            let counts = node.counts.unwrap_or_default();
            let different = [counts.allow_to_reject, counts.reject_to_allow, counts.other, counts.error];
            let different = different.into_iter().fold(0, u64::saturating_add);
            let evaluations = different.saturating_add(counts.agree);
            format!("{evaluations} evaluations since {}, {different} different", time(since))
        }
    };
    format!("  {}  {}  {state}\n", printable(&node.name), printable(&node.address))
}

/// A decision of the active policy and the one of the shadow policy.
fn describe_disagreement(disagreement: &Value) -> String {
    let text = |field: &str| printable(disagreement[field].as_str().unwrap_or_default());
    let fields = disagreement["changed_fields"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let fields: Vec<Cow<str>> = fields.map(printable).collect();
    let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
    format!(
        "\n{} {}: {}{fields}, {}\n  active  {}\n  shadow  {}\n",
        time(disagreement["time"].as_u64().unwrap_or_default()),
        text("request_id"),
        text("change").replace('_', " "),
        printable_json(&disagreement["channels"].to_string()),
        printable_json(&disagreement["active"].to_string()),
        printable_json(&disagreement["shadow"].to_string())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::golden::golden;

    #[test]
    fn golden_report() {
        let report = json!({
            "digest": "sha256:9f2c…", "source": "control port", "since": 1_764_039_792_123_u64, "share": 0.1,
            "counts": { "agree": 4711, "allow_to_reject": 1, "reject_to_allow": 0, "other": 1, "error": 0,
                "incomparable": 3, "dropped": 12, "cached": 100 },
            "disagreements": [{
                "time": 1_764_039_793_000_u64, "request_id": "5f0c", "generation": 3, "channels": ["~77aa01", "news"],
                "change": "allow_to_reject", "changed_fields": [],
                "active": { "outcome": "allowed", "subject": "~1122" },
                "shadow": { "outcome": "rejected", "status": 403, "reason": "not a member" },
            }, {
                "time": 1_764_039_792_500_u64, "request_id": "5f0b", "generation": 3, "channels": ["news"],
                "change": "other", "changed_fields": ["status"],
                "active": { "outcome": "rejected", "status": 403 },
                "shadow": { "outcome": "rejected", "status": 401 },
            }],
        });
        golden("policy-shadow.txt", &ShadowSummary::deserialize(&report).expect("a report").text(false));
        let counts = json!({ "agree": 4000, "allow_to_reject": 1, "reject_to_allow": 0, "other": 1, "error": 0,
            "incomparable": 3, "dropped": 12, "cached": 100 });
        let fleet = json!({
            "digest": "sha256:9f2c…", "source": "fleet", "since": 1_764_039_792_123_u64, "share": 0.1, "counts": counts,
            "nodes": [
                { "name": "gate-1", "address": "10.0.0.1:8080", "since": 1_764_039_792_200_u64, "counts": counts, "failure": null },
                { "name": "gate-2", "address": "10.0.0.2:8080", "since": null, "counts": null,
                    "failure": { "stage": "tested", "reason": "its case \"in\" (line 1): allow is false and not true" } },
                { "name": "gate-3", "address": "10.0.0.3:8080", "since": null, "counts": null, "failure": null },
            ],
        });
        golden("policy-shadow-fleet.txt", &ShadowSummary::deserialize(&fleet).expect("a report").text(false));
    }
}
