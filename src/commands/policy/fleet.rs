//! What the commands that change a fleet's policy have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::artifact::signature::{MAX_SEQUENCE, Signature, Statement};
use crate::authz::authorizer::Authorizer;
use crate::commands::policy::say;
use crate::commands::policy::sign::private_key;
use crate::commands::target::{Gateway, Target};
use crate::config;
use crate::fleet::push;
use crate::fleet::push::{Bundle, PushError, PushOptions, Pushed};
use crate::fleet::status::FleetStatus;
use crate::policy::Limits;
use crate::policy::info::PolicyOrigin;
use crate::rollout::Rollout;
use crate::store::Store;
use crate::store::memory::{MemoryStore, system_clock};
use crate::store::redis::RedisStore;
use crate::store::redis::fleet::FleetStore;
use crate::wasm::compile::Compiler;
use crate::wasm::host::PolicyEnv;

/// How something is signed on its way.
#[derive(Debug, Args)]
pub struct SigningArgs {
    /// Sign it with this private key, a PEM file
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Sign it under this number [default: the next one]
    #[arg(long, value_name = "NUMBER", requires = "key", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=MAX_SEQUENCE))]
    pub sequence: Option<u64>,
}

#[derive(Debug, Args)]
pub struct WaitingArgs {
    /// Give up when a node has not prepared it after this time, and change nothing; through a gateway, 1h at the most
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2m")]
    pub timeout: Duration,
}

impl WaitingArgs {
    /// The same for a gateway.
    pub fn query(&self) -> String {
        // No time is less than none, which no gateway takes.
        format!("timeout-ms={}", self.timeout.as_millis().max(1))
    }
}

impl SigningArgs {
    /// Signs, if there is a key, under the next number unless another was given.
    pub async fn sign(
        &self,
        next: impl AsyncFnOnce() -> anyhow::Result<u64>,
        component: Digest,
        cases: Option<Digest>,
    ) -> anyhow::Result<Option<Signature>> {
        let Some(key) = &self.key else { return Ok(None) };
        let key = private_key(key)?;
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => next().await?,
        };
        Ok(Some(Statement { component, cases, sequence }.sign(&key)))
    }
}

/// The fleet's part of a store.
pub fn fleet(store: &RedisStore) -> anyhow::Result<FleetStore> {
    store.fleet().context("this store has no fleet")
}

/// The fleet, as the store has it or as a gateway tells it.
pub async fn view(target: &Target) -> anyhow::Result<FleetStatus> {
    match target {
        Target::Store(store) => Ok(FleetStatus::of(&fleet(store)?).await?),
        Target::Gateway(gateway) => told_view(gateway.call(Method::GET, "/v1/fleet", None).await?),
    }
}

/// The fleet of a gateway that has its policy from there; none of one that does not.
pub async fn followed(gateway: &Gateway) -> anyhow::Result<Option<FleetStatus>> {
    let (status, answer) = gateway.ask(Method::GET, "/v1/fleet", None).await?;
    let follows = answer["follows"].as_bool().unwrap_or_default();
    match status {
        StatusCode::CONFLICT => Ok(None),
        StatusCode::OK if !follows => Ok(None),
        StatusCode::OK => told_view(answer).map(Some),
        _ => bail!(gateway.refusal(status, &answer)),
    }
}

fn told_view(answer: Value) -> anyhow::Result<FleetStatus> {
    serde_json::from_value(answer)
        .context("the gateway tells of its fleet in another way than this version of the program")
}

/// The number behind that of what is in force on a gateway with a policy of its own.
pub async fn next_on(gateway: &Gateway) -> anyhow::Result<u64> {
    if let Some(view) = followed(gateway).await? {
        return Ok(view.next_sequence);
    }
    let policy = gateway.call(Method::GET, "/v1/policy", None).await?;
    Ok(policy["in_force"]["sequence"].as_u64().unwrap_or(0) + 1)
}

/// Pushes, and says what came of it.
pub async fn push_and_tell(store: &FleetStore, bundle: Bundle, how: PushOptions, as_json: bool) -> anyhow::Result<()> {
    let mut pushed = push::push(store, bundle.clone(), how).await;
    if matches!(pushed, Err(PushError::NoNodes)) {
        try_here(&bundle).await.context("no node lives that would try it, so this machine did")?;
        pushed = push::push(store, bundle, PushOptions { untried: true, ..how }).await;
    }
    if let (true, Err(PushError::Refused(refused))) = (as_json, &pushed) {
        say(&format!("{}\n", json!({ "in_force": false, "refused": refused })))?;
    }
    tell(&json!(pushed?), as_json)
}

/// Says what came of it, as a gateway or the push itself puts it.
pub fn tell(answer: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return say(&format!("{answer}\n"));
    }
    if let Ok(pushed) = serde_json::from_value::<Pushed>(answer.clone()) {
        return say(&told(&pushed));
    }
    if answer["dry_run"].as_bool() == Some(true) {
        let (digest, cases) = (answer["digest"].as_str().unwrap_or_default(), &answer["cases"]);
        return say(&format!("{digest} could be in force (cases asked: {cases}); nothing was changed\n"));
    }
    let digest = answer["in_force"]["digest"].as_str().unwrap_or_default();
    match answer["until_restart_because"].as_str() {
        Some(why) => say(&format!("{digest} is in force until the next start: {why}\n")),
        None => say(&format!("{digest} is in force\n")),
    }
}

/// Takes it through the stages with the gateway's defaults: better than not at all.
async fn try_here(bundle: &Bundle) -> anyhow::Result<()> {
    let limits = Limits::default();
    let compiler = Compiler::new(&limits, config::cache_dir().as_deref())?;
    let store = Arc::new(MemoryStore::new(1 << 16, std::collections::HashMap::default(), system_clock()));
    let authorizer = Arc::new(Authorizer::new(compiler, PolicyEnv::new(store, &limits), limits));
    let rollout = Rollout::without_requirements(Arc::clone(&authorizer));
    let artifact = PolicyBundle { cases: bundle.cases.clone(), ..PolicyBundle::new(bundle.component.clone()) };
    match rollout.prepare(artifact, authorizer.context(), PolicyOrigin::default()).await {
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
    if !pushed.active {
        return format!("{} could be in force on {nodes}; nothing was changed\n", pointer.component);
    }
    let mut text = format!("{} is in force on {nodes}, number {}\n", pointer.component, pointer.sequence);
    for node in &pushed.nodes {
        text += &format!("  {}  {}  {} ms after the flip\n", node.name, node.address, node.after_ms);
    }
    text
}
