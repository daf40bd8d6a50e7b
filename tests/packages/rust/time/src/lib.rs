use tidegate_policy::{Grant, Rejection, Request, Result};
use time::OffsetDateTime;

tidegate_policy::policy!(authorize);

fn authorize(_request: &Request, _channels: &[String]) -> Result<Grant> {
    match OffsetDateTime::from(tidegate_policy::context::system_time()).hour() {
        8..18 => Ok(Grant::to("anybody")),
        _ => Err(Rejection::forbidden("Closed").into()),
    }
}
