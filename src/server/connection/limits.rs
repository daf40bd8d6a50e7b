//! The bounds of a port, and how its connections share them. A client may have any number of connections while there is room: only where
//! room is scarce, the address that holds most is refused first, and connections without a request in progress are replaced.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::Config;
use crate::config::server::ServerConfig;
use crate::server::connection::deadline::{Deadline, EndCause};
use crate::server::connection::holders::Holders;
use crate::telemetry::metrics::Metrics;
use crate::util::shares::{Refusal, Share, Shares};

/// Read buffer beyond the largest head that is allowed, so that a slightly larger head is answered with an error message.
pub const EXTRA_READ_BUFFER_BYTES: usize = 32 << 10;
/// How long a new connection waits for the room of the one that it replaces.
const REPLACE_TIMEOUT: Duration = Duration::from_millis(100);

/// Which of the two ports a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Streams, for clients.
    Data,
    /// Operations, for operators and emitters.
    Control,
}

impl PortKind {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Control => "control",
        }
    }
}

/// The bounds of one port.
pub struct PortLimits {
    pub kind: PortKind,
    /// Has the timeouts.
    pub config: ServerConfig,
    pub max_connections: usize,
    /// What a head may need while it arrives.
    pub max_head_bytes: usize,
    pub max_memory: usize,
    /// Bytes of large heads that are arriving, and of responses that are not written.
    pub memory: Shares<IpAddr>,
    connections: Shares<IpAddr>,
    last_id: AtomicU64,
    /// Connections without a request in progress.
    idle: Mutex<Holders<Arc<Deadline>>>,
    /// Wakes a connection that waits for room.
    released: Notify,
    metrics: Arc<Metrics>,
}

impl PortLimits {
    pub fn new(
        kind: PortKind,
        config: &Config,
        max_connections: usize,
        max_memory: usize,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind,
            config: config.server.clone(),
            max_connections,
            max_head_bytes: config.max_header_size + EXTRA_READ_BUFFER_BYTES,
            max_memory,
            memory: Shares::leaving_room(max_memory),
            connections: Shares::new(max_connections),
            last_id: AtomicU64::new(0),
            idle: Mutex::default(),
            released: Notify::new(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Counts that the gateway ended a connection, or an exchange.
    pub fn ended(&self, cause: EndCause) {
        self.metrics.connection_ended(self.kind.as_str(), cause.as_str());
    }

    /// Takes room for a connection of this holder; `None` is a trusted proxy.
    pub fn admit(self: &Arc<Self>, holder: Option<IpAddr>) -> Result<ConnectionPermit, Refusal> {
        let share = self.connections.take(holder, 1)?;
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        Ok(ConnectionPermit { limits: Arc::clone(self), id, holder, share: Some(share) })
    }

    /// Like [`admit`](Self::admit), but in a full port the oldest connection without a request in progress makes room, of the address that
    /// has most of these.
    pub async fn admit_or_replace(self: &Arc<Self>, holder: Option<IpAddr>) -> Result<ConnectionPermit, Refusal> {
        match self.admit(holder) {
            Err(Refusal::Exhausted) => {}
            decided => return decided,
        }
        if holder.is_some_and(|holder| self.connections.exceeds_equal_share(&holder)) {
            return Err(Refusal::ShareExceeded);
        }
        if !self.end_oldest_idle() {
            return Err(Refusal::Exhausted);
        }
        // Room is free once the socket is closed, so that the number of descriptors stays within the bound.
        let freed = timeout(REPLACE_TIMEOUT, async {
            loop {
                self.released.notified().await;
                match self.admit(holder) {
                    Err(Refusal::Exhausted) => {}
                    decided => return decided,
                }
            }
        });
        freed.await.unwrap_or(Err(Refusal::Exhausted))
    }

    fn end_oldest_idle(&self) -> bool {
        // Locked until the end is set, so that it does not hit a request that arrives meanwhile.
        let mut idle = self.idle();
        let oldest = idle.pop_of_largest();
        oldest.inspect(|oldest| oldest.set(Duration::ZERO, EndCause::Replaced)).is_some()
    }

    /// The connections without a request in progress.
    pub fn idle(&self) -> MutexGuard<'_, Holders<Arc<Deadline>>> {
        self.idle.lock()
    }
}

/// The name of a refusal in metrics.
pub const fn refusal_name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Exhausted => "limit",
        Refusal::ShareExceeded => "share",
    }
}

/// The room of one connection, which dropping it frees.
pub struct ConnectionPermit {
    pub limits: Arc<PortLimits>,
    /// Ascending in the order of arrival.
    pub id: u64,
    /// Whose connection it is; `None` for a trusted proxy's.
    pub holder: Option<IpAddr>,
    share: Option<Share<IpAddr>>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.share = None;
        self.limits.released.notify_one();
    }
}
