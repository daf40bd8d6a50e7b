//! `tidegate policy push`: activates a policy on all nodes, or on none.

use std::path::PathBuf;

use clap::Args;
use http::Method;

use crate::artifact::signature::Statement;
use crate::commands::client_runtime;
use crate::commands::control_client::{FleetTargetArgs, Target};
use crate::commands::policy::fleet::{
    SigningArgs, WaitingArgs, next_sequence_on, open_fleet_store, print_result, push_and_print,
};
use crate::commands::policy::sign::{BundleArgs, request_body};
use crate::fleet::push::{Bundle, PushOptions};
use crate::fleet::status::FleetStatus;

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

pub fn run(args: &PushArgs) -> anyhow::Result<()> {
    let (component, cases) = args.bundle.read()?;
    let Statement { component: digest, cases: cases_digest, .. } = Statement::of(&component, cases.as_deref(), 0);
    client_runtime()?.block_on(async {
        match args.target.open().await? {
            Target::Store(store, keys) => {
                let store = open_fleet_store(&store, &keys)?;
                let next = async || Ok(FleetStatus::of(&*store).await?.next_sequence);
                let signature = args.signing.sign(next, digest, cases_digest).await?;
                let signature = signature.map_or_else(
                    || args.bundle.signature(args.signature.as_deref()),
                    |signature| Ok(Some(signature)),
                )?;
                let options = PushOptions {
                    dry_run: args.dry_run,
                    timeout: args.waiting.timeout,
                    allow_no_nodes: false,
                    rollback_of: None,
                };
                push_and_print(&*store, Bundle { component, cases, signature }, options, args.json).await
            }
            Target::Gateway(gateway) => {
                let signature =
                    args.signing.sign(async || next_sequence_on(&gateway).await, digest, cases_digest).await?;
                let signature = signature.map_or_else(
                    || args.bundle.signature(args.signature.as_deref()),
                    |signature| Ok(Some(signature)),
                )?;
                let bundle = request_body(&component, cases, signature.as_ref());
                let dry_run = if args.dry_run { "&dry-run" } else { "" };
                let path = format!("/v1/policy?{}{dry_run}", args.waiting.query());
                print_result(&gateway.call(Method::PUT, &path, Some(bundle.to_string())).await?, args.json)
            }
        }
    })
}
