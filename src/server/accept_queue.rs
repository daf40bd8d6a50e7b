//! What waits in a listener that closes. Who is in its backlog, or in the middle of a handshake, is connected by its own account: closing
//! would reset it unanswered, and that is not tried again as a refused connection is.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Handshakes that have begun come to their end in this time, on most ways that there are.
const HANDSHAKE: Duration = Duration::from_millis(200);

/// Takes everybody who is connected already, and closes.
pub async fn close(listener: TcpListener, mut take: impl FnMut(TcpStream, SocketAddr)) {
    match begin_nothing(&listener) {
        Ok(()) => {
            let _ = tokio::time::timeout(HANDSHAKE, async {
                while let Ok((socket, peer)) = listener.accept().await {
                    take(socket, peer);
                }
            })
            .await;
        }
        Err(error) => tracing::debug!(%error, "a handshake that is under way may be cut"),
    }
    if let Err(error) = take_the_rest(listener, take) {
        tracing::debug!(%error, "what waited for a connection is cut");
    }
}

/// The system ignores what would begin a connection from now on: who tries finds the port closed a second later, at the next try of its own
/// system. The program is the classic filter for a packet that has SYN (0x02) and no ACK (0x10) among the flags of its TCP header.
#[cfg(target_os = "linux")]
fn begin_nothing(listener: &TcpListener) -> std::io::Result<()> {
    use socket2::SockFilter;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    socket2::SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn begin_nothing(_: &TcpListener) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// The runtime may not have heard of all that wait, so the system is asked.
fn take_the_rest(listener: TcpListener, mut take: impl FnMut(TcpStream, SocketAddr)) -> std::io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((socket, peer)) => {
                socket.set_nonblocking(true)?;
                take(TcpStream::from_std(socket)?, peer);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
