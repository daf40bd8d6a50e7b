//! What a token claims, held against its profile.

use serde_json::{Map, Value};

use crate::tokens::{Audience, TokenError};

/// What a profile asks of claims.
pub struct Rules {
    pub issuer: Option<String>,
    pub audience: Audience,
    /// Seconds that clocks may differ.
    pub leeway: f64,
    pub require_exp: bool,
}

impl Rules {
    /// Checks the claims of a token whose signature holds. `now` is ms since 1970.
    pub fn check(&self, claims: &Map<String, Value>, now: u64) -> Result<(), TokenError> {
        #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
        let now = now as f64 / 1000.0;
        let wrong = |what: &str| Err(TokenError::Claims(what.into()));
        match time(claims, "exp")? {
            Some(exp) if now >= exp + self.leeway => return Err(TokenError::Expired),
            None if self.require_exp => return wrong("there is no exp, so it would hold for ever"),
            _ => {}
        }
        if time(claims, "nbf")?.is_some_and(|nbf| now + self.leeway < nbf) {
            return wrong("nbf: it does not hold yet");
        }
        if self.issuer.is_some() && claims.get("iss").and_then(Value::as_str) != self.issuer.as_deref() {
            return wrong("iss is not the profile's issuer");
        }
        let Audience::Of(names) = &self.audience else { return Ok(()) };
        let is_ours = |value: &Value| value.as_str().is_some_and(|name| names.iter().any(|own| own == name));
        match claims.get("aud") {
            None if names.is_empty() => Ok(()),
            None => wrong("there is no aud"),
            Some(_) if names.is_empty() => wrong("aud names an audience, and the profile has none"),
            Some(Value::Array(values)) if values.iter().any(is_ours) => Ok(()),
            Some(value) if is_ours(value) => Ok(()),
            Some(_) => wrong("aud is not the profile's audience"),
        }
    }
}

/// A time in seconds since 1970, if it is there.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|time| time.is_finite()) {
            Some(time) => Ok(Some(time)),
            None => Err(TokenError::Claims(format!("{name} is not a time"))),
        },
    }
}
