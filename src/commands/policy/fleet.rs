//! Shared parts of the commands that change a fleet's policy.

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
use crate::commands::control_client::{ControlClient, Target};
use crate::commands::policy::print_text;
use crate::commands::policy::sign::private_key;
use crate::config;
use crate::fleet::push;
use crate::fleet::push::{Bundle, PushError, PushOptions, Pushed};
use crate::fleet::status::FleetStatus;
use crate::policy::Limits;
use crate::policy::info::PolicyOrigin;
use crate::rollout::Rollout;
use crate::store::EventStore;
use crate::store::fleet::FleetStore;
use crate::store::fleet_keys::FleetKeys;
use crate::store::memory::{MemoryStore, system_clock};
use crate::store::redis::RedisStore;
use crate::wasm::compile::Compiler;
use crate::wasm::host::PolicyEnv;

/// Signing during a push.
#[derive(Debug, Args)]
pub struct SigningArgs {
    /// Sign with this private key, a PEM file
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Sign with this sequence [default: the next one]
    #[arg(long, value_name = "SEQUENCE", requires = "key", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=MAX_SEQUENCE))]
    pub sequence: Option<u64>,
}

#[derive(Debug, Args)]
pub struct WaitingArgs {
    /// Abort without changes if a node has not prepared the policy after this time; at most 1h through a gateway
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2m")]
    pub timeout: Duration,
}

impl WaitingArgs {
    /// The timeout as a query parameter of the control port.
    pub fn query(&self) -> String {
        // The control port refuses 0.
        format!("timeout-ms={}", self.timeout.as_millis().max(1))
    }
}

impl SigningArgs {
    /// Signs if a key was given, with the next sequence unless another was given.
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

/// The state of the fleet with these keys in a store.
pub fn open_fleet_store(store: &RedisStore, keys: &FleetKeys) -> anyhow::Result<Arc<dyn FleetStore>> {
    store.fleet(keys).context("this store has no fleet")
}

/// The state of the fleet, from the store or from a gateway.
pub async fn fetch_status(target: &Target) -> anyhow::Result<FleetStatus> {
    match target {
        Target::Store(store, keys) => Ok(FleetStatus::of(&*open_fleet_store(store, keys)?).await?),
        Target::Gateway(gateway) => parse_status(gateway.call(Method::GET, "/v1/fleet", None).await?),
    }
}

/// The state of the fleet that manages a gateway's policy; none if the gateway has a policy of its own.
pub async fn fetch_managed_status(gateway: &ControlClient) -> anyhow::Result<Option<FleetStatus>> {
    let (status, answer) = gateway.request(Method::GET, "/v1/fleet", None).await?;
    let is_managed = answer["fleet_managed"].as_bool().unwrap_or_default();
    match status {
        StatusCode::CONFLICT => Ok(None),
        StatusCode::OK if !is_managed => Ok(None),
        StatusCode::OK => parse_status(answer).map(Some),
        _ => bail!(gateway.error_text(status, &answer)),
    }
}

fn parse_status(answer: Value) -> anyhow::Result<FleetStatus> {
    serde_json::from_value(answer)
        .context("the gateway's response is not valid: it may have another version than this program")
}

/// The sequence for the next policy of a gateway.
pub async fn next_sequence_on(gateway: &ControlClient) -> anyhow::Result<u64> {
    if let Some(status) = fetch_managed_status(gateway).await? {
        return Ok(status.next_sequence);
    }
    let policy = gateway.call(Method::GET, "/v1/policy", None).await?;
    Ok(policy["active"]["sequence"].as_u64().unwrap_or(0) + 1)
}

/// Pushes, and prints the result.
pub async fn push_and_print(
    store: &dyn FleetStore,
    bundle: Bundle,
    options: PushOptions,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut pushed = push::push(store, bundle.clone(), options).await;
    if matches!(pushed, Err(PushError::NoNodes)) {
        try_locally(&bundle).await.context("no node is alive, so the policy was tried on this machine")?;
        pushed = push::push(store, bundle, PushOptions { allow_no_nodes: true, ..options }).await;
    }
    if let (true, Err(PushError::PrepareFailed(refused))) = (as_json, &pushed) {
        print_text(&format!("{}\n", json!({ "activated": false, "failures": refused })))?;
    }
    print_result(&json!(pushed?), as_json)
}

/// Prints the result of a push, or of a change through a control port.
pub fn print_result(answer: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return print_text(&format!("{answer}\n"));
    }
    if let Ok(pushed) = serde_json::from_value::<Pushed>(answer.clone()) {
        return print_text(&describe_push(&pushed));
    }
    if answer["dry_run"].as_bool() == Some(true) {
        let (digest, cases) = (answer["digest"].as_str().unwrap_or_default(), &answer["cases_passed"]);
        return print_text(&format!("{digest} can be activated ({cases} test cases passed); nothing was changed\n"));
    }
    let digest = answer["active"]["digest"].as_str().unwrap_or_default();
    match answer["not_persisted_reason"].as_str() {
        Some(reason) => print_text(&format!("{digest} is active until the next start: {reason}\n")),
        None => print_text(&format!("{digest} is active\n")),
    }
}

/// Runs the activation stages on this machine, with the gateway's defaults.
async fn try_locally(bundle: &Bundle) -> anyhow::Result<()> {
    let limits = Limits::default();
    let compiler = Compiler::new(&limits, config::cache_dir().as_deref())?;
    let store = Arc::new(MemoryStore::new(1 << 16, std::collections::HashMap::default(), system_clock()));
    let authorizer = Arc::new(Authorizer::new(compiler, PolicyEnv::new(store, &limits), limits, Arc::default()));
    let rollout = Rollout::without_requirements(Arc::clone(&authorizer));
    let artifact = PolicyBundle { cases: bundle.cases.clone(), ..PolicyBundle::new(bundle.component.clone()) };
    match rollout.prepare(artifact, authorizer.context(), PolicyOrigin::default()).await {
        Ok(_) => Ok(()),
        Err(error) => bail!("{error}"),
    }
}

fn describe_push(pushed: &Pushed) -> String {
    let pointer = &pushed.record;
    let nodes = match pushed.nodes.len() {
        0 => "no node, since none is alive; nodes that start will activate it".into(),
        1 => "1 node".into(),
        n => format!("{n} nodes"),
    };
    if !pushed.activated {
        return format!("{} can be activated on {nodes}; nothing was changed\n", pointer.component);
    }
    let mut text = format!("{} is active on {nodes}, sequence {}\n", pointer.component, pointer.sequence);
    for node in &pushed.nodes {
        text += &format!("  {}  {}  {} ms after the commit\n", node.name, node.address, node.after_ms);
    }
    text
}
