//! A Tidegate policy that allows users their own channels.

use serde::Deserialize;
use tidegate_policy::{Grant, Rejection, Request, Result, lookup};

tidegate_policy::policy!(authorize);

/// Decides whether the client may read these channels. The first channel that it may not read determines the rejection.
fn authorize(request: &Request, channels: &[String]) -> Result<Grant> {
    let user = sign_in(request)?;
    if let Some(channel) = channels.iter().find(|channel| !user.owns(channel)) {
        let reason = format!("{channel} is not a channel of {}", user.id);
        return Err(Rejection::forbidden("You can only access your own channels").with_reason(reason).into());
    }
    let reason = format!("{}: {} channels", user.id, channels.len());
    Ok(Grant::to(user.id).with_reason(reason))
}

/// The app's JSON at the key `session:<sid>`.
#[derive(Deserialize)]
struct User {
    id: String,
}

fn sign_in(request: &Request) -> Result<User> {
    let unauthorized = |reason| Rejection::unauthorized("Unauthorized").with_reason(reason);
    let sid = request.cookie("session").ok_or_else(|| unauthorized("no session"))?;
    match lookup::json::<User>(&format!("session:{sid}")) {
        Ok(Some(user)) if !user.id.is_empty() => Ok(user),
        Ok(_) | Err(lookup::Error::Unreadable(_)) => Err(unauthorized("unknown session").into()),
        Err(error) => Err(error.into()),
    }
}

impl User {
    /// All users own `default`; alice also owns `alice`, `alice-inbox` and all other channels that begin with `alice-`.
    fn owns(&self, channel: &str) -> bool {
        let own = |rest: &str| rest.is_empty() || rest.starts_with('-');
        channel == "default" || channel.strip_prefix(self.id.as_str()).is_some_and(own)
    }
}

#[cfg(test)]
mod tests;
