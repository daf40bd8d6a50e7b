//! The node's connection for notifications: it subscribes to every channel once, and again after a lost link.

use crate::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::Notify;

use crate::store::{NotificationHandler, StoreError};
use crate::util::backoff::Backoff;

/// Channels of one `SUBSCRIBE`.
const MAX_SUBSCRIBE_CHANNELS: usize = 256;
/// Time between pings on the connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The first delay after a failed connection.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest delay after failed connections.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// The channels to subscribe to, and the task that keeps the subscriptions. Dropping this ends the task.
pub struct NotificationSubscriber {
    wanted: Arc<Wanted>,
    task: tokio::task::AbortHandle,
}

#[derive(Default)]
struct Wanted {
    channels: Mutex<Channels>,
    changed: Notify,
}

#[derive(Default)]
struct Channels {
    all: HashSet<Arc<str>>,
    /// Channels that changed since the task ran last. `all` says whether each is wanted now.
    touched: HashSet<Arc<str>>,
}

impl NotificationSubscriber {
    /// Starts the task.
    pub fn start(
        client: Client,
        timeout: Duration,
        handler: Weak<dyn NotificationHandler>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let wanted = Arc::new(Wanted::default());
        let task = tokio::spawn(keep(client, timeout, handler, Arc::clone(&wanted), metrics)).abort_handle();
        Self { wanted, task }
    }

    /// Subscribes to a channel, now and after every lost link.
    pub fn want(&self, channel: &Arc<str>) {
        self.wanted.change(|c| {
            c.all.insert(Arc::clone(channel));
            c.touched.insert(Arc::clone(channel));
        });
    }

    /// Ends a subscription.
    pub fn unwant(&self, channel: &str) {
        self.wanted.change(|c| {
            if let Some(channel) = c.all.take(channel) {
                c.touched.insert(channel);
            }
        });
    }
}

impl Drop for NotificationSubscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wanted {
    fn change(&self, with: impl FnOnce(&mut Channels)) {
        with(&mut self.channels.lock());
        self.changed.notify_one();
    }

    /// The channels to subscribe to and to unsubscribe from since the last call; for a new connection, all wanted channels.
    fn take(&self, everything: bool) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let mut channels = self.channels.lock();
        let touched = std::mem::take(&mut channels.touched);
        if everything {
            return (channels.all.iter().cloned().collect(), Vec::new());
        }
        touched.into_iter().partition(|channel| channels.all.contains(channel))
    }
}

/// Connects, and reconnects after each failure, until the handler is dropped.
async fn keep(
    client: Client,
    timeout: Duration,
    handler: Weak<dyn NotificationHandler>,
    wanted: Arc<Wanted>,
    metrics: Arc<Metrics>,
) {
    let mut retry = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
    loop {
        let broken = Arc::new(Notify::new());
        let error = match connect(&client, timeout, &handler, &broken).await {
            Ok(connection) => {
                retry.reset();
                metrics.pubsub_connected();
                serve(connection, timeout, &handler, &wanted, &broken).await
            }
            Err(error) => error,
        };
        let Some(handler) = handler.upgrade() else { return };
        metrics.pubsub_failed();
        handler.lost(&StoreError::from(error).to_string());
        drop(handler);
        tokio::time::sleep(retry.next_delay()).await;
    }
}

async fn connect(
    client: &Client,
    timeout: Duration,
    handler: &Weak<dyn NotificationHandler>,
    broken: &Arc<Notify>,
) -> Result<MultiplexedConnection, RedisError> {
    let (handler, broken) = (handler.clone(), Arc::clone(broken));
    // The connection calls this directly for each message, without a queue in between.
    let on_push = move |push: PushInfo| -> Result<(), ()> {
        match (push.kind, &push.data[..]) {
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                if let (Ok(channel), Some(handler)) = (std::str::from_utf8(channel), handler.upgrade()) {
                    handler.notified(channel, payload);
                }
            }
            (PushKind::Disconnection, _) => broken.notify_one(),
            _ => {}
        }
        Ok(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_push_sender(on_push);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Keeps the wanted channels subscribed until the connection fails.
async fn serve(
    mut connection: MultiplexedConnection,
    timeout: Duration,
    handler: &Weak<dyn NotificationHandler>,
    wanted: &Wanted,
    broken: &Notify,
) -> RedisError {
    let mut everything = true;
    loop {
        let (add, remove) = wanted.take(everything);
        everything = false;
        for batch in add.chunks(MAX_SUBSCRIBE_CHANNELS) {
            if let Err(error) = subscribe(&mut connection, batch, handler).await {
                return error;
            }
        }
        for batch in remove.chunks(MAX_SUBSCRIBE_CHANNELS) {
            let names: Vec<&str> = batch.iter().map(|name| &**name).collect();
            if let Err(error) = connection.unsubscribe(&names).await {
                return error;
            }
        }
        tokio::select! {
            () = wanted.changed.notified() => {}
            () = broken.notified() => return (ErrorKind::Io, "the connection for notifications was closed").into(),
            error = heartbeat(&mut connection, timeout) => return error,
        }
    }
}

/// Returns the error when a ping fails.
async fn heartbeat(connection: &mut MultiplexedConnection, timeout: Duration) -> RedisError {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        match tokio::time::timeout(timeout, cmd("PING").query_async::<Value>(connection)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) => return (ErrorKind::Io, "no answer to a ping").into(),
        }
    }
}

async fn subscribe(
    connection: &mut MultiplexedConnection,
    batch: &[Arc<str>],
    handler: &Weak<dyn NotificationHandler>,
) -> Result<(), RedisError> {
    let names: Vec<&str> = batch.iter().map(|name| &**name).collect();
    match connection.subscribe(&names).await {
        Ok(()) => {
            if let Some(handler) = handler.upgrade() {
                batch.iter().for_each(|channel| handler.subscribed(channel));
            }
            Ok(())
        }
        // Redis refuses the whole command if its user may not read one of the channels.
        Err(error) if matches!(error.kind(), ErrorKind::Server(_)) && batch.len() > 1 => {
            for channel in batch {
                Box::pin(subscribe(connection, std::slice::from_ref(channel), handler)).await?;
            }
            Ok(())
        }
        Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => {
            tracing::warn!(channel = %batch[0], %error, "the store refuses to subscribe to this channel");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
