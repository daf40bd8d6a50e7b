//! The connection for notifications: it subscribes to every channel once per node, and again after each reconnect.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::store::{NotificationHandler, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::util::backoff::Backoff;

/// Maximum channels of one `SUBSCRIBE`.
const MAX_SUBSCRIBE_CHANNELS: usize = 256;
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The delay after the first failed connection.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// The channels to subscribe to, and the task that keeps them subscribed.
pub struct NotificationSubscriber {
    subscriptions: Arc<Subscriptions>,
    /// The task; the set aborts it on drop.
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Subscriptions {
    channels: Mutex<Channels>,
    changed: Notify,
}

#[derive(Default)]
struct Channels {
    wanted: HashSet<Arc<str>>,
    /// The channels to subscribe to or unsubscribe from, depending on whether they are in `wanted`.
    changed: HashSet<Arc<str>>,
}

impl NotificationSubscriber {
    /// Starts the task. `timeout` bounds connecting and each reply.
    pub fn start(
        client: Client,
        timeout: Duration,
        handler: Weak<dyn NotificationHandler>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (subscriptions, mut tasks) = (Arc::<Subscriptions>::default(), JoinSet::new());
        let task = SubscriberTask { client, timeout, handler, metrics, subscriptions: Arc::clone(&subscriptions) };
        tasks.spawn(task.run());
        Self { subscriptions, _task: tasks }
    }

    pub fn subscribe(&self, channel: &Arc<str>) {
        self.subscriptions.change(|channels| {
            channels.wanted.insert(Arc::clone(channel));
            channels.changed.insert(Arc::clone(channel));
        });
    }

    pub fn unsubscribe(&self, channel: &str) {
        self.subscriptions.change(|channels| {
            if let Some(channel) = channels.wanted.take(channel) {
                channels.changed.insert(channel);
            }
        });
    }
}

impl Subscriptions {
    fn change(&self, change: impl FnOnce(&mut Channels)) {
        change(&mut self.channels.lock());
        self.changed.notify_one();
    }

    /// The channels to subscribe to and to unsubscribe from since the last call; for a new connection, all wanted channels.
    fn take(&self, is_new_connection: bool) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let mut channels = self.channels.lock();
        let changed = std::mem::take(&mut channels.changed);
        if is_new_connection {
            return (channels.wanted.iter().cloned().collect(), Vec::new());
        }
        changed.into_iter().partition(|channel| channels.wanted.contains(channel))
    }
}

struct SubscriberTask {
    client: Client,
    timeout: Duration,
    handler: Weak<dyn NotificationHandler>,
    metrics: Arc<Metrics>,
    subscriptions: Arc<Subscriptions>,
}

impl SubscriberTask {
    /// Connects, and reconnects after each failure, until the handler is dropped.
    async fn run(self) {
        let mut retry = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        loop {
            let Err(error) = self.serve(&mut retry).await;
            let Some(handler) = self.handler.upgrade() else { return };
            self.metrics.pubsub_failures.inc();
            handler.lost(&StoreError::from(error).to_string());
            drop(handler);
            tokio::time::sleep(retry.next_delay()).await;
        }
    }

    /// Connects, and keeps the wanted channels subscribed until the connection fails.
    async fn serve(&self, retry: &mut Backoff) -> Result<Infallible, RedisError> {
        let disconnected = Arc::new(Notify::new());
        let mut connection = self.connect(&disconnected).await?;
        retry.reset();
        self.metrics.pubsub_connects.inc();
        let mut is_new_connection = true;
        loop {
            let (added, removed) = self.subscriptions.take(is_new_connection);
            is_new_connection = false;
            for batch in added.chunks(MAX_SUBSCRIBE_CHANNELS) {
                self.subscribe(&mut connection, batch).await?;
            }
            for batch in removed.chunks(MAX_SUBSCRIBE_CHANNELS) {
                connection.unsubscribe(&names(batch)).await?;
            }
            tokio::select! {
                () = self.subscriptions.changed.notified() => {}
                () = disconnected.notified() => {
                    return Err((ErrorKind::Io, "the connection for notifications was closed").into());
                }
                failed = self.ping(&mut connection) => return failed,
            }
        }
    }

    async fn connect(&self, disconnected: &Arc<Notify>) -> Result<MultiplexedConnection, RedisError> {
        let (handler, disconnected) = (self.handler.clone(), Arc::clone(disconnected));
        // The connection calls this directly for each message, without a queue in between.
        let on_push = move |push: PushInfo| -> Result<(), ()> {
            match (push.kind, &push.data[..]) {
                (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                    if let (Ok(channel), Some(handler)) = (std::str::from_utf8(channel), handler.upgrade()) {
                        handler.notified(channel, payload);
                    }
                }
                (PushKind::Disconnection, _) => disconnected.notify_one(),
                _ => {}
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_push_sender(on_push);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Pings at intervals until one fails.
    async fn ping(&self, connection: &mut MultiplexedConnection) -> Result<Infallible, RedisError> {
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            let ping = tokio::time::timeout(self.timeout, cmd("PING").exec_async(connection)).await;
            ping.map_err(|_| (ErrorKind::Io, "no reply to a ping"))??;
        }
    }

    async fn subscribe(&self, connection: &mut MultiplexedConnection, batch: &[Arc<str>]) -> Result<(), RedisError> {
        match (connection.subscribe(&names(batch)).await, batch) {
            (Ok(()), _) => {
                if let Some(handler) = self.handler.upgrade() {
                    batch.iter().for_each(|channel| handler.subscribed(channel));
                }
            }
            (Err(error), [channel]) if matches!(error.kind(), ErrorKind::Server(_)) => {
                tracing::warn!(%channel, %error, "the store refuses to subscribe to this channel");
            }
            // Redis refuses the whole command if its user may not read one of the channels.
            (Err(error), _) if matches!(error.kind(), ErrorKind::Server(_)) => {
                for channel in batch {
                    Box::pin(self.subscribe(connection, std::slice::from_ref(channel))).await?;
                }
            }
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }
}

fn names(channels: &[Arc<str>]) -> Vec<&str> {
    channels.iter().map(|name| &**name).collect()
}
