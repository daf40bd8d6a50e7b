//! The connection for notifications: it subscribes to every channel once per node, and again after each reconnect.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::store::redis::node_link::FixedNode;
use crate::store::redis::subscriptions::{Batch, Subscriptions};
use crate::store::{NotificationHandler, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::util::backoff::Backoff;
use crate::util::client_key::ClientKey;
use crate::util::rare_log::RareLog;

const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The delay after the first failed connection.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// At most one warning about refused channels in this time: clients may ask for any number of them.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Which node to subscribe at. Each node of a deployment gets all messages.
#[async_trait]
pub(crate) trait NotificationSource: Send + Sync + 'static {
    /// A client of the node. Asked before each attempt to connect.
    async fn client(&self) -> Result<Client, RedisError>;
    /// The channel for messages of the source to itself, to prove that the node gets the messages of others.
    fn canary_channel(&self) -> Option<&str> {
        None
    }
    /// Proves that the node of the last client gets messages. The connection is subscribed to the canary channel only.
    async fn prove(&self, _canaries: &CanaryReceiver) -> Result<(), RedisError> {
        Ok(())
    }
    /// Returns when the connection must be made again, perhaps to another node: why.
    async fn failed(&self, _canaries: &CanaryReceiver) -> RedisError {
        std::future::pending().await
    }
}

#[async_trait]
impl NotificationSource for FixedNode {
    async fn client(&self) -> Result<Client, RedisError> {
        Ok(self.0.clone())
    }
}

/// The number of the last canary that arrived.
pub(crate) type CanaryReceiver = watch::Receiver<u64>;

/// The channels to subscribe to, and the task that keeps them subscribed.
pub struct NotificationSubscriber {
    shared: Arc<Shared>,
    /// The task; the set aborts it on drop.
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    subscriptions: Mutex<Subscriptions>,
    changed: Notify,
}

impl NotificationSubscriber {
    /// Starts the task. `timeout` bounds connecting and each reply.
    pub fn start(
        source: Arc<dyn NotificationSource>,
        timeout: Duration,
        handler: Weak<dyn NotificationHandler>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (shared, mut tasks) = (Arc::<Shared>::default(), JoinSet::new());
        let (task_shared, refusals) = (Arc::clone(&shared), RareLog::new(REFUSAL_LOG_INTERVAL));
        tasks.spawn(SubscriberTask { source, timeout, handler, metrics, shared: task_shared, refusals }.run());
        Self { shared, _task: tasks }
    }

    pub fn subscribe(&self, channel: &Arc<str>, client: &Arc<ClientKey>) {
        self.shared.subscriptions.lock().subscribe(channel, client);
        self.shared.changed.notify_one();
    }

    pub fn unsubscribe(&self, channel: &str) {
        self.shared.subscriptions.lock().unsubscribe(channel);
        self.shared.changed.notify_one();
    }
}

struct SubscriberTask {
    source: Arc<dyn NotificationSource>,
    timeout: Duration,
    handler: Weak<dyn NotificationHandler>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    /// Of refused subscriptions.
    refusals: RareLog,
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

    /// Connects, and keeps the wanted channels subscribed until the connection fails or proves nothing any more.
    async fn serve(&self, retry: &mut Backoff) -> Result<Infallible, RedisError> {
        let (disconnected, canary_sender) = (Arc::new(Notify::new()), watch::Sender::new(0));
        let canaries = canary_sender.subscribe();
        let mut connection = self.connect(&disconnected, canary_sender).await?;
        let has_canary = self.subscribe_canary(&mut connection).await?;
        if has_canary {
            self.source.prove(&canaries).await?;
        }
        retry.reset();
        self.metrics.pubsub_connects.inc();
        self.shared.subscriptions.lock().restart();
        let mut for_pings = connection.clone();
        let failed = async {
            if has_canary || self.source.canary_channel().is_none() {
                self.source.failed(&canaries).await
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            failed = self.keep_subscribed(&mut connection) => failed,
            failed = self.ping(&mut for_pings) => failed,
            error = failed => Err(error),
            () = disconnected.notified() => Err((ErrorKind::Io, "the connection for notifications was closed").into()),
        }
    }

    /// Subscribes and unsubscribes as channels are wanted.
    async fn keep_subscribed(&self, connection: &mut MultiplexedConnection) -> Result<Infallible, RedisError> {
        loop {
            // A binding, so that the lock is not held in the body.
            let batch = self.shared.subscriptions.lock().take(Instant::now());
            if let Some(Batch { subscribe, unsubscribe }) = batch {
                if !subscribe.is_empty() {
                    self.subscribe(connection, &subscribe).await?;
                }
                if !unsubscribe.is_empty() {
                    connection.unsubscribe(&names(&unsubscribe)).await?;
                }
                continue;
            }
            let next_attempt = self.shared.subscriptions.lock().next_attempt();
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep_until(next_attempt.unwrap_or_else(Instant::now)), if next_attempt.is_some() => {}
            }
        }
    }

    async fn connect(
        &self,
        disconnected: &Arc<Notify>,
        canaries: watch::Sender<u64>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let (handler, disconnected) = (self.handler.clone(), Arc::clone(disconnected));
        let canary_channel = self.source.canary_channel().map(|name| name.as_bytes().to_vec());
        // The connection calls this directly for each message, without a queue in between.
        let on_push = move |push: PushInfo| -> Result<(), ()> {
            match (push.kind, &push.data[..]) {
                (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                    if canary_channel.as_ref() == Some(channel) {
                        if let Some(number) = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()) {
                            canaries.send_replace(number);
                        }
                    } else if let (Ok(channel), Some(handler)) = (std::str::from_utf8(channel), handler.upgrade()) {
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
        self.source.client().await?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Subscribes to the canary channel. False if there is none, or if the store's user may not read it.
    async fn subscribe_canary(&self, connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        let Some(channel) = self.source.canary_channel() else { return Ok(false) };
        match connection.subscribe(channel).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => {
                self.metrics.canary_failures.inc();
                tracing::warn!(channel, %error, "the store refuses the channel that proves that notifications arrive: nothing proves it");
                Ok(false)
            }
            Err(error) => Err(error),
        }
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
                let mut subscriptions = self.shared.subscriptions.lock();
                batch.iter().for_each(|channel| subscriptions.confirmed(channel));
                drop(subscriptions);
                if let Some(handler) = self.handler.upgrade() {
                    batch.iter().for_each(|channel| handler.subscribed(channel));
                }
            }
            (Err(error), [channel]) if matches!(error.kind(), ErrorKind::Server(_)) => self.refused(channel, &error),
            // Redis refuses the whole command if its user may not read one of the channels.
            (Err(error), _) if matches!(error.kind(), ErrorKind::Server(_)) => {
                let (first, second) = batch.split_at(batch.len() / 2);
                Box::pin(self.subscribe(connection, first)).await?;
                Box::pin(self.subscribe(connection, second)).await?;
            }
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }

    fn refused(&self, channel: &Arc<str>, error: &RedisError) {
        self.metrics.subscriptions_refused.inc();
        if !self.shared.subscriptions.lock().refused(channel, Instant::now()) {
            return;
        }
        self.refusals.write(|_| {
            tracing::warn!(%channel, %error, "the store refuses to subscribe to this channel, and perhaps to others; trying again");
        });
        if let Some(handler) = self.handler.upgrade() {
            handler.refused(channel);
        }
    }
}

fn names(channels: &[Arc<str>]) -> Vec<&str> {
    channels.iter().map(|name| &**name).collect()
}
