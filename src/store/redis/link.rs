//! A connection to Redis that is made again after it was lost, before the next command needs it.
//!
//! A command is sent once, and only over a connection that is not known to be lost: a command that was sent may have been executed, whatever
//! happens to its reply. The `ConnectionManager` of the library fails the first command after a loss instead, whose result tells it of the loss, and
//! the first one after a failed attempt to connect, whose error it keeps.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisFuture, Value, cmd,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::store::redis::error::is_reply;

/// Between pings. They find a connection that was lost without a sign, as through a firewall, and keep others from being cut as idle.
const PING_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Link(Arc<LinkState>);

struct LinkState {
    client: Client,
    connect_timeout: Duration,
    reply_timeout: Duration,
    /// The present connection, and the task that makes and checks it; the set aborts the task.
    current: Mutex<Option<(watch::Receiver<Phase>, JoinSet<()>)>>,
}

/// Where a connection is in its life.
enum Phase {
    Connecting,
    Open(MultiplexedConnection),
    Failed(RedisError),
    Lost,
}

impl Link {
    /// Connects when a command is sent for the first time. Commands fail at once while Redis is unreachable.
    pub fn new(client: Client, connect_timeout: Duration, reply_timeout: Duration) -> Self {
        Self(Arc::new(LinkState { client, connect_timeout, reply_timeout, current: Mutex::new(None) }))
    }

    /// The connection for a command. Commands that wait for the same attempt to connect share its error; a later one makes another attempt.
    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
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
        if let Some((phase, _)) = &*current
            && matches!(*phase.borrow(), Phase::Connecting | Phase::Open(_))
        {
            return phase.clone();
        }
        let (sender, phase) = watch::channel(Phase::Connecting);
        let mut task = JoinSet::new();
        task.spawn(keep(self.0.client.clone(), self.0.connect_timeout, self.0.reply_timeout, Arc::new(sender)));
        *current = Some((phase.clone(), task));
        phase
    }
}

/// Connects, and checks the connection until it is lost.
async fn keep(client: Client, connect_timeout: Duration, reply_timeout: Duration, phase: Arc<watch::Sender<Phase>>) {
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
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(Some(reply_timeout))
        .set_push_sender(on_push);
    let mut connection = match client.get_multiplexed_async_connection_with_config(&config).await {
        Ok(connection) => connection,
        Err(error) => {
            phase.send_replace(Phase::Failed(error));
            return;
        }
    };
    // The connection may have been lost already.
    phase.send_if_modified(|phase| {
        let is_connecting = matches!(phase, Phase::Connecting);
        if is_connecting {
            *phase = Phase::Open(connection.clone());
        }
        is_connecting
    });
    while matches!(*phase.borrow(), Phase::Open(_)) {
        tokio::time::sleep(PING_INTERVAL).await;
        if let Err(error) = cmd("PING").exec_async(&mut connection).await
            && !is_reply(&error)
        {
            phase.send_replace(Phase::Lost);
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move { self.connection().await?.send_packed_command(command).await })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move { self.connection().await?.send_packed_commands(commands, offset, count).await })
    }

    fn get_db(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }
}
