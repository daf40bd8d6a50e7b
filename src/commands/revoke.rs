//! `tidegate revoke`: closes streams on all nodes, optionally with a ban for some time.

use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::authz::revocation_list::Revocation;
use crate::commands::control_client::{FleetTargetArgs, Target};
use crate::commands::time;
use crate::config::ConfigError;
use crate::fleet::revocation;
use crate::fleet::revocation::{RevocationRequest, RevocationResult, RevokeError};
use crate::policy::stream_selector::StreamSelector;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["subject", "channel", "all", "list", "lift"]))]
pub struct RevokeArgs {
    /// Revoke streams of this subject
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Revoke streams of this channel; with --subject, only those of the subject
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Revoke all streams
    #[arg(long, conflicts_with_all = ["subject", "channel"])]
    all: bool,
    /// Also reject matching requests for this time, such as 15m, whatever the policy decides
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// List the active revocations
    #[arg(long, conflicts_with_all = ["subject", "channel", "all", "time", "lift"])]
    list: bool,
    /// Remove a revocation, by the id that --list shows
    #[arg(long, value_name = "ID", conflicts_with_all = ["subject", "channel", "all", "time"])]
    lift: Option<String>,
    #[command(flatten)]
    target: FleetTargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Response of `GET /v1/revocations`.
#[derive(Deserialize)]
struct List {
    revocations: Vec<Revocation>,
}

pub fn run(args: &RevokeArgs) -> anyhow::Result<()> {
    crate::commands::client_runtime()?.block_on(async {
        let target = args.target.open().await?;
        if args.list {
            return list(&target, args.json).await;
        }
        match &args.lift {
            Some(id) => lift(&target, id, args.json).await,
            None => revoke(&target, args).await,
        }
    })
}

async fn revoke(target: &Target, args: &RevokeArgs) -> anyhow::Result<()> {
    let request = RevocationRequest {
        subject: args.subject.as_deref().map(Into::into),
        channel: args.channel.as_deref().map(Into::into),
        all: args.all,
        time: args.time,
    };
    // A mistake in the arguments is one in usage, and is found before anything is sent.
    request.clone().check().map_err(|error| ConfigError(format!("revoke: {error}")))?;
    let revoked: RevocationResult = match target {
        Target::Store(store, keys) => {
            revocation::revoke(&**store, keys, request).await.map_err(|error| match error {
                RevokeError::Store(error) => anyhow::Error::new(error).context("--store"),
                other => other.into(),
            })?
        }
        Target::Gateway(gateway) => {
            let body = serde_json::to_string(&request).context("the request is not JSON")?;
            let answer = gateway.call(Method::POST, "/v1/revoke", Some(body)).await?;
            serde_json::from_value(answer).context("the gateway's response is not valid")?
        }
    };
    if revoked.missing > 0 {
        eprintln!("tidegate: {} did not report in time how many streams were closed there", nodes(revoked.missing));
    }
    if args.json {
        println!("{}", json!(revoked));
        return Ok(());
    }
    println!("closed {} on {}", count(revoked.streams, "stream"), nodes(revoked.nodes.len()));
    if let Some(Revocation { id, until, .. }) = &revoked.revocation {
        println!("revoked until {}; to remove it: tidegate revoke --lift {id}", time(*until));
    }
    Ok(())
}

async fn list(target: &Target, json: bool) -> anyhow::Result<()> {
    let list = match target {
        Target::Store(store, keys) => revocation::list(&**store, keys).await.context("--store")?,
        Target::Gateway(gateway) => {
            let answer = gateway.call(Method::GET, "/v1/revocations", None).await?;
            let List { revocations } = serde_json::from_value(answer).context("the gateway's response is not valid")?;
            revocations
        }
    };
    if json {
        println!("{}", json!({ "revocations": list }));
        return Ok(());
    }
    if list.is_empty() {
        println!("no active revocations");
    }
    for Revocation { id, selector, until } in list {
        println!("{id}  until {}  {}", time(until), describe(&selector));
    }
    Ok(())
}

async fn lift(target: &Target, id: &str, json: bool) -> anyhow::Result<()> {
    let removed = match target {
        Target::Store(store, keys) => revocation::lift(&**store, keys, id).await.context("--store")?,
        Target::Gateway(gateway) => {
            let path = format!(
                "/v1/revocations/{}",
                percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC)
            );
            match gateway.request(Method::DELETE, &path, None).await? {
                (StatusCode::NOT_FOUND, answer) if answer["error"]["code"] == "no_such_revocation" => false,
                (status, answer) if !status.is_success() => anyhow::bail!(gateway.error_text(status, &answer)),
                _ => true,
            }
        }
    };
    anyhow::ensure!(removed, "no revocation has the id {id:?}: `tidegate revoke --list` shows all");
    if json {
        println!("{}", json!({ "lifted": id }));
    } else {
        println!("removed");
    }
    Ok(())
}

/// Subjects and channels come from others. They are quoted, so that control characters do not reach the terminal.
fn describe(selector: &StreamSelector) -> String {
    let part = |what: &str, name: &Option<Box<str>>| name.as_ref().map(|name| format!("{what} {name:?}"));
    let parts: Vec<String> =
        [part("subject", &selector.subject), part("channel", &selector.channel)].into_iter().flatten().collect();
    if parts.is_empty() { "all streams".into() } else { parts.join(", ") }
}

fn nodes(number: usize) -> String {
    count(number as u64, "node")
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_described_without_control_characters() {
        let selector = |subject: Option<&str>, channel: Option<&str>| StreamSelector {
            subject: subject.map(Into::into),
            channel: channel.map(Into::into),
        };
        assert_eq!(describe(&selector(None, None)), "all streams");
        assert_eq!(describe(&selector(Some("a\u{1b}[2J"), None)), r#"subject "a\u{1b}[2J""#);
        assert_eq!(describe(&selector(Some("alice"), Some("c"))), r#"subject "alice", channel "c""#);
        assert_eq!(time(1_764_043_392_123), "2025-11-25T04:03:12Z");
        assert_eq!((count(0, "stream"), count(1, "node")), ("0 streams".into(), "1 node".into()));
    }
}
