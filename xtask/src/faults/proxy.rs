//! Links that can fail: a TCP proxy in front of a node of Redis.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How a link behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Pass = 0,
    /// Connections are reset, and new ones end at once.
    Cut = 1,
    /// All bytes are lost. A connection that was open in this time carries nothing afterwards either, and is not closed.
    HalfOpen = 2,
    /// Each chunk of bytes waits.
    Lag = 3,
}

/// The delay of each chunk on a slow link.
const LAG: Duration = Duration::from_millis(150);

/// A listener that forwards connections to a port. Nodes of Redis connect from addresses of their own (`bind-source-addr`), so that the
/// links of nodes and those of gateways can fail separately.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    target: u16,
    gateways: AtomicU8,
    /// The sources of nodes whose links are cut; `None` is all of them.
    cut_nodes: Mutex<Vec<Option<IpAddr>>>,
    links: Mutex<Vec<Arc<Link>>>,
}

struct Link {
    source: IpAddr,
    client: TcpStream,
    server: TcpStream,
    /// Whether bytes were lost.
    dead: AtomicBool,
}

impl Link {
    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn is_of_node(&self) -> bool {
        is_node(self.source)
    }
}

fn is_node(source: IpAddr) -> bool {
    source != IpAddr::V4(Ipv4Addr::LOCALHOST)
}

impl Proxy {
    /// Listens on a port that the system selects.
    pub fn start(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let state = State {
            target,
            gateways: AtomicU8::new(Mode::Pass as u8),
            cut_nodes: Mutex::default(),
            links: Mutex::default(),
        };
        let state = Arc::new(state);
        let acceptor = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&acceptor);
                thread::spawn(move || state.serve(client));
            }
        });
        Ok(Self { port, state })
    }

    /// Changes the links of gateways.
    pub fn set_gateways(&self, mode: Mode) {
        self.state.gateways.store(mode as u8, Ordering::SeqCst);
        for link in self.state.links().iter().filter(|link| !link.is_of_node()) {
            match mode {
                Mode::Cut => link.close(),
                Mode::HalfOpen => link.dead.store(true, Ordering::SeqCst),
                Mode::Pass | Mode::Lag => {}
            }
        }
    }

    /// Cuts the links of a node to this one, or of all nodes.
    pub fn cut_node(&self, source: Option<IpAddr>) {
        self.state.cut_nodes().push(source);
        for link in self.state.links().iter() {
            if self.state.is_cut(link.source) {
                link.close();
            }
        }
    }

    pub fn heal_nodes(&self) {
        self.state.cut_nodes().clear();
    }
}

impl State {
    fn links(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut_nodes(&self) -> std::sync::MutexGuard<'_, Vec<Option<IpAddr>>> {
        self.cut_nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mode(&self) -> u8 {
        self.gateways.load(Ordering::SeqCst)
    }

    fn is_cut(&self, source: IpAddr) -> bool {
        match is_node(source) {
            true => self.cut_nodes().iter().any(|cut| cut.is_none_or(|cut| cut == source)),
            false => self.mode() == Mode::Cut as u8,
        }
    }

    fn serve(&self, client: TcpStream) {
        let Ok(source) = client.peer_addr().map(|address| address.ip()) else { return };
        if self.is_cut(source) {
            return;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target)) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let dead = AtomicBool::new(!is_node(source) && self.mode() == Mode::HalfOpen as u8);
        let link = Arc::new(Link { source, client, server, dead });
        self.links().push(Arc::clone(&link));
        // A cut that came before the link was listed did not see it.
        if self.is_cut(source) {
            link.close();
        }
        thread::scope(|scope| {
            scope.spawn(|| self.pump(&link, &link.client, &link.server));
            self.pump(&link, &link.server, &link.client);
        });
        self.links().retain(|other| !Arc::ptr_eq(other, &link));
    }

    fn pump(&self, link: &Link, mut from: &TcpStream, mut to: &TcpStream) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if !link.is_of_node() && self.mode() == Mode::Lag as u8 {
                thread::sleep(LAG);
            }
            if !link.dead.load(Ordering::SeqCst) && to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        // The end of one direction of a link that carries nothing is not noticed at its other end.
        if !link.dead.load(Ordering::SeqCst) || std::ptr::eq(from, &link.client) {
            link.close();
        }
    }
}
