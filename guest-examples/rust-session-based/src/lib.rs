//! A Tidegate policy that allows every channel to clients with a session.

use serde::Deserialize;
use tidegate_policy::{Grant, Rejection, Request, Result, lookup};

tidegate_policy::policy!(authorize);

/// Decides whether the client may read these channels.
fn authorize(request: &Request, channels: &[String]) -> Result<Grant> {
    let user = sign_in(request)?;
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

#[cfg(test)]
mod tests;
