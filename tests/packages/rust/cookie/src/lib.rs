use cookie::{Cookie, CookieJar, Key};
use tidegate_policy::{Grant, Rejection, Request, Result};

tidegate_policy::policy!(authorize);

/// A signed cookie names the user; a private one, with a random nonce, is set and read back.
fn authorize(request: &Request, _channels: &[String]) -> Result<Grant> {
    let key = Key::from(&std::array::from_fn::<u8, 64, _>(|index| index as u8));
    let mut jar = CookieJar::new();
    jar.add_original(Cookie::new("session", request.cookie("session").unwrap_or_default().to_owned()));
    let session = jar.signed(&key).get("session").ok_or(Rejection::unauthorized("Unauthorized"))?;
    jar.private_mut(&key).add(Cookie::new("seen", "yes"));
    let sealed = jar.get("seen").map(Cookie::to_string).unwrap_or_default();
    assert_eq!(jar.private(&key).get("seen").as_ref().map(Cookie::value), Some("yes"));
    Ok(Grant::to(session.value()).header("set-cookie", sealed))
}
