//! A link whose commands are sent together where they are sent at the same time: to wake Redis for a single command, and to read its reply, takes
//! the gateway more time than all the rest of a look-up or a read.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, Value};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::store::redis::node_link::NodeLink;

/// Commands that are sent together: a large reply delays only these.
const MAX_BATCH: usize = 64;

/// The way to one node, for commands that only read. Clones share their batches.
#[derive(Clone)]
pub(crate) struct BatchingLink(Arc<Shared>);

struct Shared {
    node: NodeLink,
    waiting: Mutex<Vec<WaitingCommand>>,
    /// The runtime of the connections. A slow decision runs in another one, which must not delay the look-ups of others.
    runtime: Handle,
}

struct WaitingCommand {
    command: Cmd,
    reply: oneshot::Sender<Result<Value, RedisError>>,
}

impl BatchingLink {
    /// Needs a runtime.
    pub fn new(node: NodeLink) -> Self {
        Self(Arc::new(Shared { node, waiting: Mutex::default(), runtime: Handle::current() }))
    }

    /// Sends a command with others.
    pub async fn send(&self, command: Cmd) -> Result<Value, RedisError> {
        let (reply, replied) = oneshot::channel();
        let needs_batch = {
            let mut waiting = self.0.waiting.lock();
            waiting.push(WaitingCommand { command, reply });
            waiting.len() % MAX_BATCH == 1
        };
        if needs_batch {
            self.0.runtime.spawn(send_batch(Arc::clone(&self.0)));
        }
        // Without a sender the runtime is shutting down.
        replied.await.unwrap_or_else(|_| Err((ErrorKind::Io, "the connection was closed").into()))
    }
}

/// Sends the commands that wait, once the tasks that are ready have added theirs.
async fn send_batch(shared: Arc<Shared>) {
    let_ready_tasks_run().await;
    let batch: Vec<WaitingCommand> = {
        let mut waiting = shared.waiting.lock();
        let count = waiting.len().min(MAX_BATCH);
        waiting.drain(..count).collect()
    };
    if batch.is_empty() {
        return;
    }
    let (mut commands, mut replies) = (Pipeline::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for WaitingCommand { command, reply } in batch {
        commands.add_command(command);
        replies.push(reply);
    }
    // A caller that has given up does not take its reply.
    match shared.node.clone().req_packed_commands(&commands, 0, replies.len()).await {
        Ok(values) => replies.into_iter().zip(values).for_each(|(reply, value)| drop(reply.send(Ok(value)))),
        Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
    }
}

/// Lets the tasks run that are ready now. A task that wakes itself runs after them; `yield_now` would ask for events of the system, too.
async fn let_ready_tasks_run() {
    let mut has_waited = false;
    let wait = poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    wait.await;
}

impl ConnectionLike for BatchingLink {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send(command.clone()))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move { self.0.node.clone().req_packed_commands(commands, offset, count).await })
    }

    fn get_db(&self) -> i64 {
        self.0.node.get_db()
    }
}

#[cfg(test)]
mod tests;
