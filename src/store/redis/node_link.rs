//! A connection to one node of Redis that is made again after it was lost, before the next command needs it.
//!
//! A command is sent once, and only over a connection that is not known to be lost: a command that was sent may have been executed, whatever
//! happens to its reply. The `ConnectionManager` of the library fails the first command after a loss instead, whose result tells it of the loss, and
//! the first one after a failed attempt to connect, whose error it keeps.

use std::sync::atomic::{AtomicBool, Ordering};
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
use tokio::time::Instant;

use crate::store::StoreError;
use crate::store::redis::error::{is_read_only, is_reply};

/// Between pings. They find a connection that was lost without a sign, as through a firewall, and keep others from being cut as idle. After a
/// command without a reply the next ping follows at once.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Between two attempts of a command that waits for a master.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Counts changes, for tasks that react to them.
pub(crate) type Changes = Option<watch::Receiver<u64>>;

/// Where the node of a link is, and how to connect to it.
#[async_trait]
pub(crate) trait NodeSource: Send + Sync + 'static {
    /// A client of the node. Asked before each attempt to connect.
    async fn client(&self) -> Result<Client, RedisError>;
    /// A connection to the node stands, and no command was sent over it yet. What the node said before may not be true any more.
    fn connected(&self) {}
    /// The number of the database.
    fn database(&self) -> i64 {
        0
    }
    /// Checks a new connection. No command of a caller is sent over it if this fails.
    async fn verify(&self, _connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        Ok(())
    }
    /// Changes of the node's address. Each closes the connection at once, also one to a node that answers.
    fn moves(&self) -> Changes {
        None
    }
    /// Changes of the certificates. Each replaces the connection, after the new one stands.
    fn renewals(&self) -> Changes {
        None
    }
    /// The node could not be connected to, was lost, or is not the one that commands need.
    fn suspect(&self) {}
    /// Whether commands that were not sent wait for another master, instead of failing at once.
    fn awaits_master(&self) -> bool {
        false
    }
    /// A message that the node sent unasked.
    fn pushed(&self, _push: &PushInfo) {}
}

/// Waits for the next change; forever, if there is none.
pub(crate) async fn next_change(changes: &mut Changes) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[derive(Clone)]
pub(crate) struct NodeLink(Arc<LinkState>);

struct LinkState {
    source: Arc<dyn NodeSource>,
    connect_timeout: Duration,
    reply_timeout: Duration,
    current: Mutex<Option<Attempt>>,
}

/// An attempt to connect, and the connections that it made: one after the other, as certificates are renewed.
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
    Open(OpenConnection),
    Failed(RedisError),
    Lost,
    /// The node is at another address. Commands without a reply end.
    Moved,
}

struct OpenConnection {
    connection: MultiplexedConnection,
    /// Whether the connection was lost. It also identifies the connection.
    is_lost: Arc<AtomicBool>,
}

impl NodeLink {
    /// Connects when a command is sent for the first time. Commands fail at once while Redis is unreachable.
    pub fn new(source: Arc<dyn NodeSource>, connect_timeout: Duration, reply_timeout: Duration) -> Self {
        Self(Arc::new(LinkState { source, connect_timeout, reply_timeout, current: Mutex::new(None) }))
    }

    /// The connection for a command, with the phase of the attempt that made it. Commands that wait for the same attempt to connect share
    /// its error; a later one makes another attempt.
    async fn connection(&self) -> Result<(MultiplexedConnection, watch::Receiver<Phase>), RedisError> {
        let mut phase = self.phase();
        // Without a sender the runtime is shutting down.
        let connection = match phase.wait_for(|phase| !matches!(phase, Phase::Connecting)).await.as_deref() {
            Ok(Phase::Open(open)) => open.connection.clone(),
            Ok(Phase::Failed(error)) => return Err(error.clone()),
            _ => return Err((ErrorKind::Io, "the connection was closed").into()),
        };
        Ok((connection, phase))
    }

