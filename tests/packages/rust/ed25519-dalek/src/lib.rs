use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use tidegate_policy::{Grant, Rejection, Request, Result};

tidegate_policy::policy!(authorize);

const KEY: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";

fn authorize(request: &Request, _channels: &[String]) -> Result<Grant> {
    let key: [u8; 32] = std::array::from_fn(|i| u8::from_str_radix(&KEY[2 * i..2 * i + 2], 16).unwrap_or_default());
    let key = VerifyingKey::from_bytes(&key)?;
    let signature = URL_SAFE_NO_PAD.decode(request.header("x-signature").unwrap_or_default())?;
    let unauthorized = |_| Rejection::unauthorized("Unauthorized");
    let signature = Signature::from_slice(&signature).map_err(unauthorized)?;
    key.verify_strict(b"alice", &signature).map_err(unauthorized)?;
    Ok(Grant::to("alice"))
}
