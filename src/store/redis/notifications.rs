//! The node's one connection for doorbells: every channel is subscribed once on it, and again after a lost link.

use crate::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::Notify;

use crate::store::{NotificationHandler, StoreError};

/// Channels of one `SUBSCRIBE`.
const BATCH: usize = 256;
/// A silent connection is asked for a sign of life this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two attempts to connect, growing from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The channels that somebody wants, and the task that keeps them subscribed. Dropping this ends the task.
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
    /// What changed since the task looked last; the order of a channel's changes is settled by `all`.
    touched: HashSet<Arc<str>>,
}

impl NotificationSubscriber {
    /// Starts the task.
    pub fn start(
        client: Client,
        timeout: Duration,
        bell: Weak<dyn NotificationHandler>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let wanted = Arc::new(Wanted::default());
        let task = tokio::spawn(keep(client, timeout, bell, Arc::clone(&wanted), metrics)).abort_handle();
        Self { wanted, task }
    }

    /// Subscribes to a channel, now and after every lost link.
    pub fn want(&self, channel: &Arc<str>) {
        self.wanted.change(|c| {
            c.all.insert(Arc::clone(channel));
            c.touched.insert(Arc::clone(channel));
        });
    }

    /// Ends that.
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

    /// What is to be subscribed and what is no longer, since the last call; or, for a new connection, all that is wanted.
    fn take(&self, everything: bool) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let mut channels = self.channels.lock();
        let touched = std::mem::take(&mut channels.touched);
        if everything {
            return (channels.all.iter().cloned().collect(), Vec::new());
        }
        touched.into_iter().partition(|channel| channels.all.contains(channel))
    }
}

/// Connects, and connects again, for ever.
async fn keep(
    client: Client,
    timeout: Duration,
    bell: Weak<dyn NotificationHandler>,
    wanted: Arc<Wanted>,
    metrics: Arc<Metrics>,
) {
    let mut delay = RETRY.0;
    loop {
        let broken = Arc::new(Notify::new());
        let error = match connect(&client, timeout, &bell, &broken).await {
            Ok(connection) => {
                delay = RETRY.0;
                metrics.pubsub_connected();
                serve(connection, timeout, &bell, &wanted, &broken).await
            }
            Err(error) => error,
        };
        let Some(bell) = bell.upgrade() else { return };
        metrics.pubsub_failed();
        bell.lost(&StoreError::from(error).to_string());
        drop(bell);
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

async fn connect(
    client: &Client,
    timeout: Duration,
    bell: &Weak<dyn NotificationHandler>,
    broken: &Arc<Notify>,
) -> Result<MultiplexedConnection, RedisError> {
    let (bell, broken) = (bell.clone(), Arc::clone(broken));
    // The connection calls this itself for each message, so that none waits in a queue between.
    let on_push = move |push: PushInfo| -> Result<(), ()> {
        match (push.kind, &push.data[..]) {
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                if let (Ok(channel), Some(bell)) = (std::str::from_utf8(channel), bell.upgrade()) {
                    bell.rang(channel, payload);
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

/// Keeps what is wanted subscribed until the connection fails.
async fn serve(
    mut connection: MultiplexedConnection,
    timeout: Duration,
    bell: &Weak<dyn NotificationHandler>,
    wanted: &Wanted,
    broken: &Notify,
) -> RedisError {
    let mut everything = true;
    loop {
        let (add, remove) = wanted.take(everything);
        everything = false;
        for batch in add.chunks(BATCH) {
            if let Err(error) = subscribe(&mut connection, batch, bell).await {
                return error;
            }
        }
        for batch in remove.chunks(BATCH) {
            let names: Vec<&str> = batch.iter().map(|name| &**name).collect();
            if let Err(error) = connection.unsubscribe(&names).await {
                return error;
            }
        }
        tokio::select! {
            () = wanted.changed.notified() => {}
            () = broken.notified() => return (ErrorKind::Io, "the connection for doorbells was closed").into(),
            error = heartbeat(&mut connection, timeout) => return error,
        }
    }
}

/// Returns when the connection gives no sign of life.
async fn heartbeat(connection: &mut MultiplexedConnection, timeout: Duration) -> RedisError {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
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
    bell: &Weak<dyn NotificationHandler>,
) -> Result<(), RedisError> {
    let names: Vec<&str> = batch.iter().map(|name| &**name).collect();
    match connection.subscribe(&names).await {
        Ok(()) => {
            if let Some(bell) = bell.upgrade() {
                batch.iter().for_each(|channel| bell.watching(channel));
            }
            Ok(())
        }
        // Redis refuses the whole command where its user may not read one of the channels.
        Err(error) if matches!(error.kind(), ErrorKind::Server(_)) && batch.len() > 1 => {
            for channel in batch {
                Box::pin(subscribe(connection, std::slice::from_ref(channel), bell)).await?;
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
