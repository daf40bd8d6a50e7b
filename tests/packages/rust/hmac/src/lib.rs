use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tidegate_policy::{Grant, Rejection, Request, Result};

tidegate_policy::policy!(authorize);

fn authorize(request: &Request, _channels: &[String]) -> Result<Grant> {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef")?;
    mac.update(b"alice");
    let tag = request.header("x-tag").unwrap_or_default();
    let tag: Vec<u8> = (0..tag.len() / 2).map(|i| u8::from_str_radix(&tag[2 * i..2 * i + 2], 16).unwrap_or_default()).collect();
    match mac.verify_slice(&tag) {
        Ok(()) => Ok(Grant::to("alice")),
        Err(_) => Err(Rejection::unauthorized("Unauthorized").into()),
    }
}
