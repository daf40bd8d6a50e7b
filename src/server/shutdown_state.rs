//! The phases of a node's life, for the handlers and for the shutdown.

use tokio::sync::watch;

/// The phases of a node's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Ready and serving.
    Running,
    /// Serving, and reported as not ready, so that load balancers send no more clients.
    NotReady,
    /// The data port is closed and streams are being closed.
    Draining,
}

/// The phase of this node, for handlers that have to know.
pub struct ShutdownState(watch::Sender<Phase>);

impl ShutdownState {
    /// Starts in the phase that serves.
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// Whether the shutdown has begun: the node is not ready any more.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow() >= Phase::NotReady
    }

    /// Waits until endless responses have to end.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut phase = self.0.subscribe();
        async move {
            // A closed channel means that the node was dropped: that is an end, too.
            let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
        }
    }
}
