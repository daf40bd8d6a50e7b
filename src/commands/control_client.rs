//! What a command connects to: a store directly, or the control port of a gateway.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config;
use crate::config::ConfigError;
use crate::store::EventStore;
use crate::store::fleet::FleetStore;
use crate::store::fleet_keys::{FleetKeys, FleetName};
use crate::store::options::{OptionMistake, StoreOptions};
use crate::store::redis::RedisStore;
use crate::store::url::StoreUrl;
use crate::util::printable::printable;

/// Limit for connecting to a store, and for each of its replies.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
struct StoreArgs {
    /// Connect to this store directly
    #[arg(long, value_name = "URL", conflicts_with_all = ["control", "token"])]
    store: Option<String>,
    /// PEM file of CA certificates to trust for TLS to the store
    #[arg(long, value_name = "FILE", requires = "store")]
    store_ca: Option<PathBuf>,
    /// PEM file of the client certificate for TLS to the store
    #[arg(long, value_name = "FILE", requires = "store")]
    store_cert: Option<PathBuf>,
    /// PEM file of the private key of --store-cert
    #[arg(long, value_name = "FILE", requires = "store")]
    store_key: Option<PathBuf>,
    /// User for the sentinels of redis-sentinel://
    #[arg(long, value_name = "NAME", requires = "store")]
    store_sentinel_user: Option<String>,
    /// Password for the sentinels [env: TIDEGATE_STORE_SENTINEL_PASSWORD]
    #[arg(long, value_name = "PASSWORD", requires = "store")]
    store_sentinel_password: Option<String>,
}

impl StoreArgs {
    /// How to connect to the store of this URL.
    fn options(&self, url: &str) -> Result<StoreOptions, ConfigError> {
        let url: StoreUrl = url.parse().map_err(|error| ConfigError(format!("--store: {error}")))?;
        let variable = || std::env::var("TIDEGATE_STORE_SENTINEL_PASSWORD").ok().filter(|_| url.has_sentinels());
        let password = match &self.store_sentinel_password {
            Some(password) => Some(password.as_str().into()),
            None => variable().map(|password| config::resolve_sentinel_password(&password.into())).transpose()?,
        };
        let options = StoreOptions {
            ca: self.store_ca.clone(),
            certificate: self.store_cert.clone(),
            key: self.store_key.clone(),
            sentinel_user: self.store_sentinel_user.clone(),
            sentinel_password: password,
            ..StoreOptions::new(url, STORE_TIMEOUT)
        };
        options
            .validate()
            .map_err(|OptionMistake { option, problem }| ConfigError(format!("--{option}: {problem}")))?;
        Ok(options)
    }
}

#[derive(Debug, Args)]
struct ControlArgs {
    /// Use this control port; the only way to an in-memory store (memory:)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    control: String,
    /// Token of the control port [env: TIDEGATE_CONTROL_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

/// A store or a gateway, for a command that uses channels only.
#[derive(Debug, Args)]
pub struct ChannelTargetArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    control: ControlArgs,
}

/// A fleet on a store, or the fleet of a gateway.
#[derive(Debug, Args)]
pub struct FleetTargetArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Name of the fleet on the store [env: TIDEGATE_FLEET_NAME] [default: fleet.name in tidegate.toml, else "default"]
    #[arg(long, value_name = "NAME", requires = "store", conflicts_with_all = ["control", "token"])]
    fleet: Option<FleetName>,
    #[command(flatten)]
    control: ControlArgs,
}

/// What a command talks to.
pub enum Target {
    /// A store that answered, and the fleet on it.
    Store { store: Box<RedisStore>, keys: FleetKeys, fleet: Arc<dyn FleetStore> },
    /// A gateway; no request was sent yet.
    Gateway(Box<ControlClient>),
}

impl ChannelTargetArgs {
    /// Connects to the store; sends nothing to a gateway yet.
    pub async fn open(&self) -> anyhow::Result<Target> {
        open(&self.store, || Ok(FleetName::default()), &self.control).await
    }
}

