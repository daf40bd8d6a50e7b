//! The master that a group of sentinels names.
//!
//! All known sentinels are asked at the same time: at intervals, when one of them announces another master, and when a connection to the master
//! fails. The address that a majority of the group names is the master's, and connections to another one are closed at once: an old master
//! that was cut off still answers. The size of the group is what the sentinels themselves count, because as many have to agree on a failover.

mod answers;
mod node;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Client, ErrorKind, RedisError, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::store::redis::connector::Connector;
use crate::store::redis::node_link::{Changes, NodeSource};
use crate::store::redis::notifications::NotificationSource;
use crate::store::redis::sentinel::answers::{Answers, Verdict};
use crate::store::redis::sentinel::node::Sentinel;
use crate::store::redis::single::MasterWatcher;
use crate::store::slot::KeyScope;
use crate::store::url::Address;
use crate::telemetry::metrics::Metrics;

/// Between two rounds of questions while all is well. A sentinel that announces another master, or a failed connection, starts one at once.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The same while no master is known.
const SEARCH_INTERVAL: Duration = Duration::from_millis(250);
/// The minimum between two rounds.
const MIN_INTERVAL: Duration = Duration::from_millis(25);
/// Maximum number of sentinels to ask.
const MAX_SENTINELS: usize = 64;

/// The master, as the node of a link.
pub(crate) struct SentinelMaster {
    group: Arc<SentinelGroup>,
    watcher: Arc<MasterWatcher>,
    /// The task that asks; the set aborts it.
    _task: JoinSet<()>,
}

/// The sentinels and the master that they name.
struct SentinelGroup {
    connector: Arc<Connector>,
    /// The master's name in the configuration of the sentinels.
    name: String,
    timeout: Duration,
    sentinels: Mutex<Vec<Sentinel>>,
    master: Mutex<Result<Address, RedisError>>,
    /// Whether most of the group agreed in the last round.
    has_majority: AtomicBool,
    /// Counts changes of `master`.
    moves: watch::Sender<u64>,
    /// Counts finished rounds.
    rounds: watch::Sender<u64>,
    /// Starts a round.
    ask: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl SentinelMaster {
    /// Starts to ask the sentinels of a URL. `timeout` bounds each answer. Needs a runtime.
    pub fn start(
        connector: Arc<Connector>,
        (sentinels, name): (&[Address], &str),
        timeout: Duration,
        watcher: Arc<MasterWatcher>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let ask = Arc::new(Notify::new());
        let new = |address: &Address| Sentinel::new(address.clone(), true, &connector, &ask, timeout);
        let sentinels = sentinels.iter().map(new).collect();
        let group = Arc::new(SentinelGroup {
            connector,
            name: name.to_owned(),
            timeout,
            sentinels: Mutex::new(sentinels),
            master: Mutex::new(Err((ErrorKind::Io, "no sentinel has answered yet").into())),
            has_majority: AtomicBool::new(true),
            moves: watch::Sender::new(0),
            rounds: watch::Sender::new(0),
            ask,
            metrics,
        });
        let mut task = JoinSet::new();
        task.spawn(follow(Arc::downgrade(&group)));
        Arc::new(Self { group, watcher, _task: task })
    }

    /// Asks all sentinels whether the node that commands are sent to is the master. False if a majority of them does not say so.
    pub async fn prove(&self) -> bool {
        let answers = self.group.ask_all().await;
        let verdict = answers.verdict();
        self.group.take_in(&answers, &verdict);
        // Connections to any other address are closed now.
        let master = self.group.master.lock();
        matches!((verdict, &*master), (Verdict::Majority(named), Ok(master)) if named == *master)
    }
}

/// Asks until the group is dropped.
async fn follow(group: Weak<SentinelGroup>) {
    loop {
        let Some(group) = group.upgrade() else { return };
        let answers = group.ask_all().await;
        group.take_in(&answers, &answers.verdict());
        group.rounds.send_modify(|rounds| *rounds += 1);
        let interval = if group.master.lock().is_ok() { POLL_INTERVAL } else { SEARCH_INTERVAL };
        tokio::time::sleep(MIN_INTERVAL).await;
        // A timeout is the usual case.
        let _ = tokio::time::timeout(interval, group.ask.notified()).await;
    }
}

impl SentinelGroup {
    /// Asks all sentinels, until enough of them agree.
    async fn ask_all(&self) -> Answers {
        let sentinels = self.sentinels.lock().clone();
        let ask = |sentinel: Sentinel| async move {
            let answer = sentinel.ask(&self.name, self.timeout).await;
            (sentinel.address, answer)
        };
        let mut asked: FuturesUnordered<_> = sentinels.into_iter().map(ask).collect();
        let mut answers = Answers::default();
        while let Some((address, answer)) = asked.next().await {
            answers.add(address, answer);
            if matches!(answers.verdict(), Verdict::Majority(_)) {
                break;
            }
        }
        answers
    }

