//! A single server, whose address does not change.

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use redis::{Client, ConnectionAddr, RedisError};

use crate::store::NotificationHandler;
use crate::store::redis::connector::Connector;
use crate::store::redis::node_link::{Changes, NodeSource};
use crate::store::redis::notifications::NotificationSource;
use crate::store::slot::KeyScope;

/// The handler of changes of the master. Set when the gateway starts to follow channels.
#[derive(Default)]
pub(crate) struct MasterWatcher(OnceLock<Weak<dyn NotificationHandler>>);

impl MasterWatcher {
    pub fn set(&self, handler: Weak<dyn NotificationHandler>) {
        let _ = self.0.set(handler);
    }

    /// A connection to the master of these keys was opened, and no command was sent over it yet; or another node is their master.
    pub fn changed(&self, keys: &KeyScope) {
        if let Some(handler) = self.0.get().and_then(Weak::upgrade) {
            handler.master_changed(keys);
        }
    }
}

/// The server of `redis://`, `rediss://` or `redis+unix://`.
pub(crate) struct SingleNode {
    pub connector: Arc<Connector>,
    pub address: ConnectionAddr,
    pub watcher: Arc<MasterWatcher>,
}

#[async_trait]
impl NodeSource for SingleNode {
    async fn client(&self) -> Result<Client, RedisError> {
        self.connector.client_at(&self.address)
    }

    /// The server may have restarted, with older data or none.
    fn connected(&self) {
        self.watcher.changed(&KeyScope::All);
    }

    fn database(&self) -> i64 {
        self.connector.database()
    }

    fn renewals(&self) -> Changes {
        self.connector.renewals()
    }
}

impl NotificationSource for SingleNode {}
