//! `tidegate policy shadow` and `tidegate policy promote`: a candidate beside the policy in force, and into force.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::say;
use super::sign::{BundleArgs, sent};
use crate::commands::target::ControlArgs;
use crate::commands::{client_runtime, time};
use crate::config::ConfigError;

/// Where the control port has it.
const CANDIDATE: &str = "/v1/policy/candidate";

#[derive(Debug, Args)]
pub struct ShadowArgs {
    /// The candidate's component; without one it is told what came of the one that is asked
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The share of clients that it is asked about, from 0 to 1 [default: the gateway's policy.shadow.share]
    #[arg(long, value_name = "SHARE", requires = "file")]
    share: Option<f64>,
    /// Cases that it has to pass before [default: <name>.cases.toml beside <name>.wasm, if there is one]
    #[arg(long, value_name = "FILE", requires = "file")]
    cases: Option<PathBuf>,
    /// Its signature [default: <name>.wasm.sig beside <name>.wasm, if there is one]
    #[arg(long, value_name = "FILE", requires = "file")]
    signature: Option<PathBuf>,
    /// Ask no candidate any more
    #[arg(long, conflicts_with = "file")]
    stop: bool,
    #[command(flatten)]
    control: ControlArgs,
    /// Print the gateway's JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// Only if the candidate is this component, sha256:…
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    #[command(flatten)]
    control: ControlArgs,
    /// Print the gateway's JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ShadowArgs) -> anyhow::Result<()> {
    let answer = match &args.file {
        Some(file) => {
            let path = match args.share {
                Some(share) if !(0.0..=1.0).contains(&share) => {
                    return Err(ConfigError(format!("--share {share}: it is from 0 to 1")).into());
                }
                Some(share) => format!("{CANDIDATE}?share={share}"),
                None => CANDIDATE.to_owned(),
            };
            ask(&args.control, Method::PUT, &path, Some(args.bundle(file)?))?
        }
        None if args.stop => ask(&args.control, Method::DELETE, CANDIDATE, None)?,
        None => ask(&args.control, Method::GET, CANDIDATE, None)?,
    };
    say(&if args.json { format!("{answer}\n") } else { text(&answer) })
}

pub fn promote(args: &PromoteArgs) -> anyhow::Result<()> {
    let body = args.digest.as_ref().map_or_else(|| json!({}), |digest| json!({ "digest": digest }));
    let answer = ask(&args.control, Method::POST, "/v1/policy/promote", Some(body))?;
    if args.json {
        return say(&format!("{answer}\n"));
    }
    let in_force = &answer["in_force"];
    let mut text = match answer["nodes"].as_array() {
        // It was a push to a fleet.
        Some(nodes) => {
            format!(
                "{} is in force on {} nodes, number {}\n",
                plain(&answer["component"]),
                nodes.len(),
                answer["sequence"]
            )
        }
        None => format!("{} is in force, as version {}\n", plain(&in_force["digest"]), in_force["number"]),
    };
    if let Some(why) = answer["until_restart_because"].as_str() {
        // Writing to a text does not fail.
        let _ = writeln!(text, "until the next start: {why}");
    }
    say(&text)
}

fn ask(control: &ControlArgs, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let body = body.map(|body| body.to_string());
    client_runtime()?.block_on(async { control.open()?.call(method, path, body).await })
}

impl ShadowArgs {
    /// The component, and what travels with it.
    fn bundle(&self, file: &Path) -> anyhow::Result<Value> {
        let bundle = BundleArgs { file: file.to_owned(), cases: self.cases.clone() };
        let (component, cases) = bundle.read()?;
        Ok(sent(&component, cases, bundle.signature(self.signature.as_deref())?.as_ref()))
    }
}

/// A report, for people.
fn text(report: &Value) -> String {
    let share = report["share"].as_f64().unwrap_or_default() * 100.0;
    let mut text = format!(
        "{} ({}), asked about {share:.3} % of clients since {}\n",
        plain(&report["digest"]),
        plain(&report["source"]),
        at(&report["since"])
    );
    for (name, what) in [
        ("agree", "the same"),
        ("allow_to_reject", "allow → reject"),
        ("reject_to_allow", "reject → allow"),
        ("other", "another answer, and in or out as before"),
        ("error", "no answer: a trap, a limit, a time that ran out"),
        ("incomparable", "not compared: it asked for what the policy in force had not"),
        ("dropped", "not asked: it was busy"),
        ("cached", "not asked: the answer was given again"),
    ] {
        let count = report["counts"][name].as_u64().unwrap_or_default();
        if count > 0 {
            let _ = writeln!(text, "{count:>10} {what}");
        }
    }
    for told in report["disagreements"].as_array().into_iter().flatten() {
        let differs: Vec<&str> = told["differs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let differs = if differs.is_empty() { String::new() } else { format!(" ({})", differs.join(", ")) };
        let (flip, id) = (plain(&told["flip"]).replace('_', " "), plain(&told["request_id"]));
        let _ = writeln!(text, "\n{} {id}: {flip}{differs}, {}", at(&told["time"]), told["channels"]);
        let _ = writeln!(text, "  in force   {}\n  candidate  {}", told["in_force"], told["candidate"]);
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
    use crate::golden::golden;

    #[test]
    fn golden_report() {
        let report = json!({
            "digest": "sha256:9f2c…", "source": "control port", "since": 1_764_039_792_123_u64, "share": 0.1,
            "counts": { "agree": 4711, "allow_to_reject": 1, "reject_to_allow": 0, "other": 1, "error": 0,
                "incomparable": 3, "dropped": 12, "cached": 100 },
            "disagreements": [{
                "time": 1_764_039_793_000_u64, "request_id": "5f0c", "version": 3, "channels": ["~77aa01", "news"],
                "flip": "allow_to_reject", "differs": [],
                "in_force": { "outcome": "allowed", "subject": "~1122" },
                "candidate": { "outcome": "rejected", "status": 403, "reason": "not a member" },
            }, {
                "time": 1_764_039_792_500_u64, "request_id": "5f0b", "version": 3, "channels": ["news"],
                "flip": "other", "differs": ["status"],
                "in_force": { "outcome": "rejected", "status": 403 },
                "candidate": { "outcome": "rejected", "status": 401 },
            }],
        });
        golden("policy-shadow.txt", &text(&report));
    }
}
