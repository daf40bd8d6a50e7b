//! The connection for notifications: it subscribes to every channel once per node, and again after each reconnect.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::store::redis::error::pong;
use crate::store::redis::node_link::{Changes, NodeSource, next_change};
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

/// The node to subscribe at. Each node of a deployment gets all messages.
#[async_trait]
pub(crate) trait NotificationSource: NodeSource {
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
    /// The node to subscribe at.
    source: Arc<dyn NotificationSource>,
    timeout: Duration,
    handler: Weak<dyn NotificationHandler>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    /// Of refused subscriptions.
    refusals: RareLog,
}

/// A connection for notifications.
struct Connected {
    connection: MultiplexedConnection,
    /// Notified when the connection was lost.
    disconnected: Arc<Notify>,
    /// The canaries that arrived; `None` if the source has none, or if the store's user may not read them.
    canaries: Option<CanaryReceiver>,
}

impl SubscriberTask {
    /// Connects, and reconnects after each failure, until the handler is dropped.
    async fn run(self) {
        let (mut retry, mut moves) = (Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY), self.source.moves());
        loop {
            let Err(error) = self.serve(&mut retry).await;
            let Some(handler) = self.handler.upgrade() else { return };
            self.metrics.pubsub_failures.inc();
            self.source.suspect();
            handler.lost(&StoreError::from(error).to_string());
            drop(handler);
            tokio::select! {
                () = tokio::time::sleep(retry.next_delay()) => {}
                () = next_change(&mut moves) => retry.reset(),
            }
        }
    }

    /// Connects, and keeps the wanted channels subscribed until the connection fails or the node moves.
    async fn serve(&self, retry: &mut Backoff) -> Result<Infallible, RedisError> {
        // Before the source is asked, so that no change after its answer is missed.
        let (mut moves, mut renewals) = (self.source.moves(), self.source.renewals());
        let mut current = self.connect().await?;
        retry.reset();
        self.metrics.pubsub_connects.inc();
        // While certificates are renewed, the connection with the old ones: it stands until the new one has subscribed to all channels.
        let mut previous = None;
        loop {
            self.restart_subscriptions().await;
            let Connected { connection, disconnected, canaries } = &mut current;
            let mut for_pings = connection.clone();
            let next = tokio::select! {
                failed = self.keep_subscribed(connection, &mut previous) => return failed,
                failed = self.ping(&mut for_pings) => return failed,
                () = disconnected.notified() => {
                    return Err((ErrorKind::Io, "the connection for notifications was closed").into());
                }
                error = self.failed(canaries.as_ref()) => return Err(error),
                () = next_change(&mut moves) => {
                    return Err((ErrorKind::Io, "another node became the master").into());
                }
                next = self.renew(&mut renewals) => next,
            };
            self.metrics.pubsub_connects.inc();
            let replaced = std::mem::replace(&mut current, next);
            // If a connection stands that has subscribed to all channels, it stays in place of one that has not yet.
            previous.get_or_insert(replaced);
        }
    }

    /// Queues all channels again, for a new connection.
    async fn restart_subscriptions(&self) {
        self.shared.subscriptions.lock().restart();
        loop {
            // A binding, so that the lock is not held while others run.
            let is_incomplete = self.shared.subscriptions.lock().continue_restart();
            if !is_incomplete {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits for new certificates, and connects with them.
    async fn renew(&self, renewals: &mut Changes) -> Connected {
        next_change(renewals).await;
        let mut retry = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        loop {
            match self.connect().await {
                Ok(connected) => return connected,
                Err(error) => {
                    self.metrics.pubsub_failures.inc();
                    tracing::warn!(error = %StoreError::from(error), "no connection for notifications with the new certificates; the present one stays");
                }
            }
            tokio::time::sleep(retry.next_delay()).await;
        }
    }

    /// Subscribes and unsubscribes as channels are wanted. Closes the previous connection when all channels are subscribed.
    async fn keep_subscribed(
        &self,
        connection: &mut MultiplexedConnection,
        previous: &mut Option<Connected>,
    ) -> Result<Infallible, RedisError> {
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
            *previous = None;
            let next_attempt = self.shared.subscriptions.lock().next_attempt();
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep_until(next_attempt.unwrap_or_else(Instant::now)), if next_attempt.is_some() => {}
            }
        }
    }

    /// Returns when the connection proves nothing any more.
    async fn failed(&self, canaries: Option<&CanaryReceiver>) -> RedisError {
        match canaries {
            Some(canaries) => self.source.failed(canaries).await,
            None => std::future::pending().await,
        }
    }

    /// Connects to a node that gets messages.
    async fn connect(&self) -> Result<Connected, RedisError> {
        let (disconnected, canaries) = (Arc::new(Notify::new()), watch::Sender::new(0));
        let received = canaries.subscribe();
        let canary_channel = self.source.canary_channel().map(|name| name.as_bytes().to_vec());
        let (handler, own_disconnected) = (self.handler.clone(), Arc::clone(&disconnected));
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
                (PushKind::Disconnection, _) => own_disconnected.notify_one(),
                _ => {}
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_push_sender(on_push);
        let client = self.source.client().await?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        self.source.verify(&mut connection).await?;
        let canaries = self.subscribe_canary(&mut connection).await?.then_some(received);
        if let Some(canaries) = &canaries {
            self.source.prove(canaries).await?;
        }
        Ok(Connected { connection, disconnected, canaries })
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
            pong(ping.map_err(|_| (ErrorKind::Io, "no reply to a ping"))?)?;
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
