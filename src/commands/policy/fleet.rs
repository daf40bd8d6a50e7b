//! Shared parts of the commands that change a fleet's policy.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::signature::key::TrustedKeys;
use crate::authz::authorizer::Authorizer;
use crate::commands::control_client::{ControlClient, parse};
use crate::commands::{empty_store, print, print_json};
use crate::config;
use crate::fleet::push;
use crate::fleet::push::{Bundle, PushError, PushOptions, Pushed};
use crate::fleet::status::FleetStatus;
use crate::policy::Limits;
use crate::policy::info::PolicyOrigin;
use crate::rollout::Rollout;
use crate::store::fleet::FleetStore;
use crate::util::duration::parse_argument;
use crate::util::printable::printable;
use crate::wasm::compile::Compiler;
use crate::wasm::host::PolicyEnv;

/// Time for the upload of a policy to a gateway and for its answer, in addition to the timeout of the change.
const ANSWER_TIME: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct WaitingArgs {
    /// Time limit of the whole change; the last quarter, at most 15s, is for the activation. At most 1h through a gateway
    #[arg(long, value_name = "TIME", value_parser = parse_argument, default_value = "2m")]
    pub timeout: Duration,
}

impl WaitingArgs {
    /// A path of the control port with the timeout as its parameter.
    fn path(&self, path: &str) -> String {
        // The control port refuses 0.
        let separator = if path.contains('?') { '&' } else { '?' };
        format!("{path}{separator}timeout-ms={}", self.timeout.as_millis().max(1))
    }

    /// Sends a request whose answer comes within the timeout.
    pub async fn call(
        &self,
        gateway: &ControlClient,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<Value> {
        let path = self.path(path);
        let call = gateway.call(method, &path, Some(body));
        let answer = tokio::time::timeout(self.timeout.saturating_add(ANSWER_TIME), call).await;
        answer.context(
            "the gateway does not answer: it is unknown whether the policy is active: run `tidegate policy status`",
        )?
    }

    pub const fn options(&self) -> PushOptions {
        PushOptions { dry_run: false, timeout: self.timeout, allow_no_nodes: false, rollback_of: None }
    }
}

/// The status of a gateway's fleet, and whether the fleet manages the gateway's policy; none if it has no fleet.
pub async fn find_fleet(gateway: &ControlClient) -> anyhow::Result<Option<(FleetStatus, bool)>> {
    let (status, answer) = gateway.request(Method::GET, "/v1/fleet", None).await?;
    if status == StatusCode::CONFLICT {
        return Ok(None);
    }
    let answer = gateway.check(status, answer)?;
    let is_managing = answer["fleet_managed"].as_bool().unwrap_or_default();
    Ok(Some((parse(answer)?, is_managing)))
}

/// The status of the fleet that manages a gateway's policy; none if the gateway has a policy of its own.
pub async fn managing_fleet(gateway: &ControlClient) -> anyhow::Result<Option<FleetStatus>> {
    Ok(find_fleet(gateway).await?.and_then(|(status, is_managing)| is_managing.then_some(status)))
}

/// Pushes, and prints the result.
pub async fn push_and_print(
    store: &dyn FleetStore,
    keys: &TrustedKeys,
    bundle: Bundle,
    options: PushOptions,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut pushed = push::push(store, keys, bundle.clone(), options).await;
    if matches!(pushed, Err(PushError::NoNodes)) {
        try_locally(&bundle).await.context("no node is alive, so the policy was tried on this machine")?;
        pushed = push::push(store, keys, bundle, PushOptions { allow_no_nodes: true, ..options }).await;
    }
    if let (true, Err(PushError::PrepareFailed(failures))) = (as_json, &pushed) {
        print_json(&json!({ "activated": false, "failures": failures }))?;
    }
    print_change(&json!(pushed?), as_json)
}

/// Prints the result of a push, or of a change through a control port.
pub fn print_change(answer: &Value, as_json: bool) -> anyhow::Result<()> {
    print(as_json, answer, || {
        if let Ok(pushed) = Pushed::deserialize(answer) {
            return describe_push(&pushed);
        }
        if answer["dry_run"].as_bool() == Some(true) {
            let digest = printable(answer["digest"].as_str().unwrap_or_default());
            let cases = answer["cases_passed"].as_u64().unwrap_or(0);
            return format!("{digest} can be activated ({cases} test cases passed); nothing was changed\n");
        }
        let digest = printable(answer["active"]["digest"].as_str().unwrap_or_default());
        match answer["not_persisted_reason"].as_str() {
            Some(reason) => format!("{digest} is active until the next start: {}\n", printable(reason)),
            None => format!("{digest} is active\n"),
        }
    })
}

/// Runs the activation stages on this machine, with the gateway's defaults.
async fn try_locally(bundle: &Bundle) -> anyhow::Result<()> {
    let limits = Limits::default();
    let compiler = Compiler::new(&limits, config::cache_dir().as_deref())?;
    let env = PolicyEnv::new(empty_store(), &limits);
    let authorizer = Arc::new(Authorizer::new(compiler, env, limits, Arc::default()));
    let rollout = Rollout::without_requirements(Arc::clone(&authorizer));
    let bundle = PolicyBundle { cases: bundle.cases.clone(), ..PolicyBundle::new(bundle.component.clone()) };
    let prepared = rollout.prepare(bundle, authorizer.context(), PolicyOrigin::default()).await;
    prepared.map(drop).map_err(|error| anyhow!("{error}"))
}

fn describe_push(pushed: &Pushed) -> String {
    let record = &pushed.record;
    let nodes = match pushed.nodes.len() {
        0 => "no node, since none is live (check --fleet and --store); nodes that start will activate it".into(),
        1 => "1 node".into(),
        n => format!("{n} nodes"),
    };
    if !pushed.activated {
        return format!("{} can be activated on {nodes}; nothing was changed\n", record.component);
    }
    let mut text = format!("{} is active on {nodes}, sequence {}\n", record.component, record.sequence);
    if pushed.not_replicated {
        text += "it is not replicated: no replica of the store and no node has confirmed it, so that a failover may lose it\n";
    }
    for node in &pushed.nodes {
        let (name, address) = (printable(&node.name), printable(&node.address));
        text += &format!("  {name}  {address}  {} ms after the commit\n", node.after_ms);
    }
    text
}
