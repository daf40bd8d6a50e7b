//! `tidegate policy shadow` and `tidegate policy promote`: evaluates a shadow policy in addition to the active one, and activates it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::artifact::signature::Statement;
use crate::commands::control_client::{ControlClient, FleetTargetArgs, Target};
use crate::commands::policy::fleet::{
    SigningArgs, WaitingArgs, next_sequence_on, open_fleet_store, print_result, push_and_print,
};
use crate::commands::policy::print_text;
use crate::commands::policy::sign::{BundleArgs, request_body};
use crate::commands::{client_runtime, time};
use crate::config::ConfigError;
use crate::fleet::push::{Bundle, PushOptions};
use crate::fleet::shadow::push;
use crate::fleet::shadow::push::{SHADOW_REPORT_TIMEOUT, ShadowStatus};
use crate::fleet::status::FleetStatus;
use crate::store::fleet::FleetStore;
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

pub fn run(args: &ShadowArgs) -> anyhow::Result<()> {
    if let Some(share) = args.share {
        check_share(share)?;
    }
    let answer = client_runtime()?.block_on(async {
        match args.target.open().await? {
            Target::Store(store, keys) => args.via_store(&*open_fleet_store(&store, &keys)?).await,
            Target::Gateway(gateway) => args.via_gateway(&gateway).await,
        }
    })?;
    print_text(&if args.json { format!("{answer}\n") } else { text(&answer) })?;
    let failures: Vec<String> = answer["nodes"].as_array().into_iter().flatten().filter_map(describe_failure).collect();
    if args.file.is_some() && !failures.is_empty() {
        bail!("some nodes do not evaluate the shadow policy: {}", failures.join("; "));
    }
    Ok(())
}

fn check_share(share: f64) -> Result<Ratio, ConfigError> {
    Ratio::try_from(share).map_err(|error| ConfigError(format!("--share {error}")))
}

impl ShadowArgs {
    async fn via_store(&self, store: &dyn FleetStore) -> anyhow::Result<Value> {
        let Some(file) = &self.file else {
            return match self.stop {
                true => {
                    Ok(push::remove(store).await?.map_or_else(|| json!({ "unreadable": true }), |status| json!(status)))
                }
                false => Ok(json!(push::status(store).await?)),
            };
        };
        let bundle = self.bundle(file, async || Ok(FleetStatus::of(store).await?.next_sequence)).await?;
        let share = check_share(self.share.unwrap_or(DEFAULT_SHARE))?;
        let pushed = push::set(store, &bundle, share).await?;
        Ok(json!(push::wait_reported(store, &pushed, SHADOW_REPORT_TIMEOUT).await?))
    }

    async fn via_gateway(&self, gateway: &ControlClient) -> anyhow::Result<Value> {
        let Some(file) = &self.file else {
            let method = if self.stop { Method::DELETE } else { Method::GET };
            return gateway.call(method, SHADOW_PATH, None).await;
        };
        let share = self.share.map(|share| format!("?share={share}")).unwrap_or_default();
        let Bundle { component, cases, signature } =
            self.bundle(file, async || next_sequence_on(gateway).await).await?;
        let body = request_body(&component, cases, signature.as_ref());
        gateway.call(Method::PUT, &format!("{SHADOW_PATH}{share}"), Some(body.to_string())).await
    }

    /// The component with its test cases and its signature.
    async fn bundle(&self, file: &Path, next: impl AsyncFnOnce() -> anyhow::Result<u64>) -> anyhow::Result<Bundle> {
        let files = BundleArgs { file: file.to_owned(), cases: self.cases.clone() };
        let (component, cases) = files.read()?;
        let Statement { component: digest, cases: of_cases, .. } = Statement::of(&component, cases.as_deref(), 0);
        let signature = match self.signing.sign(next, digest, of_cases).await? {
            Some(signature) => Some(signature),
            None => files.signature(self.signature.as_deref())?,
        };
        Ok(Bundle { component, cases, signature })
    }
}

pub fn promote(args: &PromoteArgs) -> anyhow::Result<()> {
    client_runtime()?.block_on(async {
        match args.target.open().await? {
            Target::Store(store, keys) => promote_via_store(args, &*open_fleet_store(&store, &keys)?).await,
            Target::Gateway(gateway) => promote_via_gateway(args, &gateway).await,
        }
    })
}

async fn promote_via_store(args: &PromoteArgs, store: &dyn FleetStore) -> anyhow::Result<()> {
    let pointer = push::record(store).await?.record;
    if args.digest.as_ref().is_some_and(|digest| *digest != pointer.component.to_string()) {
        bail!("the shadow policy is {}", pointer.component);
    }
    let artifact = pointer.fetch(store).await?;
    let next = async || Ok(FleetStatus::of(store).await?.next_sequence);
    let signature = args.signing.sign(next, pointer.component, pointer.cases).await?.or(pointer.signature);
    let bundle = Bundle { component: artifact.component.to_vec(), cases: artifact.cases, signature };
    let options =
        PushOptions { dry_run: false, timeout: args.waiting.timeout, allow_no_nodes: false, rollback_of: None };
    push_and_print(store, bundle, options, args.json).await
}

