//! The sockets that a gateway serves on: its own, or those of a service manager that keeps them over restarts (`LISTEN_FDS`).

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, ensure};
use listenfd::ListenFd;
use socket2::SockRef;

use crate::config::Config;
use crate::server::{Listener, Listeners};

/// What a service manager may hand over, by the name that it gives (`FileDescriptorName=`).
const NAMES: [&str; 2] = ["data", "control"];

/// The sockets that were handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    data: Option<TcpListener>,
    control: Option<TcpListener>,
}

impl Inherited {
    /// Takes what there is. Before there are threads, since the variables that tell of it go: they are meant for this process alone.
    pub fn take() -> anyhow::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut fds = ListenFd::from_env();
        let mut inherited = Self::default();
        for (index, which) in assign(fds.len(), &names)?.into_iter().enumerate() {
            let name = NAMES[which];
            let what = || format!("LISTEN_FDS: socket {index} ({name})");
            let socket = fds.take_tcp_listener(index).with_context(what)?.with_context(what)?;
            let listens = SockRef::from(&socket).is_listener().with_context(what)?;
            ensure!(listens, "{}: it does not listen; with systemd, Accept= has to be no", what());
            let slot = if which == 0 { &mut inherited.data } else { &mut inherited.control };
            *slot = Some(socket);
        }
        Ok(inherited)
    }

    /// Binds what was not handed over.
    pub async fn listen(self, config: &Config) -> anyhow::Result<Listeners> {
        if let Some(control) = &self.control {
            let address = control.local_addr()?;
            let is_guarded = address.ip().is_loopback() || config.live.control_token.is_some();
            ensure!(is_guarded, "LISTEN_FDS: control is {address}, which others may reach: set control.token");
        }
        Ok(Listeners {
            data: listen("listen", self.data, config.listen).await?,
            control: listen("control", self.control, config.control).await?,
        })
    }
}

/// Which of the names each socket has.
fn assign(count: usize, names: &str) -> anyhow::Result<Vec<usize>> {
    ensure!(count <= NAMES.len(), "LISTEN_FDS: {count} sockets, and there are two ports: data and control");
    let names: Vec<&str> = names.split(':').take(count).collect();
    // Where nobody named them, systemd gives them the name of their unit.
    if !names.iter().any(|name| NAMES.contains(name)) {
        return Ok((0..count).collect());
    }
    let mut assigned = Vec::with_capacity(count);
    for index in 0..count {
        let name = names.get(index).copied().unwrap_or_default();
        let which = NAMES.iter().position(|known| *known == name);
        let which = which.with_context(|| format!("LISTEN_FDNAMES: {name:?} is neither data nor control"))?;
        ensure!(!assigned.contains(&which), "LISTEN_FDNAMES: there are two sockets for {name}, and one is served");
        assigned.push(which);
    }
    Ok(assigned)
}

async fn listen(key: &str, inherited: Option<TcpListener>, address: SocketAddr) -> anyhow::Result<Listener> {
    let Some(socket) = inherited else {
        let bound = tokio::net::TcpListener::bind(address).await;
        return Ok(bound.with_context(|| format!("{key}: cannot listen on {address}"))?.into());
    };
    let given = socket.local_addr()?;
    tracing::info!(address = %given, "a socket was handed over (LISTEN_FDS), and `{key}` is not used");
    socket.set_nonblocking(true)?;
    Ok(Listener { socket: tokio::net::TcpListener::from_std(socket)?, inherited: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
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
        wrong(2, "data:data", "two sockets for data");
        wrong(2, "data:contrl", "\"contrl\" is neither data nor control");
        wrong(2, "data", "\"\" is neither");
    }
}
