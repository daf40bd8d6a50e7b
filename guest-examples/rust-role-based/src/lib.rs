//! A Tidegate policy with sessions, roles and teams.

use serde::Deserialize;
use tidegate_policy::{Grant, Rejection, Request, Result, json, lookup};

tidegate_policy::policy!(authorize);

/// Decides whether the client may read these channels. The first channel that it may not read determines the rejection.
fn authorize(request: &Request, channels: &[String]) -> Result<Grant> {
    let user = sign_in(request)?;
    for channel in channels {
        user.check(channel)?;
    }
    let reason = format!("{}: {} channels", user.id, channels.len());
    Ok(Grant::to(user.id).with_reason(reason))
}

/// The app's JSON at the key `session:<sid>`.
#[derive(Deserialize)]
struct User {
    id: String,
    /// Ignored unless it is a string.
    #[serde(default, deserialize_with = "json::text_or_none")]
    role: Option<String>,
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
    fn check(&self, channel: &str) -> Result<()> {
        let id = &self.id;
        let reject = |text: &str, reason: String| Err(Rejection::forbidden(text).with_reason(reason).into());
        if channel == "default" {
            Ok(())
        } else if channel.starts_with("admin-") {
            match self.role.as_deref() {
                Some("admin") => Ok(()),
                _ => reject("Admin access required", format!("{id} is not an admin")),
            }
        } else if let Some(team) = channel.strip_prefix("team-") {
            match lookup::set_contains(&format!("team:{team}:members"), id)? {
                true => Ok(()),
                false => reject("Not a team member", format!("{id} is not in team {team}")),
            }
        } else {
            match channel.strip_prefix(id.as_str()) {
                Some(rest) if rest.is_empty() || rest.starts_with('-') => Ok(()),
                _ => reject("You can only access your own channels", format!("{channel} is not a channel of {id}")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
