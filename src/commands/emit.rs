//! `tidegate emit`: one event, or one per line of standard input.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::commands::control_client::{ChannelTargetArgs, ControlClient, Target, is_unreachable};
use crate::commands::{print, print_warning};
use crate::config::ConfigError;
use crate::event::NewEvent;
use crate::store::Retention;
use crate::store::emit;
use crate::store::emit::{Attempt, EmitToken};
use crate::util::duration::parse_argument;
use crate::util::printable::printable;

/// An emit without a reply is tried again for this time.
const EMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts through a gateway.
const RETRY_DELAY: Duration = Duration::from_millis(200);

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
    let token = EmitToken::new();
    let (id, is_uncertain) = match target {
        Target::Store { store, .. } => {
            let retention = Retention { max_length: args.max_length, expire_seconds };
            let (event, attempt) =
                (NewEvent::from_json(&*args.event, data), Attempt { token: &token, is_repeated: false });
            let emitted = emit::emit(&**store, &args.channel, &event, retention, attempt, EMIT_TIMEOUT).await?;
            (emitted.id.to_string(), emitted.is_uncertain)
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
            let answer = emit_through(gateway, &token, &body).await?;
            let id = answer["id"].as_str().context("the gateway's response has no event id")?.to_owned();
            (id, answer["uncertain"] == true)
        }
    };
    let mut answer = json!({ "id": id });
    if is_uncertain {
        answer["uncertain"] = true.into();
        print_warning(
            "the event may be in the channel twice: the first attempt got no reply, and its entry may have been trimmed",
        );
    }
    print(args.json, &answer, || format!("{}\n", printable(&id)))
}

/// Sends the request again if its response got lost: the gateway finds the event by the token.
async fn emit_through(gateway: &ControlClient, token: &EmitToken, body: &str) -> anyhow::Result<Value> {
    let deadline = Instant::now() + EMIT_TIMEOUT;
    let mut is_first = true;
    loop {
        let headers = [("idempotency-key", token.as_str())];
        let next_at = Instant::now() + RETRY_DELAY;
        let request = gateway.request_with(Method::POST, "/v1/emit", Some(body.to_owned()), &headers);
        let answer = tokio::time::timeout_at(deadline, request).await;
        match answer.context("the gateway does not answer: the event may have been emitted").flatten() {
            Ok((status, answer)) => return gateway.check(status, answer),
            Err(error) if next_at >= deadline || (is_first && is_unreachable(&error)) => return Err(error),
            Err(_) => tokio::time::sleep_until(next_at).await,
        }
        is_first = false;
    }
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
