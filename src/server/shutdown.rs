//! The end of a node: it says that it is not ready, serves on until balancers have heard it, stops taking connections, and lets the
//! streams go.

use std::time::Duration;

use tokio::sync::watch;

use super::App;
use super::connection::Port;

/// After the streams were told to go: for what is still being written.
const GRACE: Duration = Duration::from_secs(2);

/// How far a node is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It serves.
    Here,
    /// It serves, and is not ready any more.
    Leaving,
    /// Nobody new comes, and the streams go.
    Draining,
}

/// A node's end, for whoever asks.
pub struct Departure(watch::Sender<Stage>);

impl Departure {
    /// Not yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(Stage::Here))
    }

    /// Whether it was announced: no balancer shall send anybody here.
    pub fn is_announced(&self) -> bool {
        *self.0.borrow() >= Stage::Leaving
    }

    /// Waits until responses without an end have to end.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stage = self.0.subscribe();
        async move {
            // A node that was dropped is gone too.
            let _ = stage.wait_for(|stage| *stage == Stage::Draining).await;
        }
    }
}

/// Ends a node. An inherited listener stays open with whoever gave it: new connections wait there for the successor, nobody has to turn away,
/// and so there is no delay.
pub async fn leave(app: &App, data: Port, control: Port, inherited: bool) {
    let live = app.live();
    let (delay, time) = (if inherited { Duration::ZERO } else { live.drain_delay }, live.drain);
    app.departure.0.send_replace(Stage::Leaving);
    if !delay.is_zero() {
        tracing::info!(?delay, "leaving: not ready any more, and serving as before");
        tokio::time::sleep(delay).await;
    }
    app.departure.0.send_replace(Stage::Draining);
    tracing::info!(streams = app.streams.count(), over = ?time, "draining");
    // Who waits for a decision gets it now.
    app.hold.close();
    // A refused connection is tried again by browsers without a word, a 503 is not.
    data.leave();
    if tokio::time::timeout(time + GRACE, app.streams.drain(time)).await.is_err() {
        tracing::warn!(streams = app.streams.count(), "some clients did not read to the end of their streams");
    }
    let _ = tokio::time::timeout(GRACE, data.gone()).await;
    control.leave();
    // What is not done by then is cut.
    let _ = tokio::time::timeout(GRACE, control.gone()).await;
    tracing::info!("drained");
}