    /// A connection for commands that the caller sends itself; nothing was sent if this fails. It passes the results to
    /// [`checked`](Self::checked).
    pub async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        Ok(self.connection().await?.0)
    }

    /// Like [`connection`](Self::connection). If the source may name another master, it waits for one until the deadline.
    async fn connection_until(
        &self,
        deadline: Instant,
    ) -> Result<(MultiplexedConnection, watch::Receiver<Phase>), RedisError> {
        if !self.0.source.awaits_master() {
            return self.connection().await;
        }
        let mut last = None;
        let attempts = async {
            loop {
                match self.connection().await {
                    Err(error) if StoreError::from(error.clone()).is_transient() => last = Some(error),
                    result => return result,
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
        };
        match tokio::time::timeout_at(deadline, attempts).await {
            Ok(result) => result,
            Err(_) => {
                Err(last.unwrap_or_else(|| (ErrorKind::Io, "no connection to the master within the timeout").into()))
            }
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
        let keeper = Keeper { source: Arc::clone(&state.source), config, phase: Arc::new(sender) };
        task.spawn(keeper.run(Arc::clone(&check)));
        *current = Some(Attempt { phase: phase.clone(), check, _task: task });
        phase
    }

    /// Sends a command or a pipeline, unless the node moved before.
    async fn send<T>(
        &self,
        deadline: Instant,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        let (mut connection, mut phase) = self.connection_until(deadline).await?;
        let moved = async {
            // Without a sender the connection was lost, which the command finds out.
            let moved = phase.wait_for(|phase| matches!(phase, Phase::Moved)).await.is_ok();
            if !moved {
                std::future::pending().await
            }
        };
        let result = tokio::select! {
            biased;
            () = moved => Err((ErrorKind::Io, "another node became the master before the reply").into()),
            result = send(&mut connection) => result,
        };
        self.checked(result)
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

    /// The node replied that it is a replica. The next command makes another connection, whose node is verified.
    fn demoted(&self) {
        self.0.source.suspect();
        if let Some(attempt) =
            self.0.current.lock().take_if(|attempt| matches!(*attempt.phase.borrow(), Phase::Open(_)))
        {
            drop(attempt);
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.0.connect_timeout
    }
}

/// Makes a connection, and keeps it until it is lost.
struct Keeper {
    source: Arc<dyn NodeSource>,
    config: AsyncConnectionConfig,
    phase: Arc<watch::Sender<Phase>>,
}

impl Keeper {
    async fn run(self, check: Arc<Notify>) {
        // Before the source is asked, so that no change after its answer is missed.
        let (mut moves, mut renewals) = (self.source.moves(), self.source.renewals());
        let opened = loop {
            tokio::select! {
                opened = self.open() => break opened,
                () = next_change(&mut moves) => {}
            }
        };
        let mut connection = match opened {
            Ok(open) => {
                let connection = open.connection.clone();
                self.replace(open);
                connection
            }
            Err(error) => {
                self.source.suspect();
                self.phase.send_replace(Phase::Failed(error));
                return;
            }
        };
        let (mut lost, mut is_outdated) = (self.phase.subscribe(), false);
        loop {
            tokio::select! {
                () = async { drop(lost.wait_for(|phase| !matches!(phase, Phase::Open(_))).await) } => break,
                () = next_change(&mut moves) => {
                    self.phase.send_replace(Phase::Moved);
                    return;
                }
                () = next_change(&mut renewals) => is_outdated = true,
                () = check.notified() => {}
                () = tokio::time::sleep(PING_INTERVAL) => {}
            }
            if is_outdated && let Some(renewed) = self.renew(&moves).await {
                (connection, is_outdated) = (renewed, false);
            }
            if let Err(error) = cmd("PING").exec_async(&mut connection).await
                && !is_reply(&error)
            {
                self.phase.send_replace(Phase::Lost);
            }
        }
        self.source.suspect();
    }

    async fn open(&self) -> Result<OpenConnection, RedisError> {
        // The connection has the callback, and the phase the connection: together they would keep each other.
        let (phase, source) = (Arc::downgrade(&self.phase), Arc::downgrade(&self.source));
        let is_lost = Arc::new(AtomicBool::new(false));
        let own_is_lost = Arc::clone(&is_lost);
        let on_push = move |push: PushInfo| -> Result<(), ()> {
            if push.kind == PushKind::Disconnection {
                own_is_lost.store(true, Ordering::SeqCst);
                lose(&phase, &own_is_lost);
            } else if let Some(source) = source.upgrade() {
                source.pushed(&push);
            }
            Ok(())
        };
        let config = self.config.clone().set_push_sender(on_push);
        let client = self.source.client().await?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        self.source.verify(&mut connection).await?;
        self.source.connected();
        Ok(OpenConnection { connection, is_lost })
    }

    /// Opens a connection with the new certificates in place of the present one, which stays if that fails.
    async fn renew(&self, moves: &Changes) -> Option<MultiplexedConnection> {
        // The loop of the caller must see the change, too.
        let mut moves = moves.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = next_change(&mut moves) => return None,
        };
        match opened {
            Ok(open) => {
                let connection = open.connection.clone();
                self.replace(open);
                Some(connection)
            }
            Err(error) => {
                tracing::warn!(%error, "no connection to the store with the new certificates; the present one stays");
                None
            }
        }
    }

    /// Gives commands this connection, unless it has been lost already.
    fn replace(&self, open: OpenConnection) {
        self.phase.send_modify(|phase| {
            let is_lost = open.is_lost.load(Ordering::SeqCst);
            *phase = if is_lost { Phase::Lost } else { Phase::Open(open) };
        });
    }
}

/// Marks a connection as lost, unless another one has replaced it.
fn lose(phase: &Weak<watch::Sender<Phase>>, is_lost: &Arc<AtomicBool>) {
    let Some(phase) = phase.upgrade() else { return };
    phase.send_if_modified(|phase| {
        let is_current = matches!(phase, Phase::Open(open) if Arc::ptr_eq(&open.is_lost, is_lost));
        if is_current {
            *phase = Phase::Lost;
        }
        is_current
    });
}

impl ConnectionLike for NodeLink {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let deadline = self.deadline();
            loop {
                let result =
                    self.send(deadline, async |connection| connection.send_packed_command(command).await).await;
                if !is_read_only(result.as_ref()) {
                    return result;
                }
                self.demoted();
                // A replica does not execute a command that it refuses, so that it may be sent again.
                if !self.0.source.awaits_master() || Instant::now() >= deadline {
                    return result;
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let send = async |connection: &mut MultiplexedConnection| {
                connection.send_packed_commands(commands, offset, count).await
            };
            let result = self.send(self.deadline(), send).await;
            // Some of its commands may have been executed.
            let is_refused = match &result {
                Ok(replies) => replies.iter().any(|reply| is_read_only(Ok(reply))),
                Err(error) => is_read_only(Err(error)),
            };
            if is_refused {
                self.demoted();
            }
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.0.source.database()
    }
}
