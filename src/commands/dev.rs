//! `tidegate dev`: nothing but the program, and a page to watch it in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::{ServeFlags, serve};
use crate::config::{Config, ConfigError, Door, layers};
use crate::policy::Origin;
use crate::rollout::Artifact;
use crate::server::{App, Playground};
use crate::store::url::StoreUrl;

/// An editor or a compiler writes a file in several steps; this long after the last one it is loaded.
const SETTLE: Duration = Duration::from_millis(150);

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
    let config = Config::load(base.clone(), args.flags.config.as_deref(), args.flags.layer()?);
    // The seed is for the embedded store alone.
    let config = match config {
        Err(_) if args.flags.store.is_some() => {
            let mut base = base;
            base.remove("memory");
            Config::load(base, args.flags.config.as_deref(), args.flags.layer()?)?
        }
        other => other?,
    };
    if !matches!(config.store.url, StoreUrl::Memory) && !args.playground_unsafe {
        let text = "dev: the playground emits into the store, so it takes memory: only; give --playground-unsafe to let it \
                    emit into yours, or run `tidegate serve`, which has no playground";
        return Err(ConfigError(text.into()).into());
    }
    let playground = Playground {
        policy: match &config.door {
            Door::Policy(path) => path.display().to_string(),
            Door::Example => "rust-role-based".into(),
            Door::Fleet => "the fleet's".into(),
            Door::AllowAll => "none: everybody may read every channel".into(),
        },
        users: [("alice", "member of team red"), ("bob", "member of team blue"), ("root", "the admin")]
            .map(|(session, about)| (session.into(), about.into()))
            .into(),
        channels: ["default", "team-red", "team-blue", "admin-ops", "alice-inbox"].map(Into::into).into(),
        open_to_all: args.playground_unsafe,
    };
    serve::start(config, Some(playground), |address, app| {
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
        if let Some(token) = app.config.rest_tokens.first() {
            println!("UPSTASH_REDIS_REST_URL=http://{host}/redis");
            println!("UPSTASH_REDIS_REST_TOKEN={token}");
        }
        println!("  <RealtimeProvider api={{{{ url: \"http://{host}{path}/as/alice\" }}}}>");
        println!();
        if let Door::Policy(path) = &app.config.door {
            reload_on_change(path, Arc::clone(app))?;
        }
        Ok(())
    })
}

/// Puts the policy in force anew whenever its file changes. One that does not load changes nothing.
fn reload_on_change(path: &Path, app: Arc<App>) -> anyhow::Result<()> {
    let path = path.to_path_buf();
    let folder =
        path.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let (changed, mut changes) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
        // A full channel says it already.
        let _ = changed.try_send(());
    })
    .context("cannot watch files")?;
    // The folder: editors and compilers replace the file itself.
    watcher
        .watch(&folder, RecursiveMode::NonRecursive)
        .with_context(|| format!("cannot watch {}", folder.display()))?;
    tokio::spawn(async move {
        let _watcher = watcher;
        let mut seen = stamp(&path);
        while changes.recv().await.is_some() {
            tokio::time::sleep(SETTLE).await;
            let now = stamp(&path);
            if now.is_none() || now == seen {
                continue;
            }
            seen = now;
            let component = match tokio::fs::read(&path).await {
                Ok(bytes) => bytes.into(),
                Err(error) => {
                    tracing::error!(%error, "the new policy cannot be read; the old one stays in force");
                    continue;
                }
            };
            let origin = Origin { source: format!("file {}", path.display()), ..Origin::default() };
            let artifact = Artifact { component, ..Artifact::default() };
            if let Ok(next) = app.rollout.prepare(artifact, app.gate.basis(), origin).await {
                // What is refused is in the log.
                let _ = app.rollout.put_in_force(next).await;
            }
        }
    });
    Ok(())
}

/// What tells one content of a file from another without reading it.
fn stamp(path: &Path) -> Option<(std::time::SystemTime, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len()))
}
