//! `tidegate check`: reports the mistakes that a start would report, without a start.

use std::collections::HashMap;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use toml::Table;

use crate::commands::{ServeFlags, client_runtime, startup};
use crate::config::Config;
use crate::config::policy::PolicyMode;
use crate::rollout::source_file::PolicySource;
use crate::rollout::{Observers, Rollout};
use crate::store::memory::{MemoryStore, system_clock};

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    flags: ServeFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let config = Config::load(Table::new(), args.flags.config.as_deref(), args.flags.layer()?)?;
    let checked = match &config.policy_mode {
        PolicyMode::File(_) | PolicyMode::Example => Some(check_policy(&config)?),
        PolicyMode::Fleet | PolicyMode::AllowAll => None,
    };
    let (digest, cases) = checked.unzip();
    let store = config.store.url.to_string();
    if args.json {
        let allow_all = config.policy_mode == PolicyMode::AllowAll;
        println!("{}", json!({ "ok": true, "store": store, "policy": digest, "cases": cases, "allow_all": allow_all }));
        return Ok(());
    }
    println!("store   {store} (not contacted)");
    match (&config.policy_mode, digest, cases) {
        (_, Some(digest), Some(cases @ 1..)) => println!("policy  {digest}, {cases} test cases passed"),
        (_, Some(digest), _) => println!("policy  {digest}, no test cases"),
        (PolicyMode::Fleet, ..) => println!("policy  from the fleet (not contacted)"),
        _ => println!("policy  none: every client may read every channel"),
    }
    println!("ok");
    Ok(())
}

/// Runs all activation stages except the last one; returns the digest and the number of test cases that passed.
fn check_policy(config: &Config) -> anyhow::Result<(String, usize)> {
    client_runtime()?.block_on(async {
        // Test cases bring their own data for look-ups.
        let store = Arc::new(MemoryStore::new(1 << 16, HashMap::new(), system_clock()));
        let authorizer = Arc::new(startup::open_authorizer(config, store, Arc::default())?);
        // The name that a start would give the node, unless its socket is inherited or its port is 0.
        let node = config.node_at(config.listen);
        let checked = Rollout::new(
            authorizer,
            Observers::new(0),
            startup::open_signature_policy(config, &node)?,
            None,
            Arc::default(),
        )
        .prepare_first(PolicySource::of(config), startup::EXAMPLE)
        .await;
        let (_, next) = checked.map_err(|error| startup::describe_first_failure(config, &error))?;
        Ok((next.policy.digest().to_string(), next.suite.as_ref().map_or(0, |suite| suite.cases.len())))
    })
}
