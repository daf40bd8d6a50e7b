//! `tidegate dev`: a gateway that needs nothing but this program, with a playground page.

use std::path::Path;

use clap::Args;
use toml::Table;

use crate::commands::serve::Start;
use crate::commands::{ServeFlags, serve};
use crate::config::policy::PolicyMode;
use crate::config::{Config, ConfigError, sources};
use crate::server::app::Playground;
use crate::store::url::StoreUrl;

#[derive(Debug, Args)]
pub struct DevArgs {
    #[command(flatten)]
    flags: ServeFlags,
    /// Answer other machines and any web page: any client that reaches the port can use each session, emit events and use the token of /redis. Also
    /// allow a store other than memory:
    #[arg(long)]
    playground_unsafe: bool,
}

pub fn run(args: &DevArgs) -> anyhow::Result<()> {
    let base = sources::parse_file(Path::new("dev.toml"), include_str!("dev.toml"))?;
    let (file, layer, names_store) = (args.flags.config.clone(), args.flags.layer()?, args.flags.store.is_some());
    let mut start = Start::new(move || {
        let mut read = Config::read(base.clone(), file.as_deref(), layer.clone());
        if names_store && read.config.is_err() {
            read = Config::read(without_seed(base.clone()), file.as_deref(), layer.clone());
        }
        if let Ok(config) = &mut read.config {
            // Secrets of development, such as the token of `dev.toml`, may be short.
            config.warnings.clear();
        }
        read
    })?;
    let config = &start.config;
    if !matches!(config.store.options.url, StoreUrl::Memory) && !args.playground_unsafe {
        let text = "dev: the playground emits to the store, so it accepts memory: only: set --playground-unsafe to let it emit to \
                    this store, or run `tidegate serve`, which has no playground";
        return Err(ConfigError(text.into()).into());
    }
    if let Err(error) = start.config.check_cache_dir() {
        if start.config.policy_mode == PolicyMode::Fleet {
            return Err(error.into());
        }
        eprintln!("{error}\ndev: starting without a cache-dir");
        start.config.cache_dir = None;
    }
    let config = &start.config;
    let playground = Playground {
        policy: match &config.policy_mode {
            PolicyMode::File(path) => path.display().to_string(),
            PolicyMode::Example => "rust-role-based".into(),
            PolicyMode::Fleet => "from the fleet".into(),
            PolicyMode::AllowAll => "none: every client may read every channel".into(),
        },
        users: [("alice", "member of team red"), ("bob", "member of team blue"), ("root", "the admin")]
            .map(|(session, info)| (session.into(), info.into()))
            .into(),
        channels: ["default", "team-red", "team-blue", "admin-ops", "alice-inbox"].map(Into::into).into(),
        open_to_all: args.playground_unsafe,
    };
    let open_to_all = args.playground_unsafe;
    serve::start(start, Some(playground), move |address, app| {
        let (path, port) = (&app.config.stream.path, address.port());
        let host = if address.ip().is_loopback() { format!("localhost:{port}") } else { address.to_string() };
        println!(
            r#"tidegate {} listening on http://{address}

  playground  http://{address}/

Run each of these in a terminal of its own:
  curl -N -H 'cookie: session=alice' 'http://{address}{path}?channel=team-red'
  curl -H 'content-type: application/json' -d '{{"channel":"team-red","event":"hello","data":"from curl"}}' http://{address}/playground/emit

Settings for an app that uses @upstash/realtime:"#,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(token) = app.live().rest_tokens.first() {
            println!("UPSTASH_REDIS_REST_URL=http://{host}/redis");
            println!("UPSTASH_REDIS_REST_TOKEN={}", token.reveal());
        }
        if open_to_all {
            println!(
                "WARNING: --playground-unsafe: any client that reaches this port can use each session and emit to the store"
            );
        } else if !address.ip().is_loopback() {
            println!("Requests from other machines are refused; --playground-unsafe allows them");
        }
        println!("  <RealtimeProvider api={{{{ url: \"http://{host}{path}/as/alice\" }}}}>\n");
        Ok(())
    })
}

/// The base configuration for a store other than `memory:`, which cannot have a seed.
pub fn without_seed(mut base: Table) -> Table {
    base.remove("memory-store");
    base
}
