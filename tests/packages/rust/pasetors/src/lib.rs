use pasetors::Public;
use pasetors::claims::ClaimsValidationRules;
use pasetors::keys::AsymmetricPublicKey;
use pasetors::token::UntrustedToken;
use pasetors::version4::V4;
use pasetors::public;
use tidegate_policy::{Grant, Rejection, Request, Result};

tidegate_policy::policy!(authorize);

const KEY: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";

fn authorize(request: &Request, _channels: &[String]) -> Result<Grant> {
    match subject(request.bearer().unwrap_or_default()) {
        Ok(subject) => Ok(Grant::to(subject)),
        Err(error) => Err(Rejection::unauthorized("Unauthorized").with_reason(format!("{error:?}")).into()),
    }
}

fn subject(token: &str) -> std::result::Result<String, pasetors::errors::Error> {
    let key: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&KEY[2 * i..2 * i + 2], 16).unwrap_or_default()).collect();
    let key = AsymmetricPublicKey::<V4>::from(&key)?;
    let token = UntrustedToken::<Public, V4>::try_from(token)?;
    let token = public::verify(&key, &token, &ClaimsValidationRules::new(), None, None)?;
    let claim = token.payload_claims().and_then(|claims| claims.get_claim("sub")?.as_str());
    claim.map(str::to_owned).ok_or(pasetors::errors::Error::InvalidClaim)
}
