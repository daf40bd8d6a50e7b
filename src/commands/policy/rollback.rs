//! `tidegate policy rollback`: pushes an earlier policy again, with a new sequence.

use clap::Args;
use http::Method;
use serde_json::json;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::signature::Signature;
use crate::commands::control_client::{FleetTargetArgs, Target};
use crate::commands::policy::fleet::{WaitingArgs, managing_fleet, print_change, push_and_print};
use crate::commands::policy::signing::{Signer, SigningArgs};
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

pub async fn run(args: &RollbackArgs) -> anyhow::Result<()> {
    let signer = args.signing.load()?;
    let target = args.target.open().await?;
    match &target {
        Target::Store { fleet, .. } => {
            let status = FleetStatus::of(&**fleet).await?;
            let to = choose(args, &status)?;
            let signature = sign_again(&signer, &target, to).await?;
            let PolicyBundle { component, cases, .. } = to.fetch(&**fleet).await?;
            let bundle = Bundle { component: component.to_vec(), cases, signature };
            let options = PushOptions { rollback_of: Some(to.sequence), ..args.waiting.options() };
            push_and_print(&**fleet, signer.keys(), bundle, options, args.json).await
        }
        Target::Gateway(gateway) => {
            let mut body = json!({});
            if let Some(status) = managing_fleet(gateway).await? {
                let to = choose(args, &status)?;
                let signature = sign_again(&signer, &target, to).await?;
                body = json!({ "to": to.sequence.to_string(), "signature": signature.map(|it| it.text()) });
            } else if args.to.is_some() || args.signing.key.is_some() {
                let text = "rollback: a gateway with a policy of its own returns to the previous one only: omit the \
                            sequence and --key";
                return Err(ConfigError(text.into()).into());
            }
            let path = "/v1/policy/rollback";
            print_change(&args.waiting.call(gateway, Method::POST, path, body.to_string()).await?, args.json)
        }
    }
}

async fn sign_again(signer: &Signer, target: &Target, to: &ActiveRecord) -> anyhow::Result<Option<Signature>> {
    let what = format!("rollback: the policy {} with the sequence {}", to.component, to.sequence);
    signer.sign_again(target, &what, to.prove(signer.keys())).await
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
