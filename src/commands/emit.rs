//! `tidegate emit`: one event, or one per line of standard input.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http::Method;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::commands::control_client::{ChannelTargetArgs, Target};
use crate::commands::print;
use crate::config::ConfigError;
use crate::event::NewEvent;
use crate::store::{EventStore, Retention};
use crate::util::duration::parse_argument;
use crate::util::printable::printable;

#[derive(Debug, Args)]
pub struct EmitArgs {
    /// Channel to emit to
    channel: String,
    /// Event name
    event: String,
    /// Event data as JSON; if omitted or -, each line of standard input is the data of one event
    data: Option<String>,
    #[command(flatten)]
    target: ChannelTargetArgs,
    /// Keep at most this number of entries in the channel
    #[arg(long, value_name = "COUNT")]
    max_length: Option<u64>,
    /// Let the channel expire after this time, such as 10m
    #[arg(long, value_name = "TIME", value_parser = parse_argument)]
    expire: Option<Duration>,
    /// Print {"id":"…"} instead of the id alone
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &EmitArgs) -> anyhow::Result<()> {
    let target = args.target.open().await?;
    match args.data.as_deref() {
        Some(text) if text != "-" => emit(&target, args, text).await,
        None if std::io::stdin().is_terminal() => {
            let text = "emit: no data: pass JSON, such as '{\"text\":\"hello\"}', or lines of JSON on standard input";
            Err(ConfigError(text.into()).into())
        }
        _ => {
            for (number, line) in (1..).zip(std::io::stdin().lock().lines()) {
                let line = line.context("cannot read standard input")?;
                if !line.trim().is_empty() {
                    emit(&target, args, &line).await.with_context(|| format!("line {number}"))?;
                }
            }
            Ok(())
        }
    }
}

async fn emit(target: &Target, args: &EmitArgs, text: &str) -> anyhow::Result<()> {
    let data: &RawValue = serde_json::from_str(text).map_err(|cause| {
        ConfigError(format!("emit: the data is not JSON: {cause}; a string needs its quotes, such as '\"hello\"'"))
    })?;
    let expire_seconds = args.expire.map(|time| time.as_secs().max(1));
    let id = match target {
        Target::Store { store, .. } => {
            let retention = Retention { max_length: args.max_length, expire_seconds };
            store.emit(&args.channel, &NewEvent::from_json(&*args.event, data), retention).await?.to_string()
        }
        Target::Gateway(gateway) => {
            let body = EmitBody {
                channel: &args.channel,
                event: &args.event,
                data,
                max_length: args.max_length,
                expire_seconds,
            };
            let body = serde_json::to_string(&body).context("the event is not JSON")?;
            let answer = gateway.call(Method::POST, "/v1/emit", Some(body)).await?;
            answer["id"].as_str().context("the gateway's response has no event id")?.to_owned()
        }
    };
    print(args.json, &json!({ "id": id }), || format!("{}\n", printable(&id)))
}

/// EmitBody of `POST /v1/emit`.
#[derive(Serialize)]
struct EmitBody<'a> {
    channel: &'a str,
    event: &'a str,
    data: &'a RawValue,
    max_length: Option<u64>,
    expire_seconds: Option<u64>,
}
