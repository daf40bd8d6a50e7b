//! Connections that the tests can cut between some parties and not between others: ports that pass connections on, unless their party is cut off.

use std::collections::HashSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A party that connects, and the number of the server that it cannot reach.
pub type Cut = (String, usize);

/// What the first bytes of a connection say about who opened it; `None` if more of them are needed.
pub type Identify = fn(&[u8]) -> Option<String>;

#[derive(Default)]
pub struct LinkCuts {
    cuts: watch::Sender<HashSet<Cut>>,
    ports: JoinSet<()>,
}

impl LinkCuts {
    /// Passes connections to a port on to another one.
    pub async fn pass(&mut self, from: u16, to: u16, server: usize, identify: Identify) {
        let listener = TcpListener::bind(("127.0.0.1", from)).await.expect("the port is free");
        let cuts = self.cuts.clone();
        self.ports.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.expect("a connection");
                connections.spawn(pass_connection(near, to, server, identify, cuts.subscribe()));
                while connections.try_join_next().is_some() {}
            }
        });
    }

    /// Ends these connections, and refuses new ones.
    pub fn cut(&self, cuts: impl IntoIterator<Item = Cut>) {
        self.cuts.send_modify(|all| all.extend(cuts));
    }

    pub fn heal(&self) {
        self.cuts.send_modify(HashSet::clear);
    }
}

async fn pass_connection(
    mut near: TcpStream,
    to: u16,
    server: usize,
    identify: Identify,
    mut cuts: watch::Receiver<HashSet<Cut>>,
) {
    let mut first = Vec::new();
    let from = loop {
        match near.read_buf(&mut first).await {
            Ok(1..) => {}
            _ => return,
        }
        if let Some(from) = identify(&first) {
            break from;
        }
    };
    let cut = (from, server);
    let pass = async {
        let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
        if far.write_all(&first).await.is_ok() {
            let _ = copy_bidirectional(&mut near, &mut far).await;
        }
    };
    tokio::select! {
        _ = cuts.wait_for(|cuts| cuts.contains(&cut)) => {}
        () = pass => {}
    }
}

/// The node that opened a connection of the cluster bus: its id is in the header of each message.
pub fn bus_sender(first: &[u8]) -> Option<String> {
    first.get(40..80).map(|id| String::from_utf8_lossy(id).into_owned())
}

/// The user of a connection to a node, if it is one of these; each logs in first. A replica has no user.
pub fn user(first: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(first);
    let known = ["cut-off", "other"].into_iter().find(|name| text.contains(&format!("\r\n{name}\r\n")));
    Some(known.unwrap_or_default().to_owned())
}
