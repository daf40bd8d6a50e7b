//! `tidegate revoke`: closes streams on all nodes, optionally with a ban for some time.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{ArgGroup, Args};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::authz::revocation_list::Revocation;
use crate::commands::control_client::{FleetTargetArgs, Target, parse};
use crate::commands::{print, print_warning, time};
use crate::config::ConfigError;
use crate::fleet::revocation;
use crate::fleet::revocation::{ActiveRevocations, RevocationRequest, RevocationResult, RevokeError};
use crate::policy::stream_selector::StreamSelector;
use crate::util::clock::now_ms;
use crate::util::duration::parse_argument;
use crate::util::printable::printable;

/// A smaller distance between the clocks of the store and of this machine is not mentioned.
const MIN_NOTED_CLOCK_DISTANCE: Duration = Duration::from_secs(30);

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
    #[arg(long = "for", value_name = "TIME", value_parser = parse_argument)]
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

pub async fn run(args: &RevokeArgs) -> anyhow::Result<()> {
    let target = args.target.open().await?;
    if args.list {
        return list(&target, args.json).await;
    }
    match &args.lift {
        Some(id) => lift(&target, id, args.json).await,
        None => revoke(&target, args).await,
    }
}

async fn revoke(target: &Target, args: &RevokeArgs) -> anyhow::Result<()> {
    let request = RevocationRequest {
        subject: args.subject.as_deref().map(Into::into),
        channel: args.channel.as_deref().map(Into::into),
        all: args.all,
        time: args.time,
    };
    // Invalid arguments are a usage error, and are found before a request is sent.
    request.clone().check().map_err(|error| ConfigError(format!("revoke: {error}")))?;
    let revoked: RevocationResult = match target {
        Target::Store { store, keys, .. } => {
            revocation::revoke(&**store, keys, request).await.map_err(|error| match error {
                // The store may have executed a command whose reply was lost.
                RevokeError::Store(error) if error.is_transient() => anyhow::Error::new(error)
                    .context("--store: it is unknown whether the revocation has reached the nodes, so revoke again"),
                RevokeError::Store(error) => anyhow::Error::new(error).context("--store"),
                other => other.into(),
            })?
        }
        Target::Gateway(gateway) => {
            parse(gateway.call(Method::POST, "/v1/revoke", Some(json!(request).to_string())).await?)?
        }
    };
    if revoked.missing > 0 {
        let nodes = count(revoked.missing as u64, "node");
        print_warning(&format!("{nodes} did not report in time how many streams were closed there"));
    }
    let result = print(args.json, &json!(revoked), || {
        let (streams, nodes) = (count(revoked.streams, "stream"), count(revoked.nodes.len() as u64, "node"));
        let mut text = format!("closed {streams} on {nodes}\n");
        if let Some(Revocation { id, until, .. }) = &revoked.revocation {
            text +=
                &format!("revoked until {}; to remove it: tidegate revoke --lift {}\n", time(*until), printable(id));
            text += &revoked.now.map(|now| describe_clock(Some(now))).unwrap_or_default();
        }
        text
    });
    result?;
    ensure!(
        !revoked.not_replicated,
        "it is not replicated: {} did not confirm it, and no replica of the store is known to have it, so that a failover may lose it: revoke again",
        count(revoked.missing as u64, "node")
    );
    Ok(())
}

async fn list(target: &Target, as_json: bool) -> anyhow::Result<()> {
    let active: ActiveRevocations = match target {
        Target::Store { store, keys, .. } => revocation::list(&**store, keys).await.context("--store")?,
        Target::Gateway(gateway) => parse(gateway.call(Method::GET, "/v1/revocations", None).await?)?,
    };
    print(as_json, &json!(active), || {
        let ActiveRevocations { revocations: list, now } = &active;
        if list.is_empty() {
            return "no active revocations\n".into();
        }
        let line =
            |it: &Revocation| format!("{}  until {}  {}\n", printable(&it.id), time(it.until), describe(&it.selector));
        list.iter().map(line).collect::<String>() + &describe_clock(*now)
    })
}

/// A line about the store's clock, if times would be misread because the clock of this machine differs.
fn describe_clock(store_now: Option<u64>) -> String {
    let Some(store_now) = store_now else {
        return "the store's time is not known (its user needs the right to TIME): some of these may have ended\n"
            .into();
    };
    let own_now = now_ms();
    let distance = Duration::from_millis(store_now.abs_diff(own_now));
    if distance < MIN_NOTED_CLOCK_DISTANCE {
        return String::new();
    }
    let distance = humantime::format_duration(Duration::from_secs(distance.as_secs()));
    let direction = if store_now > own_now { "fast" } else { "slow" };
    format!("times are those of the store's clock, which is {distance} {direction} against the clock of this machine\n")
}

async fn lift(target: &Target, id: &str, as_json: bool) -> anyhow::Result<()> {
    let is_lifted = match target {
        Target::Store { store, keys, .. } => revocation::lift(&**store, keys, id).await.context("--store")?,
        Target::Gateway(gateway) => {
            let path = format!("/v1/revocations/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
            let (status, answer) = gateway.request(Method::DELETE, &path, None).await?;
            let is_unknown = answer["error"]["code"] == "no_such_revocation";
            !is_unknown && gateway.check(status, answer).map(|_| true)?
        }
    };
    ensure!(is_lifted, "no revocation has the id {id:?}: `tidegate revoke --list` shows all");
    print(as_json, &json!({ "lifted": id }), || "removed\n".into())
}

/// Subjects and channels are quoted, so that control characters in them do not reach the terminal.
fn describe(selector: &StreamSelector) -> String {
    let part = |what: &str, name: &Option<Box<str>>| name.as_ref().map(|name| format!("{what} {name:?}"));
    let parts: Vec<String> =
        [part("subject", &selector.subject), part("channel", &selector.channel)].into_iter().flatten().collect();
    if parts.is_empty() { "all streams".into() } else { parts.join(", ") }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_is_described_without_control_characters() {
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
