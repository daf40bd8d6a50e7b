//! `tidegate policy rollback`: pushes an earlier policy again, with a new sequence.

use clap::Args;
use http::Method;
use serde_json::json;

use crate::commands::client_runtime;
use crate::commands::control_client::{FleetTargetArgs, Target};
use crate::commands::policy::fleet::{
    SigningArgs, WaitingArgs, fetch_managed_status, open_fleet_store, print_result, push_and_print,
};
use crate::config::ConfigError;
use crate::fleet::push::{Bundle, PushOptions};
use crate::fleet::record::ActiveRecord;
use crate::fleet::status::FleetStatus;

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Sequence of the policy to return to, or the first digits of its digest [default: the previous policy]
    #[arg(value_name = "SEQUENCE|DIGEST")]
    to: Option<String>,
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

pub fn run(args: &RollbackArgs) -> anyhow::Result<()> {
    client_runtime()?.block_on(async {
        match args.target.open().await? {
            Target::Store(store, keys) => {
                let store = open_fleet_store(&store, &keys)?;
                let status = FleetStatus::of(&*store).await?;
                let to = choose(args, &status)?;
                let artifact = to.fetch(&*store).await?;
                let (component, cases) = (artifact.component.to_vec(), artifact.cases);
                let signature = args.signing.sign(async || Ok(status.next_sequence), to.component, to.cases).await?;
                let options = PushOptions { dry_run: false, timeout: args.waiting.timeout, allow_no_nodes: false, rollback_of: Some(to.sequence) };
                push_and_print(&*store, Bundle { component, cases, signature }, options, args.json).await
            }
            Target::Gateway(gateway) => {
                let mut body = json!({});
                let path = format!("/v1/policy/rollback?{}", args.waiting.query());
                if let Some(status) = fetch_managed_status(&gateway).await? {
                    let to = choose(args, &status)?;
                    body["to"] = to.sequence.to_string().into();
                    let signature = args.signing.sign(async || Ok(status.next_sequence), to.component, to.cases).await?;
                    if let Some(signature) = signature {
                        body["signature"] = signature.text().into();
                    }
                } else if args.to.is_some() || args.signing.key.is_some() {
                    let text = "rollback: a gateway with a policy of its own returns to the previous one only: omit the \
                                sequence and --key";
                    return Err(ConfigError(text.into()).into());
                }
                let answer = gateway.call(Method::POST, &path, Some(body.to_string())).await?;
                print_result(&answer, args.json)
            }
        }
    })
}

fn choose<'a>(args: &RollbackArgs, status: &'a FleetStatus) -> anyhow::Result<&'a ActiveRecord> {
    let to = status.choose(args.to.as_deref())?;
    if to.signature.is_some() && args.signing.key.is_none() {
        let text = "rollback: the fleet's policies are signed, and no node accepts a smaller sequence: set --key to sign the older \
                    policy with a greater one";
        return Err(ConfigError(text.into()).into());
    }
    Ok(to)
}
