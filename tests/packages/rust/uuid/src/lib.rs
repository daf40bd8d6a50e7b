use tidegate_policy::{Grant, Request, Result};
use uuid::{NoContext, Timestamp, Uuid};

tidegate_policy::policy!(authorize);

fn authorize(_request: &Request, _channels: &[String]) -> Result<Grant> {
    let now = tidegate_policy::context::now();
    let v7 = Uuid::new_v7(Timestamp::from_unix(NoContext, now / 1000, (now % 1000 * 1_000_000) as u32));
    assert_eq!(v7.get_timestamp().map(|time| time.to_unix().0), Some(now / 1000));
    assert_ne!(Uuid::new_v4(), Uuid::new_v4());
    Ok(Grant::to(v7.to_string()[..13].to_owned()))
}
