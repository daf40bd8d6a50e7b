//! The decision, without the interface around it: it compiles for any target, so `cargo test` runs it as it is.

use std::fmt;

use serde_json::Value;

/// What the decision needs to know from the store.
pub trait Store {
    /// The string at `key`.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure>;
    /// Whether the set at `key` holds `member`.
    fn set_contains(&self, key: &str, member: &str) -> Result<bool, Failure>;
}

/// Why a look-up gave no answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failure {
    /// The operator allowed no such key.
    Denied,
    /// The store did not answer.
    Unavailable,
}

/// Why a client stays out. The text is for the operator, and so it never holds a session id; the client gets `status` and `body`.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    NoSession,
    UnknownSession,
    LookupFailed(Failure),
    NotAdmin { user: String },
    NotInTeam { user: String, team: String },
    NotOwnChannel { user: String, channel: String },
}

impl Refusal {
    /// The HTTP status for the client.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoSession | Self::UnknownSession => 401,
            Self::LookupFailed(_) => 503,
            Self::NotAdmin { .. } | Self::NotInTeam { .. } | Self::NotOwnChannel { .. } => 403,
        }
    }

    /// The words for the client.
    pub fn body(&self) -> &'static str {
        match self {
            Self::NoSession | Self::UnknownSession => "Unauthorized",
            Self::LookupFailed(_) => "Try again",
            Self::NotAdmin { .. } => "Admin access required",
            Self::NotInTeam { .. } => "Not a team member",
            Self::NotOwnChannel { .. } => "You can only access your own channels",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSession => write!(f, "no session"),
            Self::UnknownSession => write!(f, "unknown session"),
            Self::LookupFailed(Failure::Denied) => write!(f, "look-up denied"),
            Self::LookupFailed(Failure::Unavailable) => write!(f, "look-up unavailable"),
            Self::NotAdmin { user } => write!(f, "{user} is not an admin"),
            Self::NotInTeam { user, team } => write!(f, "{user} is not in team {team}"),
            Self::NotOwnChannel { user, channel } => {
                write!(f, "{channel} is not a channel of {user}")
            }
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::LookupFailed(failure)
    }
}

/// The id of the user whose session the cookies name, if that user may read every channel. `cookies` are the values of the
/// request's cookie headers, in order. The first channel that fails decides.
pub fn decide<'a>(
    store: &impl Store,
    cookies: impl IntoIterator<Item = &'a [u8]>,
    channels: &[String],
) -> Result<String, Refusal> {
    let user = sign_in(store, cookies)?;
    for channel in channels {
        user.check(store, channel)?;
    }
    Ok(user.id)
}

struct User {
    id: String,
    is_admin: bool,
}

fn sign_in<'a>(store: &impl Store, cookies: impl IntoIterator<Item = &'a [u8]>) -> Result<User, Refusal> {
    let session = cookie(cookies, b"session").filter(|value| !value.is_empty()).ok_or(Refusal::NoSession)?;
    // Keys are text, so a session id that is none cannot be known.
    let session = str::from_utf8(session).map_err(|_| Refusal::UnknownSession)?;
    let record = store.get(&format!("session:{session}"))?.ok_or(Refusal::UnknownSession)?;
    User::parse(&record).ok_or(Refusal::UnknownSession)
}

/// The value of the first cookie of that name. Whatever is no `name=value` is skipped, as browsers' and servers' parsers do.
fn cookie<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    headers.into_iter().flat_map(|header| header.split(|&byte| byte == b';')).find_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        (pair[..equals].trim_ascii() == name).then(|| pair[equals + 1..].trim_ascii())
    })
}

impl User {
    /// Reads `{"id":"alice","role":"member"}`. Without an id it is no session; any role but `admin` gives nothing.
    fn parse(record: &[u8]) -> Option<Self> {
        let record: Value = serde_json::from_slice(record).ok()?;
        let id = record["id"].as_str().filter(|id| !id.is_empty())?;
        Some(Self { id: id.to_owned(), is_admin: record["role"] == "admin" })
    }

    fn check(&self, store: &impl Store, channel: &str) -> Result<(), Refusal> {
        let user = || self.id.clone();
        if channel == "default" {
            return Ok(());
        }
        if channel.starts_with("admin-") {
            return if self.is_admin { Ok(()) } else { Err(Refusal::NotAdmin { user: user() }) };
        }
        if let Some(team) = channel.strip_prefix("team-") {
            let is_member = store.set_contains(&format!("team:{team}:members"), &self.id)?;
            return if is_member { Ok(()) } else { Err(Refusal::NotInTeam { user: user(), team: team.to_owned() }) };
        }
        if self.owns(channel) {
            Ok(())
        } else {
            Err(Refusal::NotOwnChannel { user: user(), channel: channel.to_owned() })
        }
    }

    fn owns(&self, channel: &str) -> bool {
        channel.strip_prefix(self.id.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

#[cfg(test)]
mod tests;
