//! One sentinel: a connection, and what it is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue, PushInfo, PushKind, RedisError, Value, from_redis_value, pipe};
use tokio::sync::Notify;

use crate::store::StoreError;
use crate::store::redis::connector::Connector;
use crate::store::redis::error::is_reply;
use crate::store::redis::node_link::{Changes, NodeLink, NodeSource};
use crate::store::redis::sentinel::answers::{Answer, Fault};
use crate::store::url::Address;

/// The channel on which a sentinel announces that it follows another master.
const SWITCH_CHANNEL: &str = "+switch-master";

#[derive(Clone)]
pub(super) struct Sentinel {
    pub address: Address,
    /// Whether the URL names it. The others were learned from sentinels.
    pub is_seed: bool,
    /// Its id, once it is known: two addresses may be of one sentinel.
    pub id: Arc<Mutex<Option<String>>>,
    link: NodeLink,
}

/// The sentinel, as the node of its link.
struct SentinelNode {
    connector: Arc<Connector>,
    address: Address,
    /// Notified when the sentinel announces another master.
    ask: Arc<Notify>,
}

impl Sentinel {
    pub fn new(
        address: Address,
        is_seed: bool,
        connector: &Arc<Connector>,
        ask: &Arc<Notify>,
        timeout: Duration,
    ) -> Self {
        let node = SentinelNode { connector: Arc::clone(connector), address: address.clone(), ask: Arc::clone(ask) };
        let link = NodeLink::new(Arc::new(node), timeout, timeout);
        Self { address, is_seed, id: Arc::default(), link }
    }

    /// Asks for the address of a master, and for the other sentinels of its group.
    pub async fn ask(&self, name: &str, timeout: Duration) -> Result<Answer, Fault> {
        let mut questions = pipe();
        questions.cmd("SENTINEL").arg("MYID").ignore_errors();
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        questions.cmd("SENTINEL").arg("SENTINELS").arg(name);
        let mut link = self.link.clone();
        let replies = tokio::time::timeout(timeout, questions.query_async::<Vec<Result<Value, RedisError>>>(&mut link));
        let replies = match replies.await {
            Ok(replies) => replies.map_err(|error| Fault::of(&error))?,
            Err(_) => return Err(Fault::Unreachable(format!("no answer within {timeout:?}"))),
        };
        let Ok([id, master, others]) = <[_; 3]>::try_from(replies) else { return Err(Fault::Invalid) };
        let id: String = parse(id)?;
        let Some((host, port)) = parse::<Option<(String, u16)>>(master)? else { return Err(Fault::UnknownMaster) };
        let others = parse::<Vec<HashMap<String, String>>>(others)?;
        *self.id.lock() = Some(id.clone());
        Ok(Answer { id, master: Address { host, port }, others: others.iter().map(parse_other).collect() })
    }
}

fn parse<T: FromRedisValue>(reply: Result<Value, RedisError>) -> Result<T, Fault> {
    let value = reply.and_then(Value::extract_error).map_err(|error| Fault::of(&error))?;
    from_redis_value(value).map_err(|_| Fault::Invalid)
}

/// The id and the address of a sentinel that another one lists.
fn parse_other(fields: &HashMap<String, String>) -> (String, Option<Address>) {
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let port = field("port").parse().ok().filter(|port| *port != 0);
    let host = field("ip");
    let address = port.filter(|_| !host.is_empty()).map(|port| Address { host, port });
    (field("runid"), address)
}

#[async_trait]
impl NodeSource for SentinelNode {
    async fn client(&self) -> Result<Client, RedisError> {
        self.connector.sentinel_client(&self.address)
    }

    /// Subscribes to announcements. Without the right to do so, a change of master is found a little later.
    async fn verify(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        match connection.subscribe(SWITCH_CHANNEL).await {
            Err(error) if is_reply(&error) => {
                tracing::debug!(sentinel = %self.address, error = %StoreError::from(error), "no announcements from this sentinel");
                Ok(())
            }
            result => result,
        }
    }

    fn renewals(&self) -> Changes {
        self.connector.renewals()
    }

    fn pushed(&self, push: &PushInfo) {
        if push.kind == PushKind::Message {
            self.ask.notify_one();
        }
    }
}
