//! `tidegate policy push`: activates a policy on all nodes, or on none.

use std::path::PathBuf;

use clap::Args;
use http::Method;

use crate::commands::control_client::{FleetTargetArgs, Target};
use crate::commands::policy::fleet::{WaitingArgs, print_change, push_and_print};
use crate::commands::policy::sign::{BundleArgs, request_body};
use crate::commands::policy::signing::SigningArgs;
use crate::fleet::push::PushOptions;

#[derive(Debug, Args)]
pub struct PushArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    signing: SigningArgs,
    /// Signature file [default: NAME.wasm.sig next to NAME.wasm, if it exists and --key is not set]
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    signature: Option<PathBuf>,
    /// Run the activation stages on every node without activating the policy
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: FleetTargetArgs,
    #[command(flatten)]
    waiting: WaitingArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &PushArgs) -> anyhow::Result<()> {
    let mut bundle = args.bundle.read()?;
    let signer = args.signing.load()?;
    let target = args.target.open().await?;
    signer.sign_files(&target, &mut bundle, &args.bundle, args.signature.as_deref()).await?;
    match target {
        Target::Store { fleet, .. } => {
            let options = PushOptions { dry_run: args.dry_run, ..args.waiting.options() };
            push_and_print(&*fleet, signer.keys(), bundle, options, args.json).await
        }
        Target::Gateway(gateway) => {
            let path = if args.dry_run { "/v1/policy?dry-run" } else { "/v1/policy" };
            let body = request_body(&bundle).to_string();
            print_change(&args.waiting.call(&gateway, Method::PUT, path, body).await?, args.json)
        }
    }
}
