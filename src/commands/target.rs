//! Where a command goes: to a store itself, or through the control port of a gateway.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::http_client::{HttpClient, client};
use crate::config::{self, ConfigError};
use crate::store::Store;
use crate::store::fleet_keys::{FleetKeys, FleetName};
use crate::store::redis::RedisStore;
use crate::store::url::StoreUrl;

/// Connecting to a store, and each of its answers.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A store or a gateway's control port.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// Go to this store itself
    #[arg(long, value_name = "URL", conflicts_with_all = ["control", "token"])]
    store: Option<String>,
    /// A PEM file of certificates to trust for rediss://
    #[arg(long, value_name = "FILE", requires = "store")]
    store_ca: Option<PathBuf>,
    /// Go through the gateway with this control port, the only way to a store that is embedded (memory:)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    control: String,
    /// The control port's token [env: TIDEGATE_CONTROL_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

/// The same, and the fleet on that store.
#[derive(Debug, Args)]
pub struct TargetArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Name of the fleet on the store [env: TIDEGATE_FLEET_NAME] [default: fleet.name in tidegate.toml, else "default"]
    #[arg(long, value_name = "NAME", requires = "store", conflicts_with_all = ["control", "token"])]
    fleet: Option<FleetName>,
}

/// It, opened.
pub enum Target {
    /// A store, with the keys of the fleet that is meant.
    Store(Box<RedisStore>, FleetKeys),
    /// A gateway.
    Gateway(Box<Gateway>),
}

impl TargetArgs {
    /// Asks a store whether it is there. A gateway is asked for nothing yet.
    pub async fn open(&self) -> anyhow::Result<Target> {
        let fleet = match (&self.fleet, &self.connection.store) {
            (Some(fleet), _) => fleet.clone(),
            (None, Some(_)) => config::fleet_name()?,
            // A gateway knows its fleet.
            (None, None) => FleetName::default(),
        };
        self.connection.open(&fleet).await
    }
}

impl ConnectionArgs {
    /// The same for a command that does nothing with a fleet.
    pub async fn open_without_fleet(&self) -> anyhow::Result<Target> {
        self.open(&FleetName::default()).await
    }

    async fn open(&self, fleet: &FleetName) -> anyhow::Result<Target> {
        let Some(url) = &self.store else {
            return Ok(Target::Gateway(Box::new(Gateway::at(&self.control, self.token.clone())?)));
        };
        super::use_ring();
        let url: StoreUrl = url.parse().map_err(|error| ConfigError(format!("--store: {error}")))?;
        let Some(client) = url.client(self.store_ca.as_deref())? else {
            let text = "--store memory: is within a running gateway: go through its --control port";
            return Err(ConfigError(text.into()).into());
        };
        let store = RedisStore::new(client, TIMEOUT)?;
        store.ping().await.with_context(|| format!("--store {url}"))?;
        Ok(Target::Store(Box::new(store), FleetKeys::new(fleet)))
    }
}

/// A gateway's control port.
pub struct Gateway {
    client: HttpClient,
    base: String,
    token: Option<String>,
}

impl Gateway {
    fn at(control: &str, token: Option<String>) -> anyhow::Result<Self> {
        let base = if control.contains("://") { control.to_owned() } else { format!("http://{control}") };
        let token = token.or_else(|| std::env::var("TIDEGATE_CONTROL_TOKEN").ok());
        Ok(Self { client: client()?, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// Asks, and has the answer whatever it is.
    pub async fn ask(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<(StatusCode, Value)> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        let request = request.body(body).context("--control: not an address")?;
        let answer = self.client.request(request).await;
        let response =
            answer.with_context(|| format!("no gateway answers at {url} (start one, or give --control or --store)"))?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// Asks for what has to succeed.
    pub async fn call(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        let (status, answer) = self.ask(method, path, body).await?;
        if status.is_success() { Ok(answer) } else { bail!(self.refusal(status, &answer)) }
    }

    /// What its refusal says, and what to do about it where that is not said to one at a command line.
    pub fn refusal(&self, status: StatusCode, answer: &Value) -> String {
        match (answer["error"]["code"].as_str(), answer["error"]["message"].as_str()) {
            (Some("unauthorized"), _) if self.token.is_none() => {
                format!("the control port at {} needs its token: --token, or TIDEGATE_CONTROL_TOKEN", self.base)
            }
            (Some("unauthorized"), _) => format!("the control port at {} has another token than this", self.base),
            (Some("not_found") | None, _) if status == StatusCode::NOT_FOUND => {
                format!("what answers at {} is no control port of this version of the gateway ({status})", self.base)
            }
            (_, why) => format!("the gateway refuses ({status}): {}", why.unwrap_or("it does not say why")),
        }
    }
}
