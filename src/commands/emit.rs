//! `tidegate emit`: one event, or one a line of standard input.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::http_client::{HttpClient, client};
use crate::config::ConfigError;
use crate::event::NewEvent;
use crate::store::redis::RedisStore;
use crate::store::url::StoreUrl;
use crate::store::{Retention, Store};

#[derive(Debug, Args)]
pub struct EmitArgs {
    /// The channel
    channel: String,
    /// The event's name
    event: String,
    /// The event's data as JSON; without it, or with -, each line of standard input is one event's
    data: Option<String>,
    /// Emit into this store itself (entry and doorbell at one moment)
    #[arg(long, value_name = "URL", conflicts_with_all = ["control", "token"])]
    store: Option<String>,
    /// A PEM file of certificates to trust for rediss://
    #[arg(long, value_name = "FILE", requires = "store")]
    store_ca: Option<PathBuf>,
    /// Emit through the gateway with this control port, which is the way to memory:
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    control: String,
    /// The control port's token [env: TIDEGATE_CONTROL_TOKEN]
    #[arg(long)]
    token: Option<String>,
    /// Keep so many entries of the channel at the most
    #[arg(long, value_name = "COUNT")]
    max_length: Option<u64>,
    /// Let the whole channel expire after this time, as 10m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expire: Option<Duration>,
    /// Print {"id":"…"} rather than the id alone
    #[arg(long)]
    json: bool,
}

enum Target {
    Store(Box<RedisStore>),
    Gateway { client: Box<HttpClient>, url: String, token: Option<String> },
}

pub fn run(args: EmitArgs) -> anyhow::Result<()> {
    super::client_runtime()?.block_on(async {
        let target = Target::open(&args)?;
        match args.data.as_deref() {
            Some(text) if text != "-" => emit(&target, &args, text).await,
            None if std::io::stdin().is_terminal() => {
                let text =
                    "emit: there is no data: give JSON, as '{\"text\":\"hello\"}', or lines of it on standard input";
                Err(ConfigError(text.into()).into())
            }
            _ => {
                for (number, line) in (1..).zip(std::io::stdin().lock().lines()) {
                    let line = line.context("cannot read standard input")?;
                    if !line.trim().is_empty() {
                        emit(&target, &args, &line).await.with_context(|| format!("line {number}"))?;
                    }
                }
                Ok(())
            }
        }
    })
}

async fn emit(target: &Target, args: &EmitArgs, text: &str) -> anyhow::Result<()> {
    let data: &RawValue = serde_json::from_str(text).map_err(|cause| {
        ConfigError(format!("emit: the data is no JSON ({cause}); a string is written with its quotes, as '\"hello\"'"))
    })?;
    let expire_seconds = args.expire.map(|time| time.as_secs().max(1));
    let id = match target {
        Target::Store(store) => {
            let retention = Retention { max_length: args.max_length, expire_seconds };
            store.emit(&args.channel, &NewEvent::from_json(&*args.event, data), retention).await?.to_string()
        }
        Target::Gateway { client, url, token } => {
            let body =
                Body { channel: &args.channel, event: &args.event, data, max_length: args.max_length, expire_seconds };
            let body = serde_json::to_string(&body).context("the event is not JSON")?;
            through_gateway(client, url, token.as_deref(), body).await?
        }
    };
    if args.json {
        println!("{}", json!({ "id": id }))
    } else {
        println!("{id}")
    }
    Ok(())
}

/// What the control port takes.
#[derive(Serialize)]
struct Body<'a> {
    channel: &'a str,
    event: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_seconds: Option<u64>,
}

impl Target {
    fn open(args: &EmitArgs) -> anyhow::Result<Self> {
        let Some(url) = &args.store else {
            let token = args.token.clone().or_else(|| std::env::var("TIDEGATE_CONTROL_TOKEN").ok());
            let base =
                if args.control.contains("://") { args.control.clone() } else { format!("http://{}", args.control) };
            return Ok(Self::Gateway {
                client: Box::new(client()?),
                url: format!("{}/v1/emit", base.trim_end_matches('/')),
                token,
            });
        };
        super::use_ring();
        let url: StoreUrl = url.parse().map_err(|error| ConfigError(format!("--store: {error}")))?;
        let Some(client) = url.client(args.store_ca.as_deref())? else {
            let text = "--store memory: is within a running gateway: emit through its --control port";
            return Err(ConfigError(text.into()).into());
        };
        Ok(Self::Store(Box::new(RedisStore::new(client, Duration::from_secs(5))?)))
    }
}

async fn through_gateway(client: &HttpClient, url: &str, token: Option<&str>, body: String) -> anyhow::Result<String> {
    let mut request = Request::post(url).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body))).context("--control: not an address")?;
    let response = client
        .request(request)
        .await
        .with_context(|| format!("no gateway answers at {url} (start one, or give --control or --store)"))?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match answer["id"].as_str() {
        Some(id) if status.is_success() => Ok(id.to_owned()),
        _ => bail!(
            "the gateway refuses ({status}): {}",
            answer["error"]["message"].as_str().unwrap_or("it does not say why")
        ),
    }
}
