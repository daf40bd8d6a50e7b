use biscuit_auth::macros::{authorizer, biscuit};
use biscuit_auth::{Biscuit, KeyPair};
use tidegate_policy::{Grant, Rejection, Request, Result};

tidegate_policy::policy!(authorize);

/// Signs a token and verifies it, with the limit of time of the crate.
fn authorize(request: &Request, _channels: &[String]) -> Result<Grant> {
    let (mine, other) = (KeyPair::new(), KeyPair::new());
    let signer = if request.query("signer").as_deref() == Some("other") { &other } else { &mine };
    let token = biscuit!(r#"user("alice"); check if time($time), $time < 2026-01-01T00:00:00Z"#).build(signer)?;
    let rejected = |error: biscuit_auth::error::Token| Rejection::unauthorized("Unauthorized").with_reason(error.to_string());
    let token = Biscuit::from(token.to_vec()?, mine.public()).map_err(rejected)?;
    let now = tidegate_policy::context::system_time();
    let authorizer = authorizer!(r#"time({now}); allow if user("alice")"#, now = now);
    authorizer.build(&token)?.authorize().map_err(rejected)?;
    Ok(Grant::to("alice"))
}
