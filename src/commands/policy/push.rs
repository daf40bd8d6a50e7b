//! `tidegate policy push`: a policy on every node, or on none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::say;
use super::sign::{BundleArgs, private_key, read_signature};
use crate::commands::client_runtime;
use crate::commands::target::{Target, TargetArgs};
use crate::config;
use crate::fleet::push::{self, Bundle, How, PushError, Pushed};
use crate::policy::compile::Compiler;
use crate::policy::gate::Gate;
use crate::policy::signature::{self, MAX_SEQUENCE, Signature, Signatures, Statement};
use crate::policy::{Limits, Origin, Surroundings};
use crate::rollout::{Artifact, Rollout};
use crate::store::Store;
use crate::store::memory::{MemoryStore, system_clock};
use crate::store::redis::RedisStore;
use crate::store::redis::fleet::FleetStore;

#[derive(Debug, Args)]
pub struct PushArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    signing: SigningArgs,
    /// Its signature [default: FILE.sig, if there is one and no --key]
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    sig: Option<PathBuf>,
    /// Take it through all stages on every node, and put it in force nowhere
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    waiting: WaitingArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How something is signed on its way.
#[derive(Debug, Args)]
pub struct SigningArgs {
    /// Sign it with this private key, a PEM file
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Sign it under this number [default: the next one]
    #[arg(long, value_name = "NUMBER", requires = "key", value_parser = clap::value_parser!(u64).range(1..=MAX_SEQUENCE))]
    pub sequence: Option<u64>,
}

#[derive(Debug, Args)]
pub struct WaitingArgs {
    /// Give up when a node has not prepared it after this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2m")]
    pub timeout: Duration,
}

impl SigningArgs {
    /// Signs, if there is a key, under the next number unless another was given.
    pub async fn sign(
        &self,
        store: &FleetStore,
        component: &[u8],
        cases: Option<&str>,
    ) -> anyhow::Result<Option<Signature>> {
        let Some(key) = &self.key else { return Ok(None) };
        let key = private_key(key)?;
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => push::next_sequence(store).await?,
        };
        Ok(Some(Statement::of(component, cases, sequence).sign(&key)))
    }
}

pub fn run(args: &PushArgs) -> anyhow::Result<()> {
    let (component, cases) = args.bundle.read()?;
    let how = How { dry_run: args.dry_run, timeout: args.waiting.timeout, untried: false };
    client_runtime()?.block_on(async {
        match args.target.open()? {
            Target::Store(store) => {
                let store = fleet(&store)?;
                let signature = match args.signing.sign(&store, &component, cases.as_deref()).await? {
                    Some(signature) => Some(signature),
                    None => signature_file(args)?,
                };
                push_and_tell(&store, Bundle { component, cases, signature }, how, args.json).await
            }
            Target::Gateway(_) => bail!("give --store, the fleet's store"),
        }
    })
}

fn signature_file(args: &PushArgs) -> anyhow::Result<Option<Signature>> {
    match &args.sig {
        Some(path) => read_signature(path).map(Some),
        None => signature::beside(&args.bundle.file).with_context(|| format!("{}", args.bundle.file.display())),
    }
}

/// The fleet's part of a store.
pub fn fleet(store: &RedisStore) -> anyhow::Result<FleetStore> {
    store.fleet().context("this store has no fleet")
}

/// Pushes, and says what came of it.
pub async fn push_and_tell(store: &FleetStore, bundle: Bundle, how: How, as_json: bool) -> anyhow::Result<()> {
    let mut pushed = push::push(store, bundle.clone(), how).await;
    if matches!(pushed, Err(PushError::NoNodes)) {
        try_here(&bundle).await.context("no node lives that would try it, so this machine did")?;
        pushed = push::push(store, bundle, How { untried: true, ..how }).await;
    }
    if let (true, Err(PushError::Refused(refused))) = (as_json, &pushed) {
        say(&format!("{}\n", json!({ "in_force": false, "refused": refused })))?;
    }
    let pushed = pushed?;
    if as_json { say(&format!("{}\n", json!(pushed))) } else { say(&told(&pushed)) }
}

/// Takes it through the stages with the gateway's defaults: better than not at all.
async fn try_here(bundle: &Bundle) -> anyhow::Result<()> {
    let limits = Limits::default();
    let compiler = Compiler::new(&limits, config::cache_dir().as_deref())?;
    let store = Arc::new(MemoryStore::new(1 << 16, Default::default(), system_clock()));
    let gate = Arc::new(Gate::new(compiler, Surroundings::new(store, &limits), limits));
    let rollout = Rollout::new(Arc::clone(&gate), Signatures::default(), None);
    let artifact = Artifact { cases: bundle.cases.clone(), ..Artifact::new(bundle.component.clone()) };
    match rollout.prepare(artifact, gate.basis(), Origin::default()).await {
        Ok(_) => Ok(()),
        Err(refused) => bail!("{refused}"),
    }
}

fn told(pushed: &Pushed) -> String {
    let pointer = &pushed.pointer;
    let nodes = match pushed.nodes.len() {
        0 => "no node, since none lives; those that start will take it".into(),
        1 => "1 node".into(),
        n => format!("{n} nodes"),
    };
    if !pushed.in_force {
        return format!("{} could be in force on {nodes}; nothing was changed\n", pointer.component);
    }
    let mut text = format!("{} is in force on {nodes}, number {}\n", pointer.component, pointer.sequence);
    for node in &pushed.nodes {
        text += &format!("  {}  {}  {} ms after the flip\n", node.name, node.address, node.after_ms);
    }
    text
}
