//! `tidegate check`: reports the mistakes that a start would report, without a start.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use toml::Table;

use crate::commands::{ServeFlags, block_on, empty_store, print, startup};
use crate::config::Config;
use crate::config::policy::PolicyMode;
use crate::rollout::source_file::PolicySource;
use crate::rollout::{Observers, Rollout};
use crate::util::descriptors;

/// A check does not wait longer for the store.
const MAX_STORE_TIMEOUT: Duration = Duration::from_secs(2);

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
    // A start raises the limit; this command may do so, too.
    let _ = descriptors::raise_limit();
    let connections = config.server.connection_warning(config.stream.max_streams, descriptors::limit());
    for warning in config.warnings.iter().chain(&connections) {
        eprintln!("tidegate: warning: configuration: {warning}");
    }
    config.check_cache_dir()?;
    let checked = match &config.policy_mode {
        PolicyMode::File(_) | PolicyMode::Example => Some(check_policy(&config)?),
        PolicyMode::Fleet | PolicyMode::AllowAll => None,
    };
    let (digest, cases) = checked.unzip();
    let store = config.store.options.url.to_string();
    let (reached, warnings) = check_store(&config)?;
    for warning in warnings {
        eprintln!("tidegate: warning: store: {warning}");
    }
    let allow_all = config.policy_mode == PolicyMode::AllowAll;
    let json = json!({ "ok": true, "store": store, "policy": digest, "cases": cases, "allow_all": allow_all });
    print(args.json, &json, || {
        let policy = match (digest, cases) {
            (Some(digest), Some(cases @ 1..)) => format!("{digest}, {cases} test cases passed"),
            (Some(digest), _) => format!("{digest}, no test cases"),
            (None, _) if allow_all => "none: every client may read every channel".into(),
            (None, _) => "from the fleet (not contacted)".into(),
        };
        format!("store   {store}{reached}\npolicy  {policy}\nok\n")
    })
}

/// Whether the store answers, as a text, and warnings about it. A store that does not answer is no mistake in the configuration; one that
/// answers and cannot be used is.
fn check_store(config: &Config) -> anyhow::Result<(String, Vec<String>)> {
    let mut options = config.store.options.clone();
    options.timeout = options.timeout.min(MAX_STORE_TIMEOUT);
    let Some(databases) = block_on(async {
        let Some(store) = startup::open_redis(&options, &config.fleet_keys, Arc::default())? else { return Ok(None) };
        match store.check().await {
            Err(error) if !error.is_transient() => {
                Err(anyhow::Error::new(error).context(format!("store {}", options.url)))
            }
            Err(error) => Ok(Some(Err(error))),
            Ok(()) => Ok(Some(store.other_databases().await)),
        }
    })?
    else {
        return Ok((String::new(), Vec::new()));
    };
    Ok(match databases {
        Ok(databases) => {
            let warnings = databases.iter().map(|database| {
                format!(
                    "database {database} of this server is in use, too: databases do not separate notifications. Give each environment a \
                     Redis of its own, or other channel names"
                )
            });
            (" (answers)".into(), warnings.collect())
        }
        Err(error) => (format!(" (does not answer: {error})"), Vec::new()),
    })
}

/// Runs all activation stages except the last one; returns the digest and the number of test cases that passed.
fn check_policy(config: &Config) -> anyhow::Result<(String, usize)> {
    block_on(async {
        // Test cases bring their own data for look-ups.
        let authorizer = Arc::new(startup::open_authorizer(config, empty_store(), Arc::default())?);
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
