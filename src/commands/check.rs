//! `tidegate check`: everything that a start would complain about, without a start.

use std::collections::HashMap;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use toml::Table;

use crate::commands::{ServeFlags, client_runtime, serve};
use crate::config::{Config, PolicyMode};
use crate::rollout::Rollout;
use crate::rollout::observers::Observers;
use crate::rollout::source_file::PolicySource;
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
    let passed = match &config.door {
        PolicyMode::Policy(_) | PolicyMode::Example => Some(policy(&config)?),
        PolicyMode::Fleet | PolicyMode::AllowAll => None,
    };
    let (digest, cases) = passed.unzip();
    let store = config.store.url.to_string();
    if args.json {
        let allow_all = config.door == PolicyMode::AllowAll;
        println!("{}", json!({ "ok": true, "store": store, "policy": digest, "cases": cases, "allow_all": allow_all }));
        return Ok(());
    }
    println!("store   {store} (not asked)");
    match (&config.door, digest, cases) {
        (_, Some(digest), Some(cases @ 1..)) => println!("policy  {digest}, which passes {cases} cases"),
        (_, Some(digest), _) => println!("policy  {digest}, without cases"),
        (PolicyMode::Fleet, ..) => println!("policy  the fleet's (not asked)"),
        _ => println!("policy  none: everybody may read every channel"),
    }
    println!("ok");
    Ok(())
}

/// Takes the policy through all stages but the last; says its digest, and how many cases it passed.
fn policy(config: &Config) -> anyhow::Result<(String, usize)> {
    client_runtime()?.block_on(async {
        // Nothing is looked up but what the cases bring.
        let store = Arc::new(MemoryStore::new(1 << 16, HashMap::new(), system_clock()));
        let authorizer = Arc::new(serve::open_gate(config, store)?);
        let checked = Rollout::new(authorizer, Observers::new(0), serve::signatures(config)?, None)
            .check(PolicySource::of(config), serve::EXAMPLE)
            .await;
        let next = checked.map_err(|refused| serve::first_refused(config, &refused))?;
        Ok((next.policy.digest().to_string(), next.attachments.suite.as_ref().map_or(0, |suite| suite.cases.len())))
    })
}
