use tidegate_policy::{Grant, Request, Result};

tidegate_policy::policy!(authorize);

fn authorize(_request: &Request, _channels: &[String]) -> Result<Grant> {
    let _ = redis::Client::open("redis://localhost");
    Ok(Grant::to("anybody"))
}
