//! `tidegate check`: everything that a start would complain about, without a start.

use clap::Args;
use serde_json::json;
use toml::Table;

use super::{ServeFlags, serve};
use crate::config::{Config, Door};
use crate::policy::compile::Compiler;

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
    let digest = match &config.door {
        Door::Policy(path) => {
            let compiler = Compiler::new(&config.limits, config.cache_dir.as_deref())?;
            serve::verify(path, &config, &serve::signatures(&config)?)?;
            Some(serve::load(&compiler, path)?.digest().to_string())
        }
        Door::Example | Door::Fleet | Door::AllowAll => None,
    };
    let store = config.store.url.to_string();
    if args.json {
        println!(
            "{}",
            json!({ "ok": true, "store": store, "policy": digest, "allow_all": config.door == Door::AllowAll })
        );
    } else {
        println!("store   {store} (not asked)");
        let otherwise = match config.door {
            Door::Example => "the example",
            Door::Fleet => "the fleet's (not asked)",
            _ => "none: everybody may read every channel",
        };
        println!("policy  {}", digest.as_deref().unwrap_or(otherwise));
        println!("ok");
    }
    Ok(())
}
