//! Commands on a cluster: each goes to the master of its slot, and follows redirections.
//!
//! A command that was sent and got no reply is never sent again: it may have been executed. It is sent again only after a reply that says that
//! nothing was executed, or if it could not be sent at all, and only within the timeout of the store since the call.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, Value, cmd, pipe};
use tokio::time::{Instant, sleep, sleep_until};

use crate::store::redis::cluster::ask::no_answer;
use crate::store::redis::cluster::nodes::NodePool;
use crate::store::redis::cluster::redirect::{Step, is_connect_retriable, server_error};
use crate::store::redis::cluster::slot_map::NodeAddress;
use crate::store::redis::cluster::topology::Topology;
use crate::store::redis::node_link::NodeLink;
use crate::store::slot::slot_of;
use crate::util::backoff::Backoff;

/// Between attempts while a slot has no master.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(500);
/// Redirections that a command follows without a delay. More of them mean that nodes disagree.
const MAX_QUICK_REDIRECTIONS: usize = 4;
/// How long a node may still reply after another one became the master of the slot. A master that was replaced may be dead without a sign.
const REPLACED_REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands whose reply is about the node or the connection. In a pipeline they are repeated if a command before them was sent elsewhere.
const ABOUT_NODE: [&[u8]; 5] = [b"WAIT", b"CLUSTER", b"TIME", b"PING", b"INFO"];

/// The way to all nodes of a cluster, for one purpose.
#[derive(Clone)]
pub(crate) struct ClusterLink {
    topology: Topology,
    pool: Arc<NodePool>,
    /// How long a command may wait for a master.
    timeout: Duration,
}

/// The way to one slot of a cluster, or to any node.
#[derive(Clone)]
pub(crate) struct ClusterRoute {
    link: ClusterLink,
    slot: Option<u16>,
    /// The node that replied last: the script that it lacks must be loaded there.
    last: Option<NodeAddress>,
    /// The script that was loaded, in case that the slot moves to a node without it.
    script: Option<Cmd>,
}

/// A connection to the node that a command is for.
struct Destination {
    address: NodeAddress,
    node: NodeLink,
    connection: MultiplexedConnection,
}

/// How long a command may still wait, and how often it was redirected.
struct Attempts {
    deadline: Instant,
    backoff: Backoff,
    redirections: usize,
}

impl ClusterLink {
    /// `has_reads` says whether channels are read over this link.
    pub fn new(topology: &Topology, timeout: Duration, reply_timeout: Duration, has_reads: bool) -> Self {
        let pool = topology.pool(timeout, reply_timeout, has_reads);
        Self { topology: topology.clone(), pool, timeout }
    }

    pub fn to(&self, key: &str) -> ClusterRoute {
        self.route(Some(slot_of(key.as_bytes())))
    }

    pub fn to_any(&self) -> ClusterRoute {
        self.route(None)
    }

    fn route(&self, slot: Option<u16>) -> ClusterRoute {
        ClusterRoute { link: self.clone(), slot, last: None, script: None }
    }
}

impl Attempts {
    fn new(timeout: Duration) -> Self {
        let backoff = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        Self { deadline: Instant::now() + timeout, backoff, redirections: 0 }
    }

    /// Waits before another attempt; false if there is no time for one.
    async fn wait(&mut self) -> bool {
        let delay = self.backoff.next_delay();
        if Instant::now() + delay >= self.deadline {
            return false;
        }
        sleep(delay).await;
        true
    }

    /// Whether a command may follow one more redirection.
    async fn follow(&mut self) -> bool {
        self.redirections += 1;
        self.redirections <= MAX_QUICK_REDIRECTIONS || self.wait().await
    }
}

