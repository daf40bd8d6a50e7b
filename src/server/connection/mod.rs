//! One listening port and its connections: accepts until it is closed, and knows when the last connection has ended.

mod accept_queue;
mod activity;
pub mod deadline;
mod exchange;
mod handover;
mod holders;
mod io;
pub mod limits;
mod serve;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::server::Listener;
use crate::server::app::App;
use crate::server::connection::limits::{ConnectionPermit, PortKind, PortLimits, refusal_name};
use crate::util::client_key::network_of;
use crate::util::rare_log::RareLog;
use crate::util::shares::Refusal;

/// Pause after a failed `accept`, most often for lack of file descriptors: other connections have to close first.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// At most one line in this time reports failed `accept`s or refused connections of a port.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Starts to accept connections. Sending `true` closes the port: it accepts no more connections, and open ones complete their responses
/// and close, HTTP/1.1 after the current response, HTTP/2 (`GOAWAY`) after all of them. The accept loop and every connection hold a
/// receiver, so the channel is closed when the last connection has ended.
pub fn open_port(listener: Listener, kind: PortKind, app: &Arc<App>) -> watch::Sender<bool> {
    // Frames are small and must be sent at once. A socket that refuses the option works too.
    let _ = SockRef::from(&listener.socket).set_tcp_nodelay(true);
    let (closing, receiver) = watch::channel(false);
    let port = Port { limits: Arc::clone(app.port_limits(kind)), app: Arc::clone(app), closing: receiver };
    tokio::spawn(port.accept(listener));
    closing
}

struct Port {
    limits: Arc<PortLimits>,
    app: Arc<App>,
    closing: watch::Receiver<bool>,
}

impl Port {
    async fn accept(self, listener: Listener) {
        let Listener { socket: listener, inherited } = listener;
        let mut port_closes = self.closing.clone();
        let log = RareLog::new(LOG_INTERVAL);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => match self.limits.admit_or_replace(self.holder(peer)).await {
                        Ok(permit) => self.serve(socket, peer, permit),
                        Err(refusal) => {
                            drop(socket);
                            self.refused(refusal);
                            log.write(|skipped| {
                                let limit = self.limits.max_connections;
                                let port = self.limits.kind.as_str();
                                tracing::warn!(%peer, port, limit, skipped, "refused a connection: the port is full");
                            });
                        }
                    },
                    Err(error) => {
                        log.write(|skipped| tracing::warn!(%error, skipped, "cannot accept a connection"));
                        tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                    }
                },
                () = wait_closing(&mut port_closes) => break,
            }
        }
        // Connections that wait in an inherited socket belong to the process that takes over.
        if !inherited {
            let accept = |socket, peer| match self.limits.admit(self.holder(peer)) {
                Ok(permit) => self.serve(socket, peer, permit),
                Err(refusal) => self.refused(refusal),
            };
            accept_queue::close(listener, accept).await;
        }
    }

    /// The holder that a connection counts for: the peer's network; none for a trusted proxy.
    fn holder(&self, peer: SocketAddr) -> Option<IpAddr> {
        (!self.app.config.is_trusted_proxy(peer.ip())).then(|| network_of(peer.ip()))
    }

    fn serve(&self, socket: TcpStream, peer: SocketAddr, permit: ConnectionPermit) {
        serve::spawn(socket, peer, permit, &self.app, self.closing.clone());
    }

    fn refused(&self, refusal: Refusal) {
        self.app.metrics.connection_refused(self.limits.kind.as_str(), refusal_name(refusal));
    }
}

/// Waits until the port closes, or is dropped.
async fn wait_closing(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
