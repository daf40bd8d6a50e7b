//! The sockets that a gateway serves on: its own, or those of a service manager that keeps them over restarts (`LISTEN_FDS`).
//!
//! They are bound before anything else starts, since the address of the data port is part of the node's default name. A socket of the
//! gateway's own listens only once the policy of the configuration is active: until then connections are refused, and no client waits
//! in a backlog.

use std::iter;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, ensure};
use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net::TcpSocket;

use crate::config::Config;
use crate::server::{Listener, Listeners};

/// Connections that wait to be accepted on a socket of the gateway's own, while all clients reconnect; Linux allows at most
/// `net.core.somaxconn`, which is 4,096 by default.
const BACKLOG: u32 = 4096;

/// The names that a service manager may give to the sockets (`FileDescriptorName=`).
const SOCKET_NAMES: [&str; 2] = ["data", "control"];

/// The sockets that the service manager passed to this process, in the order of [`SOCKET_NAMES`].
#[derive(Debug, Default)]
pub struct InheritedSockets([Option<TcpListener>; 2]);

impl InheritedSockets {
    /// Takes the sockets. It removes the variables that describe them, which are meant for this process alone, so it has to run before there
    /// are threads.
    pub fn take() -> anyhow::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut fds = ListenFd::from_env();
        let mut inherited = Self::default();
        for (index, port) in assign(fds.len(), &names)?.into_iter().enumerate() {
            let what = || format!("LISTEN_FDS: socket {index} ({})", SOCKET_NAMES[port]);
            let socket = fds.take_tcp_listener(index).with_context(what)?.with_context(what)?;
            let listens = SockRef::from(&socket).is_listener().with_context(what)?;
            ensure!(listens, "{}: the socket does not listen; with systemd, set Accept=no", what());
            inherited.0[port] = Some(socket);
        }
        Ok(inherited)
    }

    /// Binds the sockets that were not passed.
    pub fn bind(self, config: &Config) -> anyhow::Result<BoundSockets> {
        let Self([data, control]) = self;
        if let Some(control) = &control {
            let address = control.local_addr()?;
            let is_guarded = address.ip().is_loopback() || config.live.control_token.is_some();
            ensure!(
                is_guarded,
                "LISTEN_FDS: the control socket {address} is not a loopback address: set control.token"
            );
        }
        Ok(BoundSockets {
            data: BoundSocket::new("listen", data, config.listen)?,
            control: BoundSocket::new("control", control, config.control)?,
        })
    }
}

/// Both sockets, with their addresses.
pub struct BoundSockets {
    data: BoundSocket,
    control: BoundSocket,
}

impl BoundSockets {
    /// Where clients connect.
    pub fn data_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(match &self.data {
            BoundSocket::Own { socket, .. } => socket.local_addr()?,
            BoundSocket::Inherited(socket) => socket.local_addr()?,
        })
    }

    /// Whether the system chooses the data port, so that it differs at each start.
    pub fn has_ephemeral_data_port(&self) -> bool {
        matches!(&self.data, BoundSocket::Own { address, .. } if address.port() == 0)
    }

    /// From now on connections are accepted into the backlog.
    pub fn listen(self) -> anyhow::Result<Listeners> {
        Ok(Listeners { data: self.data.listen()?, control: self.control.listen()? })
    }
}

enum BoundSocket {
    /// A socket of the gateway, with the option that named its address.
    Own { socket: TcpSocket, key: &'static str, address: SocketAddr },
    /// A socket of the service manager, which listens already.
    Inherited(TcpListener),
}

impl BoundSocket {
    fn new(key: &'static str, inherited: Option<TcpListener>, address: SocketAddr) -> anyhow::Result<Self> {
        if let Some(socket) = inherited {
            let address = socket.local_addr()?;
            tracing::info!(%address, "inherited a listening socket (LISTEN_FDS); `{key}` is not used");
            return Ok(Self::Inherited(socket));
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Like listeners of the standard library: a restart need not wait for connections of the previous process.
        socket.set_reuseaddr(true)?;
        socket.bind(address).with_context(|| cannot_listen(key, address))?;
        Ok(Self::Own { socket, key, address })
    }

    fn listen(self) -> anyhow::Result<Listener> {
        match self {
            // Two processes can bind one address as long as neither listens, so an address in use may be detected only here.
            Self::Own { socket, key, address } => {
                Ok(socket.listen(BACKLOG).with_context(|| cannot_listen(key, address))?.into())
            }
            Self::Inherited(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Listener { socket: tokio::net::TcpListener::from_std(socket)?, inherited: true })
            }
        }
    }
}

fn cannot_listen(key: &str, address: SocketAddr) -> String {
    format!("{key}: cannot listen on {address}")
}

/// Index into [`SOCKET_NAMES`] for each socket.
fn assign(count: usize, names: &str) -> anyhow::Result<Vec<usize>> {
    ensure!(
        count <= SOCKET_NAMES.len(),
        "LISTEN_FDS: {count} sockets were passed; the gateway has two ports, data and control"
    );
    // systemd names unnamed sockets after their unit.
    if !names.split(':').take(count).any(|name| SOCKET_NAMES.contains(&name)) {
        return Ok((0..count).collect());
    }
    let mut assigned = Vec::with_capacity(count);
    for name in names.split(':').chain(iter::repeat("")).take(count) {
        let port = SOCKET_NAMES.iter().position(|known| *known == name);
        let port = port.with_context(|| format!("LISTEN_FDNAMES: {name:?} is neither data nor control"))?;
        ensure!(!assigned.contains(&port), "LISTEN_FDNAMES: two sockets have the name {name}; each port has one");
        assigned.push(port);
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_sockets_are_assigned_to_ports() {
        let check = |count, names: &str, expect: &[usize]| {
            assert_eq!(assign(count, names).expect("they are right"), expect, "{count} {names:?}");
        };
        check(0, "", &[]);
        check(1, "", &[0]);
        check(2, "", &[0, 1]);
        check(2, "tidegate.socket:tidegate.socket", &[0, 1]);
        check(2, "control:data", &[1, 0]);
        check(1, "control", &[1]);
        check(1, "data:control", &[0]);
        check(0, "data", &[]);
        let wrong = |count, names: &str, expect: &str| {
            let error = assign(count, names).expect_err("they are wrong").to_string();
            assert!(error.contains(expect), "{count} {names:?}: {error}");
        };
        wrong(3, "", "3 sockets");
        wrong(2, "data:data", "two sockets have the name data");
        wrong(2, "data:contrl", "\"contrl\" is neither data nor control");
        wrong(2, "data", "\"\" is neither");
    }
}
