//! Checks the claims of a token against its profile.

use serde_json::{Map, Value};

use crate::tokens::{Audience, Profile, TokenError};

impl Profile {
    /// `now` is in ms since the Unix epoch.
    pub(super) fn check_claims(&self, claims: &Map<String, Value>, now: u64) -> Result<(), TokenError> {
        #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
        let now = now as f64 / 1000.0;
        let leeway = f64::from(self.leeway);
        let invalid = |reason: &str| Err(TokenError::Claims(reason.into()));
        match numeric_date(claims, "exp")? {
            Some(exp) if now >= exp + leeway => return Err(TokenError::Expired),
            None if self.require_exp => return invalid("exp is missing, and the profile requires it"),
            _ => {}
        }
        if numeric_date(claims, "nbf")?.is_some_and(|nbf| now + leeway < nbf) {
            return invalid("nbf is in the future");
        }
        if self.issuer.is_some() && claims.get("iss").and_then(Value::as_str) != self.issuer.as_deref() {
            return invalid("iss is not the profile's issuer");
        }
        let Audience::Of(names) = &self.audience else { return Ok(()) };
        let is_accepted =
            |value: &Value| value.as_str().is_some_and(|name| names.iter().any(|accepted| accepted == name));
        match claims.get("aud") {
            None if names.is_empty() => Ok(()),
            None => invalid("aud is missing"),
            Some(_) if names.is_empty() => invalid("aud is set, and the profile has no audience"),
            Some(Value::Array(values)) if values.iter().any(is_accepted) => Ok(()),
            Some(value) if is_accepted(value) => Ok(()),
            Some(_) => invalid("aud does not name an audience of the profile"),
        }
    }
}

/// A time in seconds since the Unix epoch, if the claim is present.
fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let time = value.as_f64().filter(|time| time.is_finite());
    time.map(Some).ok_or_else(|| TokenError::Claims(format!("{name} is not a time")))
}
