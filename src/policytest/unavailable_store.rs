//! A store that is away, for the cases that want to know what a policy does then.

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use crate::event::{NewEvent, StreamId};
use crate::store::command::{Command, Reply};
use crate::store::{Limits, NotificationHandler, Page, Retention, Store, StoreError};

/// Fails whatever it is asked.
pub struct Away;

fn away<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the case says that it is away".into()))
}

#[async_trait]
impl Store for Away {
    fn start(&self, _: Weak<dyn NotificationHandler>) {}

    fn watch(&self, _: &Arc<str>) {}

    fn unwatch(&self, _: &str) {}

    fn lead(&self, _: &Arc<str>) {}

    async fn read(&self, _: &str, _: StreamId, _: Limits) -> Result<Page, StoreError> {
        away()
    }

    async fn emit(&self, _: &str, _: &NewEvent, _: Retention) -> Result<StreamId, StoreError> {
        away()
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        away()
    }

    async fn hash_get(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        away()
    }

    async fn hash_all(&self, _: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        away()
    }

    async fn hash_set(&self, _: &str, _: &str, _: Option<&str>) -> Result<(), StoreError> {
        away()
    }

    async fn set_contains(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        away()
    }

    async fn command(&self, _: &Command) -> Result<Reply, StoreError> {
        away()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        away()
    }
}
