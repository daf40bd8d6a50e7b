//! `tidegate dev`: nothing but the program, and a page to watch it in.

use std::path::Path;

use clap::Args;

use crate::commands::ServeFlags;
use crate::commands::serve;
use crate::commands::serve::Start;
use crate::config::{Config, ConfigError, PolicyMode, layers};
use crate::server::data::playground::Playground;
use crate::store::url::StoreUrl;

#[derive(Debug, Args)]
pub struct DevArgs {
    #[command(flatten)]
    flags: ServeFlags,
    /// Let the playground act for visitors from elsewhere, and on a real store
    #[arg(long)]
    playground_unsafe: bool,
}

pub fn run(args: &DevArgs) -> anyhow::Result<()> {
    let base = layers::file(Path::new("dev.toml"), include_str!("dev.toml"))?;
    let (file, layer, names_store) = (args.flags.config.clone(), args.flags.layer()?, args.flags.store.is_some());
    let given = Start::new(move || {
        let read = Config::read(base.clone(), file.as_deref(), layer.clone());
        if !names_store || read.config.is_ok() {
            return read;
        }
        // The seed is for the embedded store alone.
        let mut base = base.clone();
        base.remove("memory");
        Config::read(base, file.as_deref(), layer.clone())
    })?;
    let config = &given.config;
    if !matches!(config.store.url, StoreUrl::Memory) && !args.playground_unsafe {
        let text = "dev: the playground emits into the store, so it takes memory: only; give --playground-unsafe to let it \
                    emit into yours, or run `tidegate serve`, which has no playground";
        return Err(ConfigError(text.into()).into());
    }
    let playground = Playground {
        policy: match &config.door {
            PolicyMode::Policy(path) => path.display().to_string(),
            PolicyMode::Example => "rust-role-based".into(),
            PolicyMode::Fleet => "the fleet's".into(),
            PolicyMode::AllowAll => "none: everybody may read every channel".into(),
        },
        users: [("alice", "member of team red"), ("bob", "member of team blue"), ("root", "the admin")]
            .map(|(session, info)| (session.into(), info.into()))
            .into(),
        channels: ["default", "team-red", "team-blue", "admin-ops", "alice-inbox"].map(Into::into).into(),
        open_to_all: args.playground_unsafe,
    };
    serve::start(given, Some(playground), |address, app| {
        let (path, port) = (&app.config.stream.path, address.port());
        let host = if address.ip().is_loopback() { format!("localhost:{port}") } else { address.to_string() };
        println!("tidegate {} listening on http://{address}", env!("CARGO_PKG_VERSION"));
        println!();
        println!("  playground  http://{address}/");
        println!();
        println!("Two lines to try, each in a terminal of its own:");
        println!("  curl -N -H 'cookie: session=alice' 'http://{address}{path}?channel=team-red'");
        let event = r#"{"channel":"team-red","event":"hello","data":"from curl"}"#;
        println!("  curl -H 'content-type: application/json' -d '{event}' http://{address}/playground/emit");
        println!();
        println!("An app with @upstash/realtime runs on this with:");
        if let Some(token) = app.live().rest_tokens.first() {
            println!("UPSTASH_REDIS_REST_URL=http://{host}/redis");
            println!("UPSTASH_REDIS_REST_TOKEN={token}");
        }
        println!("  <RealtimeProvider api={{{{ url: \"http://{host}{path}/as/alice\" }}}}>");
        println!();
        Ok(())
    })
}
