//! Graceful shutdown: report not ready, keep serving for `drain.delay`, stop accepting connections, then close streams spread over
//! `drain.duration`.

use std::time::Duration;

use tokio::sync::watch;

use crate::server::app::App;
use crate::server::connection::Port;

/// Time for what is still being written after all streams have been asked to close.
const GRACE: Duration = Duration::from_secs(2);

/// The phases of a node's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
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

/// Shuts the node down. With inherited listeners there is no delay: the service manager leaves them open, so that new connections wait there
/// for the next process and no load balancer has to be warned.
pub async fn shutdown(app: &App, data: Port, control: Port, inherited: bool) {
    let live = app.live();
    let (delay, duration) = (if inherited { Duration::ZERO } else { live.drain_delay }, live.drain_duration);
    app.shutdown.0.send_replace(Phase::NotReady);
    if !delay.is_zero() {
        tracing::info!(?delay, "shutting down: reporting not ready, serving until drain.delay is over");
        tokio::time::sleep(delay).await;
    }
    app.shutdown.0.send_replace(Phase::Draining);
    tracing::info!(streams = app.streams.count(), ?duration, "draining");
    // Delayed requests are decided now.
    app.rejection_delay.close();
    // Browsers retry a refused connection, and give up after a 503: so the port closes instead of answering 503.
    data.close();
    if tokio::time::timeout(duration + GRACE, app.streams.drain(duration)).await.is_err() {
        tracing::warn!(
            streams = app.streams.count(),
            "drain timed out; aborting the streams of clients that do not read"
        );
    }
    let _ = tokio::time::timeout(GRACE, data.closed()).await;
    control.close();
    // Requests that are not answered by then are aborted when the process ends.
    let _ = tokio::time::timeout(GRACE, control.closed()).await;
    tracing::info!("drained");
}
