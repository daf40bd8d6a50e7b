use chrono::{Timelike, Utc};
use tidegate_policy::{Grant, Rejection, Request, Result};

tidegate_policy::policy!(authorize);

fn authorize(_request: &Request, _channels: &[String]) -> Result<Grant> {
    match Utc::now().hour() {
        8..18 => Ok(Grant::to(Utc::now().to_rfc3339())),
        _ => Err(Rejection::forbidden("Closed").into()),
    }
}
