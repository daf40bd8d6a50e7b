use jwt_simple::prelude::*;
use tidegate_policy::{Grant, Rejection, Request, Result};

tidegate_policy::policy!(authorize);

fn authorize(request: &Request, _channels: &[String]) -> Result<Grant> {
    let key = HS256Key::from_bytes(b"0123456789abcdef0123456789abcdef");
    let options = VerificationOptions { time_tolerance: Some(Duration::from_secs(0)), ..Default::default() };
    let token = request.bearer().unwrap_or_default();
    match key.verify_token::<NoCustomClaims>(token, Some(options)) {
        Ok(claims) => Ok(Grant::to(claims.subject.unwrap_or_default())),
        Err(error) => Err(Rejection::unauthorized("Unauthorized").with_reason(error.to_string()).into()),
    }
}
