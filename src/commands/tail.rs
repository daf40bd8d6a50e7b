//! `tidegate tail`: a client that resumes after interruptions and prints events as JSON lines.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use url::{Position, Url};

use crate::commands::control_client::{ControlHttpClient, http_client};
use crate::commands::print_warning;
use crate::commands::sse::Parser;
use crate::config::ConfigError;
use crate::util::printable::{printable, printable_json};

/// Pause between two attempts, unless the gateway sends another.
const DEFAULT_RETRY: Duration = Duration::from_secs(2);
/// A connection without any data for this long is treated as lost.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(75);

#[derive(Debug, Args)]
pub struct TailArgs {
    /// URL of the stream, such as http://127.0.0.1:8080/api/realtime
    url: Url,
    /// Channels to follow [default: default]
    channels: Vec<String>,
    /// Start after this time (ms since 1970) or stream id; 0 replays everything that is stored
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// Send this header, such as 'cookie: session=alice'
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Exit after this number of events
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// Also print the gateway's own frames (connected, gap, …)
    #[arg(long)]
    all: bool,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header has the form 'name: value'")?;
    let name = name.trim().parse().map_err(|_| "the header's name is not valid")?;
    Ok((name, value.trim().parse().map_err(|_| "the header's value is not valid")?))
}

pub async fn run(args: &TailArgs) -> anyhow::Result<()> {
    let mut url = args.url.clone();
    if !matches!(url.scheme(), "http" | "https") {
        return Err(ConfigError("tail: the URL has to begin with http:// or https://".into()).into());
    }
    let channels = if args.channels.is_empty() { vec!["default".to_owned()] } else { args.channels.clone() };
    for channel in &channels {
        url.query_pairs_mut().append_pair("channel", channel);
        if let Some(since) = &args.since {
            url.query_pairs_mut().append_pair(&format!("last_ack_{channel}"), since);
        }
    }
    let client = http_client()?;
    let mut parser = Parser::default();
    let mut remaining = args.count.unwrap_or(u64::MAX);
    loop {
        let Some(reason) = follow_once(&client, args, &url, &mut parser, &mut remaining).await? else { return Ok(()) };
        let wait = parser.retry.map_or(DEFAULT_RETRY, Duration::from_millis);
        if std::io::stderr().is_terminal() {
            print_warning(&format!("{}; reconnecting in {wait:?}", printable(&reason)));
        }
        tokio::time::sleep(wait).await;
        parser.reconnect();
    }
}

/// Follows the stream until enough events were printed, or until the connection ends for the returned reason.
async fn follow_once(
    client: &ControlHttpClient,
    args: &TailArgs,
    url: &Url,
    parser: &mut Parser,
    remaining: &mut u64,
) -> anyhow::Result<Option<String>> {
    let mut request =
        Request::get(url.as_str()).header("accept", "text/event-stream").header("cache-control", "no-cache");
    for (name, value) in &args.headers {
        request = request.header(name, value);
    }
    if let Some(id) = &parser.last_id {
        request = request.header("last-event-id", id);
    }
    let request = request.body(Full::<Bytes>::default()).context("the URL is not valid")?;
    let response = match client.request(request).await {
        Ok(response) => response,
        // A gateway that never answered most likely means a wrong URL.
        Err(error) if parser.last_id.is_none() => {
            // Without user and query, which may contain credentials.
            return Err(error)
                .with_context(|| format!("no gateway answers at {}", &url[Position::BeforeHost..Position::AfterPath]));
        }
        Err(error) => return Ok(Some(error.to_string())),
    };
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        if status.is_server_error() && parser.last_id.is_some() {
            return Ok(Some(format!("{status} {text}")));
        }
        bail!("the gateway answered {status}: {}", printable(&text));
    }
    let mut out = std::io::stdout();
    let mut broken = None;
    loop {
        let frame = match tokio::time::timeout(SILENCE_TIMEOUT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Ok(Some(error.to_string())),
            Ok(None) => return Ok(Some("the stream ended".into())),
            Err(_) => return Ok(Some(format!("no data for {SILENCE_TIMEOUT:?}"))),
        };
        let Ok(chunk) = frame.into_data() else { continue };
        parser.push(&chunk, |data| {
            let Ok(value) = serde_json::from_str::<Value>(&data) else { return };
            let is_event = value.get("event").is_some();
            if (is_event || args.all) && *remaining > 0 && broken.is_none() {
                *remaining -= u64::from(is_event);
                broken = writeln!(out, "{}", printable_json(&data)).and_then(|()| out.flush()).err();
            }
        });
        match broken.take() {
            Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(None),
            Some(error) => return Err(error.into()),
            None if *remaining == 0 => return Ok(None),
            None => {}
        }
    }
}
