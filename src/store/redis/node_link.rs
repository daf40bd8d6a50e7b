//! A connection to one node of Redis that is made again after it was lost, before the next command needs it.
//!
//! A command is sent once, and only over a connection that is not known to be lost: a command that was sent may have been executed, whatever
//! happens to its reply. The `ConnectionManager` of the library fails the first command after a loss instead, whose result tells it of the loss, and
//! the first one after a failed attempt to connect, whose error it keeps.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisFuture, Value, cmd,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::store::redis::error::is_reply;

/// Between pings. They find a connection that was lost without a sign, as through a firewall, and keep others from being cut as idle. After a
/// command without a reply the next ping follows at once.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Where the node of a link is, and how to connect to it.
#[async_trait]
pub(crate) trait NodeSource: Send + Sync + 'static {
    /// A client of the node. Asked before each attempt to connect.
    async fn client(&self) -> Result<Client, RedisError>;
    /// A connection to the node stands, and no command was sent over it yet. What the node said before may not be true any more.
    fn connected(&self);
    /// The number of the database.
    fn database(&self) -> i64;
}

/// A node at an address that does not change.
pub(crate) struct FixedNode(pub Client);

#[async_trait]
impl NodeSource for FixedNode {
    async fn client(&self) -> Result<Client, RedisError> {
        Ok(self.0.clone())
    }

    fn connected(&self) {}

    fn database(&self) -> i64 {
        self.0.get_connection_info().redis_settings().db()
    }
}

#[derive(Clone)]
pub(crate) struct NodeLink(Arc<LinkState>);

struct LinkState {
    source: Arc<dyn NodeSource>,
    connect_timeout: Duration,
    reply_timeout: Duration,
    current: Mutex<Option<Attempt>>,
}

/// An attempt to connect, and the connection that it made.
struct Attempt {
    phase: watch::Receiver<Phase>,
    /// Requests a ping.
    check: Arc<Notify>,
    /// The task that makes and checks the connection; the set aborts it.
    _task: JoinSet<()>,
}

/// Where a connection is in its life.
enum Phase {
    Connecting,
    Open(MultiplexedConnection),
    Failed(RedisError),
    Lost,
}

impl NodeLink {
    /// Connects when a command is sent for the first time. Commands fail at once while Redis is unreachable.
    pub fn new(source: Arc<dyn NodeSource>, connect_timeout: Duration, reply_timeout: Duration) -> Self {
        Self(Arc::new(LinkState { source, connect_timeout, reply_timeout, current: Mutex::new(None) }))
    }

    /// The connection for a command, which was not sent if this fails. Commands that wait for the same attempt to connect share its error; a later one makes another attempt.
    pub async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut phase = self.phase();
        // Without a sender the runtime is shutting down.
        match phase.wait_for(|phase| !matches!(phase, Phase::Connecting)).await.as_deref() {
            Ok(Phase::Open(connection)) => Ok(connection.clone()),
            Ok(Phase::Failed(error)) => Err(error.clone()),
            _ => Err((ErrorKind::Io, "the connection was closed").into()),
        }
    }

    fn phase(&self) -> watch::Receiver<Phase> {
        let mut current = self.0.current.lock();
        if let Some(Attempt { phase, .. }) = &*current
            && matches!(*phase.borrow(), Phase::Connecting | Phase::Open(_))
        {
            return phase.clone();
        }
        let (sender, phase) = watch::channel(Phase::Connecting);
        let (state, check, mut task) = (&*self.0, Arc::<Notify>::default(), JoinSet::new());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(state.connect_timeout))
            .set_response_timeout(Some(state.reply_timeout));
        task.spawn(keep(Arc::clone(&state.source), config, Arc::new(sender), Arc::clone(&check)));
        *current = Some(Attempt { phase: phase.clone(), check, _task: task });
        phase
    }

    /// Takes in the result of a command. Without a reply the connection may be lost.
    pub fn checked<T>(&self, result: Result<T, RedisError>) -> Result<T, RedisError> {
        if result.as_ref().is_err_and(RedisError::is_timeout)
            && let Some(Attempt { check, .. }) = &*self.0.current.lock()
        {
            check.notify_one();
        }
        result
    }
}

/// Connects, and checks the connection until it is lost.
async fn keep(
    source: Arc<dyn NodeSource>,
    config: AsyncConnectionConfig,
    phase: Arc<watch::Sender<Phase>>,
    check: Arc<Notify>,
) {
    // The connection has the callback, and `phase` the connection: together they would keep each other.
    let lost: Weak<_> = Arc::downgrade(&phase);
    let on_push = move |push: PushInfo| -> Result<(), ()> {
        if push.kind == PushKind::Disconnection
            && let Some(phase) = lost.upgrade()
        {
            phase.send_replace(Phase::Lost);
        }
        Ok(())
    };
    let config = config.set_push_sender(on_push);
    let connect = async { source.client().await?.get_multiplexed_async_connection_with_config(&config).await };
    let mut connection = match connect.await {
        Ok(connection) => connection,
        Err(error) => {
            phase.send_replace(Phase::Failed(error));
            return;
        }
    };
    source.connected();
    // The connection may have been lost already.
    phase.send_if_modified(|phase| {
        let is_connecting = matches!(phase, Phase::Connecting);
        if is_connecting {
            *phase = Phase::Open(connection.clone());
        }
        is_connecting
    });
    while matches!(*phase.borrow(), Phase::Open(_)) {
        // A timeout is the usual case.
        let _ = tokio::time::timeout(PING_INTERVAL, check.notified()).await;
        if let Err(error) = cmd("PING").exec_async(&mut connection).await
            && !is_reply(&error)
        {
            phase.send_replace(Phase::Lost);
        }
    }
}

impl ConnectionLike for NodeLink {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move { self.checked(self.connection().await?.send_packed_command(command).await) })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(
            async move { self.checked(self.connection().await?.send_packed_commands(commands, offset, count).await) },
        )
    }

    fn get_db(&self) -> i64 {
        self.0.source.database()
    }
}
