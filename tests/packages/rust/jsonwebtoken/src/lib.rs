use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;
use tidegate_policy::{Grant, Rejection, Request, Result};

tidegate_policy::policy!(authorize);

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

fn authorize(request: &Request, _channels: &[String]) -> Result<Grant> {
    let key = DecodingKey::from_secret(b"0123456789abcdef0123456789abcdef")?;
    let mut validation = Validation::default();
    validation.leeway = 0;
    let token = request.bearer().unwrap_or_default();
    match jsonwebtoken::decode::<Claims>(token, &key, &validation) {
        Ok(token) => Ok(Grant::to(token.claims.sub)),
        Err(error) => Err(Rejection::unauthorized("Unauthorized").with_reason(error.to_string()).into()),
    }
}