async fn promote_via_gateway(args: &PromoteArgs, gateway: &ControlClient) -> anyhow::Result<()> {
    let mut body = args.digest.as_ref().map_or_else(|| json!({}), |digest| json!({ "digest": digest }));
    if args.signing.key.is_some() {
        let response = gateway.call(Method::GET, SHADOW_PATH, None).await?;
        let Ok(shadow) = serde_json::from_value::<ShadowStatus>(response) else {
            let text = "promote: --key is for the shadow policy of a fleet; a single gateway activates its own with the signature that it came with";
            return Err(ConfigError(text.into()).into());
        };
        let signature =
            args.signing.sign(async || next_sequence_on(gateway).await, shadow.digest, shadow.cases).await?;
        body["signature"] = signature.map(|signature| signature.text()).into();
        body["digest"] = shadow.digest.to_string().into();
    }
    let path = format!("/v1/policy/promote?{}", args.waiting.query());
    let answer = gateway.call(Method::POST, &path, Some(body.to_string())).await?;
    if args.json || answer["nodes"].is_array() {
        return print_result(&answer, args.json);
    }
    let active = &answer["active"];
    let mut text = format!("{} is active, generation {}\n", plain(&active["digest"]), active["generation"]);
    if let Some(reason) = answer["not_persisted_reason"].as_str() {
        // Writing to a text does not fail.
        let _ = writeln!(text, "until the next start: {reason}");
    }
    print_text(&text)
}

/// Why a node does not evaluate the shadow policy; none if it does.
fn describe_failure(node: &Value) -> Option<String> {
    let failure = node["failure"].as_object()?;
    let field = |name: &str| failure.get(name).map(plain).unwrap_or_default();
    Some(format!("node {} did not reach stage {}: {}", plain(&node["name"]), field("stage"), field("reason")))
}

/// One node's line of the results.
fn describe_node(node: &Value) -> String {
    let (name, address) = (plain(&node["name"]), plain(&node["address"]));
    if let Some(failure) = node["failure"].as_object() {
        let field = |name: &str| failure.get(name).map(plain).unwrap_or_default();
        return format!("  {name}  {address}  did not reach stage {}: {}\n", field("stage"), field("reason"));
    }
    if !node["since"].is_u64() {
        return format!("  {name}  {address}  not evaluated yet\n");
    }
    let count = |name: &str| node["counts"][name].as_u64().unwrap_or_default();
    let different = ["allow_to_reject", "reject_to_allow", "other", "error"].map(count).iter().fold(0, sum);
    let evaluations = sum(different, &count("agree"));
    format!("  {name}  {address}  {evaluations} evaluations since {}, {different} different\n", at(&node["since"]))
}

const fn sum(of: u64, and: &u64) -> u64 {
    of.saturating_add(*and)
}

/// The results, for people.
fn text(report: &Value) -> String {
    if report["unreadable"] == true {
        return "removed a shadow policy that could not be read\n".into();
    }
    // Without trailing zeros: 0.1 is printed as 10, not as 10.000.
    let share = (report["share"].as_f64().unwrap_or_default() * 1e5).round() / 1e3;
    let mut text = format!(
        "{} ({}), evaluated for {share} % of clients since {}\n",
        plain(&report["digest"]),
        plain(&report["source"]),
        at(&report["since"])
    );
    for (name, what) in [
        ("agree", "identical"),
        ("allow_to_reject", "allow → reject"),
        ("reject_to_allow", "reject → allow"),
        ("other", "same outcome, different response"),
        ("error", "error: a trap, a limit or a timeout"),
        ("incomparable", "not compared: needed a look-up that the active policy did not make"),
        ("dropped", "not evaluated: all permits were in use"),
        ("cached", "not evaluated: the active decision came from the cache"),
    ] {
        let count = report["counts"][name].as_u64().unwrap_or_default();
        if count > 0 {
            let _ = writeln!(text, "{count:>10} {what}");
        }
    }
    if let Some(nodes) = report["nodes"].as_array() {
        text.extend(nodes.iter().map(describe_node));
        if nodes.is_empty() {
            text += "  no node is alive; nodes that start will evaluate it\n";
        } else if report["disagreements"].is_null() {
            text += "each node lists its own differences: use --control\n";
        }
    }
    for disagreement in report["disagreements"].as_array().into_iter().flatten() {
        let changed_fields: Vec<&str> =
            disagreement["changed_fields"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let changed_fields =
            if changed_fields.is_empty() { String::new() } else { format!(" ({})", changed_fields.join(", ")) };
        let (change, id) = (plain(&disagreement["change"]).replace('_', " "), plain(&disagreement["request_id"]));
        let _ = writeln!(
            text,
            "\n{} {id}: {change}{changed_fields}, {}",
            at(&disagreement["time"]),
            disagreement["channels"]
        );
        let _ = writeln!(text, "  active  {}\n  shadow  {}", disagreement["active"], disagreement["shadow"]);
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A time, if it is one.
fn at(value: &Value) -> String {
    value.as_u64().map_or_else(|| plain(value), time)
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
        golden("policy-shadow.txt", &text(&report));
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
        golden("policy-shadow-fleet.txt", &text(&fleet));
    }
}
