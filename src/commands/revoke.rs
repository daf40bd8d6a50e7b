//! `tidegate revoke`: streams end on all nodes, and stay out for a while if that is wanted.

use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::control_client::{FleetTargetArgs, Target};
use super::time;
use crate::config::ConfigError;
use crate::fleet::revocation::{self, Order, RevokeError, Revoked};
use crate::policy::{Denial, Whom};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["subject", "channel", "all", "list", "lift"]))]
pub struct RevokeArgs {
    /// Of whoever the policy calls so
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// To read this channel; with --subject, only theirs
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Everybody's, to read anything
    #[arg(long, conflicts_with_all = ["subject", "channel"])]
    all: bool,
    /// Keep them out for so long whatever the policy says, as 15m
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Show who is kept out
    #[arg(long, conflicts_with_all = ["subject", "channel", "all", "time", "lift"])]
    list: bool,
    /// Let somebody in again, by the id that --list shows
    #[arg(long, value_name = "ID", conflicts_with_all = ["subject", "channel", "all", "time"])]
    lift: Option<String>,
    #[command(flatten)]
    target: FleetTargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `GET /v1/revocations` answers.
#[derive(Deserialize)]
struct List {
    revocations: Vec<Denial>,
}

pub fn run(args: &RevokeArgs) -> anyhow::Result<()> {
    super::client_runtime()?.block_on(async {
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
    let order = Order {
        subject: args.subject.as_deref().map(Into::into),
        channel: args.channel.as_deref().map(Into::into),
        all: args.all,
        time: args.time,
    };
    // What is wrong with it is told as it was typed.
    order.clone().check().map_err(|error| ConfigError(format!("revoke: {error}")))?;
    let revoked: Revoked = match target {
        Target::Store(store, keys) => revocation::revoke(&**store, keys, order).await.map_err(|error| match error {
            RevokeError::Store(error) => anyhow::Error::new(error).context("--store"),
            other => other.into(),
        })?,
        Target::Gateway(gateway) => {
            let body = serde_json::to_string(&order).context("the order is not JSON")?;
            let answer = gateway.call(Method::POST, "/v1/revoke", Some(body)).await?;
            serde_json::from_value(answer).context("the gateway's answer is not what is expected")?
        }
    };
    if revoked.missing > 0 {
        eprintln!("tidegate: {} did not say in time how many streams it ended", nodes(revoked.missing));
    }
    if args.json {
        println!("{}", json!(revoked));
        return Ok(());
    }
    println!("ended {} on {}", count(revoked.streams, "stream"), nodes(revoked.nodes.len()));
    if let Some(Denial { id, until, .. }) = &revoked.denial {
        println!("kept out until {}; lifted by: tidegate revoke --lift {id}", time(*until));
    }
    Ok(())
}

async fn list(target: &Target, json: bool) -> anyhow::Result<()> {
    let list = match target {
        Target::Store(store, keys) => revocation::list(&**store, keys).await.context("--store")?,
        Target::Gateway(gateway) => {
            let answer = gateway.call(Method::GET, "/v1/revocations", None).await?;
            let List { revocations } =
                serde_json::from_value(answer).context("the gateway's answer is not what is expected")?;
            revocations
        }
    };
    if json {
        println!("{}", json!({ "revocations": list }));
        return Ok(());
    }
    if list.is_empty() {
        println!("nobody is kept out");
    }
    for Denial { id, whom, until } in list {
        println!("{id}  until {}  {}", time(until), describe(&whom));
    }
    Ok(())
}

async fn lift(target: &Target, id: &str, json: bool) -> anyhow::Result<()> {
    let was = match target {
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
    anyhow::ensure!(was, "nobody is kept out by the id {id:?} (tidegate revoke --list shows who is)");
    if json {
        println!("{}", json!({ "lifted": id }));
    } else {
        println!("lifted");
    }
    Ok(())
}

/// Names are a stranger's: quoted, so that they can do nothing to a terminal.
fn describe(whom: &Whom) -> String {
    let part = |what: &str, name: &Option<Box<str>>| name.as_ref().map(|name| format!("{what} {name:?}"));
    let parts: Vec<String> =
        [part("subject", &whom.subject), part("channel", &whom.channel)].into_iter().flatten().collect();
    if parts.is_empty() { "everybody".into() } else { parts.join(", ") }
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
    fn who_is_kept_out_in_words() {
        let whom = |subject: Option<&str>, channel: Option<&str>| Whom {
            subject: subject.map(Into::into),
            channel: channel.map(Into::into),
        };
        assert_eq!(describe(&whom(None, None)), "everybody");
        assert_eq!(describe(&whom(Some("a\u{1b}[2J"), None)), r#"subject "a\u{1b}[2J""#);
        assert_eq!(describe(&whom(Some("alice"), Some("c"))), r#"subject "alice", channel "c""#);
        assert_eq!(time(1_764_043_392_123), "2025-11-25T04:03:12Z");
        assert_eq!((count(0, "stream"), count(1, "node")), ("0 streams".into(), "1 node".into()));
    }
}
