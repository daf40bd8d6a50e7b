//! A Tidegate policy with sessions, roles and teams.

use serde::Deserialize;
use tidegate_policy::{Grant, Rejection, Request, Result, json, lookup};

tidegate_policy::policy!(authorize);

/// May this client read these channels? The first that it may not read decides.
fn authorize(request: &Request, channels: &[String]) -> Result<Grant> {
    let user = sign_in(request)?;
    for channel in channels {
        user.check(channel)?;
    }
    let reason = format!("{}: {} channels", user.id, channels.len());
    Ok(Grant::to(user.id).because(reason))
}

/// What the app keeps at `session:<sid>`.
#[derive(Deserialize)]
struct User {
    id: String,
    /// Whatever is no text is no role.
    #[serde(default, deserialize_with = "json::text_or_none")]
    role: Option<String>,
}

fn sign_in(request: &Request) -> Result<User> {
    let unauthorized = |reason| Rejection::unauthorized("Unauthorized").because(reason);
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
        let refuse = |text: &str, reason: String| Err(Rejection::forbidden(text).because(reason).into());
        if channel == "default" {
            Ok(())
        } else if channel.starts_with("admin-") {
            match self.role.as_deref() {
                Some("admin") => Ok(()),
                _ => refuse("Admin access required", format!("{id} is not an admin")),
            }
        } else if let Some(team) = channel.strip_prefix("team-") {
            match lookup::set_contains(&format!("team:{team}:members"), id)? {
                true => Ok(()),
                false => refuse("Not a team member", format!("{id} is not in team {team}")),
            }
        } else {
            match channel.strip_prefix(id.as_str()) {
                Some(rest) if rest.is_empty() || rest.starts_with('-') => Ok(()),
                _ => refuse("You can only access your own channels", format!("{channel} is not a channel of {id}")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