impl FleetTargetArgs {
    /// Connects to the store; sends nothing to a gateway yet.
    pub async fn open(&self) -> anyhow::Result<Target> {
        let fleet = || self.fleet.clone().map_or_else(config::fleet_name, Ok);
        open(&self.store, fleet, &self.control).await
    }
}

async fn open(
    args: &StoreArgs,
    fleet: impl FnOnce() -> Result<FleetName, ConfigError>,
    control: &ControlArgs,
) -> anyhow::Result<Target> {
    let Some(url) = &args.store else {
        return Ok(Target::Gateway(Box::new(ControlClient::new(control)?)));
    };
    crate::commands::use_ring();
    let fleet = fleet()?;
    let options = args.options(url)?;
    let keys = FleetKeys::new(&fleet);
    let Some(store) = RedisStore::open(&options, &keys, Arc::default())? else {
        let text = "--store: an in-memory store (memory:) exists only in a running gateway: use its --control port";
        return Err(ConfigError(text.into()).into());
    };
    store.ping().await.with_context(|| format!("--store {}", options.url))?;
    let fleet = store.fleet(&keys).context("this store has no fleet")?;
    Ok(Target::Store { store: Box::new(store), keys, fleet })
}

pub type ControlHttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for http and https that trusts the system's certificates.
pub fn http_client() -> anyhow::Result<ControlHttpClient> {
    crate::commands::use_ring();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_native_roots()
        .context("cannot read the system's certificates")?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

pub struct ControlClient {
    client: ControlHttpClient,
    base: String,
    token: Option<String>,
}

impl ControlClient {
    fn new(args: &ControlArgs) -> anyhow::Result<Self> {
        let address = &args.control;
        let base = if address.contains("://") { address.clone() } else { format!("http://{address}") };
        // Errors show the address.
        if base.contains(['@', '?', '#']) {
            let text = "--control: an address is a host and a port, such as 127.0.0.1:7080, or a URL without a user and a query; \
                        the port takes a token (--token, TIDEGATE_CONTROL_TOKEN)";
            return Err(ConfigError(text.into()).into());
        }
        let token = args.token.clone().or_else(|| std::env::var("TIDEGATE_CONTROL_TOKEN").ok());
        Ok(Self { client: http_client()?, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// Sends a request, with JSON as its body, and returns the response, whatever its status.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        self.request_with(method, path, body, &[]).await
    }

    /// The same with further headers.
    pub async fn request_with(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(StatusCode, Value)> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body.unwrap_or_default())).context("--control: not an address")?;
        let response = self.client.request(request).await;
        let response =
            response.with_context(|| format!("no gateway answers at {url}: start one, or set --control or --store"))?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// Sends a request that has to succeed.
    pub async fn call(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        let (status, answer) = self.request(method, path, body).await?;
        self.check(status, answer)
    }

    /// The body of a response that has to be a success.
    pub fn check(&self, status: StatusCode, answer: Value) -> anyhow::Result<Value> {
        if status.is_success() { Ok(answer) } else { bail!(self.error_text(status, &answer)) }
    }

    /// The message of an error response, with the remedy at a command line where the gateway cannot know it.
    fn error_text(&self, status: StatusCode, answer: &Value) -> String {
        match (answer["error"]["code"].as_str(), answer["error"]["message"].as_str()) {
            (Some("unauthorized"), _) if self.token.is_none() => {
                format!("the control port at {} requires a token: set --token or TIDEGATE_CONTROL_TOKEN", self.base)
            }
            (Some("unauthorized"), _) => format!("the control port at {} does not accept this token", self.base),
            (Some("not_found") | None, _) if status == StatusCode::NOT_FOUND => {
                format!("{} is not the control port of a gateway of this version ({status})", self.base)
            }
            (_, message) => {
                format!("the gateway answered {status}: {}", printable(message.unwrap_or("no reason given")))
            }
        }
    }
}

/// Whether a request certainly did not reach a gateway: no connection was made.
pub fn is_unreachable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|e| e.is_connect()))
}

/// Parses the body of a response.
pub fn parse<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    serde_json::from_value(answer)
        .context("the gateway's response is not valid: it may have another version than this program")
}
