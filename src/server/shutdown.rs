//! Graceful shutdown: report not ready, keep serving for `drain.delay`, stop accepting connections, then close streams spread over
//! `drain.duration`.

use std::time::Duration;

use crate::server::app::{App, Phase};
use crate::server::connection::Port;

/// Time for what is still being written after all streams have been asked to close.
const GRACE: Duration = Duration::from_secs(2);

/// Shuts the node down. With inherited listeners there is no delay: the service manager leaves them open, so that new connections wait there
/// for the next process and no load balancer has to be warned.
pub async fn shutdown(app: &App, data: Port, control: Port, inherited: bool) {
    let live = app.live();
    let (delay, duration) = (if inherited { Duration::ZERO } else { live.drain_delay }, live.drain_duration);
    app.phase.send_replace(Phase::NotReady);
    if !delay.is_zero() {
        tracing::info!(?delay, "shutting down: reporting not ready, serving until drain.delay is over");
        tokio::time::sleep(delay).await;
    }
    app.phase.send_replace(Phase::Draining);
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