impl ClusterRoute {
    /// Sends one command, and returns the first reply that is not a redirection. `ask` is the node that a redirection has named before.
    async fn send(
        &mut self,
        command: &Cmd,
        mut ask: Option<NodeAddress>,
        attempts: &mut Attempts,
    ) -> Result<Value, RedisError> {
        if is_script_load(command) {
            self.script = Some(command.clone());
        }
        loop {
            // A script is loaded at the node that lacks it, which may be the other one of a slot that is being moved.
            let fixed =
                ask.take().or_else(|| self.last.clone().filter(|_| is_about_node(command) || is_script_load(command)));
            let is_asking = fixed.is_some() && !is_about_node(command) && !is_script_load(command);
            let destination = match self.connect(fixed, attempts).await {
                Ok(destination) => destination,
                Err(error) if is_connect_retriable(&error) && attempts.wait().await => {
                    // The script may be needed elsewhere now. `WAIT` is about writes on this node only.
                    self.last = self.last.take().filter(|_| !is_script_load(command));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Destination { address, node, mut connection } = destination;
            let result = node.checked(if is_asking {
                let asking = asking(command);
                // The reply to ASKING is skipped.
                connection
                    .send_packed_commands(&asking, 1, 1)
                    .await
                    .map(|mut replies| replies.pop().unwrap_or(Value::Nil))
            } else {
                self.reply(&address, connection.send_packed_command(command)).await
            });
            self.last = Some(address.clone());
            let Some(error) = server_error(&result) else {
                if result.is_err() {
                    // The node may be gone.
                    self.link.topology.refresh();
                }
                return result;
            };
            match Step::after(&error, &address) {
                Step::Done => return result,
                Step::Moved(slot, to) => {
                    self.link.topology.shared.metrics.redirected("moved");
                    self.link.topology.moved(slot, &to);
                    if !attempts.follow().await {
                        return result;
                    }
                }
                Step::Ask(to) => {
                    self.link.topology.shared.metrics.redirected("ask");
                    if !attempts.follow().await {
                        return result;
                    }
                    ask = Some(to);
                }
                Step::Wait => {
                    self.link.topology.refresh();
                    if !attempts.wait().await {
                        return result;
                    }
                }
                Step::LoadScript => {
                    let Some(load) = self.script.clone() else { return result };
                    if !attempts.follow().await {
                        return result;
                    }
                    let loaded = node.checked(connection.send_packed_command(&load).await)?;
                    if matches!(loaded, Value::ServerError(_)) {
                        return Ok(loaded);
                    }
                    ask = is_asking.then_some(address);
                }
            }
        }
    }

    /// Sends the commands together, and those that were redirected once more, one by one.
    async fn send_all(&mut self, commands: &Pipeline, offset: usize, count: usize) -> Result<Vec<Value>, RedisError> {
        let mut attempts = Attempts::new(self.link.timeout);
        let (address, result) = loop {
            let Destination { address, node, mut connection } = match self.connect(None, &attempts).await {
                Ok(destination) => destination,
                Err(error) if is_connect_retriable(&error) && attempts.wait().await => continue,
                Err(error) => return Err(error),
            };
            let reply = self.reply(&address, connection.send_packed_commands(commands, offset, count));
            break (address.clone(), node.checked(reply.await));
        };
        self.last = Some(address.clone());
        let mut replies = match result {
            Ok(replies) if !commands.is_transaction() => replies,
            result => {
                if result.is_err() {
                    self.link.topology.refresh();
                }
                return result;
            }
        };
        let mut is_redirected = false;
        for (command, reply) in commands.cmd_iter().zip(&mut replies) {
            let step = match &*reply {
                Value::ServerError(error) => Step::after(error, &address),
                _ => Step::Done,
            };
            let ask = match step {
                Step::Moved(slot, to) => {
                    self.link.topology.shared.metrics.redirected("moved");
                    self.link.topology.moved(slot, &to);
                    None
                }
                Step::Ask(to) => {
                    self.link.topology.shared.metrics.redirected("ask");
                    Some(to)
                }
                Step::Wait => None,
                Step::Done | Step::LoadScript if is_redirected && is_about_node(command) => None,
                Step::Done | Step::LoadScript => continue,
            };
            is_redirected = true;
            *reply = self.send(command, ask, &mut attempts).await?;
        }
        Ok(replies)
    }

    /// Waits for the reply of a node, but not much longer after another one became the master.
    async fn reply<T>(
        &self,
        address: &NodeAddress,
        reply: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        tokio::select! {
            biased;
            result = reply => result,
            () = self.is_replaced(address) => {
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no reply, and another node is the master now").into())
            }
        }
    }

    async fn is_replaced(&self, address: &NodeAddress) {
        let Some(slot) = self.slot else { return std::future::pending().await };
        let mut changes = self.link.topology.changes();
        // Without a sender the runtime is shutting down.
        drop(changes.wait_for(|map| map.master(slot).is_some_and(|master| master != address)).await);
        sleep(REPLACED_REPLY_TIMEOUT).await;
    }

    /// Connects to a node, or to the master of the slot. Gives up when another node becomes the master meanwhile, and connects to that one.
    async fn connect(&self, fixed: Option<NodeAddress>, attempts: &Attempts) -> Result<Destination, RedisError> {
        let topology = &self.link.topology;
        let mut changes = topology.changes();
        loop {
            let address = match (&fixed, self.slot) {
                (Some(node), _) => Some(node.clone()),
                (None, Some(slot)) => changes.borrow_and_update().master(slot).cloned(),
                (None, None) => {
                    changes.borrow_and_update();
                    topology.any_node()
                }
            };
            let unavailable = || topology.failure().unwrap_or_else(no_answer);
            let Some(address) = address else {
                topology.refresh();
                tokio::select! {
                    _ = changes.changed() => continue,
                    () = sleep_until(attempts.deadline) => return Err(unavailable()),
                }
            };
            let node = self.link.pool.get(&address);
            let has_moved = async {
                let is_other = |master: Option<&NodeAddress>| master.is_some_and(|master| *master != address);
                match self.slot.filter(|_| fixed.is_none()) {
                    // Without a sender the runtime is shutting down.
                    Some(slot) => drop(changes.wait_for(|map| is_other(map.master(slot))).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                connection = node.connection() => match connection {
                    Ok(connection) => return Ok(Destination { address, node, connection }),
                    Err(error) => {
                        topology.refresh();
                        return Err(error);
                    }
                },
                () = has_moved => {}
                () = sleep_until(attempts.deadline) => {
                    topology.refresh();
                    return Err((ErrorKind::Io, "the master of a slot cannot be reached", address.to_string()).into());
                }
            }
        }
    }
}

/// The command for a slot that is being moved: without `ASKING` directly before it the new node would send it back.
fn asking(command: &Cmd) -> Pipeline {
    let mut commands = pipe();
    commands.add_command(cmd("ASKING")).add_command(command.clone());
    commands
}

fn name(command: &Cmd) -> Option<&[u8]> {
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => Some(name),
        _ => None,
    }
}

fn is_about_node(command: &Cmd) -> bool {
    name(command).is_some_and(|name| ABOUT_NODE.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

fn is_script_load(command: &Cmd) -> bool {
    name(command).is_some_and(|name| name.eq_ignore_ascii_case(b"SCRIPT"))
}

impl ConnectionLike for ClusterRoute {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut attempts = Attempts::new(self.link.timeout);
            self.send(command, None, &mut attempts).await
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send_all(commands, offset, count))
    }

    fn get_db(&self) -> i64 {
        0
    }
}