    /// Follows the answers: the master, and the sentinels that others know.
    fn take_in(&self, answers: &Answers, verdict: &Verdict) {
        self.learn(answers);
        let has_majority = matches!(verdict, Verdict::Majority(_));
        match (self.has_majority.swap(has_majority, Ordering::Relaxed), has_majority) {
            (true, false) => {
                let faults = answers.faults();
                tracing::warn!(name = %self.name, %faults, "most sentinels do not agree on the master, or do not answer");
            }
            (false, true) => tracing::info!(name = %self.name, "most sentinels agree on the master"),
            _ => {}
        }
        let named = match verdict {
            Verdict::Majority(address) => Ok(address.clone()),
            // A few sentinels may not know yet, or may be cut off: what a majority said before is more likely.
            Verdict::Some(address) => match &*self.master.lock() {
                Ok(known) => Ok(known.clone()),
                Err(_) => Ok(address.clone()),
            },
            Verdict::None => match &*self.master.lock() {
                Ok(known) => Ok(known.clone()),
                Err(_) => Err(answers.error(&self.name)),
            },
        };
        let mut master = self.master.lock();
        let is_new = named.as_ref().is_ok_and(|named| master.as_ref() != Ok(named));
        if is_new && let Ok(address) = &named {
            tracing::info!(name = %self.name, %address, "the sentinels name this master");
            if master.is_ok() {
                self.metrics.master_changes.inc();
            }
        }
        *master = named;
        drop(master);
        if is_new {
            self.moves.send_modify(|moves| *moves += 1);
        }
    }

    /// Keeps the sentinels of the URL, and those that others list.
    fn learn(&self, answers: &Answers) {
        if answers.valid().next().is_none() {
            return;
        }
        let mut sentinels = self.sentinels.lock();
        let listed = || answers.valid().flat_map(|(_, answer)| &answer.others);
        let seeds: Vec<String> =
            sentinels.iter().filter(|known| known.is_seed).filter_map(|known| known.id.lock().clone()).collect();
        // The URL may name a sentinel by another address than the others do.
        let is_seed = |id: &str| seeds.iter().any(|seed| seed == id);
        sentinels.retain(|known| {
            let is_same = known.id.lock().as_deref().is_some_and(is_seed);
            let is_listed = listed().any(|(_, address)| address.as_ref() == Some(&known.address));
            let has_answered = answers.valid().any(|(address, _)| *address == known.address);
            known.is_seed || (!is_same && (is_listed || has_answered))
        });
        for (id, address) in listed() {
            let Some(address) = address else { continue };
            let is_known = is_seed(id) || sentinels.iter().any(|known| known.address == *address);
            if !is_known && sentinels.len() < MAX_SENTINELS {
                sentinels.push(Sentinel::new(address.clone(), false, &self.connector, &self.ask, self.timeout));
            }
        }
    }
}

#[async_trait]
impl NodeSource for SentinelMaster {
    async fn client(&self) -> Result<Client, RedisError> {
        let mut rounds = self.group.rounds.subscribe();
        // At the start no sentinel has been asked yet. The sender is a field of the group.
        let _ = rounds.wait_for(|rounds| *rounds > 0).await;
        let address = self.group.master.lock().clone()?;
        self.group.connector.client(&address)
    }

    /// Another master may lack what this node has read.
    fn connected(&self) {
        self.watcher.changed(&KeyScope::All);
    }

    fn database(&self) -> i64 {
        self.group.connector.database()
    }

    /// A sentinel may name a node before it is the master, and after it was one.
    async fn verify(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let reply: Value = cmd("ROLE").query_async(connection).await?;
        let role = match &reply {
            Value::Array(fields) => fields.first(),
            _ => None,
        };
        match role {
            Some(Value::BulkString(role)) if role == b"master" => Ok(()),
            _ => Err((ErrorKind::Io, "the node that the sentinels name as the master is not one").into()),
        }
    }

    fn moves(&self) -> Changes {
        Some(self.group.moves.subscribe())
    }

    fn renewals(&self) -> Changes {
        self.group.connector.renewals()
    }

    fn suspect(&self) {
        self.group.ask.notify_one();
    }

    fn awaits_master(&self) -> bool {
        true
    }
}

impl NotificationSource for SentinelMaster {}
