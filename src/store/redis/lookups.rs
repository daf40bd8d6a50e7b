//! The look-ups of policies. Those of decisions that run at the same time are sent together: for a single look-up, waking Redis and reading its
//! reply takes the gateway more time than all the rest.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Value, from_redis_value, pipe};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::store::StoreError;
use crate::store::redis::link::Link;
use crate::store::redis::node_link::NodeLink;

/// Look-ups that are sent together: a large reply delays only these.
const MAX_BATCH: usize = 64;

pub(super) struct Lookups {
    link: Link,
    waiting: Arc<Mutex<Vec<Lookup>>>,
    /// The runtime of the connections. A slow decision runs in another one, which must not delay the look-ups of others.
    runtime: Handle,
}

struct Lookup {
    command: Cmd,
    reply: oneshot::Sender<Result<Value, RedisError>>,
}

impl Lookups {
    /// Needs a runtime.
    pub fn new(link: Link) -> Self {
        Self { link, waiting: Arc::default(), runtime: Handle::current() }
    }

    /// Sends a command with one key.
    pub async fn look_up<T: FromRedisValue>(&self, key: &str, command: Cmd) -> Result<T, StoreError> {
        let Link::Node(node) = &self.link else { return Ok(command.query_async(&mut self.link.to(key)).await?) };
        let (reply, replied) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock();
            waiting.push(Lookup { command, reply });
            waiting.len() % MAX_BATCH == 1
        };
        if is_first {
            self.runtime.spawn(send_batch(node.clone(), Arc::clone(&self.waiting)));
        }
        // Without a sender the runtime is shutting down.
        let reply = replied.await.map_err(|_| RedisError::from((ErrorKind::Io, "the connection was closed")))?;
        Ok(from_redis_value(reply?.extract_error()?).map_err(RedisError::from)?)
    }
}

/// Sends the look-ups that wait, once the tasks that are ready have added theirs.
async fn send_batch(mut node: NodeLink, waiting: Arc<Mutex<Vec<Lookup>>>) {
    let_ready_tasks_run().await;
    let batch = {
        let mut waiting = waiting.lock();
        let count = waiting.len().min(MAX_BATCH);
        waiting.drain(..count).collect::<Vec<_>>()
    };
    let mut commands = pipe();
    for lookup in &batch {
        commands.add_command(lookup.command.clone());
    }
    match node.req_packed_commands(&commands, 0, batch.len()).await {
        Ok(replies) => batch.into_iter().zip(replies).for_each(|(lookup, reply)| drop(lookup.reply.send(Ok(reply)))),
        Err(error) => batch.into_iter().for_each(|lookup| drop(lookup.reply.send(Err(error.clone())))),
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
